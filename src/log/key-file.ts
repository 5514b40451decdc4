/**
 * The dedupe keys of a sealed segment, sorted by hash, in a file beside it. Little-endian.
 *
 *     0  8 B   magic "ISTHMKEY"
 *     8  u32   format version, 1
 *    12  u32   the segment's salt: a file of another life of that segment is not taken
 *    16  u64   base offset of the segment
 *    24  u32   seed of the hashes
 *    28  u32   count of keys
 *    32  28 B  reserved, 0
 *    60  u32   CRC-32 (IEEE) of the 60 bytes before
 *    64  blocks of 4096 bytes: 511 keys, u32 CRC-32 of them, u32 reserved. A key is a u64:
 *        40 bits of its hash above 24 bits of its offset in the segment
 *
 * It is a hint: made anew from the segment when it is missing or damaged, and what it finds is
 * compared with the record itself.
 */
import { join } from "node:path";
import { assert } from "../assert.ts";
import type { DiskFile } from "./disk.ts";
import type { KeyHash } from "./key-filter.ts";
import type { Offset } from "./log.ts";

const MAGIC = "ISTHMKEY";
const VERSION = 1;
const HEADER_BYTES = 64;
const BLOCK_BYTES = 4096;
const BLOCK_KEYS = 511;
const OFFSET_BITS = 24;
const OFFSETS_MAX = 2 ** OFFSET_BITS;

/** Which segment a key file belongs to, and how its keys were hashed. */
export interface KeyFileOwner {
  readonly baseOffset: Offset;
  readonly salt: number;
  readonly seed: number;
}

/** Which offsets of a hash are looked for: so many from one on. */
export interface KeySpan {
  readonly from: Offset;
  readonly max: number;
}

const WHOLE: KeySpan = { from: 0, max: Number.POSITIVE_INFINITY };

/** The name of the file that holds a segment's keys. */
export function keysName(baseOffset: Offset): string {
  return `${String(baseOffset).padStart(20, "0")}.keys`;
}

/** The name of the file that holds the keys of a segment's messages (key-index.ts). */
export function indexName(baseOffset: Offset): string {
  return `${String(baseOffset).padStart(20, "0")}.index`;
}

/** The path of a segment's key file. */
export function keysPath(folder: string, baseOffset: Offset): string {
  return join(folder, keysName(baseOffset));
}

/** Keys of one segment, by hash once they are sorted. */
export class KeyList {
  readonly #baseOffset: Offset;
  #words = new Uint32Array(256);
  #count = 0;
  #isSorted = false;

  constructor(baseOffset: Offset) {
    this.#baseOffset = baseOffset;
  }

  get count(): number {
    return this.#count;
  }

