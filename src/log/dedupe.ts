/**
 * Which dedupe keys a partition holds, and at which offset: written in the same batch as their
 * message, so they cannot be lost without it; found for as long as its segment lives. A key is
 * kept as 128 bits of its SHA-256. Each sealed segment's keys stand in a file beside it, made anew
 * from the segment when it is missing.
 */
import { join } from "node:path";
import { StorageError } from "../errors.ts";
import type { Disk } from "./disk.ts";
import type { Offset } from "./log.ts";
import { createDurably } from "./spare.ts";

const HASH_BYTES = 16;
const ENTRY_BYTES = HASH_BYTES + 8;

function hashOf(key: string): string {
  const hash = new Bun.CryptoHasher("sha256").update(key).digest();
  return hash.toString("latin1", 0, HASH_BYTES);
}

/** The name of the file that holds a segment's keys. */
export function keysName(baseOffset: Offset): string {
  return `${String(baseOffset).padStart(20, "0")}.keys`;
}

interface SegmentKeys {
  readonly baseOffset: Offset;
  /** Of the newest segment in the order of their offsets. */
  readonly hashes: string[];
}

/** The keys of one partition. Segments are told of oldest first. */
export class Dedupe {
  readonly #offsets = new Map<string, Offset>();
  readonly #segments: SegmentKeys[] = [];

  /** The offset of the message with the key, or null. */
  find(key: string): Offset | null {
    if (this.#offsets.size === 0) return null;
    return this.#offsets.get(hashOf(key)) ?? null;
  }

  /** Notes a key of the newest segment, or of the one that will be begun for it. */
  note(key: string, offset: Offset): void {
    const hash = hashOf(key);
    if (this.#segments.length === 0) this.begin(offset);
    this.#segments.at(-1)?.hashes.push(hash);
    this.#offsets.set(hash, offset);
  }

  /** A segment begins; the keys of messages that were on their way into it are its own. */
  begin(baseOffset: Offset): void {
    const before = this.#segments.at(-1);
    const hashes = before === undefined ? [] : this.#takeFrom(before, baseOffset);
    const isSame = before?.hashes.length === 0 && before.baseOffset >= baseOffset;
    if (isSame) this.#segments.pop();
    this.#segments.push({ baseOffset, hashes });
  }

  /** Forgets the keys at or above an offset: their messages were not written. */
  forgetFrom(offset: Offset): void {
    const newest = this.#segments.at(-1);
    if (newest === undefined) return;
    for (const hash of this.#takeFrom(newest, offset)) this.#offsets.delete(hash);
  }

  /** Forgets a deleted segment's keys. */
  forgetSegment(baseOffset: Offset): void {
    const index = this.#segments.findIndex((segment) => segment.baseOffset === baseOffset);
    if (index < 0) return;
    const end = this.#endOf(index);
    const [gone] = this.#segments.splice(index, 1);
    for (const hash of gone?.hashes ?? []) {
      if ((this.#offsets.get(hash) ?? end) < end) this.#offsets.delete(hash);
    }
  }

  /** Removes a segment's key file. The keys are still known. */
  async removeFile(disk: Disk, folder: string, baseOffset: Offset): Promise<void> {
    const name = keysName(baseOffset);
    if ((await disk.list(folder)).includes(name)) await disk.remove(join(folder, name));
  }

  /**
   * Writes a sealed segment's keys beside it. A crash before that, or a full disk, costs one scan
   * of the segment at the next start, and no key. @throws StorageError, fatal
   */
  async save(disk: Disk, folder: string, baseOffset: Offset): Promise<void> {
    const bytes = this.#encode(baseOffset);
    const place = { folder, spare: "keys.tmp", name: keysName(baseOffset) };
    try {
      await (await createDurably(disk, place, [bytes])).close();
    } catch (error) {
      if (!(error instanceof StorageError) || error.fatal) throw error;
    }
  }

  /**
   * Reads the keys of the sealed segment of the offsets from `baseOffset` to `end`; false when the
   * file is missing or damaged.
   */
  async load(
    disk: Disk,
    folder: string,
    range: { readonly baseOffset: Offset; readonly end: Offset },
  ): Promise<boolean> {
    const name = keysName(range.baseOffset);
    if (!(await disk.list(folder)).includes(name)) return false;
    const file = await disk.open(join(folder, name), "read");
    const bytes = Buffer.alloc(await file.size());
    await file.read(bytes, 0);
    await file.close();
    const valid = bytes.length >= 4 && bytes.readUInt32LE(0) === Bun.hash.crc32(bytes.subarray(4));
    if (!valid) return false;
    this.begin(range.baseOffset);
    const hashes = this.#segments.at(-1)?.hashes;
    for (let at = 4; at + ENTRY_BYTES <= bytes.length; at += ENTRY_BYTES) {
      const offset = Number(bytes.readBigUInt64LE(at + HASH_BYTES));
      if (offset >= range.end) continue;
      const hash = bytes.toString("latin1", at, at + HASH_BYTES);
      hashes?.push(hash);
      this.#offsets.set(hash, offset);
    }
    return true;
  }

  #encode(baseOffset: Offset): Buffer {
    const index = this.#segments.findIndex((segment) => segment.baseOffset === baseOffset);
    const end = this.#endOf(index);
    const hashes = [...(this.#segments[index]?.hashes ?? [])].toSorted();
    const bytes = Buffer.alloc(4 + hashes.length * ENTRY_BYTES);
    let at = 4;
    for (const hash of hashes) {
      const offset = this.#offsets.get(hash) ?? end;
      if (offset >= end) continue;
      bytes.write(hash, at, "latin1");
      bytes.writeBigUInt64LE(BigInt(offset), at + HASH_BYTES);
      at += ENTRY_BYTES;
    }
    const used = bytes.subarray(0, at);
    used.writeUInt32LE(Bun.hash.crc32(used.subarray(4)), 0);
    return used;
  }

  #endOf(index: number): Offset {
    return this.#segments[index + 1]?.baseOffset ?? Number.POSITIVE_INFINITY;
  }

  /** Takes the keys at or above an offset out of the newest segment's, in order. */
  #takeFrom({ hashes }: SegmentKeys, offset: Offset): string[] {
    let keep = hashes.length;
    while (keep > 0 && (this.#offsets.get(hashes[keep - 1] ?? "") ?? 0) >= offset) keep--;
    return hashes.splice(keep);
  }
}
