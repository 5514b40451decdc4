/**
 * One partition: group commit on the way in, waiting reads on the way out.
 *
 * The order is strict: write → sync → visible to readers → acked, then the next write. What is
 * appended while a sync is under way goes into the next group. A failed sync is final: nothing of
 * that group is acked, the partition takes no more, and the process has to end.
 */
import { join } from "node:path";
import { assert } from "../assert.ts";
import { nextTurn } from "../clock.ts";
import { errorText, LimitError, StorageError } from "../errors.ts";
import { groupBytesMax, groupRetryAfterMs, markDelayMs, tailBytesMax } from "../limits.ts";
import type { Message } from "../message.ts";
import { BATCH_HEADER_BYTES, sealMark } from "./batch.ts";
import type { Dedupe } from "./dedupe.ts";
import { Group } from "./group.ts";
import { BufferPool } from "./group-buffer.ts";
import { KeyIndex } from "./key-index.ts";
import { type Found, Lookups } from "./lookups.ts";
import type {
  Appended,
  AppendOptions,
  Batch,
  Offset,
  Partition,
  PartitionId,
  ReadOptions,
  Receipt,
  Waits,
} from "./log.ts";
import { SealedFile } from "./open-files.ts";
import type { PartitionContext, PartitionParts } from "./partition-parts.ts";
import { PartitionReader } from "./partition-reader.ts";
import { Receipts } from "./receipts.ts";
import { checkRecord } from "./record.ts";
import type { Corruption } from "./recover.ts";
import { createSegmentFile, SEGMENT_HEADER_BYTES, Segment, segmentName } from "./segment.ts";
import { makePartitionFolder } from "./spare.ts";
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
  readonly #lookups: Lookups;
  readonly #tail: Tail;
  readonly #keys: KeyIndex;
  readonly #reader: PartitionReader;
  readonly #closing = new AbortController();
  readonly #pool = new BufferPool();
  #group: Group;
  /** How many messages the group before had. */
  #lastCount = 0;
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
    this.#lookups = new Lookups(id, parts.dedupe, () => this.offsetStart);
    this.#end = parts.endOffset;
    this.#appendedAtMs = parts.appendedAtMs;
    this.#streamPartitions = parts.partitions;
    this.#group = new Group(parts.endOffset, this.#pool);
    const bounds = { bytesMax: tailBytesMax, all: context.tails };
    this.#tail = new Tail(id, bounds, (memory) => this.#pool.give(memory));
    this.corruptions = parts.corruptions;
    const onDamage = (found: Corruption): Promise<void> => context.onDamage(id, parts.epoch, found);
    const own = { ...parts, ...context, id, tail: this.#tail, end: () => this.#end };
    this.#keys = new KeyIndex(own);
    this.#reader = new PartitionReader({ ...own, keys: this.#keys, onDamage });
  }

  get offsetStart(): Offset {
    return this.#segments[0]?.baseOffset ?? this.#end;
  }

  get offsetEnd(): Offset {
    return this.#end;
  }

  get failures(): number {
    return this.#lookups.failures;
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
    const found = this.#lookups.known(options);
    if (found !== null) return this.#appendFound(messages, options, found);
    this.check(messages, options);
    const run = (late: Found): Appended => this.#appendFound(messages, options, late);
    return this.#lookups.add(messages, options, run);
  }

  /** Appends at once; `found` is what is known of each message's key. */
  #appendFound(messages: readonly Message[], options: AppendOptions, found: Found): Appended {
    const group = this.#group;
    this.#checkOpen(group);
    this.#lookups.checkEnd(group.endOffset, options, found);
    const mark = group.mark();
    const { dedupeKeys } = options;
    const receipts: Receipt[] = [];
    try {
      for (const message of messages) {
        const index = receipts.length;
        const key = dedupeKeys?.[index] ?? null;
        receipts.push(this.#appendOne(group, message, key, found[index] ?? null));
      }
    } catch (error) {
      group.rewind(mark);
      this.#dedupe.forgetFrom(group.endOffset);
      throw error;
    }
    this.#committing ??= this.#commitAll();
    const isNew = group.count > mark.count;
    return new Receipts(isNew ? group.durable : this.#durabilityOf(receipts), receipts);
  }

  check(messages: readonly Message[], options: AppendOptions = {}): void {
    this.#checkOpen(this.#group);
    for (const [index, message] of messages.entries()) {
      checkRecord(message, options.dedupeKeys?.[index] ?? null);
    }
  }

  read(offset: Offset, options: ReadOptions): Promise<Batch | null> {
    return this.#reader.read(offset, options);
  }

  get waits(): Waits {
    return this.#reader;
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
      await this.#dedupe.removeFile(segment.baseOffset);
      await this.#keys.removeFile(segment.baseOffset);
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
    await this.#lookups.idle();
    while (this.#committing !== null) await this.#committing;
    await this.#marking;
    this.#reader.close();
    if (this.#failure === null) await this.#writeMark(true);
    for (const segment of this.#segments) await segment.close();
  }

  #checkOpen(group: Group): void {
    if (this.#failure !== null) throw this.#failure;
    if (this.#closing.signal.aborted) throw new StorageError("the log is closing");
    if (group.byteLength > groupBytesMax / 2) {
      const message = "more is waiting for the disk than may wait; try again soon";
      throw new LimitError("rate-limited", message, groupRetryAfterMs);
    }
  }

  /** A message of an append, with what is known of its key. */
  #appendOne(group: Group, message: Message, key: string | null, found: Offset | null): Receipt {
    const { stream, index: partition } = this.id;
    const first = key === null ? null : this.#lookups.first(key, found);
    const offset = first ?? group.add(message, key);
    if (first === null && key !== null) this.#dedupe.note(key, offset);
    return { id: message.id, stream, partition, offset, duplicate: first !== null };
  }

  /** A duplicate of something that is not synced yet has to wait for it. */
  #durabilityOf(duplicates: readonly Receipt[]): Promise<void> {
    const newest = duplicates.reduce((most, { offset }) => Math.max(most, offset), -1);
    if (newest < this.#end) return Promise.resolve();
    if (newest >= this.#group.baseOffset) return this.#group.durable;
    return this.#inFlight?.durable ?? this.#group.durable;
  }

  async #commitAll(): Promise<void> {
    // While many append at a time, all that this turn of the event loop brings is one group; who
    // appends alone does not wait for a turn.
    if (this.#lastCount > 1) await nextTurn();
    else await Promise.resolve();
    while (this.#group.count > 0 && this.#failure === null) {
      const group = this.#group;
      this.#inFlight = group;
      this.#lastCount = group.count;
      this.#group = group.next();
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
    const { clock, onCommit, segmentBytes, fillAhead } = this.#context;
    let segment = this.#segments.at(-1);
    const isFull =
      segment !== undefined &&
      segment.baseOffset < group.baseOffset &&
      (segment.endPosition + group.byteLength > segmentBytes || this.#dedupe.isFull);
    if (segment === undefined || isFull) segment = await this.#rollTo(group.baseOffset);
    this.#appendedAtMs = Math.max(this.#appendedAtMs, clock.nowMs());
    const sealed = group.seal({
      salt: segment.salt,
      knownSynced: this.#end,
      appendedAtMs: this.#appendedAtMs,
    });
    const position = segment.endPosition;
    const { bytes } = sealed;
    try {
      segment.write(bytes, fillAhead);
    } catch (error) {
      await segment.cut(position);
      throw error;
    }
    const startedMs = clock.monotonicMs();
    await segment.file.sync();
    const syncMs = clock.monotonicMs() - startedMs;
    for (const { header, start } of sealed.batches) segment.noteBatch(header, position + start);
    this.#tail.push(sealed);
    segment.endPosition = position + bytes.length;
    assert(group.baseOffset === this.#end, "groups are committed in order");
    this.#end = group.endOffset;
    this.#reader.wake(sealed);
    onCommit({ syncMs, messages: group.count, bytes: bytes.length });
  }

  async #rollTo(baseOffset: Offset): Promise<Segment> {
    const { disk, clock, salt } = this.#context;
    if (this.#segments.length === 0) await makePartitionFolder(disk, this.#folder);
    const createdAtMs = Math.max(this.#appendedAtMs, clock.nowMs());
    const partitions = this.#streamPartitions;
    const header = { salt: salt(), baseOffset, epoch: this.epoch, createdAtMs, partitions };
    const file = await createSegmentFile(disk, this.#folder, header);
    const path = join(this.#folder, segmentName(baseOffset));
    const segment = new Segment(path, header, file, SEGMENT_HEADER_BYTES);
    const sealed = this.#segments.at(-1);
    this.#segments.push(segment);
    if (sealed === undefined) return segment;
    await sealed.seal(new SealedFile(this.#context.files, sealed.path, sealed.endPosition));
    await this.#dedupe.seal(sealed, baseOffset);
    await this.#keys.seal(sealed, baseOffset);
    return segment;
  }

  /** Nothing of a failed group was acked; nor can what was appended behind it be. */
  #fail(group: Group, error: unknown): void {
    const failure =
      error instanceof StorageError
        ? error
        : new StorageError(`the log failed: ${errorText(error)}`, { fatal: true, cause: error });
    const behind = this.#group;
    this.#group = new Group(group.baseOffset, this.#pool);
    this.#dedupe.forgetFrom(group.baseOffset);
    this.#lookups.fail(failure);
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
    this.#pool.clear();
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
      segment.writeMark(bytes);
      if (synced) await segment.finish(bytes.length);
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
