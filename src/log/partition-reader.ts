/**
 * Reading one partition: from the shared tail where that still holds the offset, else from the
 * segments. Never holds up a writer; never sees what is not durable.
 */
import { GapError, OffsetError } from "../errors.ts";
import { batchesIn, decodeBatch, payloadIsValid } from "./batch.ts";
import type { Batch, Offset, PartitionId, ReadOptions } from "./log.ts";
import type { StoredRecord } from "./record.ts";
import type { Corruption } from "./recover.ts";
import { SEGMENT_HEADER_BYTES, type Segment } from "./segment.ts";
import type { Tail } from "./tail.ts";

interface Parts {
  readonly id: PartitionId;
  /** Shared with the partition, which adds at the end and removes at the start. */
  readonly segments: readonly Segment[];
  readonly tail: Tail;
  /** What is known to be damaged; what readers find is added. */
  readonly corruptions: Corruption[];
}

/** Readers' side of a partition. */
export class PartitionReader {
  readonly #parts: Parts;
  readonly #waiters = new Set<() => void>();
  #closed = false;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Lets readers at the end go on. */
  wake(): void {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const resolve of waiters) resolve();
  }

  /** Ends all waits with null. */
  close(): void {
    this.#closed = true;
    this.wake();
  }

  /** Waits until there is something at `offset`; the end then, or null when aborted. */
  async waitFor(offset: Offset, end: () => Offset, signal: AbortSignal): Promise<Offset | null> {
    while (offset === end()) {
      if (signal.aborted || this.#closed) return null;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiters.add(resolve);
      const onAbort = (): void => {
        this.#waiters.delete(resolve);
        resolve();
      };
      signal.addEventListener("abort", onAbort, { once: true });
      await promise;
      signal.removeEventListener("abort", onAbort);
    }
    return end();
  }

  /** The messages from `offset` on, as far as `end`. */
  async read(offset: Offset, end: Offset, options: ReadOptions): Promise<Batch> {
    this.#check(offset, end);
    const taken = new Taken(offset, end, options);
    while (!taken.isFull) {
      const { next } = taken;
      const records = this.#parts.tail.recordsAt(next) ?? (await this.#readDisk(next));
      taken.add(records);
      if (taken.next > next) continue;
      if (taken.messages.length > 0) break;
      throw this.#damage(offset, records.find((record) => record.offset > offset)?.offset ?? end);
    }
    return { messages: taken.messages, next: taken.next };
  }

  #check(offset: Offset, end: Offset): void {
    const { segments, corruptions, id } = this.#parts;
    const start = segments[0]?.baseOffset ?? end;
    if (offset > end) {
      const message = `offset ${offset} of ${id.stream}/${id.index} is past the end ${end}`;
      throw new OffsetError(message, { earliest: start, latest: end });
    }
    if (offset < start) throw new GapError({ from: offset, to: start, reason: "retention" });
    const lost = corruptions.find(({ from, to }) => offset >= from && offset < to);
    if (lost !== undefined) throw new GapError({ from: offset, to: lost.to, reason: "corrupt" });
  }

  /** The first offset appended at or after a time. */
  async offsetAt(timestampMs: number, end: Offset): Promise<Offset> {
    // Segments may be deleted meanwhile: this list is ours.
    const segments = [...this.#parts.segments];
    for (const [index, segment] of segments.entries()) {
      const next = segments[index + 1];
      // A segment is made after everything in the one before it was appended.
      if (next !== undefined && next.createdAtMs < timestampMs) continue;
      if (!this.#parts.segments.includes(segment)) continue;
      const nextBase = next?.baseOffset ?? Number.POSITIVE_INFINITY;
      const first = await segment.use(() => this.#firstAt(segment, timestampMs, nextBase));
      if (first !== null) return first;
    }
    return end;
  }

  /** The base of the first batch in a segment appended at or after a time; null: none. */
  async #firstAt(segment: Segment, timestampMs: number, nextBase: Offset): Promise<Offset | null> {
    let position: number | null = await segment.positionBeforeTime(timestampMs);
    while (position !== null && position < segment.endPosition) {
      const chunk = await segment.readChunk(position);
      let consumed = 0;
      for (const { header, end } of batchesIn(chunk, segment.salt)) {
        if (header.baseOffset >= nextBase) return null;
        if (header.count > 0 && header.appendedAtMs >= timestampMs) return header.baseOffset;
        consumed = end;
      }
      position = consumed > 0 ? position + consumed : await segment.nextBatch(position + 1);
    }
    return null;
  }

  /** The records of one chunk of the segment that holds an offset. */
  async #readDisk(offset: Offset): Promise<readonly StoredRecord[]> {
    const { segments } = this.#parts;
    const index = segments.findLastIndex((segment) => segment.baseOffset <= offset);
    const segment = segments[index];
    if (segment === undefined) return [];
    const nextBase = segments[index + 1]?.baseOffset ?? Number.POSITIVE_INFINITY;
    return segment.use(() => this.#chunkAt(segment, offset, nextBase));
  }

  async #chunkAt(
    segment: Segment,
    offset: Offset,
    nextBase: Offset,
  ): Promise<readonly StoredRecord[]> {
    const { id } = this.#parts;
    let position: number | null = await segment.positionBefore(offset);
    while (position !== null && position < segment.endPosition) {
      const chunk = await segment.readChunk(position);
      const { records, bytes } = decodeChunk(chunk, segment.salt, { id, offset });
      const usable = records.filter((record) => record.offset < nextBase);
      if (usable.some((record) => record.offset >= offset)) return usable;
      position = bytes > 0 ? position + bytes : await segment.nextBatch(position + 1);
    }
    return [];
  }

  /** Synced messages that are not readable: kept for the operator, a gap for the reader. */
  #damage(from: Offset, found: Offset): GapError {
    const { segments, corruptions } = this.#parts;
    const start = segments[0]?.baseOffset ?? found;
    if (from < start) return new GapError({ from, to: start, reason: "retention" });
    const index = segments.findLastIndex((segment) => segment.baseOffset <= from);
    const to = Math.min(found, segments[index + 1]?.baseOffset ?? found);
    const path = segments[index]?.path ?? "";
    const isKnown = corruptions.some((each) => each.from <= from && each.to >= to);
    if (!isKnown) corruptions.push({ path, byte: SEGMENT_HEADER_BYTES, from, to });
    return new GapError({ from, to, reason: "corrupt" });
  }
}

