/**
 * What one route has done on one partition, as one small state record: the next offset, finished
 * ranges above it, attempts at its head, counts, and at which offset which revision begins.
 * Saved after the sink has confirmed; losing the newest save only causes duplicates.
 */
import { assert } from "../assert.ts";
import { boundariesMax } from "../limits.ts";
import { decodeText, encodeText } from "../message.ts";
import type { RouteCounts } from "./status.ts";

/** From `offset` on, messages belong to `revision` of the rule. */
export interface Boundary {
  readonly offset: number;
  readonly revision: number;
}

/** How a message was finished. */
export type Finish = Exclude<keyof RouteCounts, "taken">;

/** Ranges that fit into a record; what is beyond them would only be sent again after a crash. */
const rangesMax = 64;

interface Saved {
  readonly epoch: string;
  readonly life?: string;
  readonly next: number;
  readonly done?: readonly (readonly [number, number])[];
  readonly attempts?: number;
  readonly failingSinceMs?: number;
  readonly counts: RouteCounts;
  readonly boundaries: readonly (readonly [number, number])[];
}

/** The progress of a route. Not shared: one loop changes it. */
export class Progress {
  readonly epoch: string;
  /**
   * Of the route: another one when it is made anew. In the dedupe keys of what it appends, so that
   * a new route's messages are not taken for the old one's.
   */
  readonly life: string;
  /** Offsets that it had finished, and that its partition has lost. */
  readonly lostCount: number;
  /** Everything below is finished. */
  next: number;
  /** Refusals of the message at `next`, and since when it has failed (Unix ms; 0: it hasn't). */
  attempts = 0;
  failingSinceMs = 0;
  readonly #counts = { taken: 0, delivered: 0, filtered: 0, failed: 0, deadLettered: 0 };
  #boundaries: Boundary[];
  /** Finished offsets above `next`. */
  readonly #done = new Set<number>();
  /** Offsets of the batch under way, in order, and where the batch after it begins. */
  #batch: readonly number[] = [];
  #head = 0;
  #batchNext: number;

  constructor(
    epoch: string,
    next: number,
    boundaries: readonly Boundary[],
    before: { readonly life?: string; readonly lostCount?: number } = {},
  ) {
    const newest = boundaries.at(-1);
    assert(newest !== undefined, "a route has a revision");
    this.epoch = epoch;
    this.life = before.life ?? `${epoch.slice(0, 8)}.${newest.revision}`;
    this.lostCount = before.lostCount ?? 0;
    this.next = next;
    this.#batchNext = next;
    this.#boundaries = [...boundaries];
  }

