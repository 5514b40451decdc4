/**
 * Checks JSON Web Tokens by the settings of a document: the signature with keys that the settings
 * name, then who made it, for whom, and until when. Knows nothing of what a token lets its bearer
 * do: access and hooks both use it. A token without an end is never taken.
 */
import {
  decodeJwt,
  errors,
  importJWK,
  importSPKI,
  importX509,
  type JWK,
  type JWTPayload,
  jwtVerify,
  type JWTVerifyGetKey,
  type JWTVerifyOptions,
} from "jose";
import type { Clock } from "../clock.ts";
import {
  errorText,
  InvalidError,
  KeysUnavailableError,
  TokenExpiredError,
  UnauthorizedError,
} from "../errors.ts";
import { parseJson } from "../json.ts";
import { jwtCharsMax, jwtKeysRetryMs, jwtSecretBytesMin } from "../limits.ts";
import { encodeText } from "../message.ts";
import type { JwtAlgorithm, JwtDocument } from "../rules/document.ts";
import { type Fetch, JwksKeys, type JwksStatus } from "./jwks.ts";

/** What a token says, once it is proven. */
export interface VerifiedJwt {
  readonly claims: Claims;
  /** The text of the claim that names the bearer. */
  readonly subject: string;
  /** Unix milliseconds after which it is not taken any more, the leeway included. */
  readonly expiresAtMs: number;
}

/** Claims by name, as JSON. */
export type Claims = Readonly<Record<string, unknown>>;

/** What a verifier works with. */
export interface JwtParts {
  /** The text with its references replaced. Rejects when one is not there. */
  readonly resolve: (text: string) => Promise<string>;
  readonly clock: Clock;
  readonly fetch: Fetch;
}

type Key = CryptoKey | Uint8Array;

const NOT_VALID = "this token is not valid";
const COMPACT = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;

/** Whether a text has the outside of a JWT: three parts, not too long. Proves nothing. */
export function looksLikeJwt(token: string): boolean {
  return token.length <= jwtCharsMax && COMPACT.test(token);
}

/** What a token says of itself, unproven: only to choose who checks it. Null: it is no JWT. */
export function unprovenClaims(token: string): Claims | null {
  if (!looksLikeJwt(token)) return null;
  try {
    return decodeJwt(token);
  } catch (error) {
    if (error instanceof errors.JOSEError) return null;
    throw error;
  }
}

/** Checks tokens by one document. Keys are read when the first token comes. */
export class JwtVerifier {
  readonly document: JwtDocument;
  readonly #parts: JwtParts;
  readonly #jwks: JwksKeys | null;
  #fixed: Promise<readonly Key[]> | null = null;
  #failedAtMs = Number.NEGATIVE_INFINITY;
  #error: string | null = null;

  constructor(document: JwtDocument, parts: JwtParts) {
    this.document = document;
    this.#parts = parts;
    const { keys } = document;
    this.#jwks = keys.from === "jwks" ? new JwksKeys(keys.url, parts) : null;
  }

  /** How the keys stand; names no key's text. */
  get status(): JwksStatus {
    return this.#jwks?.status ?? { fetchedAtMs: null, error: this.#error };
  }

  /**
   * What the token says, if it holds. @throws TokenExpiredError it was good once: the bearer gets
   * another one. @throws UnauthorizedError it is not valid; why is not said.
   * @throws KeysUnavailableError keys can't be had now: the same token may hold later.
   */
  async verify(token: string): Promise<VerifiedJwt> {
    if (!looksLikeJwt(token)) throw new UnauthorizedError(NOT_VALID);
    try {
      const payload = this.#jwks === null ? await this.#byFixed(token) : await this.#byJwks(token);
      return this.#verified(payload);
    } catch (error) {
      // The signature is checked first: who is told of an end has had the token from its maker.
      if (error instanceof errors.JWTExpired) throw new TokenExpiredError("the token has expired");
      if (error instanceof errors.JOSEError) throw new UnauthorizedError(NOT_VALID);
      throw error;
    }
  }

  async #byFixed(token: string): Promise<JWTPayload> {
    const keys = await this.#fixedKeys();
    return await firstThatFits(keys, (key) => this.#check(token, () => Promise.resolve(key)));
  }

