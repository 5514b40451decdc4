/**
 * Looks through a log's files without changing them: every header, checksum, offset and record.
 * What it reports is what recovery would find, with the file and the byte. It can run beside a
 * gateway: a group that is just being written looks like a torn tail, which is no damage.
 */
import { join } from "node:path";
import { CorruptionError, errorText } from "../errors.ts";
import { type BatchHeader, parseBatchHeader, payloadIsValid, BATCH_HEADER_BYTES } from "./batch.ts";
import type { Disk } from "./disk.ts";
import type { Offset } from "./log.ts";
import {
  openSegmentFile,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
  segmentName,
  segmentOffset,
} from "./segment.ts";

/** One partition's files, in numbers. */
export interface PartitionReport {
  readonly stream: string;
  readonly partition: number;
  readonly segments: number;
  readonly bytes: number;
  /** The oldest offset kept, and the next to be written. */
  readonly offsetStart: Offset;
  readonly offsetEnd: Offset;
  /** Times of the oldest and newest batch, Unix milliseconds; null when it is empty. */
  readonly oldestMs: number | null;
  readonly newestMs: number | null;
  readonly problems: readonly Problem[];
}

/** Something that is not as it was written. */
export interface Problem {
  /** `torn`: never promised, recovery cuts it. `corrupt`: synced messages that can't be read. */
  readonly kind: "torn" | "corrupt";
  readonly path: string;
  readonly byte: number;
  /** What is lost: from this offset, to the one where reading goes on (null: not known). */
  readonly from: Offset;
  readonly to: Offset | null;
  readonly detail: string;
}

/** Told while it runs. */
export interface VerifyEvents {
  readonly onBytes: (bytes: number) => void;
}

/** The partitions that a log's folder holds. */
export async function listPartitions(
  disk: Disk,
  folder: string,
): Promise<readonly { readonly stream: string; readonly partition: number }[]> {
  const found: { stream: string; partition: number }[] = [];
  for (const stream of await disk.list(folder)) {
    for (const name of await disk.list(join(folder, stream))) {
      if (/^\d{1,4}$/.test(name)) found.push({ stream, partition: Number(name) });
    }
  }
  return found.toSorted((a, b) =>
    a.stream === b.stream ? a.partition - b.partition : a.stream < b.stream ? -1 : 1,
  );
}

/** Reads one partition whole. @throws StorageError the disk can't be read. */
export async function verifyPartition(
  disk: Disk,
  folder: string,
  id: { readonly stream: string; readonly partition: number },
  events: VerifyEvents,
): Promise<PartitionReport> {
  const own = join(folder, id.stream, String(id.partition));
  const bases = (await disk.list(own)).map(segmentOffset).filter((base) => base !== null);
  const report = new Gathered();
  for (const [index, base] of bases.entries()) {
    const path = join(own, segmentName(base));
    const next = bases[index + 1];
    report.offset ??= base;
    report.meet(base, path);
    try {
      await verifySegment(disk, path, { report, next, events });
    } catch (error) {
      if (!(error instanceof CorruptionError)) throw error;
      report.add("corrupt", { path, byte: error.byte, to: next ?? null, detail: errorText(error) });
      report.offset = next ?? report.offset;
    }
  }
  return {
    ...id,
    segments: bases.length,
    bytes: report.bytes,
    offsetStart: bases[0] ?? 0,
    offsetEnd: report.offset ?? 0,
    oldestMs: report.oldestMs,
    newestMs: report.newestMs,
    problems: report.problems,
  };
}

/** What was seen so far of a partition. */
class Gathered {
  readonly problems: Problem[] = [];
  offset: Offset | null = null;
  knownSynced: Offset = 0;
  bytes = 0;
  oldestMs: number | null = null;
  newestMs: number | null = null;

  add(kind: Problem["kind"], place: Omit<Problem, "kind" | "from">): void {
    this.problems.push({ kind, from: this.offset ?? 0, ...place });
  }

  /** A segment begins where the one before it ended; a later one says that something is missing. */
  meet(base: Offset, path: string): void {
    if (this.offset !== null && base > this.offset) {
      const detail = "messages before this segment are missing";
      this.add("corrupt", { path, byte: 0, to: base, detail });
    }
    if (this.offset === null || base > this.offset) this.offset = base;
  }

