/**
 * Deliveries on their way to the caller, and how much of them is unsettled. One caller takes; the
 * reader of a topic waits here for room, which is what stops it from reading more.
 */
import type { Clock } from "../../src/clock.ts";
import type { DisconnectedError } from "../../src/errors.ts";
import type { Message } from "../../src/message.ts";
import type { Progress, Range } from "./progress.ts";

/** A delivery that nobody has taken yet. */
export interface Waiting {
  readonly progress: Progress;
  readonly range: Range;
  readonly messages: readonly Message[];
}

/** The deliveries of one source. */
export class Handout {
  readonly #bytesMax: number;
  #queue: Waiting[] = [];
  #bytes = 0;
  #failure: DisconnectedError | null = null;
  #changed = Promise.withResolvers<void>();

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Whether so much more may be unsettled. A delivery larger than the bound comes alone. */
  hasRoom(bytes: number): boolean {
    return this.#bytes === 0 || this.#bytes + bytes <= this.#bytesMax;
  }

  /** Waits until something has changed, or so long. */
  async room(clock: Clock, ms: number): Promise<void> {
    const done = new AbortController();
    await Promise.race([this.#changed.promise, clock.sleep(ms, done.signal)]);
    done.abort();
  }

  give(waiting: Waiting): void {
    this.#bytes += waiting.range.bytes;
    this.#queue.push(waiting);
    this.#notify();
  }

  /** The next delivery; null when aborted. @throws DisconnectedError the source has failed. */
  async take(signal: AbortSignal): Promise<Waiting | null> {
    const aborted = Promise.withResolvers<void>();
    const abort = (): void => aborted.resolve();
    signal.addEventListener("abort", abort, { once: true });
    try {
      for (;;) {
        if (signal.aborted) return null;
        if (this.#failure !== null) throw this.#failure;
        const next = this.#queue.shift();
        if (next !== undefined) return next;
        await Promise.race([this.#changed.promise, aborted.promise]);
      }
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /** So much is settled. */
  release(bytes: number): void {
    this.#bytes -= bytes;
    this.#notify();
  }

  /** These are unsettled no more, and those of them that wait are not handed out. */
  drop(ranges: readonly Range[]): void {
    const gone = new Set(ranges);
    this.#queue = this.#queue.filter((waiting) => !gone.has(waiting.range));
    for (const range of ranges) this.#bytes -= range.bytes;
    this.#notify();
  }

  fail(reason: DisconnectedError): void {
    this.#failure = reason;
    this.#queue = [];
    this.#notify();
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}
