/**
 * Who callers are, by whatever they show: a token of this gateway, a JSON Web Token that an access
 * lets in, or a ticket. The one place that decides it, for calls and for connections that stay
 * open, which ask again whether their caller still stands.
 *
 * A JWT belongs to one access: of those whose issuer and audience it names, the one that says most
 * of both (then the first by name) whose keys prove it. Grants of several are never added up.
 */
import { TokenExpiredError, UnauthorizedError } from "../errors.ts";
import { jwtProofMsMax, jwtProofsMax } from "../limits.ts";
import type { AccessDocument, Definition, Definitions, JwtDocument } from "../rules/document.ts";
import {
  type Claims,
  holdGrants,
  type PreparedGrant,
  prepareGrants,
  type Principal,
  subjectProblem,
} from "../rules/store/roles.ts";
import type { Tokens } from "../rules/store/tokens.ts";
import type { JwksStatus } from "./jwks.ts";
import {
  type JwtParts,
  JwtVerifier,
  looksLikeJwt,
  unprovenClaims,
  type VerifiedJwt,
} from "./jwt.ts";

/** What callers are known by. */
export interface CallersParts extends JwtParts {
  readonly tokens: Pick<Tokens, "authenticate" | "isStanding">;
  readonly definitions: () => Definitions;
}

/** An access as it runs. */
interface RunningAccess {
  readonly name: string;
  readonly definition: Definition<AccessDocument>;
  readonly verifier: JwtVerifier;
  readonly read: readonly PreparedGrant[];
  readonly write: readonly PreparedGrant[];
}

/** How a caller stands who was let in before. */
export type Standing = Principal | "expired" | "revoked" | "changed";

/** A token that was proven a short time ago. */
interface Proof {
  readonly principal: Principal;
  readonly atMs: number;
}

const NOT_VALID = "this token is not valid";

/** All callers of a server. */
export class Callers {
  readonly #parts: CallersParts;
  #seen: Definitions | null = null;
  #running: ReadonlyMap<string, RunningAccess> = new Map();
  /** The access as it was when it let a caller in. */
  readonly #under = new WeakMap<Principal, RunningAccess>();
  readonly #watched = new Set<{ principal: Principal; changed: (now: Standing) => void }>();
  /** By the digest of the token, oldest first. */
  readonly #proofs = new Map<string, Proof>();

  constructor(parts: CallersParts) {
    this.#parts = parts;
  }

  /**
   * The bearer of a token. @throws UnauthorizedError it is not valid, a TokenExpiredError where it
   * was. @throws KeysUnavailableError it can't be checked now: the same token may hold soon.
   */
  async authenticate(token: string): Promise<Principal> {
    const known = await this.#parts.tokens.authenticate(token);
    if (known !== null) return known;
    if (!looksLikeJwt(token)) throw new UnauthorizedError(NOT_VALID);
    return await this.#byJwt(token);
  }

  /**
   * The caller as it stands now: with other grants where its access has changed. `revoked`: its
   * token or its access is gone; `expired`: a new token is needed; `changed`: tokens are checked in
   * another way now, the same one may hold. Costs little: asked twice a second.
   */
  standing(principal: Principal): Standing {
    const { expiresAtMs, jwt } = principal;
    if (expiresAtMs !== null && expiresAtMs <= this.#parts.clock.nowMs()) return "expired";
    if (jwt === undefined) {
      return this.#parts.tokens.isStanding(principal) ? principal : "revoked";
    }
    const access = this.#accesses().get(jwt.access);
    const before = this.#under.get(principal);
    if (access === undefined || before === undefined) return "revoked";
    if (access === before) return principal;
    if (access.verifier !== before.verifier) return "changed";
    const now = { ...principal, ...heldOf(access, jwt.claims) };
    this.#under.set(now, access);
    return now;
  }

  /**
   * Tells when a caller does not stand as it did: for answers that take long. Call what it gives
   * once the answer has ended.
   */
  watch(principal: Principal, changed: (standing: Standing) => void): () => void {
    const watched = { principal, changed };
    this.#watched.add(watched);
    return () => this.#watched.delete(watched);
  }

  /** Looks at those who are watched; called twice a second. */
  look(): void {
    for (const watched of this.#watched) {
      const standing = this.standing(watched.principal);
      if (standing === watched.principal) continue;
      if (typeof standing === "object") watched.principal = standing;
      watched.changed(standing);
    }
  }

  /** How the keys of an access stand; null: it takes no JWT. */
  status(name: string): JwksStatus | null {
    return this.#accesses().get(name)?.verifier.status ?? null;
  }

  async #byJwt(token: string): Promise<Principal> {
    const accesses = this.#accesses();
    const digest = new Bun.CryptoHasher("sha256").update(token).digest("base64");
    const { clock } = this.#parts;
    const proof = this.#proofs.get(digest);
    if (proof !== undefined && clock.monotonicMs() - proof.atMs <= jwtProofMsMax) {
      const standing = this.standing(proof.principal);
      if (typeof standing === "object") return standing;
    }
    this.#proofs.delete(digest);
    const principal = await this.#provenBy(candidates(accesses.values(), token), token);
    this.#proofs.set(digest, { principal, atMs: clock.monotonicMs() });
    for (const oldest of this.#proofs.keys()) {
      if (this.#proofs.size <= jwtProofsMax) break;
      this.#proofs.delete(oldest);
    }
    return principal;
  }

  /** The caller, by the first access whose keys prove the token; else why the last did not. */
  async #provenBy(accesses: readonly RunningAccess[], token: string): Promise<Principal> {
    let failure: unknown = new UnauthorizedError(NOT_VALID);
    for (const access of accesses) {
      try {
        const principal = principalOf(access, await access.verifier.verify(token));
        this.#under.set(principal, access);
        return principal;
      } catch (error) {
        // Its keys have proven it: no other access has a say.
        if (error instanceof TokenExpiredError) throw error;
        // Keys that can't be had may be the right ones: "come again" goes before "not valid".
        const isPlain = error instanceof UnauthorizedError;
        if (!isPlain || failure instanceof UnauthorizedError) failure = error;
      }
    }
    throw failure;
  }

