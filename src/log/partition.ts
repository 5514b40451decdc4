/**
 * One partition: group commit on the way in, waiting reads on the way out.
 *
 * The order is strict: write → sync → visible to readers → acked, then the next write. What is
 * appended while a sync is under way goes into the next group. A failed sync is final: nothing of
 * that group is acked, the partition takes no more, and the process has to end.
 */
import { join } from "node:path";
import { assert } from "../assert.ts";
import { ConflictError, errorText, LimitError, StorageError } from "../errors.ts";
import { groupBytesMax, groupRetryAfterMs, markDelayMs, tailBytesMax } from "../limits.ts";
import type { Message } from "../message.ts";
import { BATCH_HEADER_BYTES, sealMark } from "./batch.ts";
import type { Dedupe } from "./dedupe.ts";
import { Group } from "./group.ts";
import type {
  Appended,
  AppendOptions,
  Batch,
  Offset,
  Partition,
  PartitionId,
  ReadOptions,
  Receipt,
} from "./log.ts";
import type { PartitionContext, PartitionParts } from "./partition-parts.ts";
import { PartitionReader } from "./partition-reader.ts";
import { checkRecord } from "./record.ts";
import type { Corruption } from "./recover.ts";
import { createSegmentFile, SEGMENT_HEADER_BYTES, Segment, segmentName } from "./segment.ts";
import { Tail } from "./tail.ts";

/** A partition in segment files. */
export class FilePartition implements Partition, AsyncDisposable {
  readonly id: PartitionId;
  readonly epoch: string;
  readonly #context: PartitionContext;
  readonly #folder: string;
  /** Synced messages that recovery could not read. */
  readonly corruptions: Corruption[];
  readonly #segments: Segment[];
  readonly #dedupe: Dedupe;
  readonly #tail: Tail;
  readonly #reader: PartitionReader;
  readonly #closing = new AbortController();
  #group: Group;
  /** The group that is being written and synced. */
  #inFlight: Group | null = null;
  #committing: Promise<void> | null = null;
  #marking: Promise<void> | null = null;
  #markedEnd: Offset = -1;
  #end: Offset;
  #appendedAtMs: number;
  #streamPartitions: number;
  #failure: StorageError | null = null;

  constructor(id: PartitionId, parts: PartitionParts, context: PartitionContext) {
    this.id = id;
    this.epoch = parts.epoch;
    this.#context = context;
    this.#folder = parts.folder;
    this.#segments = parts.segments;
    this.#dedupe = parts.dedupe;
    this.#end = parts.endOffset;
    this.#appendedAtMs = parts.appendedAtMs;
    this.#streamPartitions = parts.partitions;
    this.#group = new Group(parts.endOffset);
    this.#tail = new Tail(id, tailBytesMax);
    this.corruptions = parts.corruptions;
    const { segments, corruptions } = parts;
    this.#reader = new PartitionReader({ id, segments, tail: this.#tail, corruptions });
  }

  get offsetStart(): Offset {
    return this.#segments[0]?.baseOffset ?? this.#end;
  }

  get offsetEnd(): Offset {
    return this.#end;
  }

  /** How many partitions its stream has; 0 when nobody has said. Kept with the first message. */
  get streamPartitions(): number {
    return this.#streamPartitions;
  }

  set streamPartitions(count: number) {
    assert(this.#segments.length === 0, "the count of partitions is fixed by the first message");
    this.#streamPartitions = count;
  }

  /** The segments, oldest first; the last one is being written. */
  get segments(): readonly Segment[] {
    return this.#segments;
  }

  /** Bytes in its segments. */
  get byteLength(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.endPosition, 0);
  }

