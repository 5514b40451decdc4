/**
 * kill -9 while Kafka is read: a producer writes keyed messages to a topic of several partitions,
 * the gateway is killed at random moments and started again on the same data. At the end the log
 * holds each message exactly once, those of a key in their order. A topic that is made anew begins
 * again: nothing of it is taken for what the old one held.
 *
 * Replay: ISTHMUS_TEST_SEED=N bun test tests/crash/kafka-once
 */
import { expect, test } from "bun:test";
import { Kafka, logLevel, type Producer } from "kafkajs";
import { broker } from "../brokers/broker.ts";
import { makeTopic } from "../e2e/clients.ts";
import { type MessageJson, TestGateway } from "../e2e/gateway.ts";
import { Random } from "../sim/random.ts";
import { waitFor } from "../temporary.ts";

const seed = Number(process.env["ISTHMUS_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const KILLS = process.env["ISTHMUS_TEST_FULL"] === "1" ? 100 : 4;
const TOPIC_PARTITIONS = 3;
const KEYS = 17;
const BATCH = 50;

test(`what Kafka holds is once in the log through ${KILLS} kills (seed ${seed})`, async () => {
  console.log(`kafka-once: seed ${seed}; replay with ISTHMUS_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const { url } = await broker("kafka");
  const topic = `once-${seed}-${process.pid}`;
  await makeTopic(url, topic, TOPIC_PARTITIONS);
  const producer = producerOf(url);
  await producer.connect();
  await using gateway = await TestGateway.start();
  await gateway.apply({
    bridges: { k: { kind: "kafka", urls: [url] } },
    streams: { in: { partitions: 2 } },
    sources: { s: { from: { bridge: "k", topic }, stream: "in", start: "earliest" } },
  });
  const sent: string[] = [];
  const stop = new AbortController();
  const producing = produce(producer, topic, { sent, signal: stop.signal });
  let seen = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    // Each life has taken something in before it ends in the middle of more.
    await waitFor("messages come in", async () => (await ends(gateway)) > seen, {
      timeoutMs: 60_000,
    });
    await Bun.sleep(random.below(400));
    seen = await ends(gateway);
    await gateway.kill();
    await gateway.start();
  }
  stop.abort();
  await producing;
  await producer.disconnect();
  await waitFor("all has come", async () => (await ends(gateway)) >= sent.length, {
    timeoutMs: 120_000,
  });
  const log = await gateway.read("in");
  expect(log.map(({ body }) => body ?? "").toSorted()).toEqual(sent.toSorted());
  expect(outOfOrder(log)).toEqual([]);
  console.log(`kafka-once: ${log.length} messages, each once`);
}, 600_000);

test("what a topic holds that was made anew is no duplicate of the old one's", async () => {
  const { url } = await broker("kafka");
  const topic = `anew-${seed}-${process.pid}`;
  const kafka = new Kafka({ brokers: [url], logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  const producer = producerOf(url);
  await using gateway = await TestGateway.start();
  const fill = async (): Promise<void> => {
    await makeTopic(url, topic);
    const messages = Array.from({ length: 20 }, (_, index) => ({ value: `m${index}` }));
    await producer.send({ topic, messages });
  };
  await Promise.all([admin.connect(), producer.connect()]);
  await fill();
  const sources = { s: { from: { bridge: "k", topic }, stream: "in", start: "earliest" } };
  await gateway.apply({ bridges: { k: { kind: "kafka", urls: [url] } }, sources });
  await waitFor("the first ones are there", async () => (await ends(gateway)) === 20);
  await gateway.end();
  await admin.deleteTopics({ topics: [topic] });
  await admin.deleteGroups(["isthmus-s"]).catch(() => undefined);
  await waitFor("it is gone", async () => !(await admin.listTopics()).includes(topic));
  await fill();
  await gateway.start();
  await waitFor("the others are there", async () => (await ends(gateway)) >= 40);
  const expected = Array.from({ length: 20 }, (_, index) => `m${index}`);
  const bodies = (await gateway.read("in")).map(({ body }) => body ?? "");
  expect(bodies).toEqual([...expected, ...expected]);
  await Promise.all([admin.disconnect(), producer.disconnect()]);
}, 300_000);

function producerOf(url: string): Producer {
  return new Kafka({ brokers: [url], logLevel: logLevel.NOTHING }).producer({
    idempotent: true,
    maxInFlightRequests: 1,
  });
}

/** Sends batch after batch until told to stop; `sent` is what Kafka has confirmed. */
async function produce(
  producer: Producer,
  topic: string,
  run: { readonly sent: string[]; readonly signal: AbortSignal },
): Promise<void> {
  for (let seq = 0; !run.signal.aborted; seq += BATCH) {
    const messages = Array.from({ length: BATCH }, (_, index) => {
      const key = `k${(seq + index) % KEYS}`;
      return { key, value: JSON.stringify({ key, seq: seq + index }) };
    });
    await producer.send({ topic, messages, acks: -1 });
    run.sent.push(...messages.map(({ value }) => value));
    await Bun.sleep(25);
  }
}

/** How many messages the stream holds, of all partitions. */
async function ends(gateway: TestGateway): Promise<number> {
  return (await gateway.read("in")).length;
}

/** Messages that stand behind a later one of their key. */
function outOfOrder(log: readonly MessageJson[]): string[] {
  const newest = new Map<string, number>();
  const late: string[] = [];
  for (const { body } of log) {
    const { key, seq } = JSON.parse(body ?? "") as { key: string; seq: number };
    if (seq < (newest.get(key) ?? -1)) late.push(body ?? "");
    newest.set(key, seq);
  }
  return late;
}
