/**
 * `/hooks/:hook`: takes a webhook's body as a message and answers once it is on disk. The order is
 * limits, bytes, signature, handshake, dedupe, append, answer: nothing is changed before the
 * signature holds. The hot path: one look-up, one pass over the headers, one append, one await for
 * the disk. `key` and `dedupe` that fail give none and are counted; a hook never answers 4xx for
 * them.
 */
import type { BunRequest, Server } from "bun";
import { GatewayError, HookUnavailableError, NotFoundError } from "../errors.ts";
import { dedupeKeyBytesMax, keyBytesMax } from "../limits.ts";
import type { Header, HttpOrigin, Message, Origin } from "../message.ts";
import { dedupeFrom, keyFrom } from "../routing/keys.ts";
import type { HookAnswer } from "../rules/document.ts";
import type { IntakeCounts } from "../telemetry.ts";
import {
  acceptedResponse,
  appendFailure,
  receiptJson,
  settledReceipt,
  whenDurable,
} from "./append.ts";
import { HookLimiter } from "./hook-limits.ts";
import { probeAnswer, splitUrl } from "./probes.ts";
import { failureResponse } from "./problem.ts";
import { headerBytes, headerText, readBody } from "./request.ts";
import type { HookFace, HttpServices } from "./services.ts";
import { handshakeAnswer } from "./verify/handshake.ts";
import type { VerifyKey } from "./verify/keys.ts";
import type { Verifier } from "./verify/verifier.ts";

/** The part of Bun's server that hooks use. */
export type HookServer = Pick<Server<unknown>, "timeout" | "requestIP">;

/** The answer to a webhook, or to what providers ask before they send one. */
export type HookHandler = (
  request: BunRequest<"/hooks/:hook">,
  server: HookServer,
) => Promise<Response>;

/** Headers that are secrets of the sender, or belong to one connection only. */
const LEFT_OUT: ReadonlySet<string> = new Set([
  "authorization",
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "cookie",
  "expect",
  "keep-alive",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "x-api-key",
  "x-auth-token",
  "x-amz-security-token",
  "x-gitlab-token",
]);

/** What does not change between two messages of a hook. */
interface HookState {
  readonly origin: Origin;
  readonly counts: IntakeCounts;
  readonly scope: string;
  readonly failed: () => void;
  readonly methods: ReadonlySet<string>;
  /** Null: nothing is limited. */
  readonly limiter: HookLimiter | null;
  /** Null: a receipt. */
  readonly answer: HookAnswer | null;
}

/** Makes the handler of all hooks. */
export function hookHandler(services: HttpServices): HookHandler {
  const states = new WeakMap<HookFace, HookState>();
  const stateOf = (hook: HookFace): HookState => {
    let state = states.get(hook);
    if (state === undefined) {
      state = hookState(hook, services);
      states.set(hook, state);
    }
    return state;
  };
  return async (request, server) => {
    const hook = services.gateway.hook(request.params.hook);
    if (hook === undefined) {
      services.telemetry.intake("hook").count("not-found");
      const unknown = new NotFoundError("there is no such hook");
      return failureResponse(unknown, services.telemetry);
    }
    const state = stateOf(hook);
    const call = { request, server, services };
    try {
      if (request.method !== "POST" || !state.methods.has("POST")) {
        const probe = await probeAnswer(hook, request);
        if (probe !== null) return counted(probe, state.counts, "probe");
      }
      return await limited(hook, state, call);
    } catch (error) {
      const failure = appendFailure(error);
      state.counts.count(failure instanceof GatewayError ? failure.code : "internal");
      return failureResponse(failure, services.telemetry);
    }
  };
}

interface Call {
  readonly request: Request;
  readonly server: HookServer;
  readonly services: HttpServices;
}

function counted(response: Response, counts: IntakeCounts, code: string): Response {
  counts.count(code);
  return response;
}

async function limited(hook: HookFace, state: HookState, call: Call): Promise<Response> {
  const { limiter, counts } = state;
  if (limiter === null) return await take(hook, state, call);
  const refusal = limiter.enter();
  if (refusal !== null) return counted(refusal, counts, "rate-limited");
  try {
    return limiter.mark(await take(hook, state, call));
  } finally {
    limiter.leave();
  }
}

async function take(hook: HookFace, state: HookState, call: Call): Promise<Response> {
  const { request, server, services } = call;
  const atMs = services.clock.nowMs();
  const body = await readBody(request, server, hook.document.limits.bodyBytes);
  let { origin } = state;
  if (hook.document.verify !== null) {
    const verified = await verify(hook, { call, body, atMs });
    if (verified.handshake !== null) return counted(verified.handshake, state.counts, "handshake");
    origin = { ...origin, http: verified.http };
  }
  const message = messageOf(call, { body, atMs, origin });
  const dedupeKey = prepare(hook, state, message, request.headers);
  const stream = services.gateway.streams.stream(hook.document.stream);
  const { durable, receipt } = stream.appendOne(message, { dedupeKey });
  await whenDurable(durable, services);
  state.counts.accepted++;
  if (state.answer !== null) return fixedResponse(state.answer);
  if (!receipt.duplicate) return acceptedResponse(receiptJson(receipt));
  return acceptedResponse(receiptJson(await settledReceipt(stream, receipt, null)));
}

