/**
 * The message keys of the segment that is being written, by their hash, in memory: 8 bytes a key,
 * and 8 to 16 for finding it. Offsets come in ascending order, save those that a catching up adds.
 */
import { KeyList } from "./key-file.ts";
import type { KeyHash } from "./key-filter.ts";
import type { Offset } from "./log.ts";

const SLOTS_MIN = 256;

/** Keys of one segment, findable while they grow. */
export class RecentKeys {
  readonly baseOffset: Offset;
  /** Keys from here on have been added as they came. */
  readonly noted: Offset;
  /** Those before that have been added as well. */
  isWhole: boolean;
  readonly list: KeyList;
  /** One behind the index of the newest key of each slot; 0: none. */
  #heads = new Uint32Array(SLOTS_MIN);
  /** For each key, one behind the index of the one before it in its slot. */
  #before = new Uint32Array(SLOTS_MIN);

  constructor(baseOffset: Offset, noted: Offset) {
    this.baseOffset = baseOffset;
    this.noted = noted;
    this.isWhole = noted <= baseOffset;
    this.list = new KeyList(baseOffset);
  }

  add(hash: KeyHash, offset: Offset): void {
    const index = this.list.count;
    if (index === this.#before.length) this.#grow();
    this.list.add(hash, offset);
    this.#link(hash, index);
  }

  /** The offsets of a hash from one on, ascending. */
  find({ high, low }: KeyHash, from: Offset): Offset[] {
    const offsets: Offset[] = [];
    let next = this.#heads[high & (this.#heads.length - 1)] ?? 0;
    while (next > 0) {
      const hash = this.list.hashAt(next - 1);
      if (hash.high === high && hash.low === low) {
        const offset = this.list.offsetAt(next - 1);
        if (offset >= from) offsets.push(offset);
      }
      next = this.#before[next - 1] ?? 0;
    }
    return offsets.sort((a, b) => a - b);
  }

  #link({ high }: KeyHash, index: number): void {
    const slot = high & (this.#heads.length - 1);
    this.#before[index] = this.#heads[slot] ?? 0;
    this.#heads[slot] = index + 1;
  }

  #grow(): void {
    const { length } = this.#before;
    this.#before = new Uint32Array(length * 2);
    this.#heads = new Uint32Array(length * 2);
    for (let index = 0; index < length; index++) this.#link(this.list.hashAt(index), index);
  }
}
