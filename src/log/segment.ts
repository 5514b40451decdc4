/**
 * A segment: one file of a partition, named by its first offset. Little-endian.
 *
 *     0  8 B   magic "ISTHMLOG"
 *     8  u32   format version, 1
 *    12  u32   salt, random: in every batch of this file
 *    16  u64   base offset
 *    24  16 B  the partition's epoch, ASCII
 *    40  f64   made at, Unix milliseconds
 *    48  u32   partitions of the stream; 0: not said
 *    52  8 B   reserved, 0
 *    60  u32   CRC-32 (IEEE) of the 60 bytes before
 *    64  batches (batch.ts); the end is found by checksum, salt and offset, never by file length
 *
 * A segment ends where the next one begins. Its sparse index is kept in memory: of the newest
 * segment as it is written, of the others when they are first read.
 */
import { assert } from "../assert.ts";
import { CorruptionError, errorText, StorageError } from "../errors.ts";
import { indexStrideBytes, readChunkBytes, recordBytesMax } from "../limits.ts";
import { BATCH_HEADER_BYTES, type BatchHeader, batchesIn, parseBatchHeader } from "./batch.ts";
import type { Disk, DiskFile } from "./disk.ts";
import { FillAhead, type FillAheadBounds } from "./fill-ahead.ts";
import type { Offset } from "./log.ts";
import { SealedFile } from "./open-files.ts";
import { createDurably } from "./spare.ts";

export const SEGMENT_HEADER_BYTES = 64;
const MAGIC = "ISTHMLOG";
const VERSION = 1;

/** What a segment's own header says. */
export interface SegmentHeader {
  readonly salt: number;
  readonly baseOffset: Offset;
  readonly epoch: string;
  readonly createdAtMs: number;
  /** How many partitions the stream has: fixed with its first message. */
  readonly partitions: number;
}

/** The file's name of a segment. */
export function segmentName(baseOffset: Offset): string {
  return `${String(baseOffset).padStart(20, "0")}.log`;
}

/** The base offset that a file's name tells; null for other files. */
export function segmentOffset(name: string): Offset | null {
  return /^\d{20}\.log$/.test(name) ? Number(name.slice(0, 20)) : null;
}

/** The 64 bytes that a segment begins with. */
export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const bytes = Buffer.alloc(SEGMENT_HEADER_BYTES);
  assert(header.epoch.length === 16, "an epoch has 16 characters");
  bytes.write(MAGIC, 0, "latin1");
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(header.salt, 12);
  bytes.writeBigUInt64LE(BigInt(header.baseOffset), 16);
  bytes.write(header.epoch, 24, "latin1");
  bytes.writeDoubleLE(header.createdAtMs, 40);
  bytes.writeUInt32LE(header.partitions, 48);
  bytes.writeUInt32LE(Bun.hash.crc32(bytes.subarray(0, 60)), 60);
  return bytes;
}

/** Reads a segment's header. @throws CorruptionError when it isn't one. */
export function parseSegmentHeader(bytes: Buffer, path: string): SegmentHeader {
  if (
    bytes.length < SEGMENT_HEADER_BYTES ||
    bytes.toString("latin1", 0, 8) !== MAGIC ||
    bytes.readUInt32LE(60) !== Bun.hash.crc32(bytes.subarray(0, 60))
  ) {
    const message = "this segment's header is damaged; a start or isthmus log repair makes it anew";
    throw new CorruptionError(message, { path, byte: 0 });
  }
  const version = bytes.readUInt32LE(8);
  if (version !== VERSION) {
    const message = `this segment has format version ${version}; this release reads ${VERSION}`;
    throw new CorruptionError(message, { path, byte: 8 });
  }
  return {
    salt: bytes.readUInt32LE(12),
    baseOffset: Number(bytes.readBigUInt64LE(16)),
    epoch: bytes.toString("latin1", 24, 40),
    createdAtMs: bytes.readDoubleLE(40),
    partitions: bytes.readUInt32LE(48),
  };
}

