/**
 * `POST /hooks/:hook`: takes a webhook's body as a message and answers once it is on disk. The hot
 * path: one look-up, one pass over the headers, one append, one await for the disk. `key` and
 * `dedupe` that fail give none and are counted; a hook never answers 4xx for them.
 */
import type { BunRequest } from "bun";
import { GatewayError, NotFoundError, UnauthorizedError } from "../errors.ts";
import { dedupeKeyBytesMax, keyBytesMax, bodyBytesMax } from "../limits.ts";
import type { Header, Message, Origin } from "../message.ts";
import { dedupeFrom, keyFrom } from "../routing/keys.ts";
import type { IntakeCounts } from "../telemetry.ts";
import {
  acceptedResponse,
  appendFailure,
  receiptJson,
  settledReceipt,
  whenDurable,
} from "./append.ts";
import { failureResponse } from "./problem.ts";
import { headerBytes, headerText, readBody, type TimeoutServer } from "./request.ts";
import type { HookFace, HttpServices } from "./services.ts";

/** The answer to a webhook. */
export type HookHandler = (
  request: BunRequest<"/hooks/:hook">,
  server: TimeoutServer,
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
]);

/** What does not change between two messages of a hook. */
interface HookState {
  readonly origin: Origin;
  readonly counts: IntakeCounts;
  readonly scope: string;
  readonly failed: () => void;
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
    try {
      const answer = await take(hook, state, { request, server, services });
      state.counts.accepted++;
      return answer;
    } catch (error) {
      const failure = appendFailure(error);
      state.counts.count(failure instanceof GatewayError ? failure.code : "internal");
      return failureResponse(failure, services.telemetry);
    }
  };
}

interface Call {
  readonly request: Request;
  readonly server: TimeoutServer;
  readonly services: HttpServices;
}

async function take(hook: HookFace, state: HookState, call: Call): Promise<Response> {
  const { gateway } = call.services;
  if (hook.document.verify !== null) {
    throw new UnauthorizedError("this hook's signatures can't be verified", "signature-invalid");
  }
  const message = messageOf(state, call, await readBody(call.request, call.server, bodyBytesMax));
  const dedupeKey = prepare(hook, state, message);
  const stream = gateway.streams.stream(hook.document.stream);
  const { durable, receipt } = stream.appendOne(message, { dedupeKey });
  await whenDurable(durable, call.services);
  if (!receipt.duplicate) return acceptedResponse(receiptJson(receipt));
  return acceptedResponse(receiptJson(await settledReceipt(stream, receipt, null)));
}

function hookState(hook: HookFace, { telemetry }: HttpServices): HookState {
  return {
    origin: { bridge: "http", address: hook.name, partition: null, offset: null, hops: [] },
    counts: telemetry.intake(`hook/${hook.name}`),
    scope: `hook:${hook.name}`,
    failed: () => telemetry.expressionFailed("hook", hook.name),
  };
}

/** A message whose key is found by looking at the message. */
interface KeylessMessage extends Message {
  key: Uint8Array | null;
}

function messageOf(state: HookState, call: Call, body: Uint8Array): KeylessMessage {
  const headers: Header[] = [];
  for (const [name, value] of call.request.headers) {
    if (!LEFT_OUT.has(name)) headers.push({ name, value: headerBytes(value) });
  }
  return {
    id: call.services.ids(),
    key: null,
    properties: contentProperties(call.request.headers),
    headers,
    body,
    timestampMs: call.services.clock.nowMs(),
    origin: state.origin,
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
function prepare(hook: HookFace, state: HookState, message: KeylessMessage): string | null {
  if (hook.key !== null) {
    const key = keyFrom(hook.key, message, state.failed);
    if (key !== null && key.length > keyBytesMax) state.failed();
    // An empty key is a missing header or field: it must not put everything in one place.
    else if (key !== null && key.length > 0) message.key = key;
  }
  if (hook.dedupe === null) return null;
  const { scope: name, failed } = state;
  const dedupeKey = dedupeFrom(hook.dedupe, message, { name, failed });
  // The same with nothing behind the scope: two messages without an id are not the same message.
  if (dedupeKey === null || dedupeKey === `${name}/`) return null;
  if (Buffer.byteLength(dedupeKey) <= dedupeKeyBytesMax) return dedupeKey;
  return `${name}#${new Bun.CryptoHasher("sha256").update(dedupeKey).digest("hex")}`;
}
