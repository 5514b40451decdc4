/**
 * Bearer tokens: made, listed, revoked, and turned into a Principal. Only SHA-256 hashes of them
 * are kept, in memory as well, so callers are known while the database is away. Making and
 * revoking go the way of every change: answered once the snapshot that holds it is synced.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { Clock } from "../../clock.ts";
import { ConflictError, InvalidError, LimitError, NotFoundError } from "../../errors.ts";
import { grantsMax } from "../../limits.ts";
import { compileGrantWhere } from "../access.ts";
import type { Accepted } from "./accepted.ts";
import { checkNotes, type Plan } from "./change.ts";
import type { Grant } from "../document.ts";
import { ROLES, type Role } from "./role-names.ts";
import {
  holdGrants,
  type PreparedGrant,
  prepareGrants,
  type Principal,
  ROLE_SUBJECT_PREFIX,
  subjectProblem,
} from "./roles.ts";
import { applyWrite, type State, type StoredToken, type Write } from "./state.ts";
import { isName, NAME_FORM } from "../units.ts";

/** A token as it is shown: everything but what it could be recognized by. */
export type TokenInfo = Omit<StoredToken, "hash">;

/** What a new token may do: a role, or a subject with grants. */
export interface NewToken {
  readonly name: string;
  readonly role?: Role | null;
  readonly subject?: string | null;
  readonly read?: readonly Grant[];
  readonly write?: readonly Grant[];
  readonly expiresAtMs?: number | null;
}

/** What the tokens need of the store. */
export interface TokensOptions {
  readonly clock: Clock;
  /** The admin token of the settings or of its file. */
  readonly adminToken: string;
  /** Carries out one change; resolves when it is on disk. */
  readonly commit: <Result>(plan: (base: Accepted) => Plan<Result>) => Promise<Result>;
}

const tokenBytes = 32;
const tokenPrefix = "ist_";

/** Tokens in all, revoked ones included. */
const TOKENS_MAX = 10_000;
/** Longer texts are none of ours and are not hashed. */
const TOKEN_CHARACTERS_MAX = 512;
/** Uses are noted to the hour: a finer note would be a write a request. */
const USE_GRAIN_MS = 3_600_000;

const streamPattern = /^\$?[A-Za-z0-9*][A-Za-z0-9._*-]{0,99}$/;

/** A new token, which can't be guessed and is never shown again. */
export function newToken(): string {
  return tokenPrefix + randomBytes(tokenBytes).toString("base64url");
}

/** All tokens of a gateway. */
export class Tokens {
  readonly #options: TokensOptions;
  readonly #adminHash: Buffer;
  #stored: ReadonlyMap<string, StoredToken> = new Map();
  #byHash: ReadonlyMap<string, StoredToken> = new Map();
  readonly #prepared = new WeakMap<StoredToken, Prepared>();
  /** Uses not written yet, by id; they go along with the next change. */
  readonly #used = new Map<string, number>();

  constructor(options: TokensOptions) {
    this.#options = options;
    this.#adminHash = hashOf(options.adminToken);
  }

  /** Takes over the tokens of an accepted set; for the store alone. */
  adopt(state: State): void {
    this.#stored = state.tokens;
    this.#byHash = new Map([...state.tokens.values()].map((token) => [token.hash, token]));
    for (const [id, atMs] of this.#used) {
      const token = state.tokens.get(id);
      if (token === undefined || (token.lastUsedAtMs ?? 0) >= atMs) this.#used.delete(id);
    }
  }

