/** The keys of a segment's own records: what key files are made from and checked against. */
import { batchesIn, decodeBatch, payloadIsValid } from "./batch.ts";
import type { Offset, PartitionId } from "./log.ts";
import type { StoredRecord } from "./record.ts";
import { SEGMENT_HEADER_BYTES, type Segment } from "./segment.ts";

/**
 * The dedupe key of the record at an offset; null when it has none or can't be read: a message that
 * is lost is no first one. @throws StorageError
 */
export function dedupeKeyAt(
  segment: Segment,
  offset: Offset,
  id: PartitionId,
): Promise<string | null> {
  return segment.use(async () => {
    let key: string | null = null;
    await walk(segment, id, {
      from: await segment.positionBefore(offset),
      take: (records) => {
        const record = records.find((each) => each.offset === offset);
        key = record?.dedupeKey ?? null;
        return record === undefined && (records[0]?.offset ?? 0) < offset;
      },
    });
    return key;
  });
}

/** Tells of every dedupe key in a segment, damaged batches left out. @throws StorageError */
export function eachDedupeKey(
  segment: Segment,
  id: PartitionId,
  found: (key: string, offset: Offset) => void,
): Promise<void> {
  return segment.use(() =>
    walk(segment, id, {
      from: SEGMENT_HEADER_BYTES,
      take: (records) => {
        for (const { dedupeKey, offset } of records)
          if (dedupeKey !== null) found(dedupeKey, offset);
        return true;
      },
    }),
  );
}

/**
 * Tells of every message's key in a segment below an offset; resolves with the first offset of each
 * run of messages that can't be read. @throws StorageError
 */
export function eachMessageKey(
  segment: Segment,
  { id, below }: { readonly id: PartitionId; readonly below: Offset },
  found: (key: Uint8Array, offset: Offset) => void,
): Promise<readonly Offset[]> {
  const holes: Offset[] = [];
  let next = segment.baseOffset;
  const take = (records: readonly StoredRecord[]): boolean => {
    for (const { key, offset } of records) {
      if (offset >= below) return false;
      if (offset > next) holes.push(next);
      next = offset + 1;
      if (key !== null) found(key, offset);
    }
    return true;
  };
  return segment.use(async () => {
    await walk(segment, id, { from: SEGMENT_HEADER_BYTES, take });
    if (next < below) holes.push(next);
    return holes;
  });
}

/** Gives each valid batch's records until `take` says that it is enough. */
async function walk(
  segment: Segment,
  id: PartitionId,
  { from, take }: { from: number; take: (records: readonly StoredRecord[]) => boolean },
): Promise<void> {
  let position: number | null = from;
  while (position !== null && position < segment.endPosition) {
    const chunk = await segment.readChunk(position);
    let consumed = 0;
    for (const { header, at, end } of batchesIn(chunk, segment.salt)) {
      consumed = end;
      if (header.count === 0 || !payloadIsValid(chunk, at, header)) continue;
      if (!take(decodeBatch(chunk, at, header, id))) return;
    }
    position = consumed > 0 ? position + consumed : await segment.nextBatch(position + 1);
  }
}
