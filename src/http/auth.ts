/**
 * What callers must show and may do. A bearer token in `Authorization`, or a ticket where a page
 * can't set headers; no cookies, so no page of another origin can act for anyone.
 */
import { ForbiddenError, UnauthorizedError } from "../errors.ts";
import type { Message } from "../message.ts";
import { readable } from "../rules/readable.ts";
import type { Role } from "../rules/store/role-names.ts";
import {
  forcedKey,
  hasRole,
  isWithin,
  type Principal,
  type Reach,
  readReach,
  writeReach,
} from "../rules/store/roles.ts";
import type { Callers } from "./callers.ts";
import type { HttpContext } from "./services.ts";
import type { Tickets } from "./tickets.ts";

const BEARER = /^Bearer +([\x21-\x7e]+) *$/i;

/** The token of an `Authorization` header; null when there is none, or of another scheme. */
export function bearerToken(header: string | null): string | null {
  return header === null ? null : (BEARER.exec(header)?.[1] ?? null);
}

/**
 * The caller. @throws UnauthorizedError without a token, or with one that is not taken.
 * @throws KeysUnavailableError the token can't be checked now.
 */
export async function callerOf(
  request: Request,
  callers: Pick<Callers, "authenticate">,
): Promise<Principal> {
  const token = bearerToken(request.headers.get("authorization"));
  if (token === null) {
    throw new UnauthorizedError("send a token: Authorization: Bearer TOKEN");
  }
  return await callers.authenticate(token);
}

/** The ticket in a request's address; null when there is none. */
export function ticketIn(url: string): string | null {
  const start = url.indexOf("?");
  return start === -1 ? null : new URLSearchParams(url.slice(start + 1)).get("ticket");
}

/** The address without its ticket, for those who read the rest of the query. */
export function withoutTicket(url: string): string {
  if (ticketIn(url) === null) return url;
  const parsed = new URL(url);
  parsed.searchParams.delete("ticket");
  return parsed.href;
}

/** Who a ticket was made for, if that caller still stands. @throws UnauthorizedError */
export function ticketCaller(
  ticket: string,
  tickets: Pick<Tickets, "redeem">,
  callers: Pick<Callers, "standing">,
): Principal {
  const principal = tickets.redeem(ticket);
  const standing = principal === null ? null : callers.standing(principal);
  if (standing !== null && typeof standing === "object") return standing;
  throw new UnauthorizedError("this ticket was used, is too old, or its caller's token is over");
}

/** What a socket's upgrade or its first frame shows; null: nothing yet. */
export type Credential = { readonly token: string } | { readonly ticket: string } | null;

/** The caller that a credential shows. @throws as `callerOf` and `ticketCaller` */
export async function callerBy(
  credential: NonNullable<Credential>,
  { tickets, callers }: Pick<HttpContext, "tickets" | "callers">,
): Promise<Principal> {
  if ("token" in credential) return await callers.authenticate(credential.token);
  return ticketCaller(credential.ticket, tickets, callers);
}

/** @throws ForbiddenError the caller has neither the role nor one that contains it. */
export function requireRole(principal: Principal, role: Role): void {
  if (!hasRole(principal, role)) throw new ForbiddenError(`this needs the role ${role}`);
}

/**
 * What the caller may read of a stream, or of one key of it: every reader looks at each message
 * with it. @throws ForbiddenError nothing, or not more than some of its keys.
 */
export function requireRead(
  principal: Principal,
  stream: string,
  key: string | null,
): NonNullable<Reach> {
  const reach = readReach(principal, stream, key);
  if (reach !== null) return reach;
  const what = key === null ? "all of it" : "this key";
  throw new ForbiddenError(`this token may not read ${what} in stream ${stream}`);
}

/**
 * The message as its caller may write it to the stream: without a key it gets the one of the
 * caller's grants. @throws ForbiddenError the caller may not write it.
 */
export function admitWrite<Written extends Message>(
  principal: Principal,
  stream: string,
  message: Written,
): Written {
  if (hasRole(principal, "operator")) return message;
  const key = message.key ?? forcedKey(principal, stream);
  const keyed = key === message.key ? message : { ...message, key };
  const reach = writeReach(principal, stream, key);
  if (reach === null) {
    const what = key === null ? "without a key" : "with this key";
    throw new ForbiddenError(`this token may not write ${what} to stream ${stream}`);
  }
  if (reach === "all" || isWithin(reach, readable(keyed))) return keyed;
  const wanted = reach.map(({ source }) => source).join(" || ");
  throw new ForbiddenError(`this token may write to stream ${stream} only where ${wanted}`);
}