/** What one read has gathered. */
class Taken {
  readonly messages: StoredRecord[] = [];
  next: Offset;
  isFull = false;
  readonly #end: Offset;
  readonly #messagesMax: number;
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(offset: Offset, end: Offset, options: ReadOptions) {
    this.next = offset;
    this.#end = end;
    this.#messagesMax = options.messagesMax;
    this.#bytesMax = options.bytesMax ?? Number.POSITIVE_INFINITY;
  }

  /** Adds records from `next` on, until one is missing: offsets of this engine have no holes. */
  add(records: readonly StoredRecord[]): void {
    for (const record of records) {
      if (record.offset < this.next) continue;
      if (record.offset > this.next) return;
      this.#bytes += record.recordBytes;
      this.isFull = this.messages.length > 0 && this.#bytes > this.#bytesMax;
      if (this.isFull) return;
      this.messages.push(record);
      this.next++;
      this.isFull = this.next >= this.#end || this.messages.length >= this.#messagesMax;
      if (this.isFull) return;
    }
  }
}

function decodeChunk(
  chunk: Buffer,
  salt: number,
  at: { readonly id: PartitionId; readonly offset: Offset },
): { records: StoredRecord[]; bytes: number } {
  const records: StoredRecord[] = [];
  let bytes = 0;
  for (const { header, at: place, end } of batchesIn(chunk, salt)) {
    bytes = end;
    if (header.count === 0 || header.baseOffset + header.count <= at.offset) continue;
    if (!payloadIsValid(chunk, place, header)) continue;
    records.push(...decodeBatch(chunk, place, header, at.id));
  }
  return { records, bytes };
}
