/**
 * Looks through a log's files without changing them: every header, checksum, offset and record.
 * What it reports is what recovery would find, with the file and the byte. It can run beside a
 * gateway: a group that is just being written looks like a torn tail, which is no damage.
 */
import { join } from "node:path";
import { CorruptionError, errorText, StorageError } from "../errors.ts";
import { type BatchHeader, parseBatchHeader, payloadIsValid, BATCH_HEADER_BYTES } from "./batch.ts";
import type { DamagedRange } from "./damage.ts";
import type { Disk } from "./disk.ts";
import type { Offset } from "./log.ts";
import {
  parseSegmentHeader,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
  segmentName,
  segmentOffset,
} from "./segment.ts";

/** One partition's files, in numbers. */
export interface PartitionReport {
  readonly stream: string;
  readonly partition: number;
  /** As the segments' headers say; "" when none can be read. */
  readonly epoch: string;
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
  /**
   * `torn`: never promised, recovery cuts it. `corrupt`: synced messages that can't be read. `gap`:
   * such messages, given up by a repair: the files are whole without them.
   */
  readonly kind: "torn" | "corrupt" | "gap";
  /** What is wrong: the segment's header, bytes in it, its early end, or a segment is missing. */
  readonly cause: "header" | "bytes" | "end" | "missing";
  readonly path: string;
  /** Where the bad bytes begin, and how many there are. */
  readonly byte: number;
  readonly bytes: number;
  /** What is lost: from this offset, to the one where reading goes on (null: not known). */
  readonly from: Offset;
  readonly to: Offset | null;
  readonly detail: string;
}

/** Told while it runs. */
export interface VerifyEvents {
  readonly onBytes: (bytes: number) => void;
  /** Whether a repair has given these messages up. */
  readonly isRepaired?: (range: DamagedRange) => boolean;
}

/** A live file is read while it is written; what looks damaged is looked at so often. Count. */
const LOOKS_MAX = 3;

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

/**
 * Reads one partition whole. Its newest segment may be written meanwhile, its oldest be deleted.
 * Holds one segment in memory. @throws StorageError the disk can't be read.
 */
export async function verifyPartition(
  disk: Disk,
  folder: string,
  id: { readonly stream: string; readonly partition: number },
  events: VerifyEvents,
): Promise<PartitionReport> {
  const first = await verifyOnce(disk, folder, id, events);
  let report = first;
  const silent = { ...events, onBytes: () => undefined };
  for (let look = 1; look < LOOKS_MAX && isSuspect(report); look++) {
    report = await verifyOnce(disk, folder, id, silent);
  }
  return { ...report, bytes: Math.max(first.bytes, report.bytes) };
}

function isSuspect(report: PartitionReport): boolean {
  return report.problems.some(({ kind }) => kind === "corrupt");
}

async function verifyOnce(
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
    try {
      await verifySegment(disk, { path, base }, { report, next, events });
    } catch (error) {
      if (await hasGone(error, disk, { own, base })) continue;
      if (!(error instanceof CorruptionError)) throw error;
      const bytes = error.byte === 0 ? SEGMENT_HEADER_BYTES : 0;
      const place = { path, byte: error.byte, bytes, to: next ?? null, detail: errorText(error) };
      report.meet(base, path);
      report.add("corrupt", { cause: "header", ...place });
      report.offset = next ?? report.offset;
    }
  }
  return {
    ...id,
    epoch: report.epoch,
    segments: bases.length,
    bytes: report.bytes,
    offsetStart: bases[0] ?? 0,
    offsetEnd: report.offset ?? 0,
    oldestMs: report.oldestMs,
    newestMs: report.newestMs,
    problems: report.problems.map((problem) => {
      const { kind, from, to } = problem;
      const range = { ...id, epoch: report.epoch, from, to: to ?? from };
      const isGap = kind === "corrupt" && to !== null && events.isRepaired?.(range) === true;
      return isGap ? { ...problem, kind: "gap" } : problem;
    }),
  };
}

/** Retention deletes segments at any time; one that has gone is no damage. */
async function hasGone(
  error: unknown,
  disk: Disk,
  { own, base }: { readonly own: string; readonly base: Offset },
): Promise<boolean> {
  if (!(error instanceof StorageError)) return false;
  return !(await disk.list(own)).includes(segmentName(base));
}

/** What was seen so far of a partition. */
class Gathered {
  readonly problems: Problem[] = [];
  epoch = "";
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
      this.add("corrupt", { cause: "missing", path, byte: 0, bytes: 0, to: base, detail });
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

async function verifySegment(
  disk: Disk,
  { path, base }: { readonly path: string; readonly base: Offset },
  scanning: Scanning,
): Promise<void> {
  const content = await readWhole(disk, path);
  const { report, events } = scanning;
  report.bytes += content.length;
  events.onBytes(content.length);
  const header = parseSegmentHeader(content, path);
  report.epoch = header.epoch;
  report.meet(base, path);
  scan(content, { path, header }, scanning);
}

/** All bytes of a file, for reading only. @throws StorageError */
export async function readWhole(disk: Disk, path: string): Promise<Buffer> {
  const file = await disk.open(path, "read");
  try {
    const bytes = Buffer.allocUnsafeSlow(await file.size());
    return bytes.subarray(0, await file.read(bytes, 0));
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
  report.add("corrupt", { cause: "end", path: place.path, byte: at, bytes: 0, to: next, detail });
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
  const known = next ?? syncedFrom(content, at, { salt: header.salt, atLeast: report.knownSynced });
  const wasPromised = offset < known;
  if (!wasPromised) {
    const isEmpty = content.subarray(at).every((byte) => byte === 0);
    const detail = "the tail was never synced";
    const place = { path, byte: at, bytes: content.length - at, to: null, detail };
    if (!isEmpty) report.add("torn", { cause: "bytes", ...place });
    return null;
  }
  const found = nextBatch(content, at + 1, { salt: header.salt, offset });
  const to = Math.min(found?.batch.baseOffset ?? known, known);
  const bytes = (found?.at ?? content.length) - at;
  const detail = "a synced batch is damaged";
  // Bytes between two batches that follow each other held nothing but a mark.
  if (to > offset) report.add("corrupt", { cause: "bytes", path, byte: at, bytes, to, detail });
  report.offset = to;
  return found?.at ?? content.length;
}

/** The highest offset known to have been synced, by any valid header from a place on. */
export function syncedFrom(
  content: Buffer,
  from: number,
  { salt, atLeast }: { readonly salt: number; readonly atLeast: Offset },
): Offset {
  let highest = atLeast;
  for (let at = content.indexOf("IBAT", from); at >= 0; at = content.indexOf("IBAT", at + 1)) {
    highest = Math.max(highest, parseBatchHeader(content, at, salt)?.knownSynced ?? 0);
  }
  return highest;
}

/** The next whole batch behind a place that holds an offset or a later one. */
export function nextBatch(
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
