/**
 * `GET /streams/:stream/events`: Server-Sent Events. A client is a cursor, never a queue: the next
 * messages are read when its connection takes more. `id` is the cursor behind the message, so a
 * client that comes back with `Last-Event-ID` misses nothing.
 */
import type { Clock } from "../clock.ts";
import { errorText, GatewayError } from "../errors.ts";
import {
  cursorTellMs,
  eventsPingMs,
  eventsRetryMs,
  readStepBytes,
  readStepMessages,
} from "../limits.ts";
import { type Cursor, encodeCursor } from "../log/cursor.ts";
import type { Gap, StreamBatch } from "../log/stream-reader.ts";
import { encodeText } from "../message.ts";
import { messageJson } from "./message-json.ts";
import { cursorAtMessage, gapJson } from "./position.ts";
import { openRange, type Range } from "./range.ts";
import { type ReadRequest, watchReader } from "./read.ts";
import type { HttpContext } from "./services.ts";

const HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-store",
  "x-accel-buffering": "no",
  "x-content-type-options": "nosniff",
};
const PING = ": ping\n\n";

/** The stream of events; 204 when there is nothing to come, which tells clients to stop. */
export function eventsResponse(
  request: ReadRequest,
  context: HttpContext,
  signal: AbortSignal,
): Response {
  const range = openRange(request.stream, request.cursor, request);
  if (request.end !== null && range.atEnd) return new Response(null, { status: 204 });
  const events = new Events(request, range, context, signal);
  const { telemetry } = context;
  const watching = watchReader(request, context, () => events.cancel());
  telemetry.eventClients++;
  let isCounted = true;
  const unwatch = (): void => {
    watching();
    if (isCounted) telemetry.eventClients--;
    isCounted = false;
  };
  // The request ends when its answer has, whoever ended it.
  signal.addEventListener("abort", unwatch, { once: true });
  const body = new ReadableStream<Uint8Array>({
    pull: async (controller) => {
      const text = await events.next();
      if (text === null) {
        unwatch();
        controller.close();
      } else controller.enqueue(encodeText(text));
    },
    cancel: () => {
      unwatch();
      events.cancel();
    },
  });
  return new Response(body, { headers: HEADERS });
}

/** What one client is told, piece by piece, as it takes them. */
class Events {
  readonly #request: ReadRequest;
  readonly #range: Range;
  readonly #clock: Clock;
  readonly #context: HttpContext;
  readonly #gone = new AbortController();
  readonly #signal: AbortSignal;
  /** Gaps not told yet. */
  #gaps: readonly Gap[];
  /** A read that is under way while the client is told that nothing has come. */
  #reading: Promise<StreamBatch | null> | null = null;
  #given = 0;
  #isOver = false;
  #isBegun = false;
  #hasUntold = false;
  #toldMs: number;
  #writtenMs: number;

  constructor(request: ReadRequest, range: Range, context: HttpContext, signal: AbortSignal) {
    this.#request = request;
    this.#range = range;
    this.#context = context;
    this.#clock = context.clock;
    this.#signal = AbortSignal.any([signal, context.stopping, this.#gone.signal]);
    this.#gaps = request.gaps;
    this.#toldMs = this.#clock.monotonicMs();
    this.#writtenMs = this.#toldMs;
  }

  /** The client has gone. */
  cancel(): void {
    this.#gone.abort();
  }

  /** The next piece; null at the end. */
  async next(): Promise<string | null> {
    if (this.#gaps.length > 0) {
      const text = this.#gapEvents(this.#gaps, this.#request.cursor);
      this.#gaps = [];
      return this.#written(text);
    }
    while (!this.#isOver) {
      const piece = await this.#step();
      if (piece !== "") return this.#written(piece);
    }
    return null;
  }

  /** Some text, or none when there is nothing to say yet. */
  async #step(): Promise<string> {
    this.#reading ??= this.#read();
    const pause = new AbortController();
    const tick = this.#clock.sleep(cursorTellMs, AbortSignal.any([pause.signal, this.#signal]));
    const batch = await Promise.race([this.#reading, tick]);
    pause.abort();
    if (this.#signal.aborted) this.#isOver = true;
    if (batch === undefined) return this.#idle();
    this.#reading = null;
    if (batch === null) {
      this.#isOver = true;
      return "";
    }
    // Messages that are all left out must not keep the loop from turning.
    await this.#context.turns.next();
    return this.#texts(batch);
  }

  async #read(): Promise<StreamBatch | null> {
    const { max } = this.#request;
    const left = (max ?? Number.POSITIVE_INFINITY) - this.#given;
    if (left <= 0) return null;
    try {
      return await this.#range.next({
        messagesMax: Math.min(left, readStepMessages),
        bytesMax: readStepBytes,
        wait: true,
        signal: this.#signal,
      });
    } catch (error) {
      // The answer has begun: the stream ends, and the client's next request is told why.
      const { logger } = this.#context.telemetry;
      const level = error instanceof GatewayError ? "warn" : "error";
      logger[level]({ err: error, stream: this.#request.stream.name }, errorText(error));
      return null;
    }
  }

  #texts(batch: StreamBatch): string {
    const { selection } = this.#request;
    const { cursor } = this.#range;
    const [first] = batch.messages;
    // Behind the gap and before the messages: who comes back from here must not miss them.
    const behindGap = first === undefined ? cursor : cursorAtMessage(cursor, first, "before");
    let text = this.#gapEvents(batch.gaps, behindGap);
    for (const message of batch.messages) {
      if (!selection.takes(message)) continue;
      this.#given++;
      this.#context.telemetry.eventMessages++;
      const id = encodeCursor(cursorAtMessage(cursor, message, "after"));
      text += `id: ${id}\nevent: message\ndata: ${messageJson(message, selection.form)}\n\n`;
    }
    if (text === "") {
      this.#hasUntold = true;
      return this.#idle();
    }
    const last = batch.messages.at(-1);
    this.#hasUntold = last !== undefined && !selection.takes(last);
    this.#toldMs = this.#clock.monotonicMs();
    return text;
  }

  /** Progress that has no message to stand beside, or a sign of life. */
  #idle(): string {
    const nowMs = this.#clock.monotonicMs();
    if (this.#hasUntold && nowMs - this.#toldMs >= cursorTellMs) {
      this.#hasUntold = false;
      this.#toldMs = nowMs;
      return `id: ${encodeCursor(this.#range.cursor)}\n\n`;
    }
    return nowMs - this.#writtenMs >= eventsPingMs - cursorTellMs ? PING : "";
  }

  #written(text: string): string {
    this.#writtenMs = this.#clock.monotonicMs();
    if (this.#isBegun) return text;
    this.#isBegun = true;
    return `retry: ${eventsRetryMs}\n${text}`;
  }

  #gapEvents(gaps: readonly Gap[], cursor: Cursor): string {
    const id = encodeCursor(cursor);
    return gaps.map((gap) => `id: ${id}\nevent: gap\ndata: ${gapJson(gap)}\n\n`).join("");
  }
}
