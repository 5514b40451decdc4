/**
 * Reading one partition: from the shared tail where that still holds the offset, else from the
 * segments. Never holds up a writer; never sees what is not durable.
 */
import { assert } from "../assert.ts";
import { GapError, OffsetError, StorageError } from "../errors.ts";
import { batchesIn, decodeBatch, payloadIsValid } from "./batch.ts";
import { chunkReadsMax } from "../limits.ts";
import { locateDamage } from "./damage-scan.ts";
import { Gate } from "./gate.ts";
import type { KeyIndex } from "./key-index.ts";
import type { Batch, Offset, PartitionId, ReadOptions, Waiter, WaitPlace, Waits } from "./log.ts";
import type { StoredRecord } from "./record.ts";
import type { Corruption } from "./recover.ts";
import type { Segment } from "./segment.ts";
import type { Tail, TailGroup } from "./tail.ts";

interface Parts {
  readonly id: PartitionId;
  /** Shared with the partition, which adds at the end and removes at the start. */
  readonly segments: readonly Segment[];
  readonly tail: Tail;
  /** The partition's end: all below it is durable. */
  readonly end: () => Offset;
  /** Where messages of a key are, when the stream has an index. */
  readonly keys: KeyIndex;
  /** What is known to be damaged; what readers find is added. */
  readonly corruptions: Corruption[];
  /** Told of what readers find, before they are told of the gap. */
  readonly onDamage: (found: Corruption) => Promise<void>;
}

/** Readers' side of a partition. */
export class PartitionReader implements Waits {
  readonly #parts: Parts;
  readonly #waiters = new Set<Waiter>();
  readonly #gate = new Gate(chunkReadsMax);
  #closed = false;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Lets readers at the end go on: a group is durable, or the partition has failed. */
  wake(group: TailGroup | null = null): void {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const waiter of waiters) waiter.readable(this.#closed);
    if (group !== null) this.#parts.keys.committed(group);
    else this.#parts.keys.waiters.wakeAll(this.#closed);
  }

  /** Ends all waits with null. */
  close(): void {
    this.#closed = true;
    this.wake();
  }

