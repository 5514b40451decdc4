/**
 * What one route has done on one partition, as one small state record: which offsets are finished,
 * which of its waiting messages are, the ledger's counts, failures at hand, and at which offset
 * which revision begins. One record, so counts and places are always of the same moment.
 * Saved after the sink has confirmed; losing the newest save only causes duplicates.
 */
import { assert } from "../assert.ts";
import { boundariesMax, troublesSavedMax } from "../limits.ts";
import type { Offset, Partition } from "../log/log.ts";
import { decodeText, encodeText } from "../message.ts";
import type { Start } from "../rules/document.ts";
import type { Trouble } from "./trouble.ts";
import { type Seen, Window } from "./window.ts";

/** From `offset` on, messages belong to `revision` of the rule. */
export interface Boundary {
  readonly offset: number;
  readonly revision: number;
}

/** How a message was finished. `failed`: `where` failed, which counts as filtered, too. */
export type Finish = "delivered" | "filtered" | "failed" | "deadLettered" | "expired";

/** What was finished, and `taken`: that, and what stands in the stream of waiting messages. */
export type Counts = Record<Finish | "taken", number>;

/** What a record says of the route's stream of waiting messages. */
export interface WaitMark {
  /** Another epoch: the stream was lost. */
  readonly epoch: string;
  /** All below it is finished. */
  readonly next: Offset;
  /** Up to here (exclusive) its notes of finished messages count: later ones are in `finished`. */
  readonly noted: Offset;
  /** Up to here (exclusive) its messages are counted as taken; absent: by the window alone. */
  readonly end?: Offset;
  /** Finished and not noted in the stream yet. */
  readonly finished: readonly Offset[];
}

interface Saved {
  readonly epoch: string;
  readonly life?: string;
  /** How often an operator has moved the cursor, and whether the route is paused. */
  readonly seeks?: number;
  readonly paused?: true;
  readonly next: number;
  readonly done?: string;
  readonly troubles?: readonly (readonly [number, number, number, number])[];
  readonly counts: Partial<Counts>;
  readonly boundaries: readonly (readonly [number, number])[];
  readonly wait?: WaitMark;
}

