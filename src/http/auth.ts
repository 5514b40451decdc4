/**
 * Who is calling, and whether they may. A bearer token in `Authorization` and nowhere else: no
 * cookies, so no page of another origin can act for anyone.
 */
import { ForbiddenError, UnauthorizedError } from "../errors.ts";
import { decodeText } from "../message.ts";
import { hasRole, mayRead, mayWrite, type Principal, type Role } from "../rules/store/roles.ts";
import type { TokensFace } from "./services.ts";

const BEARER = /^Bearer +([\x21-\x7e]+) *$/i;

/** The token of an `Authorization` header; null when there is none, or of another scheme. */
export function bearerToken(header: string | null): string | null {
  return header === null ? null : (BEARER.exec(header)?.[1] ?? null);
}

/** The caller. @throws UnauthorizedError without a token, or with one that is not taken. */
export async function callerOf(request: Request, tokens: TokensFace): Promise<Principal> {
  const token = bearerToken(request.headers.get("authorization"));
  if (token === null) {
    throw new UnauthorizedError("send a token: Authorization: Bearer TOKEN");
  }
  const principal = await tokens.authenticate(token);
  if (principal === null) throw new UnauthorizedError("this token is not valid");
  return principal;
}

/** @throws ForbiddenError the caller has neither the role nor one that contains it. */
export function requireRole(principal: Principal, role: Role): void {
  if (!hasRole(principal, role)) throw new ForbiddenError(`this needs the role ${role}`);
}

/** @throws ForbiddenError the caller may not read the stream, or not more than some of its keys. */
export function requireRead(principal: Principal, stream: string, key: string | null): void {
  if (mayRead(principal, stream, key)) return;
  const what = key === null ? "all of it" : "this key";
  throw new ForbiddenError(`this token may not read ${what} in stream ${stream}`);
}

/** @throws ForbiddenError the caller may not write messages of this key to the stream. */
export function requireWrite(principal: Principal, stream: string, key: Uint8Array | null): void {
  if (mayWrite(principal, stream, key === null ? null : decodeText(key))) return;
  const what = key === null ? "without a key" : "with this key";
  throw new ForbiddenError(`this token may not write ${what} to stream ${stream}`);
}
