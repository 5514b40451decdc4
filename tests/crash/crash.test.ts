/**
 * kill -9 under load: several writers post webhooks while the gateway is killed at random moments
 * and started again on the same data. At the end every acked message is in the log at its
 * receipt's place, nothing is there that was not sent, and every one has reached Kafka, in order
 * for each key at first delivery.
 *
 * Replay: ISTHMUS_TEST_SEED=N bun test tests/crash
 */
import { expect, test } from "bun:test";
import { Kafka, logLevel } from "kafkajs";
import { broker } from "../brokers/broker.ts";
import { TestGateway } from "../e2e/gateway.ts";
import { Random } from "../sim/random.ts";
import { waitFor } from "../temporary.ts";

const seed = Number(process.env["ISTHMUS_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const KILLS = process.env["ISTHMUS_TEST_FULL"] === "1" ? 200 : 20;
const WRITERS = 8;
const KEYS_EACH = 4;

interface Acked {
  readonly body: string;
  readonly partition: number;
  readonly offset: number;
}

interface Sent {
  readonly writer: number;
  readonly key: string;
  readonly seq: number;
}

test(`nothing acked is lost in ${KILLS} kills (seed ${seed})`, async () => {
  console.log(`crash test: seed ${seed}; replay with ISTHMUS_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const { url } = await broker("kafka");
  const topic = `crash-${seed}-${process.pid}`;
  await using gateway = await TestGateway.start();
  await gateway.apply({
    bridges: { k: { kind: "kafka", urls: [url] } },
    streams: { orders: { partitions: 2 } },
    hooks: { orders: { stream: "orders", key: "body.key" } },
    rules: {
      out: { from: "orders", to: { bridge: "k", topic, create: { partitions: 3 } } },
    },
  });
  await gateway.connected("k");
  const acked: Acked[] = [];
  const sent = new Set<string>();
  const stop = new AbortController();
  const writers = Array.from({ length: WRITERS }, (_, writer) =>
    write(gateway, writer, { acked, sent, signal: stop.signal }),
  );
  for (let kill = 0; kill < KILLS; kill++) {
    await Bun.sleep(20 + random.below(600));
    await gateway.kill();
    await gateway.start();
  }
  const before = acked.length;
  await waitFor("writes go on after the last start", () => acked.length > before + 50);
  stop.abort();
  await Promise.all(writers);
  await gateway.drained("out", 120_000);

  const log = new Map<string, string>();
  for (const { partition, offset, body } of await gateway.read("orders")) {
    log.set(`${partition}/${offset}`, body ?? "");
  }
  const lost = acked.filter(({ partition, offset, body }) => {
    return log.get(`${partition}/${offset}`) !== body;
  });
  expect(lost).toEqual([]);
  expect([...log.values()].filter((body) => !sent.has(body))).toEqual([]);
  const delivered = await readTopic(url, topic);
  const arrived = new Set(delivered);
  expect(acked.filter(({ body }) => !arrived.has(body))).toEqual([]);
  expect(outOfOrder(delivered)).toEqual([]);
  const letters = await gateway.read("out.dead");
  expect(letters).toEqual([]);
  const copies = delivered.length - arrived.size;
  console.log(`crash test: ${acked.length} acked, ${log.size} in the log, ${copies} sent again`);
}, 600_000);

/** Posts one after another until told to stop; each message again until it is acked. */
async function write(
  gateway: TestGateway,
  writer: number,
  run: { acked: Acked[]; sent: Set<string>; signal: AbortSignal },
): Promise<void> {
  for (let seq = 0; !run.signal.aborted; seq++) {
    const key = `w${writer}k${seq % KEYS_EACH}`;
    const body = JSON.stringify({ writer, key, seq } satisfies Sent);
    run.sent.add(body);
    let isAcked = false;
    while (!isAcked && !run.signal.aborted) {
      isAcked = await post(gateway, body, run.acked);
      if (!isAcked) await Bun.sleep(10);
    }
  }
}

async function post(gateway: TestGateway, body: string, acked: Acked[]): Promise<boolean> {
  try {
    const response = await fetch(`${gateway.url}/hooks/orders`, { method: "POST", body });
    const answer = (await response.json()) as { partition: number; offset: number };
    if (response.status !== 202) return false;
    acked.push({ body, partition: answer.partition, offset: answer.offset });
    return true;
  } catch {
    // The gateway is being killed or starts: no answer, so no ack; the message is sent again.
    return false;
  }
}

async function readTopic(url: string, topic: string): Promise<string[]> {
  const kafka = new Kafka({ brokers: [url], logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  const ends = await admin.fetchTopicOffsets(topic);
  await admin.disconnect();
  let left = ends.reduce((sum, { high }) => sum + Number(high), 0);
  const bodies: string[] = [];
  const consumer = kafka.consumer({ groupId: `check-${topic}`, maxWaitTimeInMs: 100 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    eachBatch: ({ batch }) => {
      for (const { value } of batch.messages) bodies.push(value?.toString() ?? "");
      left -= batch.messages.length;
      return Promise.resolve();
    },
  });
  await waitFor("the topic has been read", () => left <= 0, { timeoutMs: 60_000 });
  await consumer.disconnect();
  return bodies;
}

/** Messages that came, for the first time, behind a later one of their key. */
function outOfOrder(delivered: readonly string[]): string[] {
  const newest = new Map<string, number>();
  const seen = new Set<string>();
  return delivered.filter((body) => {
    if (seen.has(body)) return false;
    seen.add(body);
    const { key, seq } = JSON.parse(body) as Sent;
    const isLate = seq < (newest.get(key) ?? -1);
    newest.set(key, Math.max(seq, newest.get(key) ?? -1));
    return isLate;
  });
}
