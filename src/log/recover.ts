/**
 * Recovery of a partition's newest segment after any kind of end.
 *
 * Torn is not corrupt: bad bytes at or above the highest known-synced offset were never promised
 * and are cut, a copy kept; below it they are corrupt: reported, kept, and a gap for readers.
 * Recovery trusts no cache: batches beyond the known-synced offset are copied into a fresh segment
 * and synced before anything is served. Running it twice gives the same bytes.
 */
import { join } from "node:path";
import { assert } from "../assert.ts";
import {
  BATCH_HEADER_BYTES,
  type BatchHeader,
  parseBatchHeader,
  payloadIsValid,
  sealBatch,
} from "./batch.ts";
import type { Disk, DiskFile } from "./disk.ts";
import type { Offset } from "./log.ts";
import {
  createSegmentFile,
  openSegmentFile,
  SEGMENT_HEADER_BYTES,
  Segment,
  type SegmentHeader,
  segmentName,
} from "./segment.ts";
import { createDurably } from "./spare.ts";

/** Synced messages that can't be read any more. */
export interface Corruption {
  readonly path: string;
  /** Where the bad bytes begin, and how many there are. */
  readonly byte: number;
  readonly bytes: number;
  readonly from: Offset;
  /** Exclusive: where reading goes on. The same as `from`: a header was damaged, no message. */
  readonly to: Offset;
  /** What is lost beside messages, in words. */
  readonly lost?: string;
}

/** One valid batch of a scanned file. */
export interface ScannedBatch {
  readonly header: BatchHeader;
  readonly position: number;
}

interface Scan {
  readonly batches: readonly ScannedBatch[];
  readonly corruptions: Corruption[];
  /** Behind the last valid batch. */
  readonly endPosition: number;
  readonly endOffset: Offset;
  readonly knownSynced: Offset;
}

/** A partition's newest segment, ready to be written on. */
export interface Recovered {
  /** One segment, or two when unsynced batches were copied into a fresh one. */
  readonly segments: readonly Segment[];
  readonly epoch: string;
  readonly partitions: number;
  readonly endOffset: Offset;
  readonly appendedAtMs: number;
  readonly corruptions: Corruption[];
  /** Bytes cut off as torn; a copy of them stands beside the segments. */
  readonly tornBytes: number;
  /** Every valid batch of these segments with the bytes that hold it. */
  readonly batches: readonly { readonly header: BatchHeader; readonly bytes: Buffer }[];
}

/** The bytes and the path of a file that is scanned. */
interface Content {
  readonly path: string;
  readonly bytes: Buffer;
  readonly header: SegmentHeader;
}

function findNextHeader(content: Content, from: number, minimum: Offset): ScannedBatch | null {
  const { bytes, header } = content;
  for (let at = bytes.indexOf("IBAT", from); at >= 0; at = bytes.indexOf("IBAT", at + 1)) {
    const found = parseBatchHeader(bytes, at, header.salt);
    if (found !== null && found.baseOffset >= minimum) return { header: found, position: at };
  }
  return null;
}

/** The highest offset that any valid header behind a place says was synced. */
function knownSyncedAfter(content: Content, from: number): Offset {
  let highest = 0;
  let next = findNextHeader(content, from, 0);
  while (next !== null) {
    highest = Math.max(highest, next.header.knownSynced);
    next = findNextHeader(content, next.position + 1, 0);
  }
  return highest;
}

function findNextValid(content: Content, from: number, minimum: Offset): ScannedBatch | null {
  let next = findNextHeader(content, from, minimum);
  while (next !== null && !payloadIsValid(content.bytes, next.position, next.header)) {
    next = findNextHeader(content, next.position + 1, minimum);
  }
  return next;
}

function scan(content: Content): Scan {
  const { bytes, header, path } = content;
  const batches: ScannedBatch[] = [];
  const corruptions: Corruption[] = [];
  let position = SEGMENT_HEADER_BYTES;
  let offset = header.baseOffset;
  let knownSynced = header.baseOffset;
  for (;;) {
    const batch = parseBatchHeader(bytes, position, header.salt);
    if (batch?.baseOffset === offset && payloadIsValid(bytes, position, batch)) {
      batches.push({ header: batch, position });
      knownSynced = Math.max(knownSynced, batch.knownSynced);
      position += BATCH_HEADER_BYTES + batch.payloadBytes;
      offset += batch.count;
      continue;
    }
    knownSynced = Math.max(knownSynced, knownSyncedAfter(content, position));
    if (offset >= knownSynced) break;
    const next = findNextValid(content, position, offset);
    const to = next?.header.baseOffset ?? knownSynced;
    const badBytes = (next?.position ?? bytes.length) - position;
    corruptions.push({ path, byte: position, bytes: badBytes, from: offset, to });
    offset = to;
    if (next === null) {
      position = bytes.length;
      break;
    }
    position = next.position;
  }
  return { batches, corruptions, endPosition: position, endOffset: offset, knownSynced };
}

