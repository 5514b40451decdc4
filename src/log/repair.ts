/**
 * Repair of a partition's files, for a folder that no gateway uses: damaged segments are made anew
 * from their whole batches, so that `log verify` finds nothing more. The original is kept in
 * DATA/damaged first; the messages that are lost stand in the list of damages as given up. Each
 * step is durable and can be done again, so a crash in between costs a second call.
 */
import { join } from "node:path";
import { CorruptionError } from "../errors.ts";
import { BATCH_HEADER_BYTES, parseBatchHeader, payloadIsValid } from "./batch.ts";
import { crcText, type Damages } from "./damage.ts";
import type { Disk } from "./disk.ts";
import type { Offset } from "./log.ts";
import {
  createSegmentFile,
  parseSegmentHeader,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
  segmentName,
  segmentOffset,
} from "./segment.ts";
import { nextBatch, type PartitionReport, type Problem, readWhole, syncedFrom } from "./verify.ts";

/** What a repair works on and with. */
export interface Repairing {
  readonly disk: Disk;
  /** The folder of the streams. */
  readonly folder: string;
  readonly damages: Damages;
  readonly nowMs: number;
  /** A new epoch, for a partition whose own is in no file any more. */
  readonly epoch: () => string;
}

/** What a repair does to one file; `problems` are those that it ends. */
export interface RepairStep {
  /** `rewrite`: the file is made anew. `give-up`: the files stay, the messages are given up. */
  readonly action: "rewrite" | "give-up";
  readonly path: string;
  readonly problems: readonly Problem[];
}

/** Batches that follow each other without a hole, for a file of their own. */
interface Piece {
  readonly base: Offset;
  readonly parts: Buffer[];
}

/** What would be done for a partition that was verified. Nothing for one that is whole. */
export function planRepair(report: PartitionReport): readonly RepairStep[] {
  const steps = new Map<string, { action: RepairStep["action"]; problems: Problem[] }>();
  for (const problem of report.problems) {
    if (problem.kind === "gap") continue;
    const action = problem.cause === "missing" ? "give-up" : "rewrite";
    const key = `${action} ${problem.path}`;
    const step = steps.get(key) ?? { action, problems: [] };
    step.problems.push(problem);
    steps.set(key, step);
  }
  return [...steps.values()].map(({ action, problems }) => {
    return { action, problems, path: problems[0]?.path ?? "" };
  });
}

/**
 * Does what was planned. The folder has to be locked. @throws StorageError part of it may be done:
 * do it again. @throws CorruptionError a file holds nothing that could be kept.
 */
export async function repairPartition(
  report: PartitionReport,
  steps: readonly RepairStep[],
  repairing: Repairing,
): Promise<void> {
  const { disk, folder } = repairing;
  const own = join(folder, report.stream, String(report.partition));
  const names = await disk.list(own);
  const bases = names.map(segmentOffset).filter((base) => base !== null);
  const epoch = report.epoch === "" ? repairing.epoch() : report.epoch;
  for (const { action, path, problems } of steps) {
    await giveUp({ ...report, epoch }, problems, repairing);
    if (action === "give-up") continue;
    const base = segmentOffset(path.slice(own.length + 1)) ?? 0;
    const next = bases.find((each) => each > base);
    await rewrite({ own, path, base, next, epoch }, repairing);
  }
}

/** The lost messages are known and given up before the bytes that tell of them go. */
async function giveUp(
  whose: { readonly stream: string; readonly partition: number; readonly epoch: string },
  problems: readonly Problem[],
  { damages, nowMs }: Repairing,
): Promise<void> {
  const { stream, partition, epoch } = whose;
  for (const { kind, path, byte, bytes, from, to } of problems) {
    if (kind !== "corrupt" || to === null || to <= from) continue;
    await damages.note({ stream, partition, epoch }, { path, byte, bytes, from, to }, nowMs);
    await damages.repaired({ stream, partition, epoch, from, to }, nowMs);
  }
}

