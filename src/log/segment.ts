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
import { CorruptionError } from "../errors.ts";
import { indexStrideBytes, readChunkBytes, recordBytesMax } from "../limits.ts";
import { BATCH_HEADER_BYTES, type BatchHeader, batchesIn, parseBatchHeader } from "./batch.ts";
import type { Disk, DiskFile } from "./disk.ts";
import type { Offset } from "./log.ts";
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
    throw new CorruptionError("this segment's header is damaged", { path, byte: 0 });
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
  readonly #file: DiskFile;
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
  }

  get file(): DiskFile {
    return this.#file;
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
    for (let position = from; position < this.endPosition; ) {
      const chunk = Buffer.allocUnsafeSlow(Math.min(readChunkBytes, this.endPosition - position));
      const bytes = chunk.subarray(0, await this.#file.read(chunk, position));
      for (let at = bytes.indexOf("IBAT"); at >= 0; at = bytes.indexOf("IBAT", at + 1)) {
        if (parseBatchHeader(bytes, at, this.salt) !== null) return position + at;
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
      return await work();
    } finally {
      this.#users--;
      if (this.#users === 0) this.#unused?.();
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
