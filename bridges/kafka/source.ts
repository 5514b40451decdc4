/**
 * The reading end: one member of a consumer group. A delivery is a part of one fetched batch, of
 * one partition. Nothing is committed before it is acked, and nothing of a partition that another
 * member owns. What a reader has out when the group changes stays out if the partition stays and
 * nobody else moved the group's position; else its acks mean nothing and it is read again.
 */
import type { Consumer, EachBatchPayload, KafkaMessage } from "kafkajs";
import { assert } from "../../src/assert.ts";
import type { Delivery, Source, SourceOptions } from "../../src/bridge.ts";
import type { Clock } from "../../src/clock.ts";
import { DisconnectedError } from "../../src/errors.ts";
import type { Message } from "../../src/message.ts";
import type { Cluster, KafkaAdmin } from "./clients.ts";
import { decodeRecord, weightOf } from "./codec.ts";
import { Committer } from "./committer.ts";
import type { SourceFields } from "./config.ts";
import { disconnected } from "./failure.ts";
import { Handout } from "./handout.ts";
import { begin } from "./positions.ts";
import { Progress, type Range } from "./progress.ts";
import { BATCH_HEARTBEAT_MS, createConsumer, headersOf, Sockets } from "./reader.ts";

/** One delivery: enough for a full commit group of the log. Count; bytes. */
const DELIVERY_MESSAGES_MAX = 500;
const DELIVERY_BYTES_MAX = 1024 * 1024;
/** For leaving the group and ending connections politely, each. Milliseconds. */
const LEAVE_MS_MAX = 3000;

/** What a source is made of. */
export interface SourceParts {
  /** The bridge's name. */
  readonly bridge: string;
  readonly cluster: Cluster;
  readonly admin: KafkaAdmin;
  readonly clock: Clock;
  readonly fields: SourceFields;
  /** How many partitions the topic has. */
  readonly partitions: number;
  readonly options: SourceOptions;
  /** Called when the source has failed: the bridge looks whether the cluster is away. */
  readonly failed: () => Promise<void>;
  readonly ended: (source: KafkaSource) => void;
}

/** Joins a group. The join itself goes on in the background. @throws DisconnectedError */
export async function openSource(parts: SourceParts): Promise<KafkaSource> {
  const { topic } = parts.fields;
  const group = parts.fields.group ?? `isthmus-${parts.options.name}`;
  const { cluster, partitions } = parts;
  const { start } = parts.options;
  await begin(parts.admin, { group, topic, partitions, start, place: cluster.place });
  const sockets = new Sockets();
  const consumer = createConsumer(cluster, group, sockets);
  try {
    await consumer.connect();
    // Where the group has no position: its beginning, or a partition that was added later.
    await consumer.subscribe({ topic, fromBeginning: true });
  } catch (error) {
    const failure = disconnected(error, cluster.place);
    sockets.destroy(failure);
    throw failure;
  }
  return new KafkaSource(parts, consumer, sockets);
}

/** A source of one topic and group. */
export class KafkaSource implements Source {
  readonly #parts: SourceParts;
  readonly #consumer: Consumer;
  readonly #sockets: Sockets;
  readonly #handout: Handout;
  readonly #committer: Committer;
  readonly #progress = new Map<number, Progress>();
  readonly #running: Promise<void>;
  /** Counts changes of the group: a batch that was read before one is not gone on with after it. */
  #generation = 0;
  #failure: DisconnectedError | null = null;
  #ending: Promise<void> | null = null;