  /**
   * Reads a record; null when it belongs to another life of the partition. A partition that ends
   * before what was saved has lost its end: the offsets behind it are other messages now.
   */
  static decode(
    bytes: Uint8Array,
    partition: { readonly epoch: string; readonly offsetEnd: number },
  ): Progress | null {
    const saved = JSON.parse(decodeText(bytes)) as Saved;
    const { epoch, offsetEnd } = partition;
    if (saved.epoch !== epoch) return null;
    const boundaries = saved.boundaries
      .map(([offset, revision]) => ({ offset: Math.min(offset, offsetEnd), revision }))
      .filter(({ offset }, index, all) => offset !== all[index + 1]?.offset);
    const next = Math.min(saved.next, offsetEnd);
    const lostCount = saved.next - next;
    const before = { life: saved.life ?? "", lostCount };
    const progress = new Progress(epoch, next, boundaries, before);
    Object.assign(progress.#counts, saved.counts);
    if (lostCount > 0) return progress;
    progress.attempts = saved.attempts ?? 0;
    progress.failingSinceMs = saved.failingSinceMs ?? 0;
    for (const [from, to] of saved.done ?? []) {
      for (let offset = from; offset < Math.min(to, offsetEnd); offset++) {
        progress.#done.add(offset);
      }
    }
    return progress;
  }

  get counts(): RouteCounts {
    return this.#counts;
  }

  get boundaries(): readonly Boundary[] {
    return this.#boundaries;
  }

  /** The newest revision. */
  get revision(): number {
    return this.#boundaries.at(-1)?.revision ?? 0;
  }

  /** The record's bytes. */
  encode(): Uint8Array {
    const saved: Saved = {
      epoch: this.epoch,
      life: this.life,
      next: this.next,
      counts: this.#counts,
      boundaries: this.#boundaries.map(({ offset, revision }) => [offset, revision] as const),
      ...(this.attempts > 0 ? { attempts: this.attempts } : {}),
      ...(this.failingSinceMs > 0 ? { failingSinceMs: this.failingSinceMs } : {}),
      ...(this.#done.size > 0 ? { done: this.#ranges() } : {}),
    };
    return encodeText(JSON.stringify(saved));
  }

  /** The revision that a message belongs to. */
  revisionAt(offset: number): number {
    const found = this.#boundaries.findLast((boundary) => boundary.offset <= offset);
    return found?.revision ?? this.#boundaries[0]?.revision ?? 0;
  }

  /** Whether another revision fits. */
  get canSwap(): boolean {
    return this.#boundaries.length < boundariesMax;
  }

  /** From `offset` on another revision; revisions in `skipped` (disabled ones) give way to it. */
  swap(offset: number, revision: number, skipped: ReadonlySet<number>): void {
    let from = offset;
    while (skipped.has(this.#boundaries.at(-1)?.revision ?? -1)) {
      from = Math.min(from, this.#boundaries.pop()?.offset ?? from);
    }
    while ((this.#boundaries.at(-1)?.offset ?? -1) >= from) this.#boundaries.pop();
    this.#boundaries.push({ offset: from, revision });
    this.#dropOldBoundaries();
  }

  /** Begins with a batch: its offsets in order, and where the next one begins. */
  begin(offsets: readonly number[], batchNext: number): void {
    assert(this.#head === this.#batch.length, "one batch is under way at a time");
    this.#batch = offsets;
    this.#head = 0;
    this.#batchNext = batchNext;
    this.#advance();
  }

  /** Lets go of a batch that was not finished; what of it was done stays done. */
  abandon(): void {
    if (this.#head === this.#batch.length) return;
    this.#batch = [];
    this.#head = 0;
    this.#batchNext = this.next;
  }

  /** Passes over offsets that are gone. */
  skipTo(offset: number): void {
    assert(this.#head === this.#batch.length, "a gap is met between batches");
    this.next = Math.max(this.next, offset);
    this.#headDone();
  }

  /** Whether a message was finished before (in an earlier life of the process). */
  isDone(offset: number): boolean {
    return offset < this.next || this.#done.has(offset);
  }

  /** Counts a message as finished, once. */
  finish(offset: number, how: Finish): void {
    if (this.isDone(offset)) return;
    this.#done.add(offset);
    this.#counts.taken++;
    this.#counts[how]++;
    this.#advance();
  }

  #advance(): void {
    const before = this.next;
    let offset = this.#batch[this.#head];
    while (offset !== undefined && this.isDone(offset)) {
      this.#done.delete(offset);
      offset = this.#batch[++this.#head];
    }
    this.next = Math.max(this.next, offset ?? this.#batchNext);
    if (this.next !== before) this.#headDone();
  }

  #headDone(): void {
    this.attempts = 0;
    this.failingSinceMs = 0;
    this.#dropOldBoundaries();
  }

  #dropOldBoundaries(): void {
    while ((this.#boundaries[1]?.offset ?? Number.POSITIVE_INFINITY) <= this.next) {
      this.#boundaries.shift();
    }
  }

  #ranges(): [number, number][] {
    const ranges: [number, number][] = [];
    for (const offset of [...this.#done].toSorted((a, b) => a - b)) {
      const last = ranges.at(-1);
      if (last !== undefined && last[1] === offset) last[1] = offset + 1;
      else if (ranges.length === rangesMax) break;
      else ranges.push([offset, offset + 1]);
    }
    return ranges;
  }
}
