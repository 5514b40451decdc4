/**
 * One produce request and what became of each of its partitions. Nothing is retried here. The
 * library reports success and failure of the parts of a request in different shapes; this file
 * brings them to one.
 */
import { ProduceAcks } from "@platformatic/kafka";
import { type Clock, systemClock } from "../../src/clock.ts";
import { DisconnectedError } from "../../src/errors.ts";
import type { BytesProducer } from "./clients.ts";
import type { OutRecord } from "./codec.ts";
import type { Compression } from "./config.ts";
import { answerOf, disconnected, isNetworkFailure, isStale, isUnknownTopic } from "./failure.ts";

/** For a request from its start to its end, connecting included. Milliseconds. */
const SEND_MS_MAX = 20_000;
const TOO_LATE = "too late";

/** Records of one partition, in order. */
export interface PartitionBatch {
  readonly topic: string;
  readonly partition: number;
  /** One request has one compression: that of its first batch. */
  readonly compression: Compression;
  readonly records: readonly OutRecord[];
}

/** What became of a partition's batch: all of it is written, or none of it counts. */
export type BatchResult =
  | { readonly baseOffset: bigint }
  | { readonly answer: string; readonly text: string };

/** What a topic's partitions are known to be. */
export type TopicState =
  | { readonly partitions: number }
  | { readonly answer: string; readonly text: string };

/** The producer's side of a cluster. */
export class Producing {
  readonly #producer: BytesProducer;
  readonly #place: string;
  readonly #clock: Clock;

  constructor(producer: BytesProducer, place: string, clock: Clock = systemClock) {
    this.#producer = producer;
    this.#place = place;
    this.#clock = clock;
  }

  /**
   * How many partitions a topic has, from what is known unless `fresh`. @throws DisconnectedError
   */
  async topic(topic: string, fresh = false): Promise<TopicState> {
    try {
      const metadata = await this.#bounded(
        this.#producer.metadata({ topics: [topic], forceUpdate: fresh, retries: 0 }),
      );
      const count = metadata.topics.get(topic)?.partitionsCount ?? 0;
      return count > 0 ? { partitions: count } : unknownTopic(topic);
    } catch (error) {
      const answer = answerOf(error);
      if (isUnknownTopic(error)) return unknownTopic(topic);
      if (answer === null) throw disconnected(error, this.#place);
      return { answer: answer.id, text: answer.text };
    }
  }

  /**
   * Sends at most one batch for each partition, all at once, and answers in the order given.
   * @throws DisconnectedError some of it may be written, and which is not known.
   */
  async produce(batches: readonly PartitionBatch[]): Promise<readonly BatchResult[]> {
    const messages = batches.flatMap(({ topic, partition, records }) =>
      records.map((record) => ({
        topic,
        partition,
        timestamp: BigInt(record.timestampMs),
        headers: headerMap(record),
        ...(record.key === null ? {} : { key: record.key }),
        ...(record.value === null ? {} : { value: record.value }),
      })),
    );
    const results = new Map<string, BatchResult>();
    try {
      const done = await this.#bounded(
        this.#producer.send({
          messages,
          acks: ProduceAcks.ALL,
          compression: batches[0]?.compression ?? "none",
          repeatOnStaleMetadata: false,
        }),
      );
      takeOffsets(results, done);
    } catch (error) {
      takeOffsets(results, member(error, "produced"));
      takeAnswers(results, error);
      const rest = batches.filter((batch) => !results.has(nameOf(batch)));
      if (rest.length > 0) this.#takeRest(results, rest, error);
    }
    return batches.map((batch) => {
      const result = results.get(nameOf(batch));
      if (result !== undefined) return result;
      throw new DisconnectedError(`${this.#place} did not answer for ${nameOf(batch)}`);
    });
  }

  /** What the broker answered for no partition in particular. */
  #takeRest(
    results: Map<string, BatchResult>,
    rest: readonly PartitionBatch[],
    error: unknown,
  ): void {
    const answer = answerOf(error);
    if (answer === null && !isStale(error)) throw disconnected(error, this.#place);
    if (isNetworkFailure(error) && !isStale(error)) throw disconnected(error, this.#place);
    for (const batch of rest) {
      results.set(nameOf(batch), {
        answer: answer?.id ?? "LEADER_NOT_AVAILABLE",
        text: answer?.text ?? "the partition has no leader",
      });
    }
  }

  async #bounded<T>(promise: Promise<T>): Promise<T> {
    const done = new AbortController();
    const late = this.#clock.sleep(SEND_MS_MAX, done.signal).then((): typeof TOO_LATE => TOO_LATE);
    try {
      const first = await Promise.race([promise.then((value) => ({ value })), late]);
      if (first !== TOO_LATE) return first.value;
      throw new DisconnectedError(`${this.#place} did not answer in time`);
    } finally {
      done.abort();
    }
  }
}

