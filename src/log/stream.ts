/**
 * Streams: named logs of one or more partitions. A message goes to the partition of its key, else
 * of its dedupe key, else of its source's partition, else to one partition after another.
 */
import { assert } from "../assert.ts";
import { ConflictError } from "../errors.ts";
import { encodeText, type Message } from "../message.ts";
import type { AppendOptions, Log, Offset, Partition, Receipt } from "./log.ts";
import { partitionOf } from "./murmur2.ts";

/** What an append to a stream may ask for. */
export interface StreamAppendOptions {
  readonly dedupeKeys?: readonly (string | null)[];
  /** The partition, instead of the one that the message itself would choose. */
  readonly partition?: number;
  /** Only with one partition, or with `partition`. @throws ConflictError with `end` */
  readonly expectedOffset?: Offset;
}

/** A stream as it runs. Its count of partitions is fixed once it holds a message. */
export class Stream {
  readonly name: string;
  readonly partitions: readonly Partition[];
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

  /** The partition that a message belongs to. */
  choose(message: Message, dedupeKey: string | null): number {
    const count = this.partitions.length;
    if (count === 1) return 0;
    if (message.key !== null) return partitionOf(message.key, count);
    if (dedupeKey !== null) return partitionOf(encodeText(dedupeKey), count);
    const from = message.origin?.partition ?? null;
    if (from !== null) return from % count;
    this.#turn = (this.#turn + 1) % count;
    return this.#turn;
  }

  /** Appends one message. The receipt is true once `durable` has resolved. */
  appendOne(
    message: Message,
    options: { dedupeKey?: string | null; partition?: number; expectedOffset?: Offset } = {},
  ): { readonly durable: Promise<void>; readonly receipt: Receipt } {
    const dedupeKey = options.dedupeKey ?? null;
    const index = options.partition ?? this.choose(message, dedupeKey);
    const { expectedOffset } = options;
    const appended = this.#partition(index).append(
      [message],
      expectedOffset === undefined
        ? { dedupeKeys: [dedupeKey] }
        : { dedupeKeys: [dedupeKey], expectedOffset },
    );
    return { durable: appended.durable, receipt: appended.receipt(0) };
  }

  /**
   * Appends messages in order (within each partition) as one call: all are refused together when
   * the input is wrong. The receipts are in the order of the messages.
   */
  append(
    messages: readonly Message[],
    options: StreamAppendOptions = {},
  ): { readonly durable: Promise<void>; readonly receipts: readonly Receipt[] } {
    const groups = new Map<number, number[]>();
    for (const [index, message] of messages.entries()) {
      const key = options.dedupeKeys?.[index] ?? null;
      const chosen = options.partition ?? this.choose(message, key);
      const group = groups.get(chosen);
      if (group === undefined) groups.set(chosen, [index]);
      else group.push(index);
    }
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

  #partition(index: number): Partition {
    const partition = this.partitions[index];
    assert(partition !== undefined, "a partition is one of the stream's");
    return partition;
  }
}

function pick(messages: readonly Message[], indexes: readonly number[]): Message[] {
  return indexes.map((index) => {
    const message = messages[index];
    assert(message !== undefined, "an index of a group is one of the messages");
    return message;
  });
}

function optionsOf(options: StreamAppendOptions, indexes: readonly number[]): AppendOptions {
  const dedupeKeys = indexes.map((index) => options.dedupeKeys?.[index] ?? null);
  const { expectedOffset } = options;
  return expectedOffset === undefined ? { dedupeKeys } : { dedupeKeys, expectedOffset };
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
   * Says how many partitions a stream shall have. Returns false when it holds messages under
   * another count: that is fixed. An empty stream is made anew.
   */
  define(name: string, count: number): boolean {
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