  take(batch: BatchHeader): void {
    this.knownSynced = Math.max(this.knownSynced, batch.knownSynced);
    if (batch.count === 0) return;
    this.offset = batch.baseOffset + batch.count;
    this.oldestMs ??= batch.appendedAtMs;
    this.newestMs = batch.appendedAtMs;
  }
}

interface Scanning {
  readonly report: Gathered;
  /** Where the next segment begins; undefined for the newest one. */
  readonly next: Offset | undefined;
  readonly events: VerifyEvents;
}

async function verifySegment(disk: Disk, path: string, scanning: Scanning): Promise<void> {
  const { file, header } = await openSegmentFile(disk, path);
  try {
    const bytes = Buffer.allocUnsafeSlow(await file.size());
    const content = bytes.subarray(0, await file.read(bytes, 0));
    scanning.report.bytes += content.length;
    scanning.events.onBytes(content.length);
    scan(content, { path, header }, scanning);
  } finally {
    await file.close();
  }
}

/** A crash in the middle of a recovery leaves batches that the next segment holds as well. */
function isDone({ report, next }: Scanning): boolean {
  return next !== undefined && (report.offset ?? 0) >= next;
}

interface Place {
  readonly path: string;
  readonly header: SegmentHeader;
}

function scan(content: Buffer, place: Place, scanning: Scanning): void {
  const { report, next } = scanning;
  let at: number | null = SEGMENT_HEADER_BYTES;
  for (;;) {
    at = readValid(content, at, { salt: place.header.salt, scanning });
    if (at >= content.length || isDone(scanning)) break;
    at = meetDamage(content, at, { place, scanning });
    if (at === null) return;
  }
  if (next === undefined || isDone(scanning)) return;
  const detail = "the segment ends too early";
  report.add("corrupt", { path: place.path, byte: at, to: next, detail });
  report.offset = next;
}

/** Takes valid batches from a position on; where they end. */
function readValid(
  content: Buffer,
  from: number,
  { salt, scanning }: { readonly salt: number; readonly scanning: Scanning },
): number {
  let at = from;
  while (at < content.length && !isDone(scanning)) {
    const batch = parseBatchHeader(content, at, salt);
    if (batch === null || batch.baseOffset !== scanning.report.offset) return at;
    if (!payloadIsValid(content, at, batch)) return at;
    scanning.report.take(batch);
    at += BATCH_HEADER_BYTES + batch.payloadBytes;
  }
  return at;
}

/** Reports what is wrong at a position; where to go on, or null behind a torn tail. */
function meetDamage(
  content: Buffer,
  at: number,
  { place, scanning }: { readonly place: Place; readonly scanning: Scanning },
): number | null {
  const { path, header } = place;
  const { report, next } = scanning;
  const offset = report.offset ?? 0;
  const wasPromised = next !== undefined || offset < synced(content, at, report);
  if (!wasPromised) {
    const isEmpty = content.subarray(at).every((byte) => byte === 0);
    const detail = "the tail was never synced";
    if (!isEmpty) report.add("torn", { path, byte: at, to: null, detail });
    return null;
  }
  const found = nextBatch(content, at + 1, { salt: header.salt, offset });
  const to = found?.batch.baseOffset ?? next ?? null;
  report.add("corrupt", { path, byte: at, to, detail: "a synced batch is damaged" });
  report.offset = to ?? report.offset;
  return found?.at ?? content.length;
}

/** The highest offset known to have been synced, by any valid header from a place on. */
function synced(content: Buffer, from: number, report: Gathered): Offset {
  let highest = report.knownSynced;
  for (let at = content.indexOf("IBAT", from); at >= 0; at = content.indexOf("IBAT", at + 1)) {
    highest = Math.max(highest, parseBatchHeader(content, at, null)?.knownSynced ?? 0);
  }
  return highest;
}

function nextBatch(
  content: Buffer,
  from: number,
  wanted: { readonly salt: number; readonly offset: Offset },
): { readonly at: number; readonly batch: BatchHeader } | null {
  for (let at = content.indexOf("IBAT", from); at >= 0; at = content.indexOf("IBAT", at + 1)) {
    const batch = parseBatchHeader(content, at, wanted.salt);
    if (batch === null || batch.baseOffset < wanted.offset) continue;
    if (payloadIsValid(content, at, batch)) return { at, batch };
  }
  return null;
}
