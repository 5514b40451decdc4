/**
 * kill -9 under load from everywhere at once: a hook, publish, Kafka, RabbitMQ and MQTT write into
 * one stream while the gateway is killed at random moments and started again on the same data;
 * rules take it on to Kafka, RabbitMQ and MQTT. At the end all that any of them was told is safe is
 * in the log, nothing else is, every target has all of it, and equal keys came in order everywhere.
 *
 * Replay: ISTHMUS_TEST_SEED=N bun test tests/crash/brokers
 */
import { afterAll, expect, test } from "bun:test";
import { connect as connectAmqp } from "amqplib";
import { Kafka, logLevel } from "kafkajs";
import { connectAsync } from "mqtt";
import { broker } from "../brokers/broker.ts";
import { listenAmqp, listenMqtt, makeTopic } from "../e2e/clients.ts";
import { TestGateway } from "../e2e/gateway.ts";
import { Random } from "../sim/random.ts";
import { waitFor } from "../temporary.ts";

const seed = Number(process.env["ISTHMUS_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const KILLS = process.env["ISTHMUS_TEST_FULL"] === "1" ? 1000 : 20;
const run = `crash-${seed}-${process.pid}`;
/** Between two messages of one writer: the brokers are shared, and so is the machine. */
const PAUSE_MS = 8;

interface Sent {
  readonly key: string;
  readonly seq: number;
}

/** All that was sent, and what somebody was told is safe. */
interface Story {
  readonly sent: Set<string>;
  readonly acked: Set<string>;
  readonly signal: AbortSignal;
}

const open: AsyncDisposable[] = [];

afterAll(async () => {
  for (const each of open.toReversed()) await each[Symbol.asyncDispose]();
});

test(`nothing from anywhere is lost in ${KILLS} kills (seed ${seed})`, async () => {
  console.log(`crash test: seed ${seed}; replay with ISTHMUS_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const [{ url: kafka }, { url: amqp }, { url: mqtt }] = await Promise.all([
    broker("kafka"),
    broker("amqp"),
    broker("mqtt"),
  ]);
  await makeTopic(kafka, `${run}-in`);
  const rabbit = await listenAmqp(amqp, `${run}-out`, "#");
  const plant = await listenMqtt(mqtt, `${run}/out`);
  const gateway = await TestGateway.start();
  open.push(rabbit, plant, gateway);
  const senders = [await amqpSender(amqp), await mqttSender(mqtt), await kafkaSender(kafka)];
  await gateway.apply(definitions({ kafka, amqp, mqtt }));
  for (const name of ["k", "r", "m"]) await gateway.sourceRuns(name);

  const stop = new AbortController();
  const story: Story = { sent: new Set(), acked: new Set(), signal: stop.signal };
  const writers = [
    write("hook", story, (body) => post(`${gateway.url}/hooks/h`, body, {})),
    write("publish", story, (body, { key, seq }) => {
      const headers = {
        authorization: `Bearer ${gateway.token}`,
        "content-type": "application/json",
        "idempotency-key": `${key}-${seq}`,
        "isthmus-key": key,
      };
      return post(`${gateway.url}/streams/all/messages`, body, headers);
    }),
    ...senders.map((send, index) => write(`broker${index}`, story, send)),
  ];
  for (let kill = 0; kill < KILLS; kill++) {
    await Bun.sleep(20 + random.below(500));
    await gateway.kill();
    await gateway.start();
  }
  const before = story.acked.size;
  await waitFor("writes go on after the last start", () => story.acked.size > before + 50);
  stop.abort();
  await Promise.all(writers);

  const held = await logOf(gateway, story);
  const all = new Set(held);
  expect([...story.acked].filter((body) => !all.has(body))).toEqual([]);
  expect(held.filter((body) => !story.sent.has(body))).toEqual([]);
  expect(outOfOrder(held)).toEqual([]);
  await gateway.drained(undefined, 120_000);
  const isIn = (bodies: readonly string[]): boolean => all.isSubsetOf(new Set(bodies));
  const texts = {
    rabbit: () => rabbit.messages.map(({ content }) => content.toString()),
    plant: () => plant.packets.map(({ payload }) => String(payload)),
  };
  await waitFor("RabbitMQ has all of it", () => isIn(texts.rabbit()));
  await waitFor("MQTT has all of it", () => isIn(texts.plant()));
  const topic = await readOut(kafka, isIn);
  for (const delivered of [texts.rabbit(), texts.plant(), topic]) {
    expect(outOfOrder(delivered)).toEqual([]);
    expect(delivered.filter((body) => !story.sent.has(body))).toEqual([]);
  }
  for (const rule of ["tok", "tor", "tom"]) expect(await gateway.read(`${rule}.dead`)).toEqual([]);
  const copies = held.length - all.size;
  console.log(`crash test: ${story.acked.size} acked, ${all.size} in the log, ${copies} twice`);
}, 3_000_000);

function definitions(urls: { kafka: string; amqp: string; mqtt: string }): unknown {
  const key = "body.key";
  const stream = "all";
  return {
    bridges: {
      kafka: { kind: "kafka", urls: [urls.kafka] },
      rabbit: { kind: "amqp", url: urls.amqp },
      plant: { kind: "mqtt", url: urls.mqtt, version: 5, clientId: run },
    },
    hooks: { h: { stream, key } },
    sources: {
      k: { from: { bridge: "kafka", topic: `${run}-in` }, stream, key, start: "earliest" },
      r: { from: { bridge: "rabbit", queue: `${run}-in` }, stream, key },
      m: { from: { bridge: "plant", topic: `${run}/in`, qos: 1 }, stream, key },
    },
    rules: {
      tok: {
        from: stream,
        start: "earliest",
        to: { bridge: "kafka", topic: `${run}-out`, create: true },
      },
      tor: {
        from: stream,
        start: "earliest",
        to: { bridge: "rabbit", exchange: `${run}-out`, routingKey: "x" },
      },
      tom: {
        from: stream,
        start: "earliest",
        to: { bridge: "plant", topic: `${run}/out`, qos: 1 },
      },
    },
  };
}

type Send = (body: string, sent: Sent) => Promise<boolean>;

/** Sends one message after another until told to stop, each again until it is acked. */
async function write(name: string, { sent, acked, signal }: Story, send: Send): Promise<void> {
  for (let seq = 0; !signal.aborted; seq++) {
    const message = { key: `${name}-${seq % 3}`, seq };
    const body = JSON.stringify(message);
    sent.add(body);
    while (!signal.aborted && !acked.has(body)) {
      if (await send(body, message)) acked.add(body);
      await Bun.sleep(PAUSE_MS);
    }
  }
}

async function post(url: string, body: string, headers: Record<string, string>): Promise<boolean> {
  try {
    const response = await fetch(url, { method: "POST", body, headers });
    await response.arrayBuffer();
    return response.ok;
  } catch {
    // The gateway is being killed or starts: no answer, so no ack; the message is sent again.
    return false;
  }
}

async function amqpSender(url: string): Promise<Send> {
  const connection = await connectAmqp(url);
  open.push({ [Symbol.asyncDispose]: () => connection.close() });
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(`${run}-in`, { durable: true });
  return async (body) => {
    channel.sendToQueue(`${run}-in`, Buffer.from(body), { persistent: true });
    await channel.waitForConfirms();
    return true;
  };
}

async function mqttSender(url: string): Promise<Send> {
  const client = await connectAsync(url, { protocolVersion: 5 });
  open.push({ [Symbol.asyncDispose]: () => client.endAsync() });
  return async (body) => {
    await client.publishAsync(`${run}/in`, body, { qos: 1 });
    return true;
  };
}

async function kafkaSender(url: string): Promise<Send> {
  const producer = new Kafka({ brokers: [url], logLevel: logLevel.NOTHING }).producer();
  await producer.connect();
  open.push({ [Symbol.asyncDispose]: () => producer.disconnect() });
  return async (body, { key }) => {
    await producer.send({ topic: `${run}-in`, acks: -1, messages: [{ key, value: body }] });
    return true;
  };
}

/** The bodies of the log in its order, when it has all that was acked, or gets no more. */
async function logOf(gateway: TestGateway, { acked }: Story): Promise<readonly string[]> {
  let held: readonly string[] = [];
  const isWhole = async (): Promise<boolean> => {
    held = (await gateway.read("all")).map(({ body }) => body ?? "");
    return acked.isSubsetOf(new Set(held));
  };
  try {
    await waitFor("the log has all that was acked", isWhole, { timeoutMs: 60_000 });
  } catch {
    // What is missing is named by the checks; whether its source stands still is said here.
    const { items } = await gateway.json<{ items: unknown[] }>("/api/sources");
    console.log(`sources: ${JSON.stringify(items)}`);
  }
  return held;
}

/** What the rule wrote to Kafka, copies too, read until it is whole. */
async function readOut(
  url: string,
  isWhole: (bodies: readonly string[]) => boolean,
): Promise<readonly string[]> {
  const kafka = new Kafka({ brokers: [url], logLevel: logLevel.NOTHING });
  const consumer = kafka.consumer({ groupId: `${run}-check`, maxWaitTimeInMs: 100 });
  const bodies: string[] = [];
  await consumer.connect();
  await consumer.subscribe({ topic: `${run}-out`, fromBeginning: true });
  await consumer.run({
    eachMessage: ({ message }) => {
      bodies.push(message.value?.toString() ?? "");
      return Promise.resolve();
    },
  });
  try {
    await waitFor("Kafka has all of it", () => isWhole(bodies), { timeoutMs: 60_000 });
  } finally {
    await consumer.disconnect();
  }
  return bodies;
}

/** Messages that came, for the first time, behind a later one of their key. */
function outOfOrder(bodies: readonly string[]): string[] {
  const newest = new Map<string, number>();
  return [...new Set(bodies)].filter((body) => {
    const { key, seq } = JSON.parse(body) as Sent;
    const isLate = seq < (newest.get(key) ?? -1);
    newest.set(key, Math.max(seq, newest.get(key) ?? -1));
    return isLate;
  });
}
