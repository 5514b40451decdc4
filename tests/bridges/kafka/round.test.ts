/** What becomes of a written batch, for answers that a healthy broker does not give. */
import { describe, expect, test } from "bun:test";
import { encodeRecord } from "../../../bridges/kafka/codec.ts";
import type { BatchResult, PartitionBatch } from "../../../bridges/kafka/producing.ts";
import { type Produces, topicOutcome, writeRound } from "../../../bridges/kafka/round.ts";
import type { Clock } from "../../../src/clock.ts";
import { DisconnectedError } from "../../../src/errors.ts";
import { message } from "./ends.ts";

const hasty: Clock = { nowMs: () => 0, monotonicMs: () => 0, sleep: () => Promise.resolve() };

/** A partition's log that answers as told, and keeps what it took. */
class Scripted implements Produces {
  readonly requests: PartitionBatch[][] = [];
  readonly #answers: ((batch: PartitionBatch) => BatchResult)[];
  refreshed = 0;

  constructor(...answers: ((batch: PartitionBatch) => BatchResult)[]) {
    this.#answers = answers;
  }

  async produce(batches: readonly PartitionBatch[]): Promise<readonly BatchResult[]> {
    this.requests.push([...batches]);
    const answer = this.#answers.length > 1 ? this.#answers.shift() : this.#answers[0];
    return batches.map((batch) => answer?.(batch) ?? taken());
  }

  async topic(): Promise<{ partitions: number }> {
    this.refreshed += 1;
    return { partitions: 4 };
  }
}

const taken = (): BatchResult => ({ baseOffset: 10n });
const refuse = (answer: string) => (): BatchResult => ({ answer, text: "in its own words" });

function placed(count: number, partition = 0) {
  const records = Array.from({ length: count }, () => encodeRecord(message()));
  return records.map((record) => ({
    topic: "t",
    partition,
    record,
    compression: "none" as const,
  }));
}

describe("a round of writing", () => {
  test("is one request with one batch for each partition, answered in the order given", async () => {
    const log = new Scripted(({ partition }) => ({ baseOffset: BigInt(partition * 100) }));
    const [a, b] = [placed(1, 1), placed(1, 2)];
    const outcomes = await writeRound(log, [...a, ...b, ...a], hasty);
    expect(log.requests.length).toBe(1);
    expect(outcomes).toEqual([
      { sent: "partition 1 offset 100" },
      { sent: "partition 2 offset 200" },
      { sent: "partition 1 offset 101" },
    ]);
  });

  test("waits for a new leader and writes then", async () => {
    const log = new Scripted(
      refuse("NOT_LEADER_OR_FOLLOWER"),
      refuse("NOT_ENOUGH_REPLICAS"),
      taken,
    );
    const outcomes = await writeRound(log, placed(2), hasty);
    expect(outcomes).toEqual([
      { sent: "partition 0 offset 10" },
      { sent: "partition 0 offset 11" },
    ]);
    expect(log.refreshed).toBe(2);
  });

  test("is busy when replicas stay away, and nothing behind the first is told as sent", async () => {
    const log = new Scripted(refuse("NOT_ENOUGH_REPLICAS"));
    const outcomes = await writeRound(log, placed(3), hasty);
    expect(outcomes).toEqual([{ busyMs: 1000 }, { unknown: true }, { unknown: true }]);
    expect(log.requests.length).toBe(5);
  });

  test("halves a refused batch until the culprit stands alone, and writes nothing behind it", async () => {
    const records = placed(8);
    const culprit = records[5]?.record;
    const written: unknown[] = [];
    const log = new Scripted(({ records: batch }) => {
      if (batch.some((record) => record === culprit)) return refuse("INVALID_RECORD")();
      written.push(...batch);
      return { baseOffset: BigInt(written.length - batch.length) };
    });
    const outcomes = await writeRound(log, records, hasty);
    expect(written).toEqual(records.slice(0, 5).map(({ record }) => record));
    expect(outcomes.slice(0, 5)).toEqual(
      [0, 1, 2, 3, 4].map((offset) => ({ sent: `partition 0 offset ${offset}` })),
    );
    expect(outcomes[5]).toMatchObject({ final: true });
    expect(outcomes.slice(6)).toEqual([{ unknown: true }, { unknown: true }]);
  });

  test("throws when an answer is missing: anything may be written", async () => {
    const log = new Scripted(() => {
      throw new DisconnectedError("gone");
    });
    const error = await writeRound(log, placed(1), hasty).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(DisconnectedError);
  });

  test("refuses what only an operator can change, and says what the broker said", () => {
    const text = "not for you";
    expect(topicOutcome("t", { answer: "TOPIC_AUTHORIZATION_FAILED", text })).toEqual({
      refused: "topic t: TOPIC_AUTHORIZATION_FAILED: not for you",
    });
    expect(topicOutcome("t", { answer: "INVALID_TOPIC_EXCEPTION", text })).toMatchObject({
      final: true,
    });
    expect(topicOutcome("t", { answer: "UNKNOWN_TOPIC_OR_PARTITION", text })).toEqual({
      refused: "topic t is not there: make it, or add create: true",
    });
    expect(topicOutcome("t", { answer: "LEADER_NOT_AVAILABLE", text })).toEqual({ busyMs: 1000 });
  });
});
