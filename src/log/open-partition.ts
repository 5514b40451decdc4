/**
 * Opens one partition's folder: recovers its newest segment, opens the sealed ones without reading
 * them, and gathers the dedupe keys.
 */
import { join } from "node:path";
import { batchesIn, decodeBatch, payloadIsValid } from "./batch.ts";
import { Dedupe } from "./dedupe.ts";
import type { Disk } from "./disk.ts";
import type { Offset, PartitionId } from "./log.ts";
import type { PartitionParts } from "./partition-parts.ts";
import type { StoredRecord } from "./record.ts";
import { type Recovered, recoverNewest } from "./recover.ts";
import {
  openSegmentFile,
  SEGMENT_HEADER_BYTES,
  Segment,
  segmentName,
  segmentOffset,
} from "./segment.ts";

type Random = (count: number) => Uint8Array;

interface Opening {
  readonly folder: string;
  readonly disk: Disk;
  readonly random: Random;
  readonly warn: (sentence: string) => void;
}

/** A salt for a new segment. */
export function newSalt(random: Random): number {
  const bytes = random(4);
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
}

/** What a partition is made from that has no folder, or an empty one. */
export function emptyPartition(folder: string, random: Random): PartitionParts {
  return {
    folder,
    epoch: Buffer.from(random(8)).toString("hex"),
    partitions: 0,
    segments: [],
    endOffset: 0,
    appendedAtMs: 0,
    dedupe: new Dedupe(),
    corruptions: [],
  };
}

/** Recovers a partition. @throws CorruptionError, StorageError: it can't be served. */
export async function openPartition(id: PartitionId, opening: Opening): Promise<PartitionParts> {
  const { disk, folder, random } = opening;
  // A process that was killed may have left names, or removals, that only the cache knows.
  await disk.syncFolder(folder);
  const offsets = (await disk.list(folder)).map(segmentOffset).filter((base) => base !== null);
  const newest = offsets.pop();
  if (newest === undefined) return emptyPartition(folder, random);
  const salt = newSalt(random);
  const recovered = await recoverNewest(disk, folder, { baseOffset: newest, salt });
  tell(id, recovered, opening);
  const sealed: Segment[] = [];
  for (const base of offsets) {
    const path = join(folder, segmentName(base));
    const { file, header } = await openSegmentFile(disk, path);
    sealed.push(new Segment(path, header, file, await file.size()));
  }
  const segments = [...sealed, ...recovered.segments];
  const dedupe = await gatherKeys(id, segments, { recovered, disk, folder });
  const { endOffset, appendedAtMs, corruptions, epoch, partitions } = recovered;
  return { folder, epoch, partitions, segments, endOffset, appendedAtMs, dedupe, corruptions };
}

function tell(id: PartitionId, recovered: Recovered, { warn }: Opening): void {
  const name = `${id.stream}/${id.index}`;
  if (recovered.tornBytes > 0) {
    warn(`${name}: cut ${recovered.tornBytes} torn bytes at the end; a copy was kept beside it`);
  }
  for (const { path, byte, from, to } of recovered.corruptions) {
    warn(`${name}: messages ${from} to ${to - 1} are damaged (${path}, byte ${byte})`);
  }
}

/** The keys of all segments: from their files, else from the segments themselves. */
async function gatherKeys(
  id: PartitionId,
  segments: readonly Segment[],
  from: { readonly recovered: Recovered; readonly disk: Disk; readonly folder: string },
): Promise<Dedupe> {
  const { recovered, disk, folder } = from;
  const dedupe = new Dedupe();
  for (const [index, segment] of segments.entries()) {
    const { baseOffset } = segment;
    const end = segments[index + 1]?.baseOffset ?? Number.POSITIVE_INFINITY;
    const isSealed = !recovered.segments.includes(segment);
    if (isSealed && (await dedupe.load(disk, folder, { baseOffset, end }))) continue;
    dedupe.begin(baseOffset);
    if (isSealed) await noteSealed(id, segment, { dedupe, end });
    else noteRecovered(id, recovered, { dedupe, baseOffset, end });
    if (index < segments.length - 1) await dedupe.save(disk, folder, baseOffset);
  }
  return dedupe;
}

function noteRecovered(
  id: PartitionId,
  recovered: Recovered,
  to: { readonly dedupe: Dedupe; readonly baseOffset: Offset; readonly end: Offset },
): void {
  for (const { header, bytes } of recovered.batches) {
    if (header.baseOffset < to.baseOffset) continue;
    noteRecords(decodeBatch(bytes, 0, header, id), to);
  }
}

function noteRecords(
  records: readonly StoredRecord[],
  { dedupe, end }: { readonly dedupe: Dedupe; readonly end: Offset },
): void {
  for (const { dedupeKey, offset } of records) {
    if (dedupeKey !== null && offset < end) dedupe.note(dedupeKey, offset);
  }
}

/** The keys of a sealed segment whose key file is missing: from its records. */
async function noteSealed(
  id: PartitionId,
  segment: Segment,
  to: { readonly dedupe: Dedupe; readonly end: Offset },
): Promise<void> {
  let position: number | null = SEGMENT_HEADER_BYTES;
  while (position !== null && position < segment.endPosition) {
    const chunk = await segment.readChunk(position);
    let consumed = 0;
    for (const { header, at, end } of batchesIn(chunk, segment.salt)) {
      consumed = end;
      if (!payloadIsValid(chunk, at, header)) continue;
      noteRecords(decodeBatch(chunk, at, header, id), to);
    }
    position = consumed > 0 ? position + consumed : await segment.nextBatch(position + 1);
  }
}