  /** As `Waits.whenReadable`. */
  whenReadable({ offset, key }: WaitPlace, waiter: Waiter): void {
    const { keys } = this.#parts;
    if (offset !== this.#parts.end() || this.#closed) waiter.readable(this.#closed);
    else if (key !== null && keys.isWanted) keys.waiters.add(keys.hash(key), waiter);
    else this.#waiters.add(waiter);
  }

  /** As `Waits.endWait`. */
  endWait(key: Uint8Array | null, waiter: Waiter): void {
    const { keys } = this.#parts;
    if (this.#waiters.delete(waiter) || key === null) return;
    keys.waiters.remove(keys.hash(key), waiter);
  }

  /** Waits until there is something at `offset`; the end then, or null when aborted. */
  async #waitFor(offset: Offset, signal: AbortSignal): Promise<Offset | null> {
    const { end } = this.#parts;
    while (offset === end()) {
      if (signal.aborted || this.#closed) return null;
      const { promise, resolve } = Promise.withResolvers<void>();
      const waiter = { readable: (): void => resolve() };
      this.#waiters.add(waiter);
      const onAbort = (): void => {
        this.#waiters.delete(waiter);
        resolve();
      };
      signal.addEventListener("abort", onAbort, { once: true });
      await promise;
      signal.removeEventListener("abort", onAbort);
    }
    return end();
  }

  /** As `Partition.read`. */
  async read(offset: Offset, options: ReadOptions): Promise<Batch | null> {
    const end = await this.#waitFor(offset, options.signal);
    if (end === null) return null;
    this.#check(offset, end);
    const { key } = options;
    if (key !== undefined && key !== null && this.#parts.keys.isWanted) {
      return await this.#readKey(offset, end, { ...options, key });
    }
    return await this.#readAll(offset, end, options);
  }

  /** The messages of one key, found by the index, as far as damage that is known. */
  async #readKey(
    offset: Offset,
    end: Offset,
    { key, messagesMax, bytesMax = Number.POSITIVE_INFINITY }: ReadOptions & { key: Uint8Array },
  ): Promise<Batch> {
    const { corruptions, keys, tail } = this.#parts;
    const damages = corruptions.filter(({ from }) => from > offset && from < end);
    const bound = Math.min(end, ...damages.map(({ from }) => from));
    const search = { from: offset, end: bound, max: messagesMax };
    const { offsets, next } = await keys.find(key, search);
    const messages: StoredRecord[] = [];
    let held: readonly StoredRecord[] = [];
    let bytes = 0;
    for (const each of offsets) {
      const recent = tail.recordsAt(each);
      let record = find(recent ?? held, each);
      if (record === undefined) {
        held = await this.#readDisk(each, { jumps: true });
        record = find(held, each);
      }
      if (record === undefined) {
        if (messages.length > 0) return { messages, next: each };
        throw await this.#damage(each, end);
      }
      if (!isKey(record.key, key)) continue;
      bytes += record.recordBytes;
      if (messages.length > 0 && bytes > bytesMax) return { messages, next: each };
      // A chunk read from the disk is not to be held for one message of it.
      messages.push(recent === null ? record.detached() : record);
    }
    return { messages, next };
  }

  async #readAll(offset: Offset, end: Offset, options: ReadOptions): Promise<Batch> {
    const taken = new Taken(offset, end, options);
    while (!taken.isFull) {
      const { next } = taken;
      const { bytesMax } = options;
      const records =
        this.#parts.tail.recordsAt(next) ?? (await this.#readDisk(next, { bytesMax }));
      taken.add(records);
      if (taken.next > next) continue;
      if (taken.messages.length > 0) break;
      throw await this.#damage(offset, end);
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

  /**
   * The records of one chunk of the segment that holds an offset, in batches until there are
   * `bytesMax`; `jumps`: of no others before.
   */
  #readDisk(
    offset: Offset,
    { jumps = false, bytesMax }: { jumps?: boolean; bytesMax?: number | undefined },
  ): Promise<readonly StoredRecord[]> {
    return this.#gate.run(async () => {
      // Chosen when it is its turn: segments are deleted meanwhile.
      const { segments } = this.#parts;
      const index = segments.findLastIndex((segment) => segment.baseOffset <= offset);
      const segment = segments[index];
      if (segment === undefined) return [];
      const nextBase = segments[index + 1]?.baseOffset ?? Number.POSITIVE_INFINITY;
      return await segment.use(async () => {
        const before = segment[jumps ? "positionNear" : "positionBefore"](offset);
        const from = { nextBase, bytesMax, position: await before };
        return await this.#chunkAt(segment, offset, from);
      });
    });
  }

  async #chunkAt(
    segment: Segment,
    offset: Offset,
    { nextBase, bytesMax, ...from }: ChunkPlace,
  ): Promise<readonly StoredRecord[]> {
    const { id } = this.#parts;
    let position: number | null = from.position;
    while (position !== null && position < segment.endPosition) {
      const chunk = await segment.readChunk(position);
      const { records, bytes } = decodeChunk(chunk, segment.salt, { id, offset, bytesMax });
      const usable = records.filter((record) => record.offset < nextBase);
      if (usable.some((record) => record.offset >= offset)) return usable;
      position = bytes > 0 ? position + bytes : await segment.nextBatch(position + 1);
    }
    return [];
  }

  /** Synced messages that are not readable: remembered for the operator, a gap for the reader. */
  async #damage(from: Offset, end: Offset): Promise<GapError | StorageError> {
    const { segments, corruptions, onDamage } = this.#parts;
    const start = segments[0]?.baseOffset ?? end;
    if (from < start) return new GapError({ from, to: start, reason: "retention" });
    const index = segments.findLastIndex((segment) => segment.baseOffset <= from);
    const segment = segments[index];
    assert(segment !== undefined, "an offset that is kept lies in a segment");
    const nextBase = segments[index + 1]?.baseOffset ?? end;
    const found = await segment.use(() => locateDamage(segment, from, nextBase));
    if (found === null) return new StorageError(`offset ${from} could not be read; try again`);
    await onDamage(found);
    const isKnown = corruptions.some((each) => each.from <= found.from && each.to >= found.to);
    if (!isKnown) corruptions.push(found);
    return new GapError({ from, to: found.to, reason: "corrupt" });
  }
}

/** Where a chunk is read. */
interface ChunkPlace {
  readonly nextBase: Offset;
  readonly position: number;
  readonly bytesMax: number | undefined;
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

function find(records: readonly StoredRecord[], offset: Offset): StoredRecord | undefined {
  const first = records[0]?.offset ?? 0;
  const likely = records[offset - first];
  return likely?.offset === offset ? likely : records.find((each) => each.offset === offset);
}

function isKey(key: Uint8Array | null, wanted: Uint8Array): boolean {
  return key !== null && Buffer.compare(key, wanted) === 0;
}

function decodeChunk(
  chunk: Buffer,
  salt: number,
  at: { readonly id: PartitionId; readonly offset: Offset; readonly bytesMax: number | undefined },
): { records: StoredRecord[]; bytes: number } {
  const records: StoredRecord[] = [];
  let bytes = 0;
  let decoded = 0;
  for (const { header, at: place, end } of batchesIn(chunk, salt)) {
    bytes = end;
    if (header.count === 0 || header.baseOffset + header.count <= at.offset) continue;
    if (!payloadIsValid(chunk, place, header)) continue;
    records.push(...decodeBatch(chunk, place, header, at.id));
    // What the reader does not take now it would decode again.
    decoded += header.payloadBytes;
    if (at.bytesMax !== undefined && decoded >= at.bytesMax) break;
  }
  return { records, bytes };
}
