/**
 * Who may do what. A caller has either a role (people and programs that run the gateway) or
 * grants (clients: which streams, which keys and which messages of them). Roles contain one
 * another: admin ⊃ operator ⊃ viewer. Pure functions; `tokens.ts` and `http/callers.ts` say who
 * the caller is.
 */
import { AUDIT_STREAM } from "../../log/retention.ts";
import { encodeText } from "../../message.ts";
import { compileGrantWhere } from "../access.ts";
import type { Grant } from "../document.ts";
import type { Expression, Subject } from "../expression.ts";
import { type Role, ROLES } from "./role-names.ts";

/** What a caller's token says, as JSON. */
export type Claims = Readonly<Record<string, unknown>>;

/** A grant as one caller has it: its key is known, and so are the claims of its `where`. */
export interface HeldGrant {
  readonly stream: string;
  readonly key: string | null;
  /** Absent: every message. */
  readonly where?: Condition;
}

/** A `where` with the claims of one caller. */
export interface Condition {
  readonly source: string;
  /** Whether it is true for a message; one that fails is not. */
  readonly holds: (message: Subject) => boolean;
}

/** A caller whose token was accepted. */
export interface Principal {
  /** The token it came with; null for the admin token of the settings, and for a JWT. */
  readonly tokenId: string | null;
  /** Owner of durable names. Roles have `token:NAME`, which no client's subject can be. */
  readonly subject: string;
  /** The token's name, or the access's, for the record of who did what. */
  readonly name: string;
  readonly role: Role | null;
  readonly read: readonly HeldGrant[];
  readonly write: readonly HeldGrant[];
  /** Unix milliseconds; null: never. */
  readonly expiresAtMs: number | null;
  /** The access whose keys have proven its JWT, and what that says; absent for other tokens. */
  readonly jwt?: { readonly access: string; readonly claims: Claims };
}

/** Subjects of callers with a role begin so; a client's can't. */
export const ROLE_SUBJECT_PREFIX = "token:";
const SUBJECT_CHARACTERS_MAX = 128;

/** What a client's subject may be: null, or what was expected. */
export function subjectProblem(subject: string): string | null {
  if (subject === "" || subject.length > SUBJECT_CHARACTERS_MAX || subject.includes("\u0000")) {
    return `expected 1 to ${SUBJECT_CHARACTERS_MAX} characters`;
  }
  if (!subject.startsWith(ROLE_SUBJECT_PREFIX)) return null;
  return `subjects that begin with ${ROLE_SUBJECT_PREFIX} belong to roles`;
}

/** Whether the caller's role is this one or contains it. */
export function hasRole(principal: Principal, role: Role): boolean {
  return principal.role !== null && ROLES.indexOf(principal.role) >= ROLES.indexOf(role);
}

/**
 * Which messages of a stream (of one key, or of all keys: null) the caller may read: every one
 * (`"all"`), those for which any condition holds, or none at all (null).
 */
export type Reach = "all" | readonly Condition[] | null;

/** What the caller may read. */
export function readReach(principal: Principal, stream: string, key: string | null): Reach {
  // Who did what is for those who may do all.
  if (stream === AUDIT_STREAM) return hasRole(principal, "admin") ? "all" : null;
  if (hasRole(principal, "viewer")) return "all";
  return reachOf(principal.read, stream, (granted) => granted === null || granted === key);
}

/** What the caller may append with this key (null: without one). */
export function writeReach(principal: Principal, stream: string, key: Uint8Array | null): Reach {
  if (hasRole(principal, "operator")) return "all";
  return reachOf(principal.write, stream, (granted) => {
    if (granted === null) return true;
    return key !== null && Buffer.compare(encodeText(granted), key) === 0;
  });
}

/**
 * The key that a message without one gets: that of the caller's grants, where they allow this
 * stream only with a key and all with the same. Null: it stays without.
 */
export function forcedKey(principal: Principal, stream: string): Uint8Array | null {
  if (hasRole(principal, "operator")) return null;
  const keys = new Set<string | null>();
  for (const grant of principal.write) {
    if (matchesStream(grant.stream, stream)) keys.add(grant.key);
  }
  const [only = null] = keys;
  return keys.size === 1 && only !== null ? encodeText(only) : null;
}

/** Whether a message is within a reach. */
export function isWithin(reach: Reach, message: Subject): boolean {
  if (reach === null || reach === "all") return reach !== null;
  return reach.some(({ holds }) => holds(message));
}

function reachOf(
  grants: readonly HeldGrant[],
  stream: string,
  isKeyGranted: (key: string | null) => boolean,
): Reach {
  const conditions: Condition[] = [];
  let isGranted = false;
  for (const grant of grants) {
    if (!matchesStream(grant.stream, stream) || !isKeyGranted(grant.key)) continue;
    if (grant.where === undefined) return "all";
    conditions.push(grant.where);
    isGranted = true;
  }
  return isGranted ? conditions : null;
}

/**
 * Whether a stream's name matches a pattern in which `*` stands for any run of characters.
 * The gateway's own streams begin with `$`; a pattern reaches them only when it begins so too.
 */
export function matchesStream(pattern: string, stream: string): boolean {
  if (stream.startsWith("$") && !pattern.startsWith("$")) return false;
  const parts = pattern.split("*");
  const first = parts[0] ?? "";
  const last = parts.at(-1) ?? "";
  if (parts.length === 1) return pattern === stream;
  if (stream.length < first.length + last.length) return false;
  if (!stream.startsWith(first) || !stream.endsWith(last)) return false;
  let at = first.length;
  const end = stream.length - last.length;
  for (const part of parts.slice(1, -1)) {
    const found = stream.indexOf(part, at);
    if (found === -1 || found + part.length > end) return false;
    at = found + part.length;
  }
  return true;
}

/** A grant whose `where` is compiled: what all callers of a token or an access share. */
export interface PreparedGrant {
  readonly grant: Grant;
  readonly where: Expression | null;
}

/** Compiles the conditions of grants. @throws InvalidError as `compileGrantWhere` */
export function prepareGrants(
  side: "read" | "write",
  grants: readonly Grant[],
): readonly PreparedGrant[] {
  return grants.map((grant) => {
    const { where } = grant;
    return { grant, where: where === undefined ? null : compileGrantWhere(side, where) };
  });
}

const claimPattern = /^claims\.([A-Za-z0-9_]+)$/;

/**
 * Grants with `claims.NAME` replaced by the caller's own value. A grant whose claim the caller
 * doesn't have, or has not as text, is left out: it grants nothing.
 */
export function holdGrants(grants: readonly PreparedGrant[], claims: Claims): readonly HeldGrant[] {
  return grants.flatMap(({ grant, where }): readonly HeldGrant[] => {
    const key = keyOf(grant.key, claims);
    if (key === undefined) return [];
    if (where === null) return [{ stream: grant.stream, key }];
    const { source } = where;
    const holds = (message: Subject): boolean => where.test(message, claims) === "yes";
    return [{ stream: grant.stream, key, where: { source, holds } }];
  });
}

function keyOf(key: string | null, claims: Claims): string | null | undefined {
  const claim = key === null ? null : claimPattern.exec(key);
  if (claim === null) return key;
  const name = claim[1] ?? "";
  const value = Object.hasOwn(claims, name) ? claims[name] : undefined;
  return typeof value === "string" && value !== "" ? value : undefined;
}
