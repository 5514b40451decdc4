/**
 * Which sealed segments may hold a dedupe key: 32 bits a key, 20 of its hash and 12 of its segment,
 * in pages of open-addressed slots. A key that is held is always found; one that is not is taken
 * for held about once in 100,000 looks, which costs a look into a key file and decides nothing.
 *
 * Pages fill in the order of segments and go with them, since retention deletes the oldest. Memory:
 * 43 bits a key at most for full pages, and one page that is being filled, which is no larger than
 * all before it together (8 MiB at most).
 */
import { filterFillMax, filterSlotsMax, filterSlotsMin } from "../limits.ts";

const TAG_BITS = 12;
const TAG_MASK = (1 << TAG_BITS) - 1;
/** Odd, near 2^32 divided by the golden ratio: multiplying by it moves all bits into the first. */
const SPREAD = 0x9e3779b1;

/** A key's hash of 40 bits: 32 and 8. Equal hashes say nothing; different ones are other keys. */
export interface KeyHash {
  readonly high: number;
  readonly low: number;
}

/** The hash of a key, with the partition's own seed. */
export function hashKey(key: string | Uint8Array, seed: number): KeyHash {
  const high = Bun.hash.xxHash32(key, seed);
  const low = Bun.hash.xxHash32(key, seed ^ 0x9e3779b9) & 0xff;
  return { high, low };
}

class Page {
  readonly slots: Uint32Array;
  readonly #shift: number;
  /** The newest segment with a key in it. */
  segmentLast = 0;
  #count = 0;

  constructor(slots: number) {
    this.slots = new Uint32Array(slots);
    this.#shift = 32 - Math.log2(slots);
  }

  get isFull(): boolean {
    return this.#count >= this.slots.length * filterFillMax;
  }

  add({ high, low }: KeyHash, segment: number): void {
    const mask = this.slots.length - 1;
    let at = this.#placeOf(high);
    while (this.slots[at] !== 0) at = (at + 1) & mask;
    this.slots[at] = slotOf(high, low, segment);
    this.#count++;
    this.segmentLast = segment;
  }

  /** Adds the tags of the segments that may hold the key. */
  gather({ high, low }: KeyHash, into: Set<number>): void {
    const mask = this.slots.length - 1;
    const wanted = slotOf(high, low, 0) >>> TAG_BITS;
    let at = this.#placeOf(high);
    for (let slot = this.slots[at] ?? 0; slot !== 0; slot = this.slots[at] ?? 0) {
      if (slot >>> TAG_BITS === wanted) into.add(slot & TAG_MASK);
      at = (at + 1) & mask;
    }
  }

  /** Keys come sorted by hash: by its first bits, a page's would all stand in one place. */
  #placeOf(high: number): number {
    return Math.imul(high, SPREAD) >>> this.#shift;
  }
}

/** Never 0, which is an empty slot: of 2^20 fingerprints two are one. */
function slotOf(high: number, low: number, segment: number): number {
  const fingerprint = ((high & 0xfff) << 8) | low || 1;
  return ((fingerprint << TAG_BITS) | (segment & TAG_MASK)) >>> 0;
}

/** The filter of one partition. Segments are told of oldest first, by ascending number. */
export class KeyFilter {
  #pages: Page[] = [];

  /** Bytes of memory. */
  get byteLength(): number {
    return this.#pages.reduce((sum, page) => sum + page.slots.byteLength, 0);
  }

  /** Notes a key of a segment. */
  add(hash: KeyHash, segment: number): void {
    let page = this.#pages.at(-1);
    if (page === undefined || page.isFull) {
      const held = this.byteLength / Uint32Array.BYTES_PER_ELEMENT;
      const slots = 2 ** Math.floor(Math.log2(Math.max(held, filterSlotsMin)));
      page = new Page(Math.min(slots, filterSlotsMax));
      this.#pages.push(page);
    }
    page.add(hash, segment);
  }

  /** Whether a segment (by its number) may hold the key, of those that `gather` gave. */
  static matches(tags: ReadonlySet<number>, segment: number): boolean {
    return tags.has(segment & TAG_MASK);
  }

  /** The tags of segments that may hold a key; null when none does. */
  find(hash: KeyHash): ReadonlySet<number> | null {
    const tags = new Set<number>();
    for (const page of this.#pages) page.gather(hash, tags);
    return tags.size === 0 ? null : tags;
  }

  /** Segments below this number are gone. */
  dropBelow(segment: number): void {
    this.#pages = this.#pages.filter((page) => page.segmentLast >= segment);
  }
}
