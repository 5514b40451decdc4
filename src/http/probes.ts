/**
 * What a hook answers to calls that are no webhooks: the GET and HEAD by which providers look
 * whether somebody is there, GET challenges, and the OPTIONS by which CloudEvents senders ask
 * whether they may send. Nothing is stored.
 */
import { InvalidError } from "../errors.ts";
import { hookChallengeCharsMax } from "../limits.ts";
import { problemResponse } from "./problem.ts";
import type { HookFace } from "./services.ts";
import { textResponse } from "./verify/handshake.ts";

const MINUTE_MS = 60_000;

/**
 * Whether a POST only asks for one of its parameters back, as Microsoft Graph does: the parameter
 * is there and the body is empty. A webhook with a body is never taken for one.
 */
export function isChallenge({ document }: HookFace, { url, headers }: Request): boolean {
  if (document.challenge === null || !url.includes("?")) return false;
  const length = headers.get("content-length");
  const isEmpty = length === "0" || (length === null && headers.get("transfer-encoding") === null);
  return isEmpty && new URLSearchParams(splitUrl(url).query).has(document.challenge.parameter);
}

/** The answer; null: it is a webhook and has to be taken. @throws UnauthorizedError */
export async function probeAnswer(hook: HookFace, request: Request): Promise<Response | null> {
  const { method } = request;
  if (method === "GET" || method === "POST") {
    const challenge = await challengeAnswer(hook, request.url);
    if (challenge !== null) return challenge;
  }
  if (hook.document.methods.includes(method)) return null;
  if (method === "OPTIONS") return optionsAnswer(hook, request);
  if (method === "HEAD") return new Response(null, { status: 200 });
  const takes = hook.document.methods;
  if (method === "GET") {
    return Response.json({ hook: hook.name, takes }, { headers: { "cache-control": "no-store" } });
  }
  const detail = `${method} is not taken here; there is ${allowed(hook)}`;
  const headers = { allow: allowed(hook) };
  return problemResponse({ status: 405, code: "method-not-allowed", detail, headers });
}

/** A request's path, and its query with the question mark. */
export function splitUrl(url: string): { readonly path: string; readonly query: string } {
  const start = url.indexOf("/", url.indexOf("//") + 2);
  const end = url.indexOf("?", start);
  if (end === -1) return { path: url.slice(start), query: "" };
  return { path: url.slice(start, end), query: url.slice(end) };
}

async function challengeAnswer(hook: HookFace, url: string): Promise<Response | null> {
  if (hook.document.challenge === null || hook.verifier === undefined) return null;
  const asked = await hook.verifier.challengeAnswer(new URLSearchParams(splitUrl(url).query));
  if (asked === null) return null;
  if (asked.length <= hookChallengeCharsMax) return textResponse(asked);
  throw new InvalidError(`a challenge has at most ${hookChallengeCharsMax} characters`);
}

/** Consent to a CloudEvents sender: the signature and the limits protect the hook, not the name. */
function optionsAnswer(hook: HookFace, request: Request): Response {
  const headers = new Headers({ allow: allowed(hook) });
  const origin = request.headers.get("webhook-request-origin");
  if (origin !== null && origin !== "") {
    const { rate } = hook.document.limits;
    const perMinute = rate === null ? "*" : String(Math.max(1, perMinuteOf(rate)));
    headers.set("webhook-allowed-origin", origin);
    headers.set("webhook-allowed-rate", perMinute);
  }
  return new Response(null, { status: 204, headers });
}

function perMinuteOf({ count, perMs }: { readonly count: number; readonly perMs: number }): number {
  return Math.floor((count * MINUTE_MS) / perMs);
}

function allowed({ document }: HookFace): string {
  return [...new Set(["GET", "HEAD", "OPTIONS", ...document.methods])].join(", ");
}
