/**
 * Opens one partition's folder: recovers its newest segment and learns of the sealed ones from
 * their names and headers. What lies in those is read when somebody asks.
 */
import { join } from "node:path";
import { decodeBatch } from "./batch.ts";
import { Dedupe, type DedupeParts } from "./dedupe.ts";
import type { Disk } from "./disk.ts";
import type { Offset, PartitionId } from "./log.ts";
import { type OpenFiles, SealedFile } from "./open-files.ts";
import type { PartitionParts } from "./partition-parts.ts";
import { type Recovered, recoverNewest } from "./recover.ts";
import { isHeaderDamage, type Mending, mendHeaders } from "./mend-header.ts";
import { openSegmentFile, Segment, segmentName, segmentOffset } from "./segment.ts";

type Random = (count: number) => Uint8Array;

interface Opening {
  readonly folder: string;
  readonly disk: Disk;
  readonly files: OpenFiles;
  readonly random: Random;
  readonly warn: (sentence: string) => void;
  /** Remembers a damaged header before it is made anew. */
  readonly note: Mending["note"];
  /** Whether to go on without what can't be read at all. */
  readonly mayLose: boolean;
}

/** A salt for a new segment. */
export function newSalt(random: Random): number {
  const bytes = random(4);
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
}

type EmptyOpening = Pick<Opening, "folder" | "disk" | "files" | "random">;

/** What a partition is made from that has no folder, or an empty one. */
export function emptyPartition(id: PartitionId, opening: EmptyOpening): PartitionParts {
  const epoch = newEpoch(opening.random);
  return {
    folder: opening.folder,
    epoch,
    partitions: 0,
    segments: [],
    endOffset: 0,
    appendedAtMs: 0,
    dedupe: new Dedupe({ id, epoch, ...opening }),
    corruptions: [],
  };
}

function newEpoch(random: Random): string {
  return Buffer.from(random(8)).toString("hex");
}

/**
 * Recovers a partition; damaged headers are made anew first. @throws CorruptionError, StorageError:
 * it can't be served.
 */
export async function openPartition(id: PartitionId, opening: Opening): Promise<PartitionParts> {
  const { disk, folder, random } = opening;
  // A process that was killed may have left names, or removals, that only the cache knows.
  await disk.syncFolder(folder);
  const offsets = (await disk.list(folder)).map(segmentOffset).filter((base) => base !== null);
  if (offsets.length === 0) return emptyPartition(id, opening);
  try {
    return await openWhole(id, offsets, opening);
  } catch (error) {
    if (!isHeaderDamage(error)) throw error;
    await mendHeaders(offsets, { ...opening, newEpoch: () => newEpoch(random) });
    return await openWhole(id, offsets, opening);
  }
}

async function openWhole(
  id: PartitionId,
  offsets: readonly Offset[],
  opening: Opening,
): Promise<PartitionParts> {
  const { disk, folder, random } = opening;
  // The newest comes last: what it opens stays open.
  const sealed: Segment[] = [];
  for (const base of offsets.slice(0, -1)) {
    const path = join(folder, segmentName(base));
    sealed.push(await sealedSegment(path, opening));
  }
  const baseOffset = offsets.at(-1) ?? 0;
  const recovered = await recoverNewest(disk, folder, { baseOffset, salt: newSalt(random) });
  tell(id, recovered, opening);
  // Of two recovered segments the older one is not written any more.
  for (const older of recovered.segments.slice(0, -1)) {
    await older.seal(new SealedFile(opening.files, older.path, older.endPosition));
  }
  const segments = [...sealed, ...recovered.segments];
  const { endOffset, appendedAtMs, corruptions, epoch, partitions } = recovered;
  const dedupe = gatherKeys({ id, epoch, ...opening }, segments, recovered);
  return { folder, epoch, partitions, segments, endOffset, appendedAtMs, dedupe, corruptions };
}

/** A segment that is only read: its own header says what it is, no file beside it. */
async function sealedSegment(path: string, { disk, files }: Opening): Promise<Segment> {
  const { file, header } = await openSegmentFile(disk, path);
  const bytes = await file.size();
  await file.close();
  return new Segment(path, header, new SealedFile(files, path, bytes), bytes);
}

function tell(id: PartitionId, recovered: Recovered, { warn }: Opening): void {
  const name = `${id.stream}/${id.index}`;
  if (recovered.tornBytes > 0) {
    warn(`${name}: cut ${recovered.tornBytes} torn bytes at the end; a copy was kept beside it`);
  }
}

/** The newest segment's keys; those of the others are read when the first key is looked up. */
function gatherKeys(
  parts: DedupeParts,
  segments: readonly Segment[],
  recovered: Recovered,
): Dedupe {
  const sealed = segments.slice(0, -1).map((segment, index) => {
    return { segment, end: segments[index + 1]?.baseOffset ?? recovered.endOffset };
  });
  const dedupe = new Dedupe(parts, sealed);
  const base = segments.at(-1)?.baseOffset ?? 0;
  for (const { header, bytes } of recovered.batches) {
    if (header.baseOffset < base || header.count === 0) continue;
    for (const { dedupeKey, offset } of decodeBatch(bytes, 0, header, parts.id)) {
      if (dedupeKey !== null) dedupe.note(dedupeKey, offset);
    }
  }
  return dedupe;
}
