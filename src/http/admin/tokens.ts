/**
 * `/api/tokens`: made, listed, revoked; for admins only. A token's text is in the answer that
 * makes it and nowhere else, ever.
 */
import { InvalidError, NotFoundError } from "../../errors.ts";
import type { Grant } from "../../rules/document.ts";
import { ROLES, type Role } from "../../rules/store/role-names.ts";
import type { Principal } from "../../rules/store/roles.ts";
import { didYouMean } from "../../rules/suggest.ts";
import type { NewToken, TokenInfo } from "../../rules/store/tokens.ts";
import { DURATION_FORM, parseDurationMs } from "../../rules/units.ts";
import { refused } from "../request.ts";
import { callerText, type HttpServices } from "../services.ts";
import { jsonResponse, listResponse } from "./definitions.ts";
import { documentOf } from "./document-body.ts";

const MEMBERS = ["name", "role", "sub", "subject", "read", "write", "expires"] as const;

/** Every token, revoked ones too. */
export function listTokens(url: string, services: HttpServices): Response {
  return listResponse(services.tokens.list(), url);
}

/** One token; the live one where others of its name are revoked. @throws NotFoundError */
export function getToken(name: string, services: HttpServices): Response {
  const all = services.tokens.list().filter((token) => token.name === name || token.id === name);
  const found = all.find((token) => token.revokedAtMs === null) ?? all.at(-1);
  if (found === undefined) throw new NotFoundError(`there is no token ${name.slice(0, 120)}`);
  return jsonResponse(viewOf(found));
}

/** Makes a token. `name` stands in the path, or in the body. */
export async function createToken(
  call: {
    readonly name: string | null;
    readonly body: Uint8Array;
    readonly contentType: string;
    readonly principal: Principal;
  },
  services: HttpServices,
): Promise<Response> {
  const members = documentOf(call.body, call.contentType);
  const wanted = wantedToken(members, call.name, services.clock.nowMs());
  const by = callerText(call.principal);
  const made = await services.tokens.create(wanted, { by });
  const detail =
    made.info.role === null ? `subject ${made.info.subject}` : `role ${made.info.role}`;
  const { audit } = services.gateway.operations;
  await audit.note([{ by, action: "created", kind: "tokens", name: made.info.name, detail }]);
  return jsonResponse({ ...viewOf(made.info), token: made.token }, { status: 201 });
}

/** Revokes a token; sockets that use it are closed within a second. @throws NotFoundError */
export async function revokeToken(
  name: string,
  principal: Principal,
  services: HttpServices,
): Promise<Response> {
  const by = callerText(principal);
  await services.tokens.revoke(name, { by });
  await services.gateway.operations.audit.note([{ by, action: "revoked", kind: "tokens", name }]);
  return new Response(null, { status: 204 });
}

function viewOf(info: TokenInfo): object {
  const { id, name, role, subject, read, write, expiresAtMs } = info;
  const document = { role, subject, read, write, expiresAtMs };
  const state = info.revokedAtMs === null ? "live" : "revoked";
  const { createdAtMs, createdBy, revokedAtMs, lastUsedAtMs } = info;
  const status = { state, id, createdAtMs, createdBy, revokedAtMs, lastUsedAtMs };
  return { name, revision: info.revokedAtMs === null ? 1 : 2, document, status };
}

type Members = Readonly<Record<string, unknown>>;

function wantedToken(members: Members, pathName: string | null, nowMs: number): NewToken {
  for (const name of Object.keys(members)) {
    if ((MEMBERS as readonly string[]).includes(name)) continue;
    throw refused(name.slice(0, 60), `there is no such member${didYouMean(name, MEMBERS)}`);
  }
  const { role } = members;
  if (role !== undefined && role !== null && !ROLES.some((each) => each === role)) {
    throw refused("role", `expected one of ${ROLES.join(", ")}`);
  }
  const name = textOf(members, "name") ?? pathName;
  if (name === null) throw refused("name", "expected a name");
  if (pathName !== null && name !== pathName) throw refused("name", "the path names another token");
  return {
    name,
    role: (role ?? null) as Role | null,
    subject: textOf(members, "subject") ?? textOf(members, "sub"),
    read: grantsOf(members, "read"),
    write: grantsOf(members, "write"),
    expiresAtMs: expiryOf(members["expires"], nowMs),
  };
}

function textOf(members: Members, name: string): string | null {
  const value = members[name];
  if (value === undefined || value === null) return null;
  if (typeof value === "string") return value;
  throw refused(name, "expected text");
}

function expiryOf(expires: unknown, nowMs: number): number | null {
  if (expires === undefined || expires === null) return null;
  const ms = parseDurationMs(expires);
  if (ms === null || ms === 0) throw refused("expires", `expected ${DURATION_FORM}`);
  return nowMs + ms;
}

/** `"STREAM"`, `"STREAM:KEY"`, or `{ stream, key }`. */
function grantsOf(members: Members, side: "read" | "write"): readonly Grant[] {
  const grants = members[side] ?? [];
  if (!Array.isArray(grants)) throw refused(side, "expected a list of streams");
  return grants.map((grant: unknown, index): Grant => {
    if (typeof grant === "string") return grantOfText(grant);
    const { stream, key = null, where, ...others } = (grant ?? {}) as Members;
    const isKey = key === null || typeof key === "string";
    // A condition that is misspelt must not become a grant without one.
    if (typeof stream === "string" && isKey && Object.keys(others).length === 0) {
      if (where === undefined) return { stream, key };
      if (typeof where === "string") return { stream, key, where };
    }
    const detail = 'expected "STREAM", "STREAM:KEY" or {"stream","key","where"}';
    throw new InvalidError(`${side}: ${detail}`, [{ pointer: `/${side}/${index}`, detail }]);
  });
}

function grantOfText(text: string): Grant {
  const colon = text.indexOf(":");
  if (colon === -1) return { stream: text, key: null };
  return { stream: text.slice(0, colon), key: text.slice(colon + 1) };
}
