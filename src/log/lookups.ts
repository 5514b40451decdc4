/**
 * Appends that wait until the disk has told whether their dedupe keys are held. They, and all that
 * come behind them, are done in the order in which they came; bounded in bytes.
 */
import { ConflictError, GatewayError, LimitError } from "../errors.ts";
import { groupBytesMax, groupRetryAfterMs } from "../limits.ts";
import type { Message } from "../message.ts";
import type { Dedupe } from "./dedupe.ts";
import type { Appended, AppendOptions, Offset, PartitionId, Receipt } from "./log.ts";
import { Receipts } from "./receipts.ts";

/** What the disk has told of each message's key. */
export type Found = readonly (Offset | null)[];

interface Waiting {
  readonly options: AppendOptions;
  readonly bytes: number;
  readonly receipts: { -readonly [K in keyof Receipt]: Receipt[K] }[];
  readonly run: (found: Found) => Appended;
  readonly resolve: (durable: Promise<void>) => void;
  readonly reject: (error: unknown) => void;
}

/** The waiting appends of one partition. */
export class Lookups {
  readonly #id: PartitionId;
  readonly #dedupe: Dedupe;
  readonly #start: () => Offset;
  readonly #queue: Waiting[] = [];
  #bytes = 0;
  #failures = 0;
  #running: Promise<void> | null = null;

  /** `start` tells the oldest offset that is kept. */
  constructor(id: PartitionId, dedupe: Dedupe, start: () => Offset) {
    this.#id = id;
    this.#dedupe = dedupe;
    this.#start = start;
  }

  /** Whether nothing waits: what comes now may go ahead. */
  get isIdle(): boolean {
    return this.#queue.length === 0;
  }

  /** How often appends have failed that were taken already; with one, all behind it. */
  get failures(): number {
    return this.#failures;
  }

  /** Resolves when nothing waits. */
  async idle(): Promise<void> {
    while (this.#running !== null) await this.#running;
  }

  /** What is known of keys without the disk; null when it has to be asked. */
  known({ dedupeKeys: keys, isLookedUp }: AppendOptions): Found | null {
    if (!this.isIdle) return null;
    if (keys === undefined) return NONE;
    const found: (Offset | null)[] = [];
    for (const [index, key] of keys.entries()) {
      const isAsked = isLookedUp?.[index] !== false;
      const offset = isAsked ? (key === null ? null : this.#dedupe.find(key)) : NOT_ASKED;
      if (offset === undefined) return null;
      found.push(offset);
    }
    return found;
  }

  /** Where a key's first message is; what a segment held that was deleted meanwhile is none. */
  first(key: string | null, found: Offset | null): Offset | null {
    if (key === null || found === NOT_ASKED) return null;
    return this.#dedupe.recent(key) ?? (found !== null && found >= this.#start() ? found : null);
  }

  /**
   * A call that comes again after it was done is no conflict: it gets its first receipts.
   * @throws ConflictError with `end`: the condition does not hold.
   */
  checkEnd(end: Offset, { expectedOffset, dedupeKeys = [] }: AppendOptions, found: Found): void {
    if (expectedOffset === undefined || expectedOffset === end) return;
    const firsts = dedupeKeys.map((key, index) => this.first(key, found[index] ?? null));
    if (firsts.length > 0 && firsts.every((first) => first !== null)) return;
    const message = `the partition's end is ${end}, not ${expectedOffset}`;
    throw new ConflictError("conflict", message, { end });
  }

  /**
   * Appends later: the receipts are true, as always, once `durable` has resolved. `run` appends.
   * @throws LimitError too much waits already.
   */
  add(
    messages: readonly Message[],
    options: AppendOptions,
    run: (found: Found) => Appended,
  ): Appended {
    const bytes = messages.reduce((sum, { body }) => sum + 1024 + (body?.length ?? 0), 0);
    if (this.#bytes > 0 && this.#bytes + bytes > groupBytesMax / 2) {
      const message = "more waits for the disk than may wait; try again soon";
      throw new LimitError("rate-limited", message, groupRetryAfterMs);
    }
    const { stream, index: partition } = this.#id;
    const receipts = messages.map(({ id }) => {
      return { id, stream, partition, offset: -1, duplicate: false };
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(toldToCaller);
    this.#bytes += bytes;
    this.#queue.push({ options, bytes, receipts, run, resolve, reject });
    this.#running ??= this.#work();
    return new Receipts(promise, receipts);
  }

  /** All that wait came behind what has failed: they fail with it. */
  fail(error: unknown): void {
    this.#failures++;
    for (const waiting of this.#queue.splice(0)) waiting.reject(error);
    this.#bytes = 0;
  }

  async #work(): Promise<void> {
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      await this.#settle(next);
    }
    // In the same turn as the look at the queue: what comes next begins anew.
    this.#running = null;
  }

  async #lookUp(key: string | null): Promise<Offset | null> {
    if (key === null) return null;
    const known = this.#dedupe.find(key);
    return known === undefined ? await this.#dedupe.lookUp(key) : known;
  }

  async #settle(waiting: Waiting): Promise<void> {
    try {
      const { dedupeKeys = [], isLookedUp } = waiting.options;
      const found: (Offset | null)[] = [];
      for (const [index, key] of dedupeKeys.entries()) {
        const isAsked = isLookedUp?.[index] !== false;
        found.push(isAsked ? await this.#lookUp(key) : NOT_ASKED);
      }
      // Failed meanwhile: it has been told.
      if (this.#queue[0] !== waiting) return;
      const appended = waiting.run(found);
      for (const [index, receipt] of waiting.receipts.entries()) {
        Object.assign(receipt, appended.receipt(index));
      }
      waiting.resolve(appended.durable);
    } catch (error) {
      // What can succeed later is appended again: what came behind it must not stand before it.
      if (error instanceof GatewayError && error.retryable) this.fail(error);
      else waiting.reject(error);
    }
    if (this.#queue[0] !== waiting) return;
    this.#queue.shift();
    this.#bytes -= waiting.bytes;
  }
}

const NONE: Found = [];
/** In place of an offset: the key was not looked up, and its message is appended. */
const NOT_ASKED: Offset = -1;

/** A failed append is told by its promise; it may be that nobody waits. */
function toldToCaller(): void {}