  add({ high, low }: KeyHash, offset: Offset): void {
    const relative = offset - this.#baseOffset;
    assert(relative >= 0 && relative < OFFSETS_MAX, "a segment holds fewer than 2^24 offsets");
    if (this.#count * 2 === this.#words.length) {
      const grown = new Uint32Array(this.#words.length * 2);
      grown.set(this.#words);
      this.#words = grown;
    }
    this.#words[this.#count * 2] = ((low << OFFSET_BITS) | relative) >>> 0;
    this.#words[this.#count * 2 + 1] = high;
    this.#count++;
  }

  /** Whether all keys are there. */
  get isSorted(): boolean {
    return this.#isSorted;
  }

  sort(): void {
    this.#isSorted = true;
    new BigUint64Array(this.#words.buffer, 0, this.#count).sort();
  }

  offsetAt(index: number): Offset {
    return this.#baseOffset + offsetAt(this.#words, index);
  }

  hashAt(index: number): KeyHash {
    const low = (this.#words[index * 2] ?? 0) >>> OFFSET_BITS;
    return { high: this.#words[index * 2 + 1] ?? 0, low };
  }

  /** The offsets of the keys with a hash, once sorted; of a span only where one is given. */
  find(hash: KeyHash, span: KeySpan = WHOLE): Offset[] {
    const from = Math.max(0, span.from - this.#baseOffset);
    const found = search(this.#words, this.#count, { hash, from, max: span.max });
    return found.map((each) => each + this.#baseOffset);
  }

  /** The bytes of the key file. */
  encode(owner: KeyFileOwner): Buffer {
    const blocks = Math.ceil(this.#count / BLOCK_KEYS);
    const bytes = Buffer.alloc(HEADER_BYTES + blocks * BLOCK_BYTES);
    bytes.write(MAGIC, 0, "latin1");
    bytes.writeUInt32LE(VERSION, 8);
    bytes.writeUInt32LE(owner.salt, 12);
    bytes.writeBigUInt64LE(BigInt(owner.baseOffset), 16);
    bytes.writeUInt32LE(owner.seed, 24);
    bytes.writeUInt32LE(this.#count, 28);
    bytes.writeUInt32LE(Bun.hash.crc32(bytes.subarray(0, 60)), 60);
    const keys = Buffer.from(this.#words.buffer, 0, this.#count * 8);
    for (let block = 0; block < blocks; block++) {
      const at = HEADER_BYTES + block * BLOCK_BYTES;
      keys.copy(bytes, at, block * BLOCK_KEYS * 8, (block + 1) * BLOCK_KEYS * 8);
      const crc = Bun.hash.crc32(bytes.subarray(at, at + BLOCK_KEYS * 8));
      bytes.writeUInt32LE(crc, at + BLOCK_KEYS * 8);
    }
    return bytes;
  }
}

/** The keys of a whole file; null when it is not this segment's or damaged. @throws StorageError */
export async function readKeys(file: DiskFile, owner: KeyFileOwner): Promise<KeyList | null> {
  const count = await countOf(file, owner);
  if (count === null) return null;
  const list = new KeyList(owner.baseOffset);
  for (let block = 0; block * BLOCK_KEYS < count; block++) {
    const words = await readBlock(file, block);
    if (words === null) return null;
    const keys = Math.min(BLOCK_KEYS, count - block * BLOCK_KEYS);
    for (let index = 0; index < keys; index++) {
      const word = words[index * 2] ?? 0;
      const hash = { high: words[index * 2 + 1] ?? 0, low: word >>> OFFSET_BITS };
      list.add(hash, owner.baseOffset + (word & (OFFSETS_MAX - 1)));
    }
  }
  return list;
}

/**
 * The offsets of the keys with a hash: reads the header and the few blocks where they would be.
 * Null when the file is not this segment's or one of those blocks is damaged. @throws StorageError
 */
export async function searchKeys(
  file: DiskFile,
  owner: KeyFileOwner,
  hash: KeyHash,
  span: KeySpan = WHOLE,
): Promise<Offset[] | null> {
  const count = await countOf(file, owner);
  if (count === null) return null;
  const wanted = valueOf(hash);
  const from = Math.max(0, span.from - owner.baseOffset);
  const last = Math.ceil(count / BLOCK_KEYS) - 1;
  let low = 0;
  let high = last;
  // Hashes are spread evenly, so that the first guess is the right block or the one beside it.
  let at = Math.min(last, Math.floor((hash.high / 2 ** 32) * (last + 1)));
  const offsets: Offset[] = [];
  while (low <= high) {
    const words = await readBlock(file, at);
    if (words === null) return null;
    const keys = Math.min(BLOCK_KEYS, count - at * BLOCK_KEYS);
    if (isBefore(words, keys - 1, wanted, from)) low = at + 1;
    else if (at > low && !isBefore(words, 0, wanted, from)) high = at;
    else {
      const max = span.max - offsets.length;
      for (const each of search(words, keys, { hash, from, max })) {
        offsets.push(each + owner.baseOffset);
      }
      if (valueAt(words, keys - 1) > wanted || offsets.length >= span.max) break;
      low = at + 1;
      high = Math.max(high, Math.min(low, last));
    }
    at = offsets.length > 0 ? low : (low + high) >> 1;
  }
  return offsets;
}

async function countOf(file: DiskFile, owner: KeyFileOwner): Promise<number | null> {
  const bytes = Buffer.alloc(HEADER_BYTES);
  if ((await file.read(bytes, 0)) < HEADER_BYTES) return null;
  const isOwn =
    bytes.readUInt32LE(60) === Bun.hash.crc32(bytes.subarray(0, 60)) &&
    bytes.toString("latin1", 0, 8) === MAGIC &&
    bytes.readUInt32LE(8) === VERSION &&
    bytes.readUInt32LE(12) === owner.salt &&
    bytes.readBigUInt64LE(16) === BigInt(owner.baseOffset) &&
    bytes.readUInt32LE(24) === owner.seed;
  return isOwn ? bytes.readUInt32LE(28) : null;
}

async function readBlock(file: DiskFile, block: number): Promise<Uint32Array | null> {
  const bytes = Buffer.from(new ArrayBuffer(BLOCK_BYTES));
  if ((await file.read(bytes, HEADER_BYTES + block * BLOCK_BYTES)) < BLOCK_BYTES) return null;
  const crc = Bun.hash.crc32(bytes.subarray(0, BLOCK_KEYS * 8));
  if (bytes.readUInt32LE(BLOCK_KEYS * 8) !== crc) return null;
  return new Uint32Array(bytes.buffer, 0, BLOCK_KEYS * 2);
}

function valueOf({ high, low }: KeyHash): number {
  return high * 256 + low;
}

function valueAt(words: Uint32Array, index: number): number {
  return (words[index * 2 + 1] ?? 0) * 256 + ((words[index * 2] ?? 0) >>> OFFSET_BITS);
}

function offsetAt(words: Uint32Array, index: number): number {
  return (words[index * 2] ?? 0) & (OFFSETS_MAX - 1);
}

/** Whether a key stands before those of a hash from a relative offset on. */
function isBefore(words: Uint32Array, index: number, wanted: number, from: number): boolean {
  const value = valueAt(words, index);
  return value < wanted || (value === wanted && offsetAt(words, index) < from);
}

/** The relative offsets of a hash within sorted keys, so many from one on. */
function search(
  words: Uint32Array,
  count: number,
  { hash, from, max }: { readonly hash: KeyHash; readonly from: number; readonly max: number },
): number[] {
  const wanted = valueOf(hash);
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isBefore(words, middle, wanted, from)) low = middle + 1;
    else high = middle;
  }
  const offsets: number[] = [];
  for (let at = low; at < count && valueAt(words, at) === wanted; at++) {
    if (offsets.length >= max) break;
    offsets.push(offsetAt(words, at));
  }
  return offsets;
}