  constructor(parts: SourceParts, consumer: Consumer, sockets: Sockets) {
    this.#parts = parts;
    this.#consumer = consumer;
    this.#sockets = sockets;
    this.#handout = new Handout(parts.options.unsettledBytesMax);
    this.#committer = new Committer({
      topic: parts.fields.topic,
      owned: () => this.#progress.values(),
      failed: (error) => this.#lose(error),
      clock: parts.clock,
    });
    this.#running = this.#run();
  }

  async receive(signal: AbortSignal): Promise<Delivery | null> {
    const waiting = await this.#handout.take(signal);
    if (waiting === null) return null;
    const { progress, range, messages } = waiting;
    range.state = "given";
    return {
      messages,
      ack: () => this.#ack(progress, range),
      nack: () => this.#nack(progress, range),
    };
  }

  /** Ends the source with a reason; what is unsettled will be delivered again. */
  fail(reason: DisconnectedError): void {
    if (this.#failure !== null) return;
    this.#failure = reason;
    this.#handout.fail(reason);
    this.#committer.stop(reason);
    this.#ending = this.#leave(reason);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#failure === null) {
      await this.#atMost(this.#committer.idle());
      this.fail(new DisconnectedError("the source is closed"));
    }
    this.#parts.ended(this);
    await this.#ending;
  }

  async #run(): Promise<void> {
    const { GROUP_JOIN, CRASH, REQUEST_TIMEOUT } = this.#consumer.events;
    this.#consumer.on(GROUP_JOIN, ({ payload }) => {
      this.#joined(payload.memberAssignment[this.#parts.fields.topic] ?? []);
    });
    this.#consumer.on(CRASH, ({ payload }) => this.#lose(payload.error));
    // The library waits on a connection that no longer answers; this one does not.
    this.#consumer.on(REQUEST_TIMEOUT, ({ payload }) => {
      this.#lose(new Error(`${payload.broker} did not answer in time`));
    });
    try {
      await this.#consumer.run({
        autoCommit: false,
        eachBatchAutoResolve: false,
        eachBatch: (payload) => this.#read(payload),
      });
    } catch (error) {
      this.#lose(error);
    }
  }

  #lose(error: unknown): void {
    if (this.#failure !== null) return;
    this.fail(disconnected(error, this.#parts.cluster.place));
    const leaving = this.#ending;
    this.#ending = Promise.all([leaving, this.#parts.failed()]).then(() => {});
  }

  /** The group has changed; it says which partitions are this reader's. */
  #joined(partitions: readonly number[]): void {
    this.#generation += 1;
    for (const progress of this.#progress.values()) {
      if (progress.seeking) {
        // The library keeps a seek beyond a change of owner, where it would pass others' messages.
        this.#lose(new Error("the group changed while messages were given back"));
        return;
      }
      if (partitions.includes(progress.partition)) progress.rejoined();
      else this.#revoke(progress);
    }
  }

  #revoke(progress: Progress): void {
    const open = progress.open;
    progress.revoke();
    this.#progress.delete(progress.partition);
    this.#handout.drop(open);
  }

  /** Hands out a fetched batch in parts, as fast as the bound of unsettled bytes allows. */
  async #read(payload: EachBatchPayload): Promise<void> {
    const generation = this.#generation;
    const { batch } = payload;
    this.#committer.use((offsets) => payload.commitOffsetsIfNecessary(offsets));
    const gone = (): boolean =>
      this.#failure !== null ||
      generation !== this.#generation ||
      !payload.isRunning() ||
      payload.isStale();
    if (gone()) return;
    const from = BigInt((batch as unknown as { readonly fetchedOffset: string }).fetchedOffset);
    const progress = this.#progressOf(batch.partition, from);
    for (const part of this.#partsOf(batch.partition, batch.messages, progress)) {
      while (!this.#handout.hasRoom(part.bytes)) {
        await this.#handout.room(this.#parts.clock, BATCH_HEARTBEAT_MS);
        if (gone()) return;
        await payload.heartbeat();
      }
      if (gone()) return;
      const range = progress.add(part.first, part.last, part.bytes);
      this.#handout.give({ progress, range, messages: part.messages });
      payload.resolveOffset(String(part.last));
    }
    progress.read(from, BigInt(batch.lastOffset()));
    payload.resolveOffset(batch.lastOffset());
    await payload.heartbeat();
  }

  #progressOf(partition: number, from: bigint): Progress {
    const known = this.#progress.get(partition);
    known?.sought(from);
    if (known?.continues(from) === true) return known;
    if (known !== undefined) this.#revoke(known);
    const fresh = new Progress(partition, from);
    this.#progress.set(partition, fresh);
    return fresh;
  }

  /** The messages that are not out already, in parts of a delivery's size. */
  *#partsOf(partition: number, records: readonly KafkaMessage[], progress: Progress) {
    const limit = Math.min(DELIVERY_BYTES_MAX, this.#parts.options.unsettledBytesMax / 2);
    let part: Part | null = null;
    for (const record of records) {
      const offset = BigInt(record.offset);
      const covered = progress.covers(offset);
      const message = covered ? null : this.#message(partition, record);
      const bytes = message === null ? 0 : weightOf(message);
      const full =
        part !== null &&
        (covered || part.messages.length >= DELIVERY_MESSAGES_MAX || part.bytes + bytes > limit);
      if (full && part !== null) {
        yield part;
        part = null;
      }
      if (message === null) continue;
      part ??= { first: offset, last: offset, bytes: 0, messages: [] };
      part.last = offset;
      part.bytes += bytes;
      part.messages.push(message);
    }
    if (part !== null) yield part;
  }

  #message(partition: number, record: KafkaMessage): Message {
    const timestampMs = Number(record.timestamp);
    const { bridge, clock, fields } = this.#parts;
    return decodeRecord(
      {
        partition,
        offset: record.offset,
        timestampMs: timestampMs >= 0 ? timestampMs : clock.nowMs(),
        key: record.key,
        value: record.value,
        headers: headersOf(record.headers),
      },
      { bridge, topic: fields.topic },
    );
  }

  async #ack(progress: Progress, range: Range): Promise<void> {
    assert(range.state === "given", "a delivery is settled once");
    range.state = "acked";
    if (progress.owned) this.#handout.release(range.bytes);
    if (this.#failure !== null) throw this.#failure;
    const next = progress.owned ? progress.committable() : null;
    // Behind an open one there is nothing to tell the group yet: that one's ack tells of both.
    if (next !== null) await this.#committer.upTo(progress, next);
  }

  #nack(progress: Progress, range: Range): Promise<void> {
    const dropped = progress.giveBack(range);
    if (this.#failure !== null) return Promise.reject(this.#failure);
    if (!progress.owned) return Promise.resolve();
    this.#handout.release(range.bytes);
    this.#handout.drop(dropped);
    const offset = progress.seek();
    const { topic } = this.#parts.fields;
    if (offset !== null) {
      this.#consumer.seek({ topic, partition: progress.partition, offset: String(offset) });
    }
    return Promise.resolve();
  }

  /** Leaves the group and ends every connection, politely when that goes fast. */
  async #leave(reason: DisconnectedError): Promise<void> {
    // A consumer that is still joining would go on to read; one that has joined can leave.
    await this.#atMost(this.#running);
    const left = this.#consumer.disconnect().catch((error: unknown) => error);
    await this.#atMost(left);
    this.#sockets.destroy(reason);
    await this.#atMost(left);
  }

  async #atMost(promise: Promise<unknown>): Promise<void> {
    const done = new AbortController();
    await Promise.race([promise, this.#parts.clock.sleep(LEAVE_MS_MAX, done.signal)]);
    done.abort();
  }
}

interface Part {
  readonly first: bigint;
  last: bigint;
  bytes: number;
  readonly messages: Message[];
}
