/**
 * The bytes of a commit group while it is filled: records are encoded straight into what is then
 * written to disk and read from memory, with no copy in between. Buffers are used again once
 * nobody can see them: fresh memory for each group costs more than all that is written into it.
 */
import { assert } from "../assert.ts";
import { groupBufferBytesMin, pooledBufferBytesMax, poolBytesMax } from "../limits.ts";

/** Memory that records are encoded into. */
export interface GroupBytes {
  readonly bytes: Buffer;
  readonly view: DataView;
}

/** Buffers of one partition that wait to be used again; bounded by `poolBytesMax`. */
export class BufferPool {
  readonly #spare: GroupBytes[] = [];
  #bytes = 0;

  /**
   * A buffer of at least so many bytes, whatever they hold. Lengths are powers of two: what one
   * group has left is what another one asks for.
   */
  take(least: number): GroupBytes {
    const capacity = capacityFor(least);
    const index = this.#spare.findLastIndex(({ bytes }) => bytes.length === capacity);
    const [found] = index < 0 ? [] : this.#spare.splice(index, 1);
    if (found === undefined) return fresh(capacity);
    this.#bytes -= capacity;
    return found;
  }

  /** Takes a buffer back; the one that has waited longest goes. Nobody may look at it any more. */
  give(buffer: GroupBytes): void {
    const { length } = buffer.bytes;
    if (length < groupBufferBytesMin || length > pooledBufferBytesMax) return;
    this.#spare.push(buffer);
    this.#bytes += length;
    while (this.#bytes > poolBytesMax) this.#bytes -= this.#spare.shift()?.bytes.length ?? 0;
  }

  /** Lets go of all memory: nothing has been appended for a while. */
  clear(): void {
    this.#spare.length = 0;
    this.#bytes = 0;
  }
}

function capacityFor(least: number): number {
  let capacity = groupBufferBytesMin;
  while (capacity < least) capacity *= 2;
  return capacity;
}

/** Memory of its own, whatever it holds. */
export function fresh(capacity: number): GroupBytes {
  const bytes = Buffer.allocUnsafeSlow(capacity);
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, capacity) };
}

const NOTHING = fresh(0);

/** A growing buffer that records are encoded into, and whose bytes are then written as they are. */
export class GroupBuffer {
  readonly #pool: BufferPool;
  readonly #expected: number;
  #held = NOTHING;
  #length = 0;

  /** `expected` is how many bytes it will probably hold: taken with the first of them. */
  constructor(pool: BufferPool, expected: number) {
    this.#pool = pool;
    this.#expected = Math.min(expected, pooledBufferBytesMax);
  }

  get length(): number {
    return this.#length;
  }

  get view(): DataView {
    return this.#held.view;
  }

  get bytes(): Buffer {
    return this.#held.bytes;
  }

  /** Leaves room for `count` bytes and answers where they begin. */
  reserve(count: number): number {
    const start = this.#length;
    const needed = start + count;
    if (needed > this.#held.bytes.length) this.#grow(needed);
    this.#length = needed;
    return start;
  }

  /**
   * All that it holds, and the memory that it stands in, which is the caller's to keep or to give
   * back to the pool. At least half of that is used: a small group does not keep a large buffer.
   */
  fitted(): GroupBytes {
    const held = this.#held;
    if (this.#length * 2 > held.bytes.length) return held;
    // So small that fresh memory costs nothing.
    const isTiny = this.#length * 2 <= groupBufferBytesMin;
    const own = isTiny ? fresh(this.#length) : this.#pool.take(this.#length);
    held.bytes.copy(own.bytes, 0, 0, this.#length);
    this.#pool.give(held);
    return own;
  }

  /** Takes back what was reserved from `start` on. */
  rewind(start: number): void {
    assert(start <= this.#length, "a buffer is rewound to a place that it has passed");
    this.#length = start;
  }

  #grow(needed: number): void {
    const old = this.#held;
    this.#held = this.#pool.take(Math.max(needed, old.bytes.length * 2, this.#expected));
    old.bytes.copy(this.#held.bytes, 0, 0, this.#length);
    this.#pool.give(old);
  }
}
