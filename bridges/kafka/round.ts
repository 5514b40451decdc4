/**
 * One round of writing: records with their partitions become one batch for each partition, sent in
 * one request; what the broker answers becomes an outcome for each record. A batch that is refused
 * for its content is halved until the culprit stands alone; what a new leader or a returning
 * replica can cure is tried again here, a few times, before anything later is sent.
 */
import type { Outcome } from "../../src/bridge.ts";
import { type Clock, systemClock } from "../../src/clock.ts";
import type { OutRecord } from "./codec.ts";
import type { Compression } from "./config.ts";
import type { BatchResult, PartitionBatch, Producing } from "./producing.ts";

/** Tries of a batch that the broker can't take now, with doubled waits. Count; milliseconds. */
const TRIES_MAX = 5;
const RETRY_MS_MIN = 100;
/** What a caller is told to wait when the tries were not enough. Milliseconds. */
const BUSY_MS = 1000;

/** A record and where it goes. */
export interface Placed {
  readonly topic: string;
  readonly partition: number;
  readonly record: OutRecord;
  readonly compression: Compression;
}

/** What writing needs of the producer. */
export type Produces = Pick<Producing, "produce" | "topic">;

const UNKNOWN: Outcome = { unknown: true };

/** Answers that can change by themselves within a second or so. */
const passing: ReadonlySet<string> = new Set([
  "LEADER_NOT_AVAILABLE",
  "NOT_LEADER_OR_FOLLOWER",
  "FENCED_LEADER_EPOCH",
  "UNKNOWN_LEADER_EPOCH",
  "REPLICA_NOT_AVAILABLE",
  "BROKER_NOT_AVAILABLE",
  "NOT_ENOUGH_REPLICAS",
  "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
  "REQUEST_TIMED_OUT",
  "NETWORK_EXCEPTION",
  "KAFKA_STORAGE_ERROR",
  "THROTTLING_QUOTA_EXCEEDED",
  "CORRUPT_MESSAGE",
]);

/** Answers to a batch that one of its records is to blame for, and that will not change. */
const content: ReadonlyMap<string, string> = new Map([
  ["MESSAGE_TOO_LARGE", "the record is larger than the topic's max.message.bytes"],
  ["RECORD_LIST_TOO_LARGE", "the record is larger than the topic's segment"],
  ["INVALID_RECORD", "the topic does not take this record"],
  ["INVALID_TIMESTAMP", "the record's timestamp is outside what the topic takes"],
  ["UNSUPPORTED_FOR_MESSAGE_FORMAT", "the topic's message format cannot hold this record"],
]);

/** What became of a topic that can't be written to, as the outcome of a message for it. */
export function topicOutcome(
  topic: string,
  state: { readonly answer: string; readonly text: string },
): Outcome {
  if (state.answer === "UNKNOWN_TOPIC_OR_PARTITION") {
    return { refused: `topic ${topic} is not there: make it, or add create: true` };
  }
  if (passing.has(state.answer)) return { busyMs: BUSY_MS };
  const refused = `topic ${topic}: ${state.answer}: ${state.text}`;
  return state.answer === "INVALID_TOPIC_EXCEPTION" ? { refused, final: true } : { refused };
}

/**
 * Writes records, in order within each partition, and answers in the order given.
 * @throws DisconnectedError any of them may be written or not.
 */
export async function writeRound(
  producing: Produces,
  placed: readonly Placed[],
  clock: Clock = systemClock,
): Promise<readonly Outcome[]> {
  const groups = groupByPartition(placed);
  const results = await producing.produce(groups);
  const writer = new Writer(producing, clock);
  const outcomes: Outcome[] = placed.map(() => UNKNOWN);
  for (const [at, group] of groups.entries()) {
    const result = results[at];
    if (result === undefined) continue;
    const settled = await writer.settle(group, result, 1);
    for (const [k, index] of group.indexes.entries()) outcomes[index] = settled[k] ?? UNKNOWN;
  }
  return outcomes;
}

interface Group extends PartitionBatch {
  readonly records: OutRecord[];
  /** Where each record stands in the round. */
  readonly indexes: number[];
}

function groupByPartition(placed: readonly Placed[]): Group[] {
  const groups = new Map<string, Group>();
  for (const [index, { topic, partition, record, compression }] of placed.entries()) {
    const name = `${topic}/${partition}`;
    const group = groups.get(name) ?? { topic, partition, compression, records: [], indexes: [] };
    groups.set(name, group);
    group.records.push(record);
    group.indexes.push(index);
  }
  return [...groups.values()];
}

class Writer {
  readonly #producing: Produces;
  readonly #clock: Clock;

  constructor(producing: Produces, clock: Clock) {
    this.#producing = producing;
    this.#clock = clock;
  }

  /** The outcomes of a batch's records, given what the broker answered to its nth try. */
  async settle(batch: PartitionBatch, result: BatchResult, tries: number): Promise<Outcome[]> {
    if ("baseOffset" in result) {
      return batch.records.map((_, index) => ({
        sent: `partition ${batch.partition} offset ${result.baseOffset + BigInt(index)}`,
      }));
    }
    if (content.has(result.answer)) return await this.#halve(batch, result);
    const missing = result.answer === "UNKNOWN_TOPIC_OR_PARTITION";
    if ((passing.has(result.answer) || missing) && tries < TRIES_MAX) {
      await this.#clock.sleep(RETRY_MS_MIN * 2 ** (tries - 1));
      await this.#producing.topic(batch.topic, true);
      return await this.#write(batch, tries + 1);
    }
    return restUnknown(batch, topicOutcome(batch.topic, result));
  }

  async #write(batch: PartitionBatch, tries: number): Promise<Outcome[]> {
    const [result] = await this.#producing.produce([batch]);
    return result === undefined ? restUnknown(batch, UNKNOWN) : this.settle(batch, result, tries);
  }

  async #halve(
    batch: PartitionBatch,
    result: { readonly answer: string; readonly text: string },
  ): Promise<Outcome[]> {
    const { records } = batch;
    if (records.length === 1) {
      const sentence = content.get(result.answer) ?? "the record is refused";
      return [{ refused: `${sentence} (${result.answer}: ${result.text})`, final: true }];
    }
    const middle = Math.ceil(records.length / 2);
    const first = await this.#write({ ...batch, records: records.slice(0, middle) }, 1);
    const rest = { ...batch, records: records.slice(middle) };
    const whole = first.every((outcome) => "sent" in outcome);
    return [...first, ...(whole ? await this.#write(rest, 1) : restUnknown(rest, UNKNOWN))];
  }
}

function restUnknown(batch: PartitionBatch, first: Outcome): Outcome[] {
  return batch.records.map((_, index) => (index === 0 ? first : UNKNOWN));
}