  /** The accesses of the definitions in effect; those that have not changed keep their keys. */
  #accesses(): ReadonlyMap<string, RunningAccess> {
    const definitions = this.#parts.definitions();
    if (this.#seen === definitions) return this.#running;
    const running = new Map<string, RunningAccess>();
    for (const definition of definitions.access.values()) {
      const access = this.#accessOf(definition);
      if (access !== null) running.set(definition.name, access);
    }
    if (hasChanged(this.#running, running)) this.#proofs.clear();
    this.#seen = definitions;
    this.#running = running;
    return running;
  }

  #accessOf(definition: Definition<AccessDocument>): RunningAccess | null {
    const { name, parsed, revision } = definition;
    if (parsed.jwt === null) return null;
    const before = this.#running.get(name);
    if (before?.definition.revision === revision && before.definition.parsed === parsed) {
      return before;
    }
    // Texts may be equal and the secret behind them another: only what names public keys is kept.
    const isKept = parsed.jwt.keys.from !== "secrets" && isEqual(parsed.jwt, before?.definition);
    const verifier =
      isKept && before !== undefined ? before.verifier : new JwtVerifier(parsed.jwt, this.#parts);
    const read = prepareGrants("read", parsed.read);
    const write = prepareGrants("write", parsed.write);
    return { name, definition, verifier, read, write };
  }
}

function isEqual(jwt: JwtDocument, before: Definition<AccessDocument> | undefined): boolean {
  return before !== undefined && Bun.deepEquals(jwt, before.parsed.jwt);
}

function hasChanged(
  before: ReadonlyMap<string, RunningAccess>,
  after: ReadonlyMap<string, RunningAccess>,
): boolean {
  if (before.size !== after.size) return true;
  return [...after].some(([name, access]) => before.get(name) !== access);
}

/** The accesses that a token is for, by what it says: those that say most first. */
function candidates(accesses: Iterable<RunningAccess>, token: string): readonly RunningAccess[] {
  const claims = unprovenClaims(token);
  if (claims === null) return [];
  const said = ({ verifier: { document } }: RunningAccess): number => {
    return Number(document.issuers.length > 0) + Number(document.audiences.length > 0);
  };
  return [...accesses]
    .filter((access) => names(access, claims))
    .toSorted((left, right) => said(right) - said(left) || (left.name < right.name ? -1 : 1));
}

/** Whether claims name an issuer and an audience of the access, where it wants them. */
function names({ verifier: { document } }: RunningAccess, claims: Claims): boolean {
  const { issuers, audiences } = document;
  const { iss, aud } = claims;
  const named: readonly unknown[] = Array.isArray(aud) ? aud : [aud];
  const isFrom = issuers.length === 0 || issuers.some((each) => each === iss);
  return isFrom && (audiences.length === 0 || audiences.some((each) => named.includes(each)));
}

function principalOf(access: RunningAccess, verified: VerifiedJwt): Principal {
  const { subject, claims, expiresAtMs } = verified;
  const problem = subjectProblem(subject);
  if (problem !== null) throw new UnauthorizedError(`the token's subject: ${problem}`);
  const { name } = access;
  const jwt = { access: name, claims };
  const held = heldOf(access, claims);
  return { tokenId: null, subject, name, role: null, ...held, expiresAtMs, jwt };
}

function heldOf(access: RunningAccess, claims: Claims): Pick<Principal, "read" | "write"> {
  return { read: holdGrants(access.read, claims), write: holdGrants(access.write, claims) };
}
