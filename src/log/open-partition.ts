/**
 * Opens one partition's folder: recovers its newest segment, opens the sealed ones without reading
 * them, and gathers the dedupe keys.
 */
import { join } from "node:path";
import { batchesIn, decodeBatch, payloadIsValid } from "./batch.ts";
import { Dedupe } from "./dedupe.ts";
import type { Disk } from "./disk.ts";
import type { Offset, PartitionId } from "./log.ts";
import type { PartitionParts } from "./partition.ts";
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

/** An epoch for a new partition: 16 hexadecimal digits. */
export function newEpoch(random: Random): string {
  return Buffer.from(random(8)).toString("hex");
}

/** Recovers a partition. @throws CorruptionError, StorageError: it can't be served. */
export async function openPartition(id: PartitionId, opening: Opening): Promise<PartitionParts> {
  const { disk, folder, random } = opening;
  const offsets = (await disk.list(folder)).map(segmentOffset).filter((base) => base !== null);
  const dedupe = new Dedupe();
  const newest = offsets.pop();
  if (newest === undefined) {
    const epoch = newEpoch(random);
    return { folder, epoch, segments: [], endOffset: 0, appendedAtMs: 0, dedupe, corruptions: [] };
  }
  const salt = newSalt(random);
  const recovered = await recoverNewest(disk, folder, { baseOffset: newest, salt });
  tell(id, recovered, opening);
  const sealed: Segment[] = [];
  for (const base of offsets) {
    const path = join(folder, segmentName(base));
    const { file, header } = await openSegmentFile(disk, path);
    sealed.push(new Segment(path, header, file, await file.size()));
  }
  noteRecovered(id, recovered, dedupe);
  for (const segment of [...sealed, ...recovered.segments.slice(0, -1)]) {
    if (await dedupe.load(disk, folder, segment.baseOffset)) continue;
    await noteSealed(id, segment, dedupe);
    await dedupe.save(disk, folder, segment.baseOffset);
  }
  const { endOffset, appendedAtMs, corruptions, epoch } = recovered;
  const segments = [...sealed, ...recovered.segments];
  return { folder, epoch, segments, endOffset, appendedAtMs, dedupe, corruptions };
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

function noteRecovered(id: PartitionId, recovered: Recovered, dedupe: Dedupe): void {
  for (const { header, bytes } of recovered.batches) {
    const owner = recovered.segments.findLast((each) => each.baseOffset <= header.baseOffset);
    if (owner !== undefined) {
      noteRecords(decodeBatch(bytes, 0, header, id), owner.baseOffset, dedupe);
    }
  }
}

function noteRecords(records: readonly StoredRecord[], baseOffset: Offset, dedupe: Dedupe): void {
  for (const { dedupeKey, offset } of records) {
    if (dedupeKey !== null) dedupe.note(baseOffset, dedupeKey, offset);
  }
}

/** The keys of a sealed segment whose key file is missing: from its records. */
async function noteSealed(id: PartitionId, segment: Segment, dedupe: Dedupe): Promise<void> {
  let position = SEGMENT_HEADER_BYTES;
  while (position < segment.endPosition) {
    const chunk = await segment.readChunk(position);
    let consumed = 0;
    for (const { header, at, end } of batchesIn(chunk, segment.salt)) {
      consumed = end;
      if (!payloadIsValid(chunk, at, header)) continue;
      noteRecords(decodeBatch(chunk, at, header, id), segment.baseOffset, dedupe);
    }
    if (consumed === 0) return;
    position += consumed;
  }
}
