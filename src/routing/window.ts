/**
 * Which offsets of a partition a route has finished: everything below `next`, and some above it.
 * Offsets may have holes, so `next` moves only over what was read. The part above `next` is saved
 * as bits, bounded in reach, so that a record holds it exactly whatever finishes in which order.
 */
import { assert } from "../assert.ts";
import { windowOffsetsMax } from "../limits.ts";
import type { Offset } from "../log/log.ts";

/** What a window is told of a message that was read. */
export interface Seen {
  readonly offset: Offset;
  readonly appendedAtMs: number;
}

/** The finished offsets of one partition. */
export class Window {
  #next: Offset;
  /** Finished offsets at or above `next`. */
  readonly #done = new Set<Offset>();
  /** Read and not passed by `next` yet, in order; those before `#head` are. */
  #taken: Seen[] = [];
  #head = 0;
  #readAt: Offset;

  constructor(next: Offset) {
    this.#next = next;
    this.#readAt = next;
  }

  /** Everything below is finished. */
  get next(): Offset {
    return this.#next;
  }

  /** Where reading goes on. */
  get readAt(): Offset {
    return this.#readAt;
  }

  /** Whether all that was read is finished. */
  get isEmpty(): boolean {
    return this.#head === this.#taken.length;
  }

  /** Offsets that may still be read before `next` has to move. */
  get room(): number {
    return Math.max(0, this.#next + windowOffsetsMax - this.#readAt);
  }

  /** How many offsets above `next` are finished. */
  get doneCount(): number {
    return this.#done.size;
  }

  /** When the oldest message that is read and not finished was appended; 0: there is none. */
  get oldestMs(): number {
    return this.#taken[this.#head]?.appendedAtMs ?? 0;
  }

  /** Notes what was read, in order, and where reading goes on. */
  take(seen: readonly Seen[], readAt: Offset): void {
    assert(readAt >= this.#readAt, "reading goes forward");
    for (const each of seen) this.#taken.push(each);
    this.#readAt = readAt;
    this.#advance();
  }

  /** Forgets what was read and is not finished: it is read again. */
  letGo(): void {
    this.#taken = [];
    this.#head = 0;
    this.#readAt = this.#next;
  }

  isDone(offset: Offset): boolean {
    return offset < this.#next || this.#done.has(offset);
  }

  /** Notes an offset as finished; false when it was already. */
  finish(offset: Offset): boolean {
    if (this.isDone(offset)) return false;
    // In order, as most are: it is passed at once.
    if (this.#taken[this.#head]?.offset === offset) this.#head++;
    else this.#done.add(offset);
    this.#advance();
    return true;
  }

  /** The finished offsets above `next` as bits from there, in base64; empty when there are none. */
  encodeDone(): string {
    if (this.#done.size === 0) return "";
    const bits = Buffer.alloc(Math.ceil(windowOffsetsMax / 8));
    let length = 0;
    for (const offset of this.#done) {
      const index = offset - this.#next;
      assert(index < windowOffsetsMax, "what is finished is within the window");
      bits[index >> 3] = (bits[index >> 3] ?? 0) | (1 << (index & 7));
      length = Math.max(length, (index >> 3) + 1);
    }
    return bits.toString("base64", 0, length);
  }

  /** Reads what `encodeDone` gave, as far as it lies below `end`. */
  decodeDone(text: string, end: Offset): void {
    for (const [at, byte] of Buffer.from(text, "base64").entries()) {
      for (let bit = 0; bit < 8; bit++) {
        const offset = this.#next + at * 8 + bit;
        if ((byte & (1 << bit)) !== 0 && offset < end) this.#done.add(offset);
      }
    }
  }

  #advance(): void {
    let seen = this.#taken[this.#head];
    while (seen !== undefined && this.isDone(seen.offset)) {
      this.#done.delete(seen.offset);
      seen = this.#taken[++this.#head];
    }
    this.#next = Math.max(this.#next, seen?.offset ?? this.#readAt);
    // What was passed goes in one piece, now and then: each piece costs a copy.
    if (this.#head < 1024 && seen !== undefined) return;
    this.#taken = this.#taken.slice(this.#head);
    this.#head = 0;
  }
}
