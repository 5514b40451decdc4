/**
 * `POST /streams/:stream/messages`: the body's bytes as one message, or many messages as NDJSON or
 * a CloudEvents batch. Answered once everything is on disk; all of a call is taken or nothing.
 */
import type { BunRequest, Server } from "bun";
import { eventMode } from "../cloudevents/event.ts";
import { GatewayError, InvalidError } from "../errors.ts";
import { batchRequestBytesMax, dedupeKeyBytesMax, bodyBytesMax } from "../limits.ts";
import type { Stream } from "../log/stream.ts";
import { type Header, HOPS_HEADER, type Message, type Origin, sharedOrigin } from "../message.ts";
import { parseHops } from "../routing/hops.ts";
import type { Principal } from "../rules/store/roles.ts";
import {
  acceptedResponse,
  appendFailure,
  idempotencyKey,
  receiptJson,
  scopedKey,
  settledReceipt,
  whenDurable,
  writableStream,
} from "./append.ts";
import { callerOf, admitWrite } from "./auth.ts";
import { binaryEvent, parseBatch, parseStructured } from "./cloudevents.ts";
import type { Draft } from "./message-input.ts";
import { parseLines } from "./ndjson.ts";
import { failureResponse } from "./problem.ts";
import { contentProperties, headerBytes, Query, readBody, type TimeoutServer } from "./request.ts";
import type { HttpContext } from "./services.ts";

/** The answer to a publish. */
export type PublishHandler = (
  request: BunRequest<"/streams/:stream/messages">,
  server: CallServer,
) => Promise<Response>;

type CallServer = TimeoutServer & Pick<Server<unknown>, "requestIP">;

const HEADER_PREFIX = "isthmus-header-";
const NDJSON = /^application\/(x-ndjson|ndjson|jsonl|x-jsonlines)\s*(;|$)/i;

interface Call {
  readonly request: Request;
  readonly server: CallServer;
  readonly services: HttpContext;
  readonly principal: Principal;
  readonly stream: Stream;
}

/** Makes the handler. */
export function publishHandler(services: HttpContext): PublishHandler {
  const counts = services.telemetry.intake("publish");
  return async (request, server) => {
    try {
      const principal = await callerOf(request, services.callers);
      const stream = writableStream(services, request.params.stream);
      const { messages, response } = await publish({
        request,
        server,
        services,
        principal,
        stream,
      });
      counts.accepted += messages;
      return response;
    } catch (error) {
      const failure = appendFailure(error);
      counts.count(failure instanceof GatewayError ? failure.code : "internal");
      return failureResponse(failure, services.telemetry);
    }
  };
}

async function publish(call: Call): Promise<{ messages: number; response: Response }> {
  const { drafts, isList } = await draftsOf(call);
  countCall(call, drafts);
  const hops = parseHops(call.request.headers.get(HOPS_HEADER) ?? "");
  const from = publishOrigin("http", call.stream.name, call.principal);
  const origin = sharedOrigin(hops === null ? from : { ...from, hops });
  const messages = drafts.map((draft) => messageOf(draft, origin, call));
  const receipts = await append(messages, call, isList);
  const texts = receipts.map(receiptJson);
  const text = isList ? `[${texts.join(",")}]` : (texts[0] ?? "");
  return { messages: messages.length, response: acceptedResponse(text) };
}

/** @throws ClientLimitError the caller or its address has sent more than it may in this time. */
function countCall({ request, server, services, principal }: Call, drafts: readonly Draft[]): void {
  const { clients, proxies } = services;
  if (!clients.isRated) return;
  const { address } = proxies.caller(request.headers, server.requestIP(request)?.address ?? null);
  const bytes = drafts.reduce((sum, { body }) => sum + (body?.length ?? 0), 0);
  clients.call({ address, subject: principal.subject }, drafts.length, bytes);
}

