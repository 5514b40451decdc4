/**
 * `GET /streams/:stream/messages`: a page of a stream. Ordered within each partition, bounded in
 * messages, bytes and time; `next` goes on exactly behind what was given, filtered messages
 * included.
 */
import type { Clock } from "../clock.ts";
import { UnauthorizedError } from "../errors.ts";
import {
  readBytesMax,
  readMessagesDefault,
  readMessagesMax,
  readScanMsMax,
  readStepBytes,
  readStepMessages,
  readWaitMsMax,
} from "../limits.ts";
import { type Cursor, encodeCursor } from "../log/cursor.ts";
import type { Gap, StreamBatch } from "../log/stream-reader.ts";
import type { Stream } from "../log/stream.ts";
import type { StoredMessage } from "../message.ts";
import { type Principal, readReach } from "../rules/store/roles.ts";
import { readableStream } from "./append.ts";
import { requireRead } from "./auth.ts";
import { messageJson } from "./message-json.ts";
import { adjusted, cursorAtMessage, gapJson, placeCursor } from "./position.ts";
import { openRange, type Range, Selection } from "./range.ts";
import { Query } from "./request.ts";
import type { ReadTurns } from "./read-turns.ts";
import type { HttpContext } from "./services.ts";

const PARAMETERS = ["partition", "from", "to", "max", "wait", "where", "as", "key"] as const;

/** What a client asks to read. */
export interface ReadRequest {
  readonly stream: Stream;
  readonly only: number | null;
  readonly cursor: Cursor;
  /** What was asked for and is gone. */
  readonly gaps: readonly Gap[];
  readonly end: Cursor | null;
  readonly selection: Selection;
  /** Who reads, for answers that take long; what is read and what of it was asked for. */
  readonly principal: Principal;
  /** Null: not said. */
  readonly max: number | null;
  readonly waitMs: number;
}

/** Who reads what: a stream by name, for a caller who must be allowed to. */
export interface ReadCall {
  readonly url: string;
  readonly streamName: string;
  readonly principal: Principal;
  /** Where reading begins when the request doesn't say. */
  readonly fallback: "earliest" | "latest";
  /** Goes before the request's own `from`. */
  readonly resumeFrom: string | null;
}

/** Reads a request's query. @throws InvalidError, ForbiddenError, OffsetError */
export async function readRequest(call: ReadCall, context: HttpContext): Promise<ReadRequest> {
  const query = new Query(call.url, PARAMETERS);
  const key = query.text("key");
  const reach = requireRead(call.principal, call.streamName, key);
  const stream = readableStream(context, call.streamName);
  const only = query.count("partition", { min: 0, max: stream.partitions.length - 1 });
  const selection = new Selection({ key, where: query.text("where"), as: query.text("as") }, reach);
  const max = query.count("max", { min: 1, max: readMessagesMax });
  const waitMs = query.durationMs("wait", readWaitMsMax) ?? 0;
  const place = { stream, partition: only, nowMs: context.clock.nowMs() };
  const from = call.resumeFrom ?? query.text("from") ?? call.fallback;
  const wanted = await placeCursor(from, { ...place, name: "from" });
  const to = query.text("to");
  const end = to === null ? null : await placeCursor(to, { ...place, name: "to" });
  const { principal } = call;
  return {
    stream,
    only,
    ...adjusted(stream, wanted, only),
    end,
    selection,
    principal,
    max,
    waitMs,
  };
}

/**
 * Ends an answer that takes long when its caller may not have it any more; other grants count at
 * once. `ended` is told why. Call what it gives once the answer has ended.
 */
export function watchReader(
  { principal, stream, selection }: ReadRequest,
  { callers }: Pick<HttpContext, "callers">,
  ended: (reason: UnauthorizedError) => void,
): () => void {
  return callers.watch(principal, (standing) => {
    if (typeof standing === "string") {
      return ended(new UnauthorizedError(`the token does not count any more: ${standing}`));
    }
    const reach = readReach(standing, stream.name, selection.key);
    selection.restrict(reach);
    if (reach === null) ended(new UnauthorizedError("the token does not allow this any more"));
  });
}