async function keepTorn(disk: Disk, folder: string, content: Content, from: number) {
  const end = content.bytes.findLastIndex((byte) => byte !== 0) + 1;
  const torn = content.bytes.subarray(from, Math.max(from, end));
  if (torn.length === 0) return 0;
  const name = `torn-${content.header.baseOffset}-${from}-${content.header.salt}.bin`;
  if (!(await disk.list(folder)).includes(name)) {
    await (await createDurably(disk, { folder, spare: "torn.tmp", name }, [torn])).close();
  }
  return torn.length;
}

/**
 * Copies batches for a file with another salt; they count as synced once that file has its name.
 */
function resalt(content: Content, batches: readonly ScannedBatch[], salt: number, end: Offset) {
  const sizes = batches.map(({ header }) => BATCH_HEADER_BYTES + header.payloadBytes);
  const copy = Buffer.allocUnsafeSlow(sizes.reduce((sum, size) => sum + size, 0));
  let at = 0;
  for (const [index, { header, position }] of batches.entries()) {
    const size = sizes[index] ?? 0;
    content.bytes.copy(copy, at, position, position + size);
    sealBatch(copy, at, { ...header, salt, knownSynced: end });
    at += size;
  }
  return copy;
}

/**
 * Writes the marks at the end again: a sync that failed may have left them in the cache only, where
 * no later sync would write them, and what is appended behind them would lie behind a hole.
 */
function rewriteMarks(file: DiskFile, { bytes }: Content, { batches, endPosition }: Scan): void {
  const last = batches.findLast(({ header }) => header.count > 0);
  const from =
    last === undefined
      ? SEGMENT_HEADER_BYTES
      : last.position + BATCH_HEADER_BYTES + last.header.payloadBytes;
  if (from < endPosition) file.write(bytes.subarray(from, endPosition), from);
}

function segmentOf(content: Content, file: DiskFile, scanned: Scan): Segment {
  const segment = new Segment(content.path, content.header, file, scanned.endPosition);
  for (const { header, position } of scanned.batches) segment.noteBatch(header, position);
  return segment;
}

function withBytes(content: Content, batches: readonly ScannedBatch[]) {
  return batches.map(({ header, position }) => ({
    header,
    bytes: content.bytes.subarray(position, position + BATCH_HEADER_BYTES + header.payloadBytes),
  }));
}

async function readWhole(disk: Disk, path: string): Promise<{ file: DiskFile; content: Content }> {
  const { file, header } = await openSegmentFile(disk, path);
  const bytes = Buffer.allocUnsafeSlow(await file.size());
  const count = await file.read(bytes, 0);
  return { file, content: { path, bytes: bytes.subarray(0, count), header } };
}

/**
 * Recovers the newest segment of a partition's folder. @throws CorruptionError when its header is
 * damaged, StorageError when the disk fails: nothing is served then.
 */
export async function recoverNewest(
  disk: Disk,
  folder: string,
  options: { baseOffset: Offset; salt: number },
): Promise<Recovered> {
  const path = join(folder, segmentName(options.baseOffset));
  const { file, content } = await readWhole(disk, path);
  const scanned = scan(content);
  const tornBytes = await keepTorn(disk, folder, content, scanned.endPosition);
  const { createdAtMs, epoch, partitions } = content.header;
  const appendedAtMs = Math.max(createdAtMs, scanned.batches.at(-1)?.header.appendedAtMs ?? 0);
  const unsynced = scanned.batches.filter(
    ({ header }) => header.count > 0 && header.baseOffset >= scanned.knownSynced,
  );
  const result = {
    epoch,
    partitions,
    endOffset: scanned.endOffset,
    appendedAtMs,
    corruptions: scanned.corruptions,
    tornBytes,
  };
  const first = unsynced[0];
  if (first === undefined) {
    await file.truncate(scanned.endPosition);
    rewriteMarks(file, content, scanned);
    await file.sync();
    const segment = segmentOf(content, file, scanned);
    return { ...result, segments: [segment], batches: withBytes(content, scanned.batches) };
  }
  const header: SegmentHeader = {
    salt: options.salt,
    baseOffset: first.header.baseOffset,
    epoch,
    partitions,
    createdAtMs: first.header.appendedAtMs,
  };
  const copied = resalt(content, unsynced, header.salt, scanned.endOffset);
  await (await createSegmentFile(disk, folder, header, copied)).close();
  const fresh = await readWhole(disk, join(folder, segmentName(header.baseOffset)));
  const freshScan = scan(fresh.content);
  assert(freshScan.endOffset === scanned.endOffset, "the fresh copy holds all that was read");
  const newest = segmentOf(fresh.content, fresh.file, freshScan);
  const newestBatches = withBytes(fresh.content, freshScan.batches);
  if (header.baseOffset === content.header.baseOffset) {
    await file.close();
    return { ...result, segments: [newest], batches: newestBatches };
  }
  await file.truncate(first.position);
  await file.sync();
  const before = scanned.batches.filter(({ position }) => position < first.position);
  const older = segmentOf(content, file, {
    ...scanned,
    batches: before,
    endPosition: first.position,
  });
  return {
    ...result,
    segments: [older, newest],
    batches: [...withBytes(content, before), ...newestBatches],
  };
}
