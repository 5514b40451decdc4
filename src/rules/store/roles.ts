/**
 * Who may do what. A caller has either a role (people and programs that run the gateway) or
 * grants (clients: which streams, and which keys of them). Roles contain one another:
 * admin ⊃ operator ⊃ viewer. Pure functions; `tokens.ts` says who the caller is.
 */
import type { Grant } from "../document.ts";

/** Admin changes everything; operator replays, pauses and publishes; viewer reads. */
export const ROLES = ["viewer", "operator", "admin"] as const;
export type Role = (typeof ROLES)[number];

/** A caller whose token was accepted. */
export interface Principal {
  /** The token it came with; null for the admin token of the settings. */
  readonly tokenId: string | null;
  /** Owner of durable names. Roles have `token:NAME`, which no client's subject can be. */
  readonly subject: string;
  /** The token's name, for the record of who did what. */
  readonly name: string;
  readonly role: Role | null;
  readonly read: readonly Grant[];
  readonly write: readonly Grant[];
  /** Unix milliseconds; null: never. */
  readonly expiresAtMs: number | null;
}

/** Whether the caller's role is this one or contains it. */
export function hasRole(principal: Principal, role: Role): boolean {
  return principal.role !== null && ROLES.indexOf(principal.role) >= ROLES.indexOf(role);
}

/** Whether the caller may read the stream: its messages of one key, or all of them (`key` null). */
export function mayRead(principal: Principal, stream: string, key: string | null): boolean {
  return hasRole(principal, "viewer") || isGranted(principal.read, stream, key);
}

/** Whether the caller may append a message with this key (null: without one) to the stream. */
export function mayWrite(principal: Principal, stream: string, key: string | null): boolean {
  return hasRole(principal, "operator") || isGranted(principal.write, stream, key);
}

function isGranted(grants: readonly Grant[], stream: string, key: string | null): boolean {
  return grants.some((grant) => {
    return matchesStream(grant.stream, stream) && (grant.key === null || grant.key === key);
  });
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

const claimPattern = /^claims\.([A-Za-z0-9_]+)$/;

/**
 * Grants with `claims.NAME` replaced by the caller's own value. A grant whose claim the caller
 * doesn't have is left out: it grants nothing.
 */
export function resolveGrants(
  grants: readonly Grant[],
  claims: Readonly<Record<string, unknown>>,
): readonly Grant[] {
  return grants.flatMap((grant) => {
    const claim = grant.key === null ? null : claimPattern.exec(grant.key);
    if (claim === null) return [grant];
    const name = claim[1] ?? "";
    const value = Object.hasOwn(claims, name) ? claims[name] : undefined;
    return typeof value === "string" && value !== "" ? [{ stream: grant.stream, key: value }] : [];
  });
}
