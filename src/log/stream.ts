/**
 * Streams: named logs of one or more partitions. A message goes to the partition of its key, else
 * of its dedupe key, else of its source's partition, else to one partition after another.
 */
import { assert } from "../assert.ts";
import { ConflictError } from "../errors.ts";
import { encodeText, type Message } from "../message.ts";
import type { AppendOptions, Log, Offset, Partition, Receipt } from "./log.ts";
import { partitionOf } from "./murmur2.ts";

/**
 * What a source's redelivery of a message is known by. As a dedupe key, but a message that has its
 * source's partition is in the partition of that.
 */
export interface SourceKey {
  readonly key: string;
  /** Whether this may be a redelivery; else the key is kept for one that comes later. */
  readonly isLookedUp: boolean;
}

/** What an append to a stream may ask for. */
export interface StreamAppendOptions {
  readonly dedupeKeys?: readonly (string | null)[];
  /** Where a message has no dedupe key: what its source's redelivery of it is known by. */
  readonly sourceKeys?: readonly (SourceKey | null)[];
  /** The partition, instead of the one that the message itself would choose. */
  readonly partition?: number;
  /** Only with one partition, or with `partition`. @throws ConflictError with `end` */
  readonly expectedOffset?: Offset;
}

/** What an append of one message may ask for: as for several. */
export interface AppendOneOptions {
  readonly dedupeKey?: string | null;
  readonly sourceKey?: SourceKey | null;
  readonly partition?: number;
  readonly expectedOffset?: Offset;
}

/** A stream as it runs. Its count of partitions is fixed once it holds a message. */
export class Stream {
  readonly name: string;
  readonly partitions: readonly Partition[];
  /** Asked before an append to a partition; null: all is taken. @throws StreamFullError */
  guard: ((partition: number) => void) | null = null;
  #turn = 0;

  constructor(name: string, partitions: readonly Partition[]) {
    assert(partitions.length > 0, "a stream has a partition");
    this.name = name;
    this.partitions = partitions;
  }

  /** Whether any partition holds or held a message. */
  get isEmpty(): boolean {
    return this.partitions.every((partition) => partition.offsetEnd === 0);
  }

  /** How often appends to any partition have failed that were taken already. */
  get failures(): number {
    return this.partitions.reduce((sum, { failures }) => sum + failures, 0);
  }

  /** The partition that a message belongs to. */
  choose(message: Message, dedupeKey: string | null, sourceKey: string | null = null): number {
    const count = this.partitions.length;
    if (count === 1) return 0;
    if (message.key !== null) return partitionOf(message.key, count);
    if (dedupeKey !== null) return partitionOf(encodeText(dedupeKey), count);
    const from = message.origin?.partition ?? null;
    if (from !== null) return from % count;
    if (sourceKey !== null) return partitionOf(encodeText(sourceKey), count);
    this.#turn = (this.#turn + 1) % count;
    return this.#turn;
  }

  /**
   * Appends one message. The receipt is true once `durable` has resolved. Throws as a partition's
   * `append` does. @throws StreamFullError
   */
  appendOne(
    message: Message,
    options: AppendOneOptions = {},
  ): { readonly durable: Promise<void>; readonly receipt: Receipt } {
    const dedupeKey = options.dedupeKey ?? null;
    const { expectedOffset, sourceKey = null } = options;
    const index = options.partition ?? this.choose(message, dedupeKey, sourceKey?.key);
    this.guard?.(index);
    const partition = this.#partition(index);
    const isAsked = dedupeKey !== null || sourceKey !== null || expectedOffset !== undefined;
    const appended = isAsked
      ? partition.append([message], askedOf(options))
      : partition.append([message]);
    return { durable: appended.durable, receipt: appended.receipt(0) };
  }

  /**
   * Appends messages in order (within each partition) as one call: all are refused together when
   * the input is wrong. The receipts are in the order of the messages. @throws StreamFullError
   */
  append(
    messages: readonly Message[],
    options: StreamAppendOptions = {},
  ): { readonly durable: Promise<void>; readonly receipts: readonly Receipt[] } {
    if (this.partitions.length === 1 && messages.length > 0)
      return this.#appendTo(0, messages, options);
    const groups = this.#groupsOf(messages, options);
    const { expectedOffset } = options;
    if (expectedOffset !== undefined && groups.size > 1) {
      throw new ConflictError("conflict", "a condition on the end needs one partition");
    }
    const receipts: Receipt[] = [];
    const waits: Promise<void>[] = [];
    const parts = [...groups].map(([partition, indexes]) => ({
      partition: this.#partition(partition),
      indexes,
      messages: pick(messages, indexes),
      options: optionsOf(options, indexes),
    }));
    for (const index of groups.keys()) this.guard?.(index);
    // What one partition would refuse is refused before another one has taken its part.
    if (parts.length > 1)
      for (const each of parts) each.partition.check(each.messages, each.options);
    for (const { partition, indexes, messages: own, options: asked } of parts) {
      const appended = partition.append(own, asked);
      for (const [place, index] of indexes.entries()) receipts[index] = appended.receipt(place);
      waits.push(appended.durable);
    }
    const [only] = waits;
    const durable = waits.length === 1 && only !== undefined ? only : allDurable(waits);
    return { durable, receipts };
  }

