/**
 * Whose backup a folder holds. Epochs are made with a partition and stand in every segment, so two
 * logs that share one are the same log; a restored log has others, and is another log.
 */
import { join } from "node:path";
import { CorruptionError } from "../errors.ts";
import type { Disk } from "./disk.ts";
import { parseSegmentHeader, SEGMENT_HEADER_BYTES, segmentOffset } from "./segment.ts";
import { listPartitions } from "./verify.ts";

/**
 * Whether a folder of streams holds another log's: there are partitions in it, and none of them is
 * one of `own`. What a cut-off backup left half-written says nothing. @throws StorageError
 */
export async function isOtherLog(disk: Disk, own: string, held: string): Promise<boolean> {
  const before = await epochsIn(disk, held);
  if (before.size === 0) return false;
  const now = await epochsIn(disk, own);
  return ![...before].some(([name, epoch]) => now.get(name) === epoch);
}

/** The epoch of each partition whose newest readable segment tells it. */
async function epochsIn(disk: Disk, streams: string): Promise<ReadonlyMap<string, string>> {
  const epochs = new Map<string, string>();
  for (const { stream, partition } of await listPartitions(disk, streams)) {
    const name = join(stream, String(partition));
    const segments = (await disk.list(join(streams, name))).filter(
      (each) => segmentOffset(each) !== null,
    );
    for (const segment of segments.toReversed()) {
      const epoch = await epochOf(disk, join(streams, name, segment));
      if (epoch === null) continue;
      epochs.set(name, epoch);
      break;
    }
  }
  return epochs;
}

async function epochOf(disk: Disk, path: string): Promise<string | null> {
  const file = await disk.open(path, "read");
  try {
    const head = Buffer.alloc(SEGMENT_HEADER_BYTES);
    return parseSegmentHeader(head.subarray(0, await file.read(head, 0)), path).epoch;
  } catch (error) {
    if (error instanceof CorruptionError) return null;
    throw error;
  } finally {
    await file.close();
  }
}
