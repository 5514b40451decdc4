/**
 * What the ways in have in common: receipts, the time of an ack, and what a failed append means
 * to a sender. A log that can't take a message now is a 503 and never the sender's fault.
 */
import {
  ClientLimitError,
  ConflictError,
  GapError,
  InvalidError,
  LimitError,
  StorageError,
} from "../errors.ts";
import { idempotencyKeyCharsMax } from "../limits.ts";
import type { Receipt } from "../log/log.ts";
import type { Stream } from "../log/stream.ts";
import type { Message, StoredMessage } from "../message.ts";
import type { Principal } from "../rules/store/roles.ts";
import { isName, isReadableStream, NAME_FORM } from "../rules/units.ts";
import type { HttpServices } from "./services.ts";

/** For reads that nobody aborts. */
const NEVER = new AbortController().signal;

/** States are read by nobody: they hold what clients have done, of all of them. */
const HIDDEN_STREAM = "$state";

/** Made once: turning an object into headers takes as long as all the rest of an answer. */
const ACCEPTED: ResponseInit = {
  status: 202,
  headers: new Headers({
    "content-type": "application/json",
    "x-content-type-options": "nosniff",
  }),
};

/** The 202 that proves an append. */
export function acceptedResponse(body: string): Response {
  return new Response(body, ACCEPTED);
}

/**
 * A receipt as JSON. The stream's name needs no escape; nor does an id, which is ours, but that of
 * a duplicate's first one, which may be a client's own.
 */
export function receiptJson({ id, stream, partition, offset, duplicate }: Receipt): string {
  const place = `"stream":"${stream}","partition":${partition},"offset":${offset}`;
  return duplicate
    ? `{"id":${JSON.stringify(id)},${place},"duplicate":true,"durable":"fsync"}`
    : `{"id":"${id}",${place},"duplicate":false,"durable":"fsync"}`;
}

/** The stream to write to. @throws InvalidError it is no name that a stream can have. */
export function writableStream(services: Pick<HttpServices, "gateway">, name: string): Stream {
  const known = services.gateway.streams.find(name);
  if (known !== undefined && !name.startsWith("$")) return known;
  if (isName(name)) return services.gateway.streams.stream(name);
  throw new InvalidError(`${JSON.stringify(name.slice(0, 120))} can't be a stream's name`, [
    { pointer: "/stream", detail: `expected ${NAME_FORM}` },
  ]);
}

/** The stream to read from: it exists as soon as it is named. @throws InvalidError */
export function readableStream(services: Pick<HttpServices, "gateway">, name: string): Stream {
  if (isReadableStream(name) && name !== HIDDEN_STREAM)
    return services.gateway.streams.stream(name);
  throw new InvalidError(`${JSON.stringify(name.slice(0, 120))} can't be a stream's name`, [
    { pointer: "/stream", detail: `expected ${NAME_FORM}` },
  ]);
}

/** What a failed append is to its sender: never a 4xx for a log that takes nothing now. */
export function appendFailure(error: unknown): unknown {
  if (!(error instanceof LimitError) || error.code === "too-large") return error;
  if (error instanceof ClientLimitError) return error;
  return new StorageError(error.message, { cause: error });
}

/**
 * Waits for the disk, and takes the time of the first of each commit group. The group's own promise
 * is what all wait for, so that they go on in the order in which they came.
 */
export function whenDurable(
  durable: Promise<void>,
  { clock, telemetry }: Pick<HttpServices, "clock" | "telemetry">,
): Promise<void> {
  if (telemetry.isFirstOfGroup(durable)) {
    const startedMs = clock.monotonicMs();
    durable.then(() => telemetry.acked(clock.monotonicMs() - startedMs), toldToCaller);
  }
  return durable;
}

/** The caller waits for the same promise and is told of the failure there. */
function toldToCaller(): void {}

/** A message by its place; null when it is not (or no longer) there. */
export async function storedAt(
  stream: Stream,
  place: { readonly partition: number; readonly offset: number },
): Promise<StoredMessage | null> {
  const partition = stream.partitions[place.partition];
  if (partition === undefined || place.offset >= partition.offsetEnd) return null;
  try {
    const batch = await partition.read(place.offset, { messagesMax: 1, signal: NEVER });
    const message = batch?.messages[0];
    return message?.offset === place.offset ? message : null;
  } catch (error) {
    if (error instanceof GapError) return null;
    throw error;
  }
}

/**
 * The receipt as its sender sees it: of a duplicate the first one's, with the first one's id.
 * @throws ConflictError `idempotency-key-reused`: the first one had another body.
 */
export async function settledReceipt(
  stream: Stream,
  receipt: Receipt,
  compare: Message | null,
): Promise<Receipt> {
  if (!receipt.duplicate) return receipt;
  const first = await storedAt(stream, receipt);
  if (first === null) return receipt;
  if (compare !== null && !equalBytes(first.body, compare.body)) {
    throw new ConflictError(
      "idempotency-key-reused",
      "this key was used before, with another body",
      { partition: receipt.partition, offset: receipt.offset },
    );
  }
  return { ...receipt, id: first.id };
}

function equalBytes(left: Uint8Array | null, right: Uint8Array | null): boolean {
  if (left === null || right === null) return left === right;
  return left.length === right.length && Buffer.compare(left, right) === 0;
}

/** A client's own key for a call as a dedupe key: its owner's only, whichever way it comes. */
export function scopedKey(principal: Principal, key: string): string {
  return `client/${encodeURIComponent(principal.subject)}/${key}`;
}

/** What an `Idempotency-Key` header says: a structured-field string, or a bare token. */
export function idempotencyKey(header: string | null): string | null {
  if (header === null) return null;
  const value = header.trim();
  const quoted = /^"((?:[ !#-[\]-~]|\\["\\])*)"$/.exec(value);
  const key = quoted === null ? value : (quoted[1] ?? "").replaceAll(/\\(.)/g, "$1");
  const isBare = /^[\x21\x23-\x7e]+$/.test(value);
  if (key !== "" && key.length <= idempotencyKeyCharsMax && (quoted !== null || isBare)) return key;
  const detail = `expected a quoted string of 1 to ${idempotencyKeyCharsMax} ASCII characters`;
  throw new InvalidError(`Idempotency-Key: ${detail}`, [{ pointer: "/Idempotency-Key", detail }]);
}
