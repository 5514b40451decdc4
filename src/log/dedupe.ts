/**
 * Which dedupe keys a partition holds, and at which offset: written in the same batch as their
 * message, so they cannot be lost without it; found for as long as its segment lives. A key is
 * kept as 128 bits of its SHA-256. Each sealed segment's keys stand in a file beside it, made anew
 * from the segment when it is missing.
 */
import { join } from "node:path";
import type { Disk } from "./disk.ts";
import type { Offset } from "./log.ts";

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

/** The keys of one partition, by segment. */
export class Dedupe {
  readonly #segments = new Map<Offset, Map<string, Offset>>();

  /** The offset of the first message with the key, or null. */
  find(key: string): Offset | null {
    if (this.#segments.size === 0) return null;
    const hash = hashOf(key);
    for (const keys of this.#segments.values()) {
      const offset = keys.get(hash);
      if (offset !== undefined) return offset;
    }
    return null;
  }

  /** Notes a key of a message of the segment that begins at `baseOffset`. */
  note(baseOffset: Offset, key: string, offset: Offset): void {
    let keys = this.#segments.get(baseOffset);
    if (keys === undefined) {
      keys = new Map();
      this.#segments.set(baseOffset, keys);
    }
    keys.set(hashOf(key), offset);
  }

  /** Forgets the keys at or above an offset: their messages were not written. */
  forgetFrom(offset: Offset): void {
    for (const keys of this.#segments.values()) {
      for (const [hash, at] of keys) if (at >= offset) keys.delete(hash);
    }
  }

  /** Forgets a deleted segment's keys and removes their file. */
  async removeSegment(disk: Disk, folder: string, baseOffset: Offset): Promise<void> {
    this.#segments.delete(baseOffset);
    const name = keysName(baseOffset);
    if ((await disk.list(folder)).includes(name)) await disk.remove(join(folder, name));
  }

  /** Writes a sealed segment's keys beside it. A crash in between costs one scan, no key. */
  async save(disk: Disk, folder: string, baseOffset: Offset): Promise<void> {
    const keys = this.#segments.get(baseOffset) ?? new Map<string, Offset>();
    const entries = [...keys].toSorted(([a], [b]) => (a < b ? -1 : 1));
    const bytes = Buffer.alloc(4 + entries.length * ENTRY_BYTES);
    for (const [index, [hash, offset]] of entries.entries()) {
      const at = 4 + index * ENTRY_BYTES;
      bytes.write(hash, at, "latin1");
      bytes.writeBigUInt64LE(BigInt(offset), at + HASH_BYTES);
    }
    bytes.writeUInt32LE(Bun.hash.crc32(bytes.subarray(4)), 0);
    const spare = join(folder, "keys.tmp");
    if ((await disk.list(folder)).includes("keys.tmp")) await disk.remove(spare);
    const file = await disk.open(spare, "create");
    file.write(bytes, 0);
    await file.sync();
    await file.close();
    await disk.rename(spare, join(folder, keysName(baseOffset)));
    await disk.syncFolder(folder);
  }

  /** Reads a sealed segment's keys; false when the file is missing or damaged. */
  async load(disk: Disk, folder: string, baseOffset: Offset): Promise<boolean> {
    const name = keysName(baseOffset);
    if (!(await disk.list(folder)).includes(name)) return false;
    const file = await disk.open(join(folder, name), "read");
    const bytes = Buffer.alloc(await file.size());
    await file.read(bytes, 0);
    await file.close();
    const valid = bytes.length >= 4 && bytes.readUInt32LE(0) === Bun.hash.crc32(bytes.subarray(4));
    if (!valid) return false;
    const keys = new Map<string, Offset>();
    for (let at = 4; at + ENTRY_BYTES <= bytes.length; at += ENTRY_BYTES) {
      const offset = Number(bytes.readBigUInt64LE(at + HASH_BYTES));
      keys.set(bytes.toString("latin1", at, at + HASH_BYTES), offset);
    }
    if (keys.size > 0) this.#segments.set(baseOffset, keys);
    return true;
  }
}