function unknownTopic(topic: string): TopicState {
  return { answer: "UNKNOWN_TOPIC_OR_PARTITION", text: `topic ${topic} is not there` };
}

/**
 * The library takes headers as a map; keys that are different buffers of equal bytes stay apart.
 */
function headerMap(record: OutRecord): Map<Buffer, Buffer> {
  const headers = new Map<Buffer, Buffer | null>(record.headers);
  // Its types know no null, its writer does: a header without a value.
  return headers as Map<Buffer, Buffer>;
}

function nameOf({ topic, partition }: { topic: string; partition: number }): string {
  return `${topic}/${partition}`;
}

function member(error: unknown, name: string): unknown {
  if (typeof error !== "object" || error === null) return undefined;
  return (error as Readonly<Record<string, unknown>>)[name];
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function takeOffsets(results: Map<string, BatchResult>, produced: unknown): void {
  for (const item of list(member(produced, "offsets"))) {
    const topic = member(item, "topic");
    const partition = member(item, "partition");
    const offset = member(item, "offset");
    if (typeof topic !== "string" || typeof partition !== "number") continue;
    if (typeof offset === "bigint") results.set(`${topic}/${partition}`, { baseOffset: offset });
  }
}

/** Reads the answers for each partition out of the responses that an error carries. */
function takeAnswers(results: Map<string, BatchResult>, error: unknown): void {
  for (const inner of list(member(error, "errors"))) takeAnswers(results, inner);
  const answers = new Map<string, { id: string; text: string }>();
  for (const inner of list(member(error, "errors"))) {
    const path = member(inner, "path");
    const id = member(inner, "apiId");
    if (typeof path !== "string" || typeof id !== "string") continue;
    const text = member(inner, "serverErrorMessage") ?? member(inner, "message");
    const place = /^(\/responses\/\d+\/partition_responses\/\d+)(\/record_errors\/\d+)?$/.exec(
      path,
    );
    if (place?.[1] === undefined) continue;
    // The partition's own answer counts; a record's error only adds its words.
    const known = answers.get(place[1]);
    const isRecord = place[2] !== undefined;
    answers.set(place[1], {
      id: isRecord ? (known?.id ?? "INVALID_RECORD") : id,
      text: isRecord ? String(text) : (known?.text ?? String(text)),
    });
  }
  takeResponse(results, member(error, "response"), answers);
}

function takeResponse(
  results: Map<string, BatchResult>,
  response: unknown,
  answers: ReadonlyMap<string, { id: string; text: string }>,
): void {
  for (const [t, topic] of list(member(response, "responses")).entries()) {
    for (const [p, partition] of list(member(topic, "partitionResponses")).entries()) {
      const name = `${String(member(topic, "name"))}/${String(member(partition, "index"))}`;
      const answer = answers.get(`/responses/${t}/partition_responses/${p}`);
      const base = member(partition, "baseOffset");
      if (member(partition, "errorCode") === 0 && typeof base === "bigint") {
        results.set(name, { baseOffset: base });
      } else if (answer !== undefined) {
        results.set(name, { answer: answer.id, text: answer.text });
      }
    }
  }
}
