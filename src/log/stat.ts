/**
 * A log in numbers, without reading it: names, sizes and headers of all segments, and of each
 * partition the oldest segment's first batch and the newest segment. What lies between is for
 * `log verify`. It can run beside a gateway.
 */
import { join } from "node:path";
import { CorruptionError, StorageError } from "../errors.ts";
import { BATCH_HEADER_BYTES, parseBatchHeader } from "./batch.ts";
import type { Disk } from "./disk.ts";
import type { Offset } from "./log.ts";
import { parseSegmentHeader, SEGMENT_HEADER_BYTES, segmentName, segmentOffset } from "./segment.ts";
import { readWhole } from "./verify.ts";

/** One partition's files, in numbers. */
export interface PartitionSummary {
  readonly stream: string;
  readonly partition: number;
  /** As the newest segment's header says; "" when it can't be read. */
  readonly epoch: string;
  readonly segments: number;
  readonly bytes: number;
  /** The oldest offset kept, and the next to be written, as far as whole headers tell. */
  readonly offsetStart: Offset;
  readonly offsetEnd: Offset;
  /** Times of the oldest and newest batch, Unix milliseconds; null when there is none. */
  readonly oldestMs: number | null;
  readonly newestMs: number | null;
  /** Segments whose header is damaged: what they hold is not in the numbers. */
  readonly damagedHeaders: number;
}

/** Retention deletes while it is looked at; how often it is looked at anew. Count. */
const LOOKS_MAX = 3;

/** Describes one partition. @throws StorageError the disk can't be read. */
export async function summarizePartition(
  disk: Disk,
  folder: string,
  id: { readonly stream: string; readonly partition: number },
): Promise<PartitionSummary> {
  const own = join(folder, id.stream, String(id.partition));
  for (let look = 1; ; look++) {
    const bases = (await disk.list(own)).map(segmentOffset).filter((base) => base !== null);
    try {
      return { ...id, ...(await summarize(disk, own, bases)) };
    } catch (error) {
      const names = new Set(await disk.list(own));
      const hasGone = bases.some((base) => !names.has(segmentName(base)));
      if (!(error instanceof StorageError) || !hasGone || look === LOOKS_MAX) throw error;
    }
  }
}

async function summarize(
  disk: Disk,
  own: string,
  bases: readonly Offset[],
): Promise<Omit<PartitionSummary, "stream" | "partition">> {
  let bytes = 0;
  let damagedHeaders = 0;
  let oldestMs: number | null = null;
  for (const base of bases) {
    const head = await readHead(disk, join(own, segmentName(base)));
    bytes += head.bytes;
    if (head.isDamaged) damagedHeaders++;
    oldestMs ??= head.oldestMs;
  }
  const newest = bases.at(-1);
  const last = newest === undefined ? NOTHING : await readNewest(disk, own, newest);
  const { epoch, newestMs, offsetEnd } = last;
  const numbers = { bytes, offsetStart: bases[0] ?? 0, offsetEnd, oldestMs, newestMs };
  return { epoch, segments: bases.length, ...numbers, damagedHeaders };
}

const NOTHING = { epoch: "", newestMs: null, offsetEnd: 0 };

/** A segment's size, and when its first batch was appended. */
async function readHead(disk: Disk, path: string) {
  const file = await disk.open(path, "read");
  try {
    const head = Buffer.alloc(SEGMENT_HEADER_BYTES + BATCH_HEADER_BYTES);
    const bytes = await file.size();
    const content = head.subarray(0, await file.read(head, 0));
    const header = headerOf(content, path);
    if (header === null) return { bytes, isDamaged: true, oldestMs: null };
    const batch = parseBatchHeader(content, SEGMENT_HEADER_BYTES, header.salt);
    const oldestMs = batch === null || batch.count === 0 ? null : batch.appendedAtMs;
    return { bytes, isDamaged: false, oldestMs };
  } finally {
    await file.close();
  }
}

/** Where the newest segment ends; the segment before it is not needed for that. */
async function readNewest(disk: Disk, own: string, base: Offset) {
  const path = join(own, segmentName(base));
  const content = await readWhole(disk, path);
  const header = headerOf(content, path);
  if (header === null) return { ...NOTHING, offsetEnd: base };
  let newestMs: number | null = null;
  let offsetEnd = base;
  for (let at = SEGMENT_HEADER_BYTES; ; ) {
    const batch = parseBatchHeader(content, at, header.salt);
    if (batch?.baseOffset !== offsetEnd) break;
    offsetEnd += batch.count;
    // A mark tells the time of what was appended before it, in the segment before too.
    newestMs = batch.appendedAtMs;
    at += BATCH_HEADER_BYTES + batch.payloadBytes;
  }
  return { epoch: header.epoch, newestMs: newestMs ?? header.createdAtMs, offsetEnd };
}

function headerOf(content: Buffer, path: string) {
  try {
    return parseSegmentHeader(content, path);
  } catch (error) {
    if (error instanceof CorruptionError) return null;
    throw error;
  }
}
