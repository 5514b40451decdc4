/**
 * The public keys of a JWKS server, as `jose` looks keys up: fetched when first needed, again when
 * they are old or a token names a key that is not among them, and kept while the server is away.
 * One fetch at a time, with bounds on its time, its bytes and how often it may happen.
 */
import { createLocalJWKSet, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";
import type { Clock } from "../clock.ts";
import { errorText, KeysUnavailableError } from "../errors.ts";
import { parseJson } from "../json.ts";
import {
  jwksAgeMsMax,
  jwksBytesMax,
  jwksCooldownMs,
  jwksFetchMsMax,
  jwksStaleMsMax,
  jwtKeysMax,
} from "../limits.ts";
import { decodeText } from "../message.ts";

/** The part of `fetch` that is used. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** How the keys stand, for operators. */
export interface JwksStatus {
  /** Unix milliseconds; null: never. */
  readonly fetchedAtMs: number | null;
  /** Why the last fetch failed; null when it did not. */
  readonly error: string | null;
}

interface Keys {
  readonly look: JWTVerifyGetKey;
  readonly atMs: number;
  readonly wallMs: number;
}

/** The keys behind one URL. Nothing has to be closed: a fetch ends by itself. */
export class JwksKeys {
  readonly #url: string;
  readonly #clock: Clock;
  readonly #fetch: Fetch;
  #keys: Keys | null = null;
  #fetching: Promise<void> | null = null;
  #triedAtMs = Number.NEGATIVE_INFINITY;
  #error: string | null = null;

  constructor(url: string, parts: { readonly clock: Clock; readonly fetch: Fetch }) {
    this.#url = url;
    this.#clock = parts.clock;
    this.#fetch = parts.fetch;
  }

  get status(): JwksStatus {
    return { fetchedAtMs: this.#keys?.wallMs ?? null, error: this.#error };
  }

  /**
   * What looks keys up. Old keys are good while new ones are fetched, and for a day when they
   * can't be. @throws KeysUnavailableError there are none: the caller comes again.
   */
  async current(): Promise<JWTVerifyGetKey> {
    const ageMs = this.#ageMs();
    if (ageMs > jwksAgeMsMax) {
      const fetching = this.#refresh();
      if (ageMs > jwksStaleMsMax) await fetching;
    }
    if (this.#keys !== null && this.#ageMs() <= jwksStaleMsMax) return this.#keys.look;
    const reason = this.#error === null ? "" : `: ${this.#error}`;
    throw new KeysUnavailableError(`the keys of tokens can't be fetched now${reason}`);
  }

  /** What looks keys up after another fetch; null when one was made too short a time ago. */
  async renewed(): Promise<JWTVerifyGetKey | null> {
    const before = this.#keys;
    await this.#refresh();
    return this.#keys === before ? null : (this.#keys?.look ?? null);
  }

  #ageMs(): number {
    const keys = this.#keys;
    return keys === null ? Number.POSITIVE_INFINITY : this.#clock.monotonicMs() - keys.atMs;
  }

  /** Fetches unless that was just tried. Never rejects: what went wrong is in the status. */
  #refresh(): Promise<void> {
    if (this.#fetching !== null) return this.#fetching;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#triedAtMs < jwksCooldownMs) return Promise.resolve();
    this.#triedAtMs = nowMs;
    this.#fetching = this.#load().finally(() => {
      this.#fetching = null;
    });
    return this.#fetching;
  }

  async #load(): Promise<void> {
    const limit = new AbortController();
    const done = new AbortController();
    const timer = this.#clock.sleep(jwksFetchMsMax, done.signal).then(() => limit.abort());
    try {
      const text = await this.#read(limit.signal);
      const look = createLocalJWKSet(keySet(text));
      this.#keys = { look, atMs: this.#clock.monotonicMs(), wallMs: this.#clock.nowMs() };
      this.#error = null;
    } catch (error) {
      this.#error = limit.signal.aborted
        ? `no answer within ${jwksFetchMsMax / 1000} s`
        : errorText(error);
    } finally {
      done.abort();
      await timer;
    }
  }

  async #read(signal: AbortSignal): Promise<string> {
    const headers = { accept: "application/jwk-set+json, application/json" };
    // Redirected keys would be keys from a place that nobody has configured.
    const response = await this.#fetch(this.#url, { headers, redirect: "manual", signal });
    const body = response.body as ReadableStream<Uint8Array> | null;
    if (response.status !== 200 || body === null) {
      await body?.cancel();
      throw new KeysUnavailableError(`the server answered ${response.status}, expected 200`);
    }
    const parts: Uint8Array[] = [];
    let length = 0;
    for await (const part of body) {
      length += part.length;
      if (length > jwksBytesMax) {
        throw new KeysUnavailableError(`the answer is larger than ${jwksBytesMax} bytes`);
      }
      parts.push(part);
    }
    return decodeText(Buffer.concat(parts, length));
  }
}

/** The public keys of an answer: anything else in it (a shared secret, say) is left out. */
function keySet(text: string): JSONWebKeySet {
  const value = parseJson(text) as { readonly keys?: unknown } | null;
  const keys = value?.keys;
  if (!Array.isArray(keys)) throw new KeysUnavailableError("the answer is no JWKS");
  const usable = (keys as unknown[]).filter((key): key is JSONWebKeySet["keys"][number] => {
    if (typeof key !== "object" || key === null) return false;
    const { kty } = key as { readonly kty?: unknown };
    return kty === "RSA" || kty === "EC" || kty === "OKP";
  });
  if (usable.length === 0) throw new KeysUnavailableError("the JWKS holds no public key");
  return { keys: usable.slice(0, jwtKeysMax) };
}