/** The page that a request asks for. `signal` aborts when the caller has gone. */
export async function readPage(
  request: ReadRequest,
  context: HttpContext,
  signal: AbortSignal,
): Promise<Response> {
  const range = openRange(request.stream, request.cursor, request);
  const page = new Page(request, range, context);
  const waiting = AbortSignal.any([signal, context.stopping, page.waited]);
  const timer = page.startWaiting(request.waitMs);
  const refused: UnauthorizedError[] = [];
  const unwatch = watchReader(request, context, (reason) => {
    refused.push(reason);
    page.endWaiting();
  });
  try {
    await page.fill(waiting);
  } finally {
    unwatch();
    page.endWaiting();
    await timer;
  }
  const [reason] = refused;
  if (reason !== undefined) throw reason;
  const headers = { "content-type": "application/json", "cache-control": "no-store" };
  return new Response(page.text(), { headers });
}

/** One page as it is filled. */
class Page {
  readonly #request: ReadRequest;
  readonly #range: Range;
  readonly #clock: Clock;
  readonly #turns: ReadTurns;
  readonly #done = new AbortController();
  readonly #messages: string[] = [];
  readonly #gaps: Gap[];
  #bytes = 0;
  /** The first message that was read and is not in the page. */
  #resumeAt: StoredMessage | null = null;

  constructor(request: ReadRequest, range: Range, { clock, turns }: HttpContext) {
    this.#request = request;
    this.#range = range;
    this.#clock = clock;
    this.#turns = turns;
    this.#gaps = [...request.gaps];
  }

  /** Aborted once there is nothing more to wait for. */
  get waited(): AbortSignal {
    return this.#done.signal;
  }

  /** Ends the wait after `waitMs`; at once when no wait is wanted. Own the result. */
  async startWaiting(waitMs: number): Promise<void> {
    await this.#clock.sleep(waitMs, this.#done.signal);
    this.#done.abort();
  }

  endWaiting(): void {
    this.#done.abort();
  }

  async fill(waiting: AbortSignal): Promise<void> {
    const { selection, waitMs } = this.#request;
    const max = this.#request.max ?? readMessagesDefault;
    let scanStartMs = this.#clock.monotonicMs();
    const never = new AbortController().signal;
    while (this.#messages.length < max && this.#bytes < readBytesMax) {
      const left = max - this.#messages.length;
      const wait = waitMs > 0 && this.#messages.length === 0 && this.#range.atEnd;
      const batch = await this.#range.next({
        messagesMax: selection.isPartial ? readStepMessages : Math.min(left, readStepMessages),
        bytesMax: readStepBytes,
        wait,
        signal: wait ? waiting : never,
      });
      if (wait) scanStartMs = this.#clock.monotonicMs();
      if (batch === null) return;
      this.#gaps.push(...batch.gaps);
      this.#take(batch, max);
      const isLong = this.#clock.monotonicMs() - scanStartMs > readScanMsMax;
      if (selection.isPartial && isLong) return;
      await this.#turns.next();
    }
  }

  #take(batch: StreamBatch, max: number): void {
    const { selection } = this.#request;
    for (const message of batch.messages) {
      if (this.#messages.length >= max || this.#bytes >= readBytesMax) {
        this.#resumeAt ??= message;
        return;
      }
      if (!selection.takes(message)) continue;
      const text = messageJson(message, selection.form);
      this.#bytes += text.length;
      this.#messages.push(text);
    }
  }

  /** Behind all that was given; what was read beyond the bounds is read again. */
  get #next(): Cursor {
    const cursor = this.#range.cursor;
    const again = this.#resumeAt;
    if (again === null) return cursor;
    return cursorAtMessage(cursor, again, "before");
  }

  text(): string {
    const [gap] = this.#gaps;
    const gaps = this.#gaps.length > 1 ? `,"gaps":[${this.#gaps.map(gapJson).join(",")}]` : "";
    return (
      `{"messages":[${this.#messages.join(",")}],"next":"${encodeCursor(this.#next)}",` +
      `"atEnd":${this.#resumeAt === null && this.#range.atEnd},"gap":${gap === undefined ? "null" : gapJson(gap)}${gaps}}`
    );
  }
}