interface Rewriting {
  readonly own: string;
  readonly path: string;
  readonly base: Offset;
  /** Where the next segment begins; undefined for the newest. */
  readonly next: Offset | undefined;
  readonly epoch: string;
}

async function rewrite(segment: Rewriting, { disk, damages }: Repairing): Promise<void> {
  const { own, path, base } = segment;
  const content = await readWhole(disk, path);
  await damages.keep(keptName(segment, content), content);
  const header = headerOf(content, segment);
  const pieces = piecesOf(content, header, segment.next);
  await removeDerived(disk, own, base);
  // The first piece takes the damaged file's name, so it comes last: until then nothing is missing.
  for (const piece of pieces.toReversed()) {
    const made = { ...header, baseOffset: piece.base };
    const file = await createSegmentFile(disk, own, made, Buffer.concat(piece.parts));
    await file.close();
  }
}

function keptName({ own, path }: Rewriting, content: Buffer): string {
  const [stream = "", partition = ""] = own.split("/").slice(-2);
  const name = path.slice(own.length + 1, -".log".length);
  return `${stream}-${partition}-${name}-${crcText(content)}.original`;
}

/** The header; when that is what is damaged, one made from the batches behind it. */
function headerOf(content: Buffer, { path, base, epoch }: Rewriting): SegmentHeader {
  try {
    return parseSegmentHeader(content, path);
  } catch (error) {
    // Another release's format is not ours to rewrite.
    if (!(error instanceof CorruptionError) || error.byte !== 0) throw error;
  }
  const first = firstBatch(content, base);
  const isBlank = content.subarray(SEGMENT_HEADER_BYTES).every((byte) => byte === 0);
  if (first === null && !isBlank) {
    const message = "no batch of this segment can be read; restore it from a backup";
    throw new CorruptionError(message, { path, byte: 0 });
  }
  return {
    salt: first?.salt ?? Bun.hash.crc32(content),
    baseOffset: base,
    epoch,
    createdAtMs: first?.appendedAtMs ?? 0,
    partitions: 0,
  };
}

function firstBatch(content: Buffer, base: Offset) {
  for (let at = content.indexOf("IBAT"); at >= 0; at = content.indexOf("IBAT", at + 1)) {
    const batch = parseBatchHeader(content, at, null);
    if (batch !== null && batch.baseOffset >= base) return batch;
  }
  return null;
}

/** The batches that can be kept, split where messages are lost; the first piece has the base. */
function piecesOf(content: Buffer, header: SegmentHeader, next: Offset | undefined): Piece[] {
  const { salt, baseOffset } = header;
  const whole = { salt, atLeast: baseOffset };
  const end = next ?? syncedFrom(content, SEGMENT_HEADER_BYTES, whole);
  const pieces: Piece[] = [{ base: baseOffset, parts: [] }];
  let offset = baseOffset;
  for (let at = SEGMENT_HEADER_BYTES; ; ) {
    if (next !== undefined && offset >= next) break;
    const batch = parseBatchHeader(content, at, salt);
    if (batch?.baseOffset === offset && payloadIsValid(content, at, batch)) {
      const behind = at + BATCH_HEADER_BYTES + batch.payloadBytes;
      pieces.at(-1)?.parts.push(content.subarray(at, behind));
      offset += batch.count;
      at = behind;
      continue;
    }
    if (offset >= end) break;
    const found = nextBatch(content, at + 1, { salt, offset });
    const to = Math.min(found?.batch.baseOffset ?? end, end);
    if (to > offset && next !== to) pieces.push({ base: to, parts: [] });
    offset = to;
    if (found === null) break;
    at = found.at;
  }
  return pieces;
}

/** Files made from a segment are made anew from what it holds then. */
async function removeDerived(disk: Disk, own: string, base: Offset): Promise<void> {
  const stem = segmentName(base).slice(0, -".log".length);
  for (const name of await disk.list(own)) {
    if (name.startsWith(stem) && !name.endsWith(".log")) await disk.remove(join(own, name));
  }
  await disk.syncFolder(own);
}
