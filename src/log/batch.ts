/**
 * Batches: what a commit writes, at most 64 KiB of records or one message. Little-endian.
 *
 *     0  u32  magic "IBAT"
 *     4  u32  bytes of the payload
 *     8  u64  offset of the first record
 *    16  u32  count of records; 0 is a mark, which only says what is synced
 *    20  u32  the segment's salt: bytes of another life of the same blocks never validate
 *    24  u64  known-synced offset: all below it was on disk when this was written
 *    32  f64  appended at, Unix milliseconds; never goes back within a partition
 *    40  u32  format of the records, 1
 *    44  u32  reserved, 0
 *    48  u64  reserved, 0
 *    56  u32  CRC-32 (IEEE) of the payload
 *    60  u32  CRC-32 (IEEE) of the 60 bytes before
 *    64  the records
 *
 * The header has a CRC of its own, so that a reader finds the next batch after a bad payload.
 */
import { assert } from "../assert.ts";
import { recordBytesMax } from "../limits.ts";
import { RECORD_HEADER_BYTES, type RecordPlace, StoredRecord } from "./record.ts";

export const BATCH_HEADER_BYTES = 64;
const MAGIC = 0x54414249;
const FORMAT = 1;

/** What a batch's header says. */
export interface BatchHeader {
  readonly payloadBytes: number;
  readonly baseOffset: number;
  readonly count: number;
  readonly salt: number;
  readonly knownSynced: number;
  readonly appendedAtMs: number;
  readonly payloadCrc: number;
}

function readU64(view: DataView, at: number): number {
  const value = view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
  return value;
}

function writeU64(view: DataView, at: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, "an offset is a safe whole number");
  view.setUint32(at, value % 0x1_0000_0000, true);
  view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
}

/** Fills in a batch's header before its payload, which stands in the buffer already. */
export function sealBatch(
  bytes: Buffer,
  start: number,
  header: Omit<BatchHeader, "payloadCrc">,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, BATCH_HEADER_BYTES);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, header.payloadBytes, true);
  writeU64(view, 8, header.baseOffset);
  view.setUint32(16, header.count, true);
  view.setUint32(20, header.salt, true);
  writeU64(view, 24, header.knownSynced);
  view.setFloat64(32, header.appendedAtMs, true);
  view.setUint32(40, FORMAT, true);
  view.setUint32(44, 0, true);
  writeU64(view, 48, 0);
  const payload = start + BATCH_HEADER_BYTES;
  view.setUint32(56, Bun.hash.crc32(bytes.subarray(payload, payload + header.payloadBytes)), true);
  view.setUint32(60, Bun.hash.crc32(bytes.subarray(start, start + 60)), true);
}

/** A mark: a batch of nothing, which says that all below `baseOffset` is on disk. */
export function sealMark(mark: Pick<BatchHeader, "baseOffset" | "salt" | "appendedAtMs">): Buffer {
  const bytes = Buffer.alloc(BATCH_HEADER_BYTES);
  sealBatch(bytes, 0, { ...mark, payloadBytes: 0, count: 0, knownSynced: mark.baseOffset });
  return bytes;
}

/**
 * The header at a place, or null when there is no valid one: magic, salt, its CRC and sizes agree.
 * With `salt` null any salt will do.
 */
export function parseBatchHeader(
  bytes: Buffer,
  start: number,
  salt: number | null,
): BatchHeader | null {
  if (start + BATCH_HEADER_BYTES > bytes.length) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, BATCH_HEADER_BYTES);
  if (view.getUint32(0, true) !== MAGIC) return null;
  if (salt !== null && view.getUint32(20, true) !== salt) return null;
  if (view.getUint32(60, true) !== Bun.hash.crc32(bytes.subarray(start, start + 60))) return null;
  if (view.getUint32(40, true) !== FORMAT) return null;
  return {
    payloadBytes: view.getUint32(4, true),
    baseOffset: readU64(view, 8),
    count: view.getUint32(16, true),
    salt: view.getUint32(20, true),
    knownSynced: readU64(view, 24),
    appendedAtMs: view.getFloat64(32, true),
    payloadCrc: view.getUint32(56, true),
  };
}

/**
 * The headers of the batches in a chunk of a segment, one after another from its start, as far as
 * they are valid and their payloads lie within the chunk.
 */
export function* batchesIn(
  chunk: Buffer,
  salt: number,
): Generator<{ readonly header: BatchHeader; readonly at: number; readonly end: number }> {
  let at = 0;
  for (;;) {
    const header = parseBatchHeader(chunk, at, salt);
    if (header === null) return;
    const end = at + BATCH_HEADER_BYTES + header.payloadBytes;
    if (end > chunk.length) return;
    yield { header, at, end };
    at = end;
  }
}

/** Whether the payload behind a header is what was written, down to each record's bounds. */
export function payloadIsValid(bytes: Buffer, start: number, header: BatchHeader): boolean {
  const payload = start + BATCH_HEADER_BYTES;
  const end = payload + header.payloadBytes;
  if (end > bytes.length) return false;
  if (Bun.hash.crc32(bytes.subarray(payload, end)) !== header.payloadCrc) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = payload;
  for (let index = 0; index < header.count; index++) {
    if (at + RECORD_HEADER_BYTES > end) return false;
    const length = view.getUint32(at, true);
    if (length < RECORD_HEADER_BYTES || length > recordBytesMax) return false;
    at += length;
  }
  return at === end;
}

/** The records of a valid batch, as lazy views over `bytes`, which must not change afterwards. */
export function decodeBatch(
  bytes: Buffer,
  start: number,
  header: BatchHeader,
  id: { readonly stream: string; readonly index: number },
): StoredRecord[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const place: RecordPlace = {
    stream: id.stream,
    partition: id.index,
    appendedAtMs: header.appendedAtMs,
    bytes,
    view,
  };
  const records: StoredRecord[] = [];
  let at = start + BATCH_HEADER_BYTES;
  for (let index = 0; index < header.count; index++) {
    records.push(new StoredRecord(place, at, header.baseOffset + index));
    at += view.getUint32(at, true);
  }
  assert(at === start + BATCH_HEADER_BYTES + header.payloadBytes, "records fill their batch");
  return records;
}