/** Opens a segment's file and reads its header. */
export async function openSegmentFile(
  disk: Disk,
  path: string,
): Promise<{ file: DiskFile; header: SegmentHeader }> {
  const file = await disk.open(path, "write");
  try {
    const bytes = Buffer.alloc(SEGMENT_HEADER_BYTES);
    const count = await file.read(bytes, 0);
    return { file, header: parseSegmentHeader(bytes.subarray(0, count), path) };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * Makes a segment whose first bytes (header and `content`) are durable before its name is. A
 * segment of the same name is replaced.
 */
export function createSegmentFile(
  disk: Disk,
  folder: string,
  header: SegmentHeader,
  content: Buffer | null = null,
): Promise<DiskFile> {
  const place = { folder, spare: "spare.tmp", name: segmentName(header.baseOffset) };
  const head = encodeSegmentHeader(header);
  return createDurably(disk, place, content === null ? [head] : [head, content]);
}

interface IndexEntry {
  readonly offset: Offset;
  readonly position: number;
  readonly appendedAtMs: number;
}

/** One segment as its partition holds it: where it begins and ends, and where things are. */
export class Segment {
  readonly path: string;
  readonly baseOffset: Offset;
  readonly salt: number;
  readonly createdAtMs: number;
  /** The position behind its last valid batch; for sealed segments known once indexed. */
  endPosition: number;
  #file: DiskFile;
  /** The file that it was written to, while somebody reads from it that began before the seal. */
  #written: DiskFile | null = null;
  readonly #ahead = new FillAhead();
  readonly #index: IndexEntry[] = [];
  #indexedTo = SEGMENT_HEADER_BYTES;
  #indexing: Promise<void> | null = null;
  /** Reads under way, and who is told when there are none. */
  #users = 0;
  #unused: (() => void) | null = null;

  constructor(path: string, header: SegmentHeader, file: DiskFile, endPosition: number) {
    this.path = path;
    this.baseOffset = header.baseOffset;
    this.salt = header.salt;
    this.createdAtMs = header.createdAtMs;
    this.endPosition = endPosition;
    this.#file = file;
    if (file instanceof SealedFile) file.onClosed = () => this.#forgetIndex();
  }

  get file(): DiskFile {
    return this.#file;
  }

  /** Writes a group at the end, into zeros where that pays. @throws StorageError cut it off. */
  write(bytes: Uint8Array, bounds: FillAheadBounds): void {
    this.#ahead.prepare(this.#file, { position: this.endPosition, bytes: bytes.length }, bounds);
    this.#file.write(bytes, this.endPosition);
  }

  /** Writes a mark at the end: there is a pause. @throws StorageError */
  writeMark(bytes: Uint8Array): void {
    this.#ahead.rest();
    this.#file.write(bytes, this.endPosition);
  }

  /** Syncs what was written, `bytes` behind the end, as the last of this life. @throws StorageError */
  async finish(bytes: number): Promise<void> {
    await this.#ahead.trim(this.#file, this.endPosition + bytes);
    await this.#file.sync();
  }

  /** Notes a batch at a position, in order. */
  noteBatch(header: BatchHeader, position: number): void {
    const last = this.#index.at(-1);
    this.#indexedTo = position + BATCH_HEADER_BYTES + header.payloadBytes;
    if (header.count === 0) return;
    if (last !== undefined && position - last.position < indexStrideBytes) return;
    const { baseOffset, appendedAtMs } = header;
    this.#index.push({ offset: baseOffset, position, appendedAtMs });
  }

  /** The last indexed place at or before an offset. */
  async positionBefore(offset: Offset): Promise<number> {
    await this.#completeIndex();
    const found = this.#index.findLast((entry) => entry.offset <= offset);
    return found?.position ?? SEGMENT_HEADER_BYTES;
  }

  /**
   * A place at or before an offset and near it. Without an index in memory it is looked for by
   * halves: a few reads, where making the index would read the whole file.
   */
  async positionNear(offset: Offset): Promise<number> {
    if (this.#indexedTo >= this.endPosition) return await this.positionBefore(offset);
    let low = SEGMENT_HEADER_BYTES;
    let high = this.endPosition;
    while (high - low > indexStrideBytes * 2) {
      const middle = low + Math.floor((high - low) / 2);
      const found = await this.#findBatch(middle, high);
      if (found === null || found.header.baseOffset > offset) high = middle;
      else low = found.position;
    }
    return low;
  }

  /** The last indexed place appended before a time. */
  async positionBeforeTime(timestampMs: number): Promise<number> {
    await this.#completeIndex();
    const found = this.#index.findLast((entry) => entry.appendedAtMs < timestampMs);
    return found?.position ?? SEGMENT_HEADER_BYTES;
  }

  /**
   * Reads whole batches from a position; the chunk holds at least one unless the segment ends.
   * What is not a valid header at its place ends the chunk.
   */
  async readChunk(position: number): Promise<Buffer> {
    const left = this.endPosition - position;
    if (left <= 0) return Buffer.alloc(0);
    let chunk = Buffer.allocUnsafeSlow(Math.min(readChunkBytes, left));
    let count = await this.#file.read(chunk, position);
    const first = parseBatchHeader(chunk.subarray(0, count), 0, this.salt);
    const needed = BATCH_HEADER_BYTES + (first?.payloadBytes ?? 0);
    if (first !== null && needed > count && first.payloadBytes <= 2 * recordBytesMax) {
      chunk = Buffer.allocUnsafeSlow(needed);
      count = await this.#file.read(chunk, position);
    }
    return chunk.subarray(0, count);
  }

  /** The position of the next valid batch header behind damage; null when there is none. */
  async nextBatch(from: number): Promise<number | null> {
    return (await this.#findBatch(from, this.endPosition))?.position ?? null;
  }

  /** The first valid batch header that begins between two positions, or null. */
  async #findBatch(
    from: number,
    to: number,
  ): Promise<{ readonly header: BatchHeader; readonly position: number } | null> {
    for (let position = from; position < to; ) {
      const left = Math.min(to + BATCH_HEADER_BYTES, this.endPosition) - position;
      const chunk = Buffer.allocUnsafeSlow(Math.min(readChunkBytes, left));
      const bytes = chunk.subarray(0, await this.#file.read(chunk, position));
      for (let at = bytes.indexOf("IBAT"); at >= 0; at = bytes.indexOf("IBAT", at + 1)) {
        const header = parseBatchHeader(bytes, at, this.salt);
        if (header !== null && position + at < to) return { header, position: position + at };
      }
      if (bytes.length <= BATCH_HEADER_BYTES) return null;
      position += bytes.length - BATCH_HEADER_BYTES;
    }
    return null;
  }

  /** Runs work that reads the file, which stays open until that has ended. */
  async use<T>(work: () => Promise<T>): Promise<T> {
    this.#users++;
    try {
      return await (this.#file instanceof SealedFile ? this.#file.hold(work) : work());
    } finally {
      this.#users--;
      if (this.#users === 0) await this.#endUse();
    }
  }

  /** From now on it is only read: its file is open while somebody does. */
  async seal(file: SealedFile): Promise<void> {
    await this.#ahead.trim(this.#file, this.endPosition);
    this.#written = this.#file;
    this.#file = file;
    file.onClosed = () => this.#forgetIndex();
    if (this.#users === 0) await this.#endUse();
  }

  async #endUse(): Promise<void> {
    const written = this.#written;
    this.#written = null;
    await written?.close();
    this.#unused?.();
  }

  /** Made anew by the next reader: what lies in memory does not grow with the log. */
  #forgetIndex(): void {
    if (this.#users > 0) return;
    this.#index.length = 0;
    this.#indexedTo = SEGMENT_HEADER_BYTES;
  }

  /** Half-written bytes must never be read as a batch of a later life of their place. */
  async cut(position: number): Promise<void> {
    this.#ahead.forget();
    try {
      await this.#file.truncate(position);
    } catch (error) {
      throw new StorageError(errorText(error), { fatal: true, cause: error });
    }
  }

  /** Closes the file once nobody uses it: its number may be another file's at once. */
  async close(): Promise<void> {
    if (this.#users > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#unused = resolve;
      await promise;
    }
    await this.#file.close();
  }

  async #completeIndex(): Promise<void> {
    if (this.#indexedTo >= this.endPosition) return;
    this.#indexing ??= this.#buildIndex().finally(() => {
      this.#indexing = null;
    });
    await this.#indexing;
  }

  async #buildIndex(): Promise<void> {
    let position = this.#indexedTo;
    while (position < this.endPosition) {
      const chunk = await this.readChunk(position);
      let consumed = 0;
      for (const { header, at, end } of batchesIn(chunk, this.salt)) {
        this.noteBatch(header, position + at);
        consumed = end;
      }
      if (consumed === 0) break;
      position += consumed;
    }
    this.#indexedTo = Math.max(this.#indexedTo, this.endPosition);
  }
}
