/**
 * The reading end: one member of a consumer group. A delivery is a part of one fetched batch, of
 * one partition. Nothing is committed before it is acked, and nothing of a partition that another
 * member owns. What a reader has out when the group changes stays out if the partition stays and
 * nobody else moved the group's position; else its acks mean nothing and it is read again.
 */
import type { Consumer, EachBatchPayload } from "kafkajs";
import { assert } from "../../src/assert.ts";
import type { Delivery, Source, SourceOptions } from "../../src/bridge.ts";
import type { Clock } from "../../src/clock.ts";
import { DisconnectedError } from "../../src/errors.ts";
import type { Cluster, KafkaAdmin } from "./clients.ts";
import { Committer } from "./committer.ts";
import type { SourceFields } from "./config.ts";
import { disconnected } from "./failure.ts";
import { type Assignment, Gaps } from "./gaps.ts";
import { Handout } from "./handout.ts";
import { partsOf } from "./parts.ts";
import { begin, beginAgain } from "./positions.ts";
import { type Place, Progress, type Range } from "./progress.ts";
import { BATCH_HEARTBEAT_MS, createConsumer, Sockets } from "./reader.ts";
import { changeOf, madeAnew } from "./subject.ts";
import type { Topic } from "./topics.ts";

/** Between two looks whether the topics are still what they were. Milliseconds. */
const SUBJECT_MS = 10_000;
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
  /** What the address means, now and when asked again. */
  readonly topics: readonly Topic[];
  readonly look: () => Promise<readonly Topic[]>;
  readonly options: SourceOptions;
  /** Called when the source has failed: the bridge looks whether the cluster is away. */
  readonly failed: () => Promise<void>;
  readonly ended: (source: KafkaSource) => void;
}

/** Joins a group. The join itself goes on in the background. @throws DisconnectedError */
export async function openSource(parts: SourceParts): Promise<KafkaSource> {
  const group = groupOf(parts);
  const { cluster, topics } = parts;
  await placeGroup(parts, group);
  const sockets = new Sockets();
  const consumer = createConsumer(cluster, group, sockets);
  try {
    await consumer.connect();
    // Where the group has no position: its beginning, or a partition that was added later.
    await consumer.subscribe({ topics: topics.map(({ name }) => name), fromBeginning: true });
  } catch (error) {
    const failure = disconnected(error, cluster.place);
    sockets.destroy(failure);
    throw failure;
  }
  return new KafkaSource(parts, consumer, sockets);
}

function groupOf({ fields, options }: SourceParts): string {
  return fields.group ?? `isthmus-${options.name}`;
}

/** Makes sure that the group has a place to begin in every topic, and in the right topic. */
async function placeGroup(parts: SourceParts, group: string): Promise<void> {
  const { admin, cluster, fields, options, topics } = parts;
  const { place } = cluster;
  const known = await madeAnew(topics, options.memory);
  for (const { name: topic, partitions } of known.anew) {
    const reason = "it was made anew, and what it had and was not read is gone";
    options.onGap?.({ place: `topic ${topic}`, reason });
    await beginAgain(admin, { group, topic, partitions, place });
  }
  await known.keep();
  for (const { name: topic, partitions } of topics) {
    const { start } = options;
    await begin(admin, { group, topic, partitions, start, offset: fields.offset, place });
  }
}

/** A source of some topics and one group. */
export class KafkaSource implements Source {
  readonly #parts: SourceParts;
  readonly #consumer: Consumer;
  readonly #sockets: Sockets;
  readonly #handout: Handout;
  readonly #committer: Committer;
  readonly #gaps: Gaps;
  readonly #progress = new Map<string, Progress>();
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  readonly #watching: Promise<void>;
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
      owned: () => this.#progress.values(),
      failed: (error) => this.#lose(error),
      clock: parts.clock,
    });
    this.#gaps = new Gaps({
      admin: parts.admin,
      group: groupOf(parts),
      report: (gap) => parts.options.onGap?.(gap),
      failed: (error) => this.#lose(error),
    });
    this.#running = this.#run();
    this.#watching = this.#watch();
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
    this.#stop.abort();
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
    await this.#watching;
    await this.#atMost(this.#gaps.idle());
  }

  /** Ends the source when its topics are not what they were: another one reads what they are. */
  async #watch(): Promise<void> {
    const { topics, look, clock } = this.#parts;
    for (;;) {
      await clock.sleep(SUBJECT_MS, this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      try {
        const change = changeOf(topics, await look());
        if (change !== null) this.#lose(new DisconnectedError(change));
      } catch (error) {
        this.#lose(error);
      }
    }
  }

  async #run(): Promise<void> {
    const { GROUP_JOIN, CRASH, REQUEST_TIMEOUT } = this.#consumer.events;
    this.#consumer.on(GROUP_JOIN, ({ payload }) => {
      this.#joined(payload.memberAssignment);
    });
    this.#consumer.on(CRASH, ({ payload }) => this.#lose(payload.error));
    // The library waits on a connection that no longer answers; this one does not.
    this.#consumer.on(REQUEST_TIMEOUT, ({ payload }) => {
      this.#lose(new Error(`${payload.broker} did not answer in time`));
    });
    try {
      // Before the library is at it: what is missing it passes over, and moves the group on.
      await this.#gaps.opened(this.#parts.topics);
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
  #joined(assignment: Assignment): void {
    this.#generation += 1;
    for (const progress of this.#progress.values()) {
      if (progress.seeking) {
        // The library keeps a seek beyond a change of owner, where it would pass others' messages.
        this.#lose(new Error("the group changed while messages were given back"));
        return;
      }
      const isOurs = assignment[progress.topic]?.includes(progress.partition) ?? false;
      if (isOurs) progress.rejoined();
      else this.#revoke(progress);
    }
    this.#gaps.joined(assignment);
  }

  #revoke(progress: Progress): void {
    const open = progress.open;
    progress.revoke();
    this.#progress.delete(nameOf(progress));
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
    const progress = this.#progressOf(batch, from);
    const { bridge, clock } = this.#parts;
    const { unsettledBytesMax } = this.#parts.options;
    for (const part of partsOf(batch, progress, { bridge, clock, unsettledBytesMax })) {
      while (!this.#handout.hasRoom(part.bytes)) {
        await this.#handout.room(clock, BATCH_HEARTBEAT_MS);
        if (gone()) return;
        await payload.heartbeat();
      }
      if (gone()) return;
      const range = progress.add(part.first, part.last, part.bytes);
      this.#handout.give({ progress, range, messages: part.messages });
      payload.resolveOffset(String(part.last));
    }
    progress.read(from, BigInt(batch.lastOffset()));
    progress.reached(BigInt(batch.lastOffset()));
    payload.resolveOffset(batch.lastOffset());
    await payload.heartbeat();
  }

  #progressOf(place: Place, from: bigint): Progress {
    const known = this.#progress.get(nameOf(place));
    this.#gaps.read(place, from, known?.expected ?? null);
    known?.sought(from);
    if (known?.continues(from) === true) return known;
    if (known !== undefined) this.#revoke(known);
    const fresh = new Progress(place, from);
    this.#progress.set(nameOf(place), fresh);
    return fresh;
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
    const { topic, partition } = progress;
    if (offset !== null) this.#consumer.seek({ topic, partition, offset: String(offset) });
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

function nameOf({ topic, partition }: Place): string {
  return `${topic}/${partition}`;
}
