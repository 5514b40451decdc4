/**
 * The newest batches of a partition, as they were written: readers at the end share them and decode
 * each message once. Bounded in bytes; the oldest go first, readers further back use the disk.
 */
import { BATCH_HEADER_BYTES, type BatchHeader, decodeBatch } from "./batch.ts";
import type { Offset, PartitionId } from "./log.ts";
import type { StoredRecord } from "./record.ts";

interface TailBatch {
  readonly header: BatchHeader;
  readonly bytes: Buffer;
  readonly start: number;
  records: readonly StoredRecord[] | null;
}

/** A bounded window over a partition's end. */
export class Tail {
  readonly #id: PartitionId;
  readonly #bytesMax: number;
  readonly #batches: TailBatch[] = [];
  #bytes = 0;

  constructor(id: PartitionId, bytesMax: number) {
    this.#id = id;
    this.#bytesMax = bytesMax;
  }

  /** Adds a durable batch; its bytes must not change any more. */
  push(header: BatchHeader, bytes: Buffer, start: number): void {
    this.#batches.push({ header, bytes, start, records: null });
    this.#bytes += BATCH_HEADER_BYTES + header.payloadBytes;
    while (this.#bytes > this.#bytesMax && this.#batches.length > 1) {
      const gone = this.#batches.shift();
      this.#bytes -= BATCH_HEADER_BYTES + (gone?.header.payloadBytes ?? 0);
    }
  }

  /** Forgets everything. */
  clear(): void {
    this.#batches.length = 0;
    this.#bytes = 0;
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
    batch.records ??= decodeBatch(batch.bytes, batch.start, batch.header, this.#id);
    return batch.records;
  }
}