/** The progress of a route. Not shared: one route changes it. */
export class Progress {
  readonly epoch: string;
  /**
   * Of the route: another one when it is made anew. In the dedupe keys of what it appends, so that
   * a new route's messages are not taken for the old one's.
   */
  readonly life: string;
  /** Offsets that it had finished, and that its partition has lost. */
  readonly lostCount: number;
  /** How its waiting messages stood when the record was saved; null: it has none yet. */
  readonly waitBefore: WaitMark | null;
  /** An operator has paused the route: nothing more is begun. */
  isPaused = false;
  #window: Window;
  #seeks = 0;
  /** Asked for when the record is made; as it was, until the waiting ones are known. */
  waitMark: () => WaitMark | null = () => this.waitBefore;
  readonly #counts: Counts = {
    taken: 0,
    delivered: 0,
    filtered: 0,
    failed: 0,
    deadLettered: 0,
    expired: 0,
  };
  /** By offset, oldest failure first. */
  readonly #troubles = new Map<Offset, Trouble>();
  #boundaries: Boundary[];

  constructor(
    epoch: string,
    next: number,
    boundaries: readonly Boundary[],
    before: {
      readonly life?: string;
      readonly lostCount?: number;
      readonly wait?: WaitMark | null;
    } = {},
  ) {
    const newest = boundaries.at(-1);
    assert(newest !== undefined, "a route has a revision");
    this.epoch = epoch;
    this.life = before.life ?? `${epoch.slice(0, 8)}.${newest.revision}`;
    this.lostCount = before.lostCount ?? 0;
    this.waitBefore = before.wait ?? null;
    this.#window = new Window(next);
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
    const before = { life: saved.life ?? "", lostCount, wait: saved.wait ?? null };
    const progress = new Progress(epoch, next, boundaries, before);
    Object.assign(progress.#counts, saved.counts);
    progress.#seeks = saved.seeks ?? 0;
    progress.isPaused = saved.paused === true;
    if (lostCount > 0) return progress;
    for (const [offset, attempts, failures, sinceMs] of saved.troubles ?? []) {
      progress.#troubles.set(offset, { attempts, failures, sinceMs });
    }
    progress.window.decodeDone(saved.done ?? "", offsetEnd);
    return progress;
  }

  get window(): Window {
    return this.#window;
  }

  get next(): Offset {
    return this.window.next;
  }

  /** In the dedupe keys of what the route appends: another one after each move of its cursor. */
  get run(): string {
    return this.#seeks === 0 ? this.life : `${this.life}~${this.#seeks}`;
  }

  /**
   * Moves the cursor of a route that does not run: what lies from `offset` on is read, again or for
   * the first time. What waits goes on waiting, and counts stay.
   */
  seek(offset: Offset): void {
    this.#window = new Window(offset);
    this.#seeks++;
    this.#troubles.clear();
    this.#dropOldBoundaries();
  }

  get counts(): Readonly<Counts> {
    return this.#counts;
  }

  /** Messages that were taken and are not finished: they wait, or are parked. */
  get openCount(): number {
    const { taken, delivered, filtered, deadLettered, expired } = this.#counts;
    return taken - delivered - filtered - deadLettered - expired;
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
    const done = this.window.encodeDone();
    const wait = this.waitMark();
    const saved: Saved = {
      epoch: this.epoch,
      life: this.life,
      ...(this.#seeks > 0 ? { seeks: this.#seeks } : {}),
      ...(this.isPaused ? { paused: true as const } : {}),
      next: this.next,
      counts: this.#counts,
      boundaries: this.#boundaries.map(({ offset, revision }) => [offset, revision] as const),
      ...(this.#troubles.size > 0 ? { troubles: this.#savedTroubles() } : {}),
      ...(done === "" ? {} : { done }),
      ...(wait === null ? {} : { wait }),
    };
    return encodeText(JSON.stringify(saved));
  }

  /** The revision that a message belongs to. */
  revisionAt(offset: number): number {
    const newest = this.#boundaries.at(-1);
    if (newest !== undefined && newest.offset <= offset) return newest.revision;
    const found = this.#boundaries.findLast((boundary) => boundary.offset <= offset);
    return found?.revision ?? this.#boundaries[0]?.revision ?? 0;
  }

  /** Where the revision that a message belongs to gives way to the next one; none: infinity. */
  revisionEnd(offset: number): number {
    const newest = this.#boundaries.at(-1);
    if (newest !== undefined && newest.offset <= offset) return Number.POSITIVE_INFINITY;
    const index = this.#boundaries.findLastIndex((boundary) => boundary.offset <= offset);
    return this.#boundaries[Math.max(0, index) + 1]?.offset ?? Number.POSITIVE_INFINITY;
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

  /** Notes what was read, in order, and where reading goes on. */
  take(seen: readonly Seen[], readAt: Offset): void {
    this.window.take(seen, readAt);
    this.#dropOldBoundaries();
  }

  /** Passes over offsets that are gone. */
  skipTo(offset: Offset): void {
    this.take([], Math.max(offset, this.window.readAt));
  }

  /** Counts a message of the partition as taken and finished, once. */
  finish(offset: Offset, how: Finish): void {
    if (!this.#take(offset)) return;
    this.#count(how);
  }

  /** Counts a message as taken that stands durably among those that wait; once. */
  move(offset: Offset): void {
    this.#take(offset);
  }

  /** Counts a message as taken that an operator sends again, and that stands durably. */
  takeAgain(): void {
    this.#counts.taken++;
  }

  /** Counts a waiting message as finished. The caller sees to it that that happens once. */
  finishWaiting(offset: Offset, how: Finish): void {
    assert(this.openCount > 0, "what waited had been taken");
    this.#troubles.delete(offset);
    this.#count(how);
  }

  /** Whether any message has failed and is to be tried again soon. */
  get hasTroubles(): boolean {
    return this.#troubles.size > 0;
  }

  trouble(offset: Offset): Trouble | null {
    return this.#troubles.get(offset) ?? null;
  }

  /** Remembers how a message fares; null: no trouble any more. */
  setTrouble(offset: Offset, trouble: Trouble | null): void {
    if (trouble === null) this.#troubles.delete(offset);
    else this.#troubles.set(offset, trouble);
  }

  #take(offset: Offset): boolean {
    if (!this.window.finish(offset)) return false;
    this.#counts.taken++;
    this.#troubles.delete(offset);
    this.#dropOldBoundaries();
    return true;
  }

  #count(how: Finish): void {
    this.#counts[how]++;
    if (how === "failed") this.#counts.filtered++;
  }

  #dropOldBoundaries(): void {
    // Called for each message; nearly always there is one.
    if (this.#boundaries.length === 1) return;
    while ((this.#boundaries[1]?.offset ?? Number.POSITIVE_INFINITY) <= this.next) {
      this.#boundaries.shift();
    }
  }

  /** Those that have failed most: what is forgotten has the most attempts left again. */
  #savedTroubles(): [number, number, number, number][] {
    return [...this.#troubles]
      .toSorted(([, a], [, b]) => b.failures - a.failures)
      .slice(0, troublesSavedMax)
      .map(([offset, { attempts, failures, sinceMs }]) => [offset, attempts, failures, sinceMs]);
  }
}

/** Where a new route begins to read. */
export async function startOffset(partition: Partition, start: Start): Promise<Offset> {
  if (start === "latest") return partition.offsetEnd;
  if (start === "earliest") return partition.offsetStart;
  return partition.offsetAt(start.timestampMs);
}
