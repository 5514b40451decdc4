/**
 * What is known of one partition while this reader owns it: which offsets are out with the caller,
 * which are acked, and up to where the group may be told. Offsets have holes, so nothing here
 * computes with them beyond comparing; the one `+ 1` is Kafka's own "next to read".
 * Invariant: a commit never passes an offset that is out, waiting or given back.
 */
import { assert } from "../../src/assert.ts";

/** `ready`: not handed out yet; `given`: with the caller; `nacked`: to be read again. */
type State = "ready" | "given" | "acked" | "nacked";

/** One delivery's offsets. */
export interface Range {
  first: bigint;
  readonly last: bigint;
  readonly bytes: number;
  state: State;
}

/** A partition of a topic. */
export interface Place {
  readonly topic: string;
  readonly partition: number;
}

/** One partition's ranges, in offset order. */
export class Progress {
  readonly topic: string;
  readonly partition: number;
  /** The next offset to read as the group knows it. */
  #committed: bigint;
  /** What it was when the group last changed: another reader's progress is told apart by it. */
  #committedAtJoin: bigint;
  /** False once another reader may own the partition: settling then means nothing. */
  #owned = true;
  /** The group has changed and the first read after it has not been seen. */
  #unsure = false;
  #ranges: Range[] = [];
  /** Where a seek goes whose first read has not been seen. */
  #seeking: bigint | null = null;

  /** Where the next read begins if nothing is missing; null before the first since a change. */
  #next: bigint | null = null;

  constructor({ topic, partition }: Place, committed: bigint) {
    this.topic = topic;
    this.partition = partition;
    this.#committed = committed;
    this.#committedAtJoin = committed;
  }

  get owned(): boolean {
    return this.#owned;
  }

  get committed(): bigint {
    return this.#committed;
  }

  /** Ranges that still weigh: neither acked nor given back. */
  get open(): readonly Range[] {
    return this.#ranges.filter((range) => range.state === "ready" || range.state === "given");
  }

  /** The group has changed and the partition is (again) this reader's. */
  rejoined(): void {
    this.#unsure = true;
    this.#next = null;
    this.#committedAtJoin = this.#committed;
  }

  /**
   * Whether a read from this offset goes on with what is known here. Otherwise somebody else has
   * moved the group's position while it changed, or the topic was made anew and its offsets began
   * again: the caller revokes and starts afresh.
   */
  continues(fetchedFrom: bigint): boolean {
    if (!this.#unsure) return fetchedFrom >= this.#committed;
    this.#unsure = false;
    return fetchedFrom >= this.#committedAtJoin && fetchedFrom <= this.#committed;
  }

  /** Where the next read begins if the broker still has it; null: not known. */
  get expected(): bigint | null {
    return this.#seeking ?? this.#next;
  }

  /** A fetched batch has been read up to this offset, itself included. */
  reached(last: bigint): void {
    this.#next = last + 1n;
  }

  /** The partition is another's now. */
  revoke(): void {
    this.#owned = false;
  }

  /** Whether an offset that was read (again) is acked or still out. */
  covers(offset: bigint): boolean {
    if (offset < this.#committed) return true;
    const newest = this.#ranges.at(-1);
    if (newest === undefined || offset > newest.last) return false;
    const range = this.#ranges.find((item) => offset >= item.first && offset <= item.last);
    return range !== undefined && range.state !== "nacked";
  }

  /** Adds what was read; it lies in no range that is out or acked. */
  add(first: bigint, last: bigint, bytes: number): Range {
    assert(first <= last, "a range runs forward");
    this.read(first, last);
    const range: Range = { first, last, bytes, state: "ready" };
    const at = this.#ranges.findIndex((item) => item.first > last);
    if (at < 0) this.#ranges.push(range);
    else this.#ranges.splice(at, 0, range);
    return range;
  }

  /** What was given back within these offsets has been read again, or is gone for good. */
  read(first: bigint, last: bigint): void {
    this.#ranges = this.#ranges.filter((range) => {
      if (range.state !== "nacked" || range.last < first || range.first > last) return true;
      if (range.last <= last) return false;
      range.first = last + 1n;
      return true;
    });
  }

  /** Where the group may be told to go on: after the acked ranges that nothing open precedes. */
  committable(): bigint | null {
    let next: bigint | null = null;
    for (const range of this.#ranges) {
      if (range.state !== "acked") break;
      next = range.last + 1n;
    }
    return next !== null && next > this.#committed ? next : null;
  }

  /** The group knows. */
  commit(next: bigint): void {
    assert(next >= this.#committed, "a commit does not go back");
    this.#committed = next;
    this.#ranges = this.#ranges.filter((range) => range.state !== "acked" || range.last >= next);
  }

  /** Gives a range back and drops what was not handed out behind it; answers what was dropped. */
  giveBack(range: Range): readonly Range[] {
    assert(range.state === "given", "a delivery is settled once");
    range.state = "nacked";
    const dropped = this.#ranges.filter(
      (item) => item.state === "ready" && item.first > range.first,
    );
    for (const item of dropped) item.state = "nacked";
    return dropped;
  }

  /** Where to seek so that everything given back is read again; null when nothing is. */
  seek(): bigint | null {
    this.#seeking = this.#ranges.find((range) => range.state === "nacked")?.first ?? null;
    return this.#seeking;
  }

  /**
   * Whether a seek may still be waiting in the library, which keeps it beyond a change of owner.
   */
  get seeking(): boolean {
    return this.#seeking !== null;
  }

  /** A read from this offset has come; what was given back before it is gone for good. */
  sought(fetchedFrom: bigint): void {
    if (this.#seeking === null || fetchedFrom < this.#seeking) return;
    if (fetchedFrom > this.#seeking) this.read(this.#seeking, fetchedFrom - 1n);
    this.#seeking = null;
  }
}
