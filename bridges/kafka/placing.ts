/**
 * Where each outgoing message goes: its topic, made when asked for, and its partition. What has no
 * place gets the outcome that says why. Topics are looked up once a round.
 */
import type { Outcome, Outgoing } from "../../src/bridge.ts";
import { InvalidError } from "../../src/errors.ts";
import { encodeRecord, type OutRecord } from "./codec.ts";
import { isTopicName, type SinkFields, sinkFields, topicNameRefusal } from "./config.ts";
import { partitionOfKey } from "./partitioner.ts";
import type { Producing, TopicState } from "./producing.ts";
import { type Placed, topicOutcome } from "./round.ts";
import type { Topics } from "./topics.ts";

/** No broker reads a request above `socket.request.max.bytes`, by default 100 MiB. Bytes. */
const RECORD_BYTES_MAX = 100 * 1024 * 1024 - 4096;

export interface PlacingParts {
  readonly producing: Producing;
  readonly topics: Topics;
}

/** The places of one sink's messages. */
export class Placing {
  readonly #parts: PlacingParts;
  /** For each topic the partition that messages without a key go to in this round. */
  readonly #sticky = new Map<string, number>();
  #round = new Map<string, TopicState>();
  #read: { from: Outgoing["fields"]; fields: SinkFields } | null = null;

  constructor(parts: PlacingParts) {
    this.#parts = parts;
  }

  /** Begins a round: topics are looked up anew, messages without a key go to the next partition. */
  begin(): void {
    for (const topic of this.#round.keys()) this.#sticky.set(topic, this.#stickyOf(topic) + 1);
    this.#round = new Map();
  }

  /** @throws DisconnectedError the cluster can't be asked. */
  async place(outgoing: Outgoing): Promise<Placed | Outcome> {
    try {
      const fields = this.#fieldsOf(outgoing);
      if (!isTopicName(fields.topic)) {
        return { refused: topicNameRefusal(fields.topic), final: true };
      }
      const record = encodeRecord(outgoing.message);
      if (record.bytes > RECORD_BYTES_MAX) {
        return { refused: `a record of ${record.bytes} bytes is too large`, final: true };
      }
      const state = this.#round.get(fields.topic) ?? (await this.#lookUp(fields));
      if ("answer" in state) return topicOutcome(fields.topic, state);
      const partition = this.#partitionOf(fields, record, state.partitions);
      const { topic, compression } = fields;
      if (partition !== null) return { topic, partition, record, compression };
      const last = state.partitions - 1;
      return {
        refused: `topic ${fields.topic} has partitions 0 to ${last}, not ${fields.partition}`,
      };
    } catch (error) {
      if (error instanceof InvalidError) return { refused: error.message };
      throw error;
    }
  }

  /** An address without templates is the same object for every message: it is checked once. */
  #fieldsOf({ fields }: Outgoing): SinkFields {
    if (this.#read?.from !== fields) this.#read = { from: fields, fields: sinkFields(fields) };
    return this.#read.fields;
  }

  async #lookUp({ topic, create }: SinkFields): Promise<TopicState> {
    const { producing, topics } = this.#parts;
    let state = await producing.topic(topic);
    if ("answer" in state && state.answer === "UNKNOWN_TOPIC_OR_PARTITION" && create !== null) {
      await topics.ensure(topic, create);
      state = await producing.topic(topic, true);
    }
    this.#round.set(topic, state);
    return state;
  }

  /** Kafka's default: by the key's hash; without a key one partition a round. */
  #partitionOf(fields: SinkFields, record: OutRecord, count: number): number | null {
    if (fields.partition !== null) {
      const partition = fields.partition === "" ? Number.NaN : Number(fields.partition);
      const exists = Number.isInteger(partition) && partition >= 0 && partition < count;
      return exists ? partition : null;
    }
    if (record.key !== null) return partitionOfKey(record.key, count);
    return this.#stickyOf(fields.topic) % count;
  }

  #stickyOf(topic: string): number {
    const known = this.#sticky.get(topic) ?? crypto.getRandomValues(new Uint16Array(1))[0] ?? 0;
    this.#sticky.set(topic, known);
    return known;
  }
}
