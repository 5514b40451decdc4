/**
 * Whole gateways over a Kafka that fails: a node of three is killed under load and comes back; two
 * gateways share a group and one of them is killed. Nothing is lost, and each key keeps its order.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { Kafka, logLevel, type Producer } from "kafkajs";
import { startKafkaCluster } from "../../brokers/kafka-cluster.ts";
import { readTopic } from "../../e2e/clients.ts";
import { TestGateway } from "../../e2e/gateway.ts";
import { waitFor } from "../../temporary.ts";
import { freshTopic, kafkaUrl, missingKafka } from "./cluster.ts";

setDefaultTimeout(240_000);

const KEYS = 8;
const BATCH = 16;

/** Numbered messages, one batch after the other, until told to stop. */
async function produce(
  producer: Producer,
  topic: string,
  { sent, signal }: { sent: string[]; signal: AbortSignal },
): Promise<void> {
  while (!signal.aborted) {
    const values = Array.from({ length: BATCH }, (_, index) => `${sent.length + index}`);
    // Sent again when the answer is lost: such a repetition is in its place, and no disorder.
    const messages = values.map((value) => ({ key: `k${Number(value) % KEYS}`, value }));
    await producer.send({ topic, messages });
    sent.push(...values);
    await Bun.sleep(5);
  }
}

/** Values whose first arrival came after that of a later one of their key. */
function late(values: readonly string[]): string[] {
  const newest = new Map<number, number>();
  const seen = new Set<string>();
  return values.filter((value) => {
    if (seen.has(value)) return false;
    seen.add(value);
    const key = Number(value) % KEYS;
    const isLate = Number(value) < (newest.get(key) ?? -1);
    newest.set(key, Math.max(newest.get(key) ?? -1, Number(value)));
    return isLate;
  });
}

describe.skipIf(missingKafka !== null)(`a Kafka that fails ${missingKafka ?? ""}`, () => {
  test("three nodes, one killed under load and back: nothing is lost, keys keep their order", async () => {
    const cluster = await startKafkaCluster(3);
    const stop = new AbortController();
    try {
      const kafka = new Kafka({
        brokers: [...cluster.urls],
        logLevel: logLevel.NOTHING,
        retry: { retries: 60, maxRetryTime: 1000 },
      });
      const admin = kafka.admin();
      await admin.connect();
      const topics = ["in", "out"].map((topic) => ({
        topic,
        numPartitions: 3,
        replicationFactor: 3,
      }));
      await admin.createTopics({ topics, waitForLeaders: true });
      const producer = kafka.producer();
      await producer.connect();
      await using gateway = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
      await gateway.apply({
        bridges: { k: { kind: "kafka", urls: [...cluster.urls] } },
        sources: { s: { from: { bridge: "k", topic: "in" }, stream: "s", start: "earliest" } },
        rules: { r: { from: "s", start: "earliest", to: { bridge: "k", topic: "out" } } },
      });
      const sent: string[] = [];
      const delivered = async (): Promise<number> => (await gateway.routes())[0]?.offset ?? 0;
      const producing = produce(producer, "in", { sent, signal: stop.signal });
      await waitFor("messages pass", async () => (await delivered()) > 200);
      const { leader } = (await admin.fetchTopicMetadata({ topics: ["out"] })).topics[0]
        ?.partitions[0] ?? { leader: 1 };
      await cluster.kill(leader - 1);
      const before = await delivered();
      await waitFor("messages pass again", async () => (await delivered()) > before + 300, {
        timeoutMs: 90_000,
      });
      await cluster.restart(leader - 1);
      stop.abort();
      await producing;
      const written = (await admin.fetchTopicOffsets("in")).reduce(
        (sum, { high }) => sum + Number(high),
        0,
      );
      await waitFor("all has passed", async () => (await delivered()) >= written, {
        timeoutMs: 90_000,
      });
      await Promise.all([producer.disconnect(), admin.disconnect()]);
      // What the topic holds counts: kafkajs calls a batch sent that its new leader never had.
      const url = cluster.urls[leader % 3] ?? "";
      const values = async (topic: string): Promise<string[]> =>
        (await readTopic(url, topic, written)).map(({ value }) => String(value));
      const [came, went] = [await values("in"), await values("out")];
      expect([...new Set(went)].toSorted()).toEqual([...new Set(came)].toSorted());
      expect(came.length).toBeGreaterThan(500);
      expect(late(went)).toEqual([]);
    } finally {
      stop.abort();
      await cluster.stop();
    }
  });

  test("two gateways in one group, one killed: nothing is lost, and no key out of order", async () => {
    const url = await kafkaUrl();
    const topic = await freshTopic(4);
    const producer = new Kafka({ brokers: [url], logLevel: logLevel.NOTHING }).producer();
    await producer.connect();
    const definitions = {
      bridges: { k: { kind: "kafka", urls: [url] } },
      sources: {
        s: { from: { bridge: "k", topic, group: topic }, stream: "s", start: "earliest" },
      },
    };
    await using first = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
    await using second = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
    await first.apply(definitions);
    const sent: string[] = [];
    const stop = new AbortController();
    const producing = produce(producer, topic, { sent, signal: stop.signal });
    const taken = async (gateway: TestGateway): Promise<number> =>
      (await gateway.json<{ status: { messages: number } }>("/api/sources/s")).status.messages;
    await waitFor("the first takes messages in", async () => (await taken(first)) > 100);
    await second.apply(definitions);
    await waitFor("the second does too", async () => (await taken(second)) > 100, {
      timeoutMs: 60_000,
    });
    await first.kill();
    const before = await taken(second);
    await waitFor("the second has it all", async () => (await taken(second)) > before + 500, {
      timeoutMs: 60_000,
    });
    await first.start();
    stop.abort();
    await producing;
    await producer.disconnect();
    const logs = async (): Promise<string[][]> => {
      const reads = [first, second].map(async (gateway) => await gateway.read("s"));
      return (await Promise.all(reads)).map((log) => log.map(({ body }) => body ?? ""));
    };
    await waitFor("all has come", async () => new Set((await logs()).flat()).size === sent.length, {
      timeoutMs: 60_000,
    });
    for (const log of await logs()) expect(late(log)).toEqual([]);
    expect([...new Set((await logs()).flat())].toSorted()).toEqual(sent.toSorted());
  });
});
