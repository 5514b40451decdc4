/**
 * The newest commit groups of a partition, as they were written: readers at the end share them and
 * decode each message once. Bounded by the memory that the groups hold, what is unused of their
 * buffers included; the oldest go first, readers further back use the disk. Memory that no reader
 * has looked into is used for groups to come.
 */
import { type BatchHeader, decodeBatch } from "./batch.ts";
import type { GroupBytes } from "./group-buffer.ts";
import type { Offset, PartitionId } from "./log.ts";
import type { StoredRecord } from "./record.ts";

/** A group that is on disk: its memory, and its batches with their places in there. */
export interface TailGroup {
  readonly memory: GroupBytes;
  readonly batches: readonly { readonly header: BatchHeader; readonly start: number }[];
}

interface TailBatch {
  readonly header: BatchHeader;
  readonly start: number;
  readonly group: HeldGroup;
  records: readonly StoredRecord[] | null;
}

interface HeldGroup {
  readonly memory: GroupBytes;
  readonly batchCount: number;
  /** Readers hold records, which are views over its memory. */
  isRead: boolean;
}

/** The memory of all tails together: those that have been added to least lately give theirs up. */
export class TailMemory {
  readonly #bytesMax: number;
  /** Those that hold memory, the one that has grown last at the end. */
  readonly #tails = new Set<Tail>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** What all of them hold. */
  get bytes(): number {
    return this.#bytes;
  }

  /** A tail has another group, and holds so much more than before. */
  changed(tail: Tail, bytes: number): void {
    this.#bytes += bytes;
    this.#tails.delete(tail);
    if (tail.bytes > 0) this.#tails.add(tail);
    for (const each of this.#tails) {
      if (this.#bytes <= this.#bytesMax) return;
      this.#tails.delete(each);
      this.#bytes -= each.clear();
    }
  }
}

/** A bounded window over a partition's end. */
export class Tail {
  readonly #id: PartitionId;
  readonly #bytesMax: number;
  readonly #all: TailMemory;
  readonly #release: (memory: GroupBytes) => void;
  readonly #groups: HeldGroup[] = [];
  readonly #batches: TailBatch[] = [];
  #bytes = 0;

  /** `release` gets the memory of groups that have left and that nobody looks at. */
  constructor(
    id: PartitionId,
    bounds: { readonly bytesMax: number; readonly all: TailMemory },
    release: (memory: GroupBytes) => void,
  ) {
    this.#id = id;
    this.#bytesMax = bounds.bytesMax;
    this.#all = bounds.all;
    this.#release = release;
  }

  /** What its groups hold. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Adds a durable group; its bytes must not change any more. */
  push({ memory, batches }: TailGroup): void {
    const held = this.#bytes;
    const group: HeldGroup = { memory, batchCount: batches.length, isRead: false };
    this.#groups.push(group);
    this.#bytes += memory.bytes.length;
    for (const { header, start } of batches) {
      this.#batches.push({ header, start, group, records: null });
    }
    while (this.#bytes > this.#bytesMax) this.#dropOldest();
    this.#all.changed(this, this.#bytes - held);
  }

  /** Lets go of all, for others were added to later; how much that was. Bytes. */
  clear(): number {
    const bytes = this.#bytes;
    this.#groups.length = 0;
    this.#batches.length = 0;
    this.#bytes = 0;
    return bytes;
  }

  /** The records of the batch that holds an offset; null when it is not (or no longer) here. */
  recordsAt(offset: Offset): readonly StoredRecord[] | null {
    const first = this.#batches[0];
    if (first === undefined || offset < first.header.baseOffset) return null;
    let low = 0;
    let high = this.#batches.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      const base = this.#batches[middle]?.header.baseOffset ?? 0;
      if (base <= offset) low = middle;
      else high = middle - 1;
    }
    const batch = this.#batches[low];
    if (batch === undefined || offset >= batch.header.baseOffset + batch.header.count) return null;
    batch.group.isRead = true;
    batch.records ??= decodeBatch(batch.group.memory.bytes, batch.start, batch.header, this.#id);
    return batch.records;
  }

  #dropOldest(): void {
    const gone = this.#groups.shift();
    if (gone === undefined) return;
    this.#batches.splice(0, gone.batchCount);
    this.#bytes -= gone.memory.bytes.length;
    if (!gone.isRead) this.#release(gone.memory);
  }
}