/** The messages of a request; with `isList` the answer is a list, however many they are. */
async function draftsOf(call: Call): Promise<{ drafts: readonly Draft[]; isList: boolean }> {
  const { request, server, services } = call;
  const contentType = request.headers.get("content-type") ?? "";
  const nowMs = services.clock.nowMs();
  if (NDJSON.test(contentType)) {
    const body = await readBody(request, server, batchRequestBytesMax);
    return { drafts: parseLines(body, nowMs), isList: true };
  }
  const mode = eventMode(contentType);
  if (mode === "batch") {
    const body = await readBody(request, server, batchRequestBytesMax);
    return { drafts: parseBatch(body, nowMs), isList: true };
  }
  const body = await readBody(request, server, bodyBytesMax);
  const raw = rawDraft(request.headers, body, nowMs);
  const draft = mode === "structured" ? parseStructured(raw) : binaryEvent(request.headers, raw);
  return { drafts: [draft], isList: false };
}

function rawDraft(from: Headers, body: Uint8Array, timestampMs: number): Draft {
  const headers: Header[] = [];
  for (const [name, value] of from) {
    if (!name.startsWith(HEADER_PREFIX) || name.length === HEADER_PREFIX.length) continue;
    headers.push({ name: name.slice(HEADER_PREFIX.length), value: headerBytes(value) });
  }
  const key = from.get("isthmus-key");
  return {
    key: key === null ? null : headerBytes(key),
    properties: contentProperties(from),
    headers,
    body,
    timestampMs,
  };
}

/** The origin of what clients publish to a stream. */
export function publishOrigin(
  bridge: "http" | "socket",
  stream: string,
  principal: Principal,
): Origin {
  const origin = { bridge, address: stream, partition: null, offset: null, hops: [] };
  return principal.role === null ? { ...origin, principal: principal.subject } : origin;
}

function messageOf(draft: Draft, origin: Origin, call: Call): Message {
  const { key, properties, headers, body, timestampMs } = draft;
  const id = call.services.ids();
  const message = { id, key, properties, headers, body, timestampMs, origin };
  return admitWrite(call.principal, call.stream.name, message);
}

async function append(messages: readonly Message[], call: Call, isList: boolean) {
  const { request, stream, services } = call;
  const idempotency = idempotencyKey(request.headers.get("idempotency-key"));
  const keyAt = (index: number): string =>
    dedupeKeyOf(call.principal, isList ? `${idempotency}#${index}` : `${idempotency}`);
  const known = idempotency === null ? null : { dedupeKeys: messages.map((_, at) => keyAt(at)) };
  const { durable, receipts } = stream.append(messages, { ...known, ...placeOf(call) });
  await whenDurable(durable, services);
  if (!receipts.some((receipt) => receipt.duplicate)) return receipts;
  return await Promise.all(
    receipts.map((receipt, index) => settledReceipt(stream, receipt, messages[index] ?? null)),
  );
}

/** The scoped key; of a very long subject its digest stands for it. */
export function dedupeKeyOf(principal: Principal, key: string): string {
  const scoped = scopedKey(principal, key);
  if (Buffer.byteLength(scoped) <= dedupeKeyBytesMax) return scoped;
  return `client#${new Bun.CryptoHasher("sha256").update(scoped).digest("hex")}`;
}

/** Where the caller wants the messages: a partition, and the end that it must have. */
function placeOf({ request, stream }: Call): { partition?: number; expectedOffset?: number } {
  const query = new Query(request.url, ["partition"]);
  const partition = query.count("partition", { min: 0, max: stream.partitions.length - 1 });
  const condition = request.headers.get("if-match");
  const place = partition === null ? {} : { partition };
  if (condition === null) return place;
  const match = /^\s*(?:"(\d{1,15})"|(\d{1,15}))\s*$/.exec(condition);
  const expectedOffset = Number(match?.[1] ?? match?.[2]);
  if (match === null) throw refusedCondition("expected an offset, such as 42");
  if (partition === null && stream.partitions.length > 1) {
    throw refusedCondition("this stream has several partitions: name one with ?partition=");
  }
  return { ...place, expectedOffset };
}

function refusedCondition(detail: string): InvalidError {
  return new InvalidError(`If-Match: ${detail}`, [{ pointer: "/If-Match", detail }]);
}