function fixedResponse({ status, body, contentType }: HookAnswer): Response {
  const headers = {
    "x-content-type-options": "nosniff",
    ...(contentType === null ? {} : { "content-type": contentType }),
  };
  return new Response(body === "" ? null : body, { status, headers });
}

/** @throws UnauthorizedError, HookUnavailableError: nothing was changed. */
async function verify(
  hook: HookFace,
  { call, body, atMs }: { readonly call: Call; readonly body: Uint8Array; readonly atMs: number },
): Promise<{ readonly http: HttpOrigin; readonly handshake: Response | null }> {
  const { request, server, services } = call;
  const { verifier } = hook;
  if (verifier === undefined) {
    throw new HookUnavailableError("the hook's keys have not been read");
  }
  await verifier.ready();
  const { method, headers } = request;
  const { path, query } = splitUrl(request.url);
  const url = verifier.signedUrl(services.config.publicUrl, path);
  const key = verifier.check({ method, path, query, headers, body, url, atMs });
  const handshake = verifier.scheme?.handshake ?? null;
  const address = server.requestIP(request)?.address;
  const http: HttpOrigin = {
    method,
    path,
    ...(query === "" ? {} : { query }),
    ...(address === undefined ? {} : { remoteAddress: address }),
    ...(url === null ? {} : { url }),
    ...proofOf(verifier, key),
  };
  return { http, handshake: handshake === null ? null : handshakeAnswer(handshake, body, key) };
}

function proofOf(verifier: Verifier, key: VerifyKey): Pick<HttpOrigin, "scheme" | "keyId"> {
  return { scheme: verifier.schemeName ?? "none", keyId: key.id };
}

function hookState(hook: HookFace, { telemetry, clock }: HttpServices): HookState {
  const { document, name, verifier } = hook;
  const { limits, methods } = document;
  const schemeAnswer = verifier?.scheme?.answer ?? null;
  const isLimited = limits.rate !== null || limits.concurrency !== null;
  return {
    origin: { bridge: "http", address: name, partition: null, offset: null, hops: [] },
    counts: telemetry.intake(`hook/${name}`),
    scope: `hook:${name}`,
    failed: () => telemetry.expressionFailed("hook", name),
    methods: new Set(methods),
    limiter: isLimited ? new HookLimiter(limits, clock) : null,
    answer:
      document.answer ??
      (schemeAnswer === null ? null : { status: schemeAnswer.status, body: "", contentType: null }),
  };
}

/** A message whose key is found by looking at the message. */
interface KeylessMessage extends Message {
  key: Uint8Array | null;
}

function messageOf(
  { request, services }: Call,
  parts: { readonly body: Uint8Array; readonly atMs: number; readonly origin: Origin },
): KeylessMessage {
  const headers: Header[] = [];
  for (const [name, value] of request.headers) {
    if (!LEFT_OUT.has(name)) headers.push({ name, value: headerBytes(value) });
  }
  return {
    id: services.ids(),
    key: null,
    properties: contentProperties(request.headers),
    headers,
    body: parts.body,
    timestampMs: parts.atMs,
    origin: parts.origin,
  };
}

/** What a request's headers say of its body. */
export function contentProperties(headers: Headers): Message["properties"] {
  const type = headers.get("content-type");
  const encoding = headers.get("content-encoding");
  if (encoding === null) return type === null ? {} : { contentType: headerText(type) };
  const contentEncoding = headerText(encoding);
  return type === null ? { contentEncoding } : { contentType: headerText(type), contentEncoding };
}

/** Gives the message its key; the dedupe key, or null. What the log could not hold is none. */
function prepare(
  hook: HookFace,
  state: HookState,
  message: KeylessMessage,
  headers: Headers,
): string | null {
  if (hook.key !== null) {
    const key = keyFrom(hook.key, message, state.failed);
    if (key !== null && key.length > keyBytesMax) state.failed();
    // An empty key is a missing header or field: it must not put everything in one place.
    else if (key !== null && key.length > 0) message.key = key;
  }
  const { scope: name, failed } = state;
  if (hook.dedupe !== null) return dedupeFrom(hook.dedupe, message, { name, failed });
  if (hook.document.dedupe === false || hook.verifier === undefined) return null;
  return senderId(hook.verifier, name, message, headers);
}

/** The id that the scheme's provider gives each message; many kinds of messages have none. */
function senderId(
  verifier: Verifier,
  name: string,
  message: Message,
  headers: Headers,
): string | null {
  const expression = verifier.dedupeExpression;
  if (expression !== null) return dedupeFrom(expression, message, { name, failed: NOT_COUNTED });
  const dedupe = verifier.scheme?.dedupe ?? null;
  if (dedupe === null || !("headers" in dedupe)) return null;
  const value = dedupe.headers.map((each) => headers.get(each)).find((each) => each !== null);
  if (value === undefined || value === null || value === "") return null;
  const key = `${name}/${value}`;
  if (Buffer.byteLength(key) <= dedupeKeyBytesMax) return key;
  return `${name}#${new Bun.CryptoHasher("sha256").update(value).digest("hex")}`;
}

const NOT_COUNTED = (): void => undefined;
