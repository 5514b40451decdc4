/**
 * The bytes of a commit group while it is filled: records are encoded straight into what is then
 * written to disk and read from memory, with no copy in between.
 */
import { assert } from "../assert.ts";

/** A growing buffer that records are encoded into, and whose bytes are then written as they are. */
export class GroupBuffer {
  readonly #capacity: number;
  #bytes = Buffer.alloc(0);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  /** `capacity` is what it takes at first, once there is something to hold. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get length(): number {
    return this.#length;
  }

  get view(): DataView {
    return this.#view;
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  /** Leaves room for `count` bytes and answers where they begin. */
  reserve(count: number): number {
    const start = this.#length;
    const needed = start + count;
    if (needed > this.#bytes.length) {
      const most = Math.max(needed, this.#bytes.length * 2, this.#capacity);
      const grown = Buffer.allocUnsafeSlow(most);
      this.#bytes.copy(grown, 0, 0, start);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#length = needed;
    return start;
  }

  /**
   * All that it holds, without much room behind: readers keep these bytes, and a small group must
   * not keep a large buffer.
   */
  fitted(): Buffer {
    const used = this.#bytes.subarray(0, this.#length);
    if (used.length * 2 > this.#bytes.length) return used;
    const copy = Buffer.allocUnsafeSlow(used.length);
    used.copy(copy);
    return copy;
  }

  /** Takes back what was reserved from `start` on. */
  rewind(start: number): void {
    assert(start <= this.#length, "a buffer is rewound to a place that it has passed");
    this.#length = start;
  }
}