  append(messages: readonly Message[], options: AppendOptions = {}): Appended {
    const group = this.#group;
    this.#checkOpen(group, options);
    const mark = group.mark();
    const receipts: Receipt[] = [];
    try {
      for (const [index, message] of messages.entries()) {
        receipts.push(this.#appendOne(group, message, options.dedupeKeys?.[index] ?? null));
      }
    } catch (error) {
      group.rewind(mark);
      this.#dedupe.forgetFrom(group.endOffset);
      throw error;
    }
    this.#committing ??= this.#commitAll();
    return {
      durable: this.#durability(group, receipts),
      receipt: (index) => {
        const receipt = receipts[index];
        assert(receipt !== undefined, "a receipt is asked for a message of its append");
        return receipt;
      },
    };
  }

  check(messages: readonly Message[], options: AppendOptions = {}): void {
    this.#checkOpen(this.#group, options);
    for (const [index, message] of messages.entries()) {
      checkRecord(message, options.dedupeKeys?.[index] ?? null);
    }
  }

  async read(offset: Offset, options: ReadOptions): Promise<Batch | null> {
    const end = await this.#reader.waitFor(offset, () => this.#end, options.signal);
    if (end === null) return null;
    return this.#reader.read(offset, end, options);
  }

  offsetAt(timestampMs: number): Promise<Offset> {
    return this.#reader.offsetAt(timestampMs, this.#end);
  }

  /**
   * Deletes the oldest segment, unless it is the one being written; a reader in it ends first. One
   * is gone from the disk before the next one goes, so that a power cut leaves no hole.
   */
  async dropOldest(): Promise<void> {
    const { disk } = this.#context;
    const [segment] = this.#segments;
    assert(segment !== undefined && this.#segments.length > 1, "what is written is not deleted");
    try {
      await this.#dedupe.removeFile(disk, this.#folder, segment.baseOffset);
      await disk.remove(segment.path);
      this.#segments.shift();
      this.#dedupe.forgetSegment(segment.baseOffset);
      await disk.syncFolder(this.#folder);
    } catch (error) {
      this.#failIfFinal(error);
      throw error;
    }
    await segment.close();
  }

  /** Seals the segment that is being written, when it holds anything. @throws StorageError */
  async roll(): Promise<void> {
    while (this.#committing !== null) await this.#committing;
    const newest = this.#segments.at(-1);
    const isEmpty = newest === undefined || newest.baseOffset === this.#end;
    if (isEmpty || this.#failure !== null) return;
    const rolling = this.#rollAlone();
    this.#committing = rolling.catch(toldToWaiters);
    await rolling;
  }

  async #rollAlone(): Promise<void> {
    try {
      await this.#rollTo(this.#end);
    } catch (error) {
      this.#failIfFinal(error);
      throw error;
    } finally {
      this.#committing = null;
      if (this.#group.count > 0) this.#committing = this.#commitAll();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    while (this.#committing !== null) await this.#committing;
    await this.#marking;
    this.#reader.close();
    if (this.#failure === null) await this.#writeMark(true);
    for (const segment of this.#segments) await segment.close();
  }

  #checkOpen(group: Group, options: AppendOptions): void {
    if (this.#failure !== null) throw this.#failure;
    if (this.#closing.signal.aborted) throw new StorageError("the log is closing");
    const { expectedOffset } = options;
    if (expectedOffset !== undefined && expectedOffset !== group.endOffset) {
      const message = `the partition's end is ${group.endOffset}, not ${expectedOffset}`;
      throw new ConflictError("conflict", message, { end: group.endOffset });
    }
    if (group.byteLength > groupBytesMax / 2) {
      const message = "more is waiting for the disk than may wait; try again soon";
      throw new LimitError("rate-limited", message, groupRetryAfterMs);
    }
  }

  #appendOne(group: Group, message: Message, dedupeKey: string | null): Receipt {
    const { stream, index: partition } = this.id;
    const first = dedupeKey === null ? null : this.#dedupe.find(dedupeKey);
    if (first !== null) {
      return { id: message.id, stream, partition, offset: first, duplicate: true };
    }
    const offset = group.add(message, dedupeKey);
    if (dedupeKey !== null) this.#dedupe.note(dedupeKey, offset);
    return { id: message.id, stream, partition, offset, duplicate: false };
  }

  /** A duplicate of something that is not synced yet has to wait for it. */
  #durability(group: Group, receipts: readonly Receipt[]): Promise<void> {
    const waits = receipts.some((receipt) => receipt.offset >= this.#end);
    if (!waits) return Promise.resolve();
    const own = receipts.some((receipt) => receipt.offset >= group.baseOffset);
    return own ? group.durable : (this.#inFlight?.durable ?? group.durable);
  }

  async #commitAll(): Promise<void> {
    // Everything that this turn of the event loop brings goes into one group.
    await Promise.resolve();
    while (this.#group.count > 0 && this.#failure === null) {
      const group = this.#group;
      this.#inFlight = group;
      this.#group = new Group(group.endOffset);
      try {
        await this.#commit(group);
        this.#inFlight = null;
        group.resolve();
      } catch (error) {
        this.#inFlight = null;
        this.#fail(group, error);
      }
    }
    this.#committing = null;
    if (!this.#closing.signal.aborted) this.#marking ??= this.#markWhenQuiet();
  }

  async #commit(group: Group): Promise<void> {
    const { clock, onCommit, segmentBytes } = this.#context;
    let segment = this.#segments.at(-1);
    const isFull =
      segment !== undefined &&
      segment.baseOffset < group.baseOffset &&
      segment.endPosition + group.byteLength > segmentBytes;
    if (segment === undefined || isFull) segment = await this.#rollTo(group.baseOffset);
    this.#appendedAtMs = Math.max(this.#appendedAtMs, clock.nowMs());
    const { bytes, batches } = group.seal({
      salt: segment.salt,
      knownSynced: this.#end,
      appendedAtMs: this.#appendedAtMs,
    });
    const position = segment.endPosition;
    try {
      segment.file.write(bytes, position);
    } catch (error) {
      await this.#cut(segment, position);
      throw error;
    }
    const startedMs = clock.monotonicMs();
    await segment.file.sync();
    const syncMs = clock.monotonicMs() - startedMs;
    for (const { header, start } of batches) {
      segment.noteBatch(header, position + start);
      this.#tail.push(header, bytes, start);
    }
    segment.endPosition = position + bytes.length;
    assert(group.baseOffset === this.#end, "groups are committed in order");
    this.#end = group.endOffset;
    this.#reader.wake();
    onCommit({ syncMs, messages: group.count, bytes: bytes.length });
  }

  /** Half-written bytes must never be read as a batch of a later life of their place. */
  async #cut(segment: Segment, position: number): Promise<void> {
    try {
      await segment.file.truncate(position);
    } catch (error) {
      throw new StorageError(errorText(error), { fatal: true, cause: error });
    }
  }

  async #rollTo(baseOffset: Offset): Promise<Segment> {
    const { disk, clock, salt } = this.#context;
    if (this.#segments.length === 0) await disk.makeFolder(this.#folder);
    const createdAtMs = Math.max(this.#appendedAtMs, clock.nowMs());
    const partitions = this.#streamPartitions;
    const header = { salt: salt(), baseOffset, epoch: this.epoch, createdAtMs, partitions };
    const file = await createSegmentFile(disk, this.#folder, header);
    const path = join(this.#folder, segmentName(baseOffset));
    const segment = new Segment(path, header, file, SEGMENT_HEADER_BYTES);
    const sealed = this.#segments.at(-1);
    this.#segments.push(segment);
    this.#dedupe.begin(baseOffset);
    if (sealed !== undefined) await this.#dedupe.save(disk, this.#folder, sealed.baseOffset);
    return segment;
  }

  /** Nothing of a failed group was acked; nor can what was appended behind it be. */
  #fail(group: Group, error: unknown): void {
    const failure =
      error instanceof StorageError
        ? error
        : new StorageError(`the log failed: ${errorText(error)}`, { fatal: true, cause: error });
    const behind = this.#group;
    this.#group = new Group(group.baseOffset);
    this.#dedupe.forgetFrom(group.baseOffset);
    for (const failed of [group, behind]) {
      failed.durable.catch(toldToWaiters);
      failed.reject(failure);
    }
    if (!failure.fatal) return;
    this.#failure = failure;
    this.#reader.wake();
    this.#context.onFatal(failure);
  }

  #failIfFinal(error: unknown): void {
    if (error instanceof StorageError && error.fatal) this.#fail(this.#group, error);
  }

  async #markWhenQuiet(): Promise<void> {
    const { clock } = this.#context;
    let seen = -1;
    while (seen !== this.#end && !this.#closing.signal.aborted) {
      seen = this.#end;
      await clock.sleep(markDelayMs, this.#closing.signal);
    }
    this.#marking = null;
    if (this.#committing === null && !this.#closing.signal.aborted) await this.#writeMark(false);
  }

  /**
   * A mark tells recovery what was synced. Without its own sync it may be lost, and only cost time.
   */
  async #writeMark(synced: boolean): Promise<void> {
    const segment = this.#segments.at(-1);
    if (segment === undefined || this.#markedEnd === this.#end || this.#failure !== null) return;
    const bytes = sealMark({
      baseOffset: this.#end,
      salt: segment.salt,
      appendedAtMs: this.#appendedAtMs,
    });
    try {
      segment.file.write(bytes, segment.endPosition);
      if (synced) await segment.file.sync();
    } catch (error) {
      // A full disk takes no mark; a failed sync is told like any other.
      if (!(error instanceof StorageError) || error.fatal) this.#fail(this.#group, error);
      return;
    }
    segment.endPosition += BATCH_HEADER_BYTES;
    this.#markedEnd = this.#end;
  }
}

/** Everyone who waits for a failed group is told by its promise; it may be that nobody does. */
function toldToWaiters(): void {}