  /** All messages, in their order, to one partition. */
  #appendTo(index: number, messages: readonly Message[], options: StreamAppendOptions) {
    const { dedupeKeys, sourceKeys, expectedOffset } = options;
    this.guard?.(index);
    const isAsked = [dedupeKeys, sourceKeys, expectedOffset].some((each) => each !== undefined);
    const asked = isAsked ? optionsOf(options, [...messages.keys()]) : {};
    const appended = this.#partition(index).append(messages, asked);
    return { durable: appended.durable, receipts: messages.map((_, at) => appended.receipt(at)) };
  }

  /** Which of the messages go to each partition, in their order. */
  #groupsOf(
    messages: readonly Message[],
    options: StreamAppendOptions,
  ): ReadonlyMap<number, readonly number[]> {
    const groups = new Map<number, number[]>();
    for (const [index, message] of messages.entries()) {
      const key = options.dedupeKeys?.[index] ?? null;
      const sourceKey = options.sourceKeys?.[index]?.key;
      const chosen = options.partition ?? this.choose(message, key, sourceKey);
      const group = groups.get(chosen);
      if (group === undefined) groups.set(chosen, [index]);
      else group.push(index);
    }
    return groups;
  }

  #partition(index: number): Partition {
    const partition = this.partitions[index];
    assert(partition !== undefined, "a partition is one of the stream's");
    return partition;
  }
}

function askedOf({ dedupeKey, sourceKey, expectedOffset }: AppendOneOptions): AppendOptions {
  const own = dedupeKey ?? null;
  return {
    dedupeKeys: [own ?? sourceKey?.key ?? null],
    ...(expectedOffset === undefined ? null : { expectedOffset }),
    ...(own !== null || sourceKey?.isLookedUp !== false ? null : { isLookedUp: [false] }),
  };
}

function pick(messages: readonly Message[], indexes: readonly number[]): Message[] {
  return indexes.map((index) => {
    const message = messages[index];
    assert(message !== undefined, "an index of a group is one of the messages");
    return message;
  });
}

function optionsOf(options: StreamAppendOptions, indexes: readonly number[]): AppendOptions {
  const { expectedOffset, dedupeKeys: own, sourceKeys } = options;
  const dedupeKeys = indexes.map((index) => own?.[index] ?? sourceKeys?.[index]?.key ?? null);
  const condition = expectedOffset === undefined ? {} : { expectedOffset };
  if (sourceKeys === undefined) return { dedupeKeys, ...condition };
  const isLookedUp = indexes.map(
    (index) => (own?.[index] ?? null) !== null || sourceKeys[index]?.isLookedUp !== false,
  );
  return { dedupeKeys, isLookedUp, ...condition };
}

async function allDurable(waits: readonly Promise<void>[]): Promise<void> {
  await Promise.all(waits);
}

/** All streams of a log, made when they are first named. */
export class Streams {
  readonly #log: Log;
  readonly #streams = new Map<string, Stream>();
  readonly #wanted = new Map<string, number>();

  constructor(log: Log) {
    this.#log = log;
    for (const [name] of log.streams()) this.stream(name);
  }

  /** The stream, made with its defined count of partitions (1 when none). @throws InvalidError */
  stream(name: string): Stream {
    const known = this.#streams.get(name);
    if (known !== undefined) return known;
    const held = this.#log.streams().get(name) ?? 0;
    const count = Math.max(held, this.#wanted.get(name) ?? 1);
    const partitions = Array.from({ length: count }, (_, index) =>
      this.#log.partition({ stream: name, index }, count),
    );
    const made = new Stream(name, partitions);
    this.#streams.set(name, made);
    return made;
  }

  /** The stream when it is known already. */
  find(name: string): Stream | undefined {
    return this.#streams.get(name);
  }

  /** Names of all streams known, sorted; internal ones begin with `$`. */
  names(): readonly string[] {
    return [...this.#streams.keys()].toSorted();
  }

  /**
   * Says how many partitions a stream shall have, and whether its messages are found by their keys.
   * Returns false when it holds messages under another count: that is fixed. An empty stream is
   * made anew.
   */
  define(name: string, count: number, indexKey = false): boolean {
    this.#log.keepIndex(name, indexKey);
    const known = this.#streams.get(name);
    if (known !== undefined && known.partitions.length !== count) {
      if (!known.isEmpty) return false;
      this.#streams.delete(name);
    }
    this.#wanted.set(name, count);
    this.stream(name);
    return true;
  }
}