  /**
   * Who the bearer of a token is; null when it is unknown, revoked or expired, and which of these
   * is not said. Takes as long for a token nearly right as for any other.
   */
  async authenticate(token: string): Promise<Principal | null> {
    if (token.length > TOKEN_CHARACTERS_MAX) return null;
    const hash = hashOf(token);
    if (timingSafeEqual(hash, this.#adminHash)) return adminPrincipal;
    // The map is asked by a hash, which a caller can't steer towards one that is there.
    const stored = this.#byHash.get(hash.toString("hex"));
    if (stored === undefined || !timingSafeEqual(hash, Buffer.from(stored.hash, "hex")))
      return null;
    const nowMs = this.#options.clock.nowMs();
    if (!isLive(stored, nowMs)) return null;
    this.#note(stored, nowMs);
    return principalOf(stored, this.#grantsOf(stored));
  }

  /** Whether a caller let in earlier would still be: for connections that stay open. */
  isStanding(principal: Principal): boolean {
    if (principal.tokenId === null) return true;
    const stored = this.#stored.get(principal.tokenId);
    return stored !== undefined && isLive(stored, this.#options.clock.nowMs());
  }

  /** Every token, revoked ones too, oldest first. */
  list(): readonly TokenInfo[] {
    return [...this.#stored.values()]
      .toSorted((left, right) => left.createdAtMs - right.createdAtMs)
      .map((token) => this.#shown(token));
  }

  /**
   * Makes a token. Its text is in the answer and nowhere else.
   * @throws InvalidError the request is wrong. @throws ConflictError a live token has this name.
   */
  async create(
    wanted: NewToken,
    context: { readonly by: string },
  ): Promise<{ readonly token: string; readonly info: TokenInfo }> {
    const nowMs = this.#options.clock.nowMs();
    const rights = checkNewToken(wanted, nowMs);
    const token = newToken();
    const stored: StoredToken = {
      ...rights,
      id: crypto.randomUUID(),
      hash: hashOf(token).toString("hex"),
      createdAtMs: nowMs,
      createdBy: context.by,
      revokedAtMs: null,
      revokedBy: null,
      lastUsedAtMs: null,
    };
    await this.#options.commit((base) => {
      const all = [...base.state.tokens.values()];
      if (all.length >= TOKENS_MAX) {
        throw new LimitError("too-large", `there can be at most ${TOKENS_MAX} tokens`);
      }
      if (all.some((other) => other.name === stored.name && other.revokedAtMs === null)) {
        throw new ConflictError(
          "conflict",
          `there is a token named ${stored.name}: revoke it first`,
        );
      }
      return planTokens(base, [stored], { by: context.by, why: "token created", nowMs });
    });
    return { token, info: this.#shown(stored) };
  }

  /** Revokes a live token by its name or id. @throws NotFoundError there is none. */
  async revoke(nameOrId: string, context: { readonly by: string }): Promise<TokenInfo> {
    const nowMs = this.#options.clock.nowMs();
    const revoked = await this.#options.commit((base) => {
      const stored = [...base.state.tokens.values()].find((token) => {
        return token.revokedAtMs === null && (token.name === nameOrId || token.id === nameOrId);
      });
      if (stored === undefined) throw new NotFoundError(`there is no live token ${nameOrId}`);
      const after = { ...stored, revokedAtMs: nowMs, revokedBy: context.by };
      return planTokens(base, [after], { by: context.by, why: "token revoked", nowMs });
    });
    return this.#shown(revoked);
  }

  /** The plan with the uses noted since the last change written along; for the store alone. */
  withUses<Result>(plan: Plan<Result>): Plan<Result> {
    if (plan.write === null || this.#used.size === 0) return plan;
    const written = new Set(plan.write.tokens.map((token) => token.id));
    const tokens = new Map(plan.next.state.tokens);
    const uses: StoredToken[] = [];
    for (const [id, lastUsedAtMs] of this.#used) {
      const stored = tokens.get(id);
      if (stored === undefined || written.has(id)) continue;
      const used = { ...stored, lastUsedAtMs };
      tokens.set(id, used);
      uses.push(used);
    }
    const write = { ...plan.write, tokens: [...plan.write.tokens, ...uses] };
    return { ...plan, write, next: { ...plan.next, state: { ...plan.next.state, tokens } } };
  }

  /** Conditions are compiled once for a token, not for each of its calls. */
  #grantsOf(stored: StoredToken): Prepared {
    const known = this.#prepared.get(stored);
    if (known !== undefined) return known;
    const prepared = {
      read: prepareGrants("read", stored.read),
      write: prepareGrants("write", stored.write),
    };
    this.#prepared.set(stored, prepared);
    return prepared;
  }

  #note(stored: StoredToken, nowMs: number): void {
    const atMs = nowMs - (nowMs % USE_GRAIN_MS);
    const knownMs = Math.max(stored.lastUsedAtMs ?? 0, this.#used.get(stored.id) ?? 0);
    if (atMs > knownMs) this.#used.set(stored.id, atMs);
  }

  #shown(stored: StoredToken): TokenInfo {
    const { hash: _, ...info } = stored;
    return { ...info, lastUsedAtMs: this.#used.get(stored.id) ?? stored.lastUsedAtMs };
  }
}

const adminPrincipal: Principal = {
  tokenId: null,
  subject: `${ROLE_SUBJECT_PREFIX}admin`,
  name: "admin",
  role: "admin",
  read: [],
  write: [],
  expiresAtMs: null,
};

function hashOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

function isLive(token: StoredToken, nowMs: number): boolean {
  return token.revokedAtMs === null && (token.expiresAtMs === null || token.expiresAtMs > nowMs);
}

interface Prepared {
  readonly read: readonly PreparedGrant[];
  readonly write: readonly PreparedGrant[];
}

function principalOf(token: StoredToken, grants: Prepared): Principal {
  const claims = { sub: token.subject };
  return {
    tokenId: token.id,
    subject: token.subject,
    name: token.name,
    role: token.role,
    read: holdGrants(grants.read, claims),
    write: holdGrants(grants.write, claims),
    expiresAtMs: token.expiresAtMs,
  };
}

type Rights = Pick<StoredToken, "name" | "role" | "subject" | "read" | "write" | "expiresAtMs">;

function checkNewToken(wanted: NewToken, nowMs: number): Rights {
  const { name, role = null, subject = null, expiresAtMs = null } = wanted;
  const { read = [], write = [] } = wanted;
  const refuse = (pointer: string, detail: string): never => {
    throw new InvalidError(detail, [{ pointer, detail }]);
  };
  if (!isName(name)) refuse("/name", `expected ${NAME_FORM}`);
  if (expiresAtMs !== null && !(Number.isSafeInteger(expiresAtMs) && expiresAtMs > nowMs)) {
    refuse("/expires", "it would have expired already");
  }
  if (role !== null) {
    if (!ROLES.includes(role)) refuse("/role", `one of ${ROLES.join(", ")}`);
    const hasGrants = subject !== null || read.length + write.length > 0;
    if (hasGrants) refuse("/role", "a token has either a role, or a subject and grants");
    return { name, role, subject: ROLE_SUBJECT_PREFIX + name, read, write, expiresAtMs };
  }
  const owner = checkSubject(subject, refuse);
  if (read.length + write.length === 0) refuse("/read", "a token without a role needs grants");
  checkGrants("read", read, (detail) => refuse("/read", detail));
  checkGrants("write", write, (detail) => refuse("/write", detail));
  return { name, role, subject: owner, read, write, expiresAtMs };
}

function checkSubject(
  subject: string | null,
  refuse: (pointer: string, detail: string) => never,
): string {
  if (subject === null) return refuse("/subject", "a token without a role needs a subject");
  const problem = subjectProblem(subject);
  if (problem !== null) refuse("/subject", problem);
  return subject;
}

function checkGrants(
  side: "read" | "write",
  grants: readonly Grant[],
  refuse: (detail: string) => never,
): void {
  if (grants.length > grantsMax) refuse(`at most ${grantsMax} grants`);
  for (const grant of grants) {
    if (!streamPattern.test(grant.stream)) {
      refuse(`${JSON.stringify(grant.stream.slice(0, 100))} is no stream's name or pattern`);
    }
    if (grant.key === "") refuse("a key is not empty; leave it out for every key");
    if (grant.where !== undefined) compileGrantWhere(side, grant.where);
  }
}

function planTokens(
  base: Accepted,
  tokens: readonly [StoredToken],
  note: { readonly by: string; readonly why: string; readonly nowMs: number },
): Plan<StoredToken> {
  checkNotes({ by: note.by });
  const write: Write = {
    version: base.state.version + 1,
    change: crypto.randomUUID(),
    by: note.by,
    why: note.why,
    atMs: note.nowMs,
    definitions: [],
    revisions: [],
    secrets: [],
    secretDeletions: [],
    tokens,
  };
  const state = applyWrite(base.state, write);
  const definitions = { ...base.definitions, version: state.version };
  return { next: { state, definitions }, write, result: tokens[0] };
}