  async #byJwks(token: string): Promise<JWTPayload> {
    const jwks = this.#jwks;
    if (jwks === null) throw new UnauthorizedError(NOT_VALID);
    const look = await jwks.current();
    try {
      return await this.#checkAmong(token, look);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      const renewed = await jwks.renewed();
      if (renewed === null) throw error;
      return await this.#checkAmong(token, renewed);
    }
  }

  /** A token that doesn't say which key it was signed with is tried with each that could be. */
  async #checkAmong(token: string, look: JWTVerifyGetKey): Promise<JWTPayload> {
    try {
      return await this.#check(token, look);
    } catch (error) {
      if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error;
      const keys: Key[] = [];
      for await (const key of error) keys.push(key);
      return await firstThatFits(keys, (key) => this.#check(token, () => Promise.resolve(key)));
    }
  }

  async #check(token: string, look: JWTVerifyGetKey): Promise<JWTPayload> {
    const { algorithms, audiences, issuers, leewayMs } = this.document;
    const options: JWTVerifyOptions = {
      algorithms: [...algorithms],
      clockTolerance: leewayMs / 1000,
      currentDate: new Date(this.#parts.clock.nowMs()),
      requiredClaims: ["exp"],
      ...(audiences.length === 0 ? {} : { audience: [...audiences] }),
      ...(issuers.length === 0 ? {} : { issuer: [...issuers] }),
    };
    const { payload } = await jwtVerify(token, look, options);
    return payload;
  }

  #verified(claims: JWTPayload): VerifiedJwt {
    const { subjectClaim, leewayMs } = this.document;
    const subject = Object.hasOwn(claims, subjectClaim) ? claims[subjectClaim] : undefined;
    if (typeof subject !== "string" || subject === "") throw new UnauthorizedError(NOT_VALID);
    const expiresAtMs = Math.min((claims.exp ?? 0) * 1000 + leewayMs, Number.MAX_SAFE_INTEGER);
    return { claims, subject, expiresAtMs };
  }

  async #fixedKeys(): Promise<readonly Key[]> {
    const { clock } = this.#parts;
    const isDue = clock.monotonicMs() - this.#failedAtMs >= jwtKeysRetryMs;
    if (this.#fixed === null && isDue) this.#fixed = this.#readKeys();
    if (this.#fixed === null) throw this.#unavailable();
    try {
      return await this.#fixed;
    } catch (error) {
      this.#fixed = null;
      this.#failedAtMs = clock.monotonicMs();
      this.#error = errorText(error);
      throw this.#unavailable();
    }
  }

  #unavailable(): KeysUnavailableError {
    const reason = this.#error ?? "they have not been read";
    return new KeysUnavailableError(`the keys of tokens can't be read: ${reason}`);
  }

  async #readKeys(): Promise<readonly Key[]> {
    const { keys, algorithms } = this.document;
    const texts = keys.from === "jwks" ? [] : keys.texts;
    const resolved = await Promise.all(texts.map((text) => this.#parts.resolve(text)));
    if (keys.from === "secrets") return resolved.map(secretKey);
    const read = await Promise.all(
      resolved.map(async (text, index) => {
        const found = await Promise.all(algorithms.map((each) => publicKey(text, each)));
        const fitting = found.filter((key) => key !== null);
        if (fitting.length > 0) return fitting;
        const detail = `expected a public key as PEM or JWK, for ${algorithms.join(", ")}`;
        throw new InvalidError(`publicKeys/${index}: ${detail}`);
      }),
    );
    return read.flat();
  }
}

function secretKey(text: string): Uint8Array {
  const bytes = encodeText(text);
  if (bytes.length >= jwtSecretBytesMin) return bytes;
  throw new InvalidError(`a secret for HS256 has at least ${jwtSecretBytesMin} bytes`);
}

/** The key as one that checks this algorithm; null when it is of another sort. */
async function publicKey(text: string, algorithm: JwtAlgorithm): Promise<Key | null> {
  const trimmed = text.trim();
  try {
    if (trimmed.startsWith("{")) {
      const jwk = parseJson(trimmed) as JWK;
      // A private key here is a mistake that should not go unseen.
      if (jwk.kty === "oct" || jwk.d !== undefined) return null;
      return await importJWK(jwk, algorithm);
    }
    if (trimmed.includes("BEGIN CERTIFICATE")) return await importX509(trimmed, algorithm);
    return await importSPKI(trimmed, algorithm);
  } catch {
    // The library names no class for it: whatever it can't import is no key of this sort.
    return null;
  }
}

/** What the first fitting key gives; what went wrong with the last one otherwise. */
async function firstThatFits(
  keys: readonly Key[],
  check: (key: Key) => Promise<JWTPayload>,
): Promise<JWTPayload> {
  let failure: unknown = new UnauthorizedError(NOT_VALID);
  for (const key of keys) {
    try {
      return await check(key);
    } catch (error) {
      // A key of another sort than the token's algorithm is a TypeError of the library.
      const isOther = error instanceof TypeError;
      if (!isOther && !(error instanceof errors.JWSSignatureVerificationFailed)) throw error;
      if (!isOther) failure = error;
    }
  }
  throw failure;
}
