/**
 * The whole way with real brokers: a webhook through the log and a rule to every kind of target,
 * each with its own cursor; and what brokers hold, taken in and routed on, every byte exact.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { broker } from "../brokers/broker.ts";
import { findProgram } from "../brokers/programs.ts";
import { waitFor } from "../temporary.ts";
import {
  listenAmqp,
  listenMqtt,
  makeTopic,
  publishAmqp,
  readTopic,
  runProgram,
} from "./clients.ts";
import { TestGateway } from "./gateway.ts";

const run = `${process.pid}-${Math.floor(Math.random() * 1e6)}`;
let gateway: TestGateway;
let kafka = "";
let amqp = "";
let mqtt = "";

function bridges(): Record<string, unknown> {
  return {
    eu: { kind: "kafka", urls: [kafka] },
    rabbit: { kind: "amqp", url: amqp },
    plant: { kind: "mqtt", url: mqtt, clientId: `isthmus-${run}` },
  };
}

beforeAll(async () => {
  [{ url: kafka }, { url: amqp }, { url: mqtt }] = await Promise.all([
    broker("kafka"),
    broker("amqp"),
    broker("mqtt"),
  ]);
  gateway = await TestGateway.start();
  await gateway.apply({ bridges: bridges() });
}, 180_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
});

test("a webhook is on disk before its 202, and a rule takes it everywhere", async () => {
  const taken: { body: unknown; id: string | null }[] = [];
  using crm = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      taken.push({ body: await request.json(), id: request.headers.get("webhook-id") });
      return new Response(null, { status: 204 });
    },
  });
  const names = { topic: `big-${run}`, exchange: `orders-${run}`, mqtt: `orders-${run}` };
  await using rabbit = await listenAmqp(amqp, names.exchange, "orders.#");
  await using plant = await listenMqtt(mqtt, `${names.mqtt}/#`);
  const crmUrl = `http://127.0.0.1:${crm.port}/in`;
  await gateway.apply({
    bridges: { crm: { kind: "http", url: crmUrl, allowPrivate: ["127.0.0.0/8"] } },
    hooks: { orders: { stream: "orders" } },
    rules: {
      big: {
        from: "orders",
        where: "body.amount > 100",
        set: {
          key: "${body.id}",
          headers: { "x-region": "${body.region}" },
          body: { id: "${body.id}", double: "${body.amount * 2}" },
        },
        to: [
          { bridge: "eu", topic: names.topic, create: true },
          { bridge: "rabbit", exchange: names.exchange, routingKey: "orders.${body.region}" },
          { bridge: "plant", topic: `${names.mqtt}/\${body.region}`, qos: 1 },
          { bridge: "crm" },
          { stream: "audit" },
        ],
      },
    },
  });
  const socket = new WebSocket(`${gateway.url.replace("http", "ws")}/socket`, "isthmus.v1.json");
  const frames: Record<string, unknown>[] = [];
  socket.onmessage = ({ data }) => frames.push(JSON.parse(String(data)));
  socket.onopen = () => {
    socket.send(JSON.stringify({ op: "auth", token: gateway.token }));
    socket.send(JSON.stringify({ op: "subscribe", sub: "s", stream: "audit", from: "earliest" }));
  };
  await waitFor("the subscription stands", () => frames.some(({ op }) => op === "subscribed"));

  const post = (body: unknown): Promise<Response> =>
    fetch(`${gateway.url}/hooks/orders`, { method: "POST", body: JSON.stringify(body) });
  const answer = await post({ id: 1, amount: 250, region: "eu" });
  expect(answer.status).toBe(202);
  const receipt = (await answer.json()) as Record<string, unknown>;
  expect(receipt).toMatchObject({
    stream: "orders",
    partition: 0,
    offset: 0,
    duplicate: false,
    durable: "fsync",
  });
  await post({ id: 2, amount: 50, region: "eu" });

  const expected = { id: 1, double: 500 };
  const [record] = await readTopic(kafka, names.topic, 1);
  expect(JSON.parse(record?.value?.toString() ?? "")).toEqual(expected);
  expect(record?.key?.toString()).toBe("1");
  expect(record?.headers?.["x-region"]?.toString()).toBe("eu");
  await waitFor("RabbitMQ has it", () => rabbit.messages.length > 0);
  expect(rabbit.messages[0]?.fields.routingKey).toBe("orders.eu");
  expect(JSON.parse(rabbit.messages[0]?.content.toString() ?? "")).toEqual(expected);
  await waitFor("MQTT has it", () => plant.packets.length > 0);
  expect(plant.packets[0]?.topic).toBe(`${names.mqtt}/eu`);
  expect(plant.packets[0]?.qos).toBe(1);
  expect(JSON.parse(String(plant.packets[0]?.payload))).toEqual(expected);
  await waitFor("the HTTP endpoint has it", () => taken.length > 0);
  expect(taken).toEqual([{ body: expected, id: String(receipt["id"]) }]);
  await waitFor("the socket has it", () => frames.some(({ op }) => op === "message"));
  const shown = frames.find(({ op }) => op === "message");
  expect(JSON.parse(String(shown?.["body"]))).toEqual(expected);
  await gateway.drained("big");
  for (const { counts } of await gateway.routes()) {
    expect(counts).toMatchObject({ taken: 2, delivered: 1, filtered: 1, deadLettered: 0 });
  }
  socket.close();
}, 120_000);

test("kcat → Kafka → RabbitMQ: order, null keys, empty and absent bodies, repeated headers", async () => {
  const topic = `in-${run}`;
  const exchange = `copy-${run}`;
  await makeTopic(kafka, topic);
  await using rabbit = await listenAmqp(amqp, exchange, "#");
  await gateway.apply({
    rules: {
      k2r: {
        from: { bridge: "eu", topic },
        start: "earliest",
        to: { bridge: "rabbit", exchange, routingKey: "k" },
      },
    },
  });
  const lines = Array.from({ length: 100 }, (_, index) => `key${index % 5}|value ${index}`);
  const kcat = findProgram("kcat");
  await runProgram(
    [kcat, "-P", "-b", kafka, "-t", topic, "-K", "|", "-H", "a=1", "-H", "a=2"],
    `${lines.join("\n")}\n`,
  );
  await waitFor("RabbitMQ has all", () => rabbit.messages.length >= 100, { timeoutMs: 60_000 });
  const bodies = rabbit.messages.map(({ content }) => content.toString());
  for (let key = 0; key < 5; key++) {
    const own = bodies.map((body) => Number(body.split(" ")[1])).filter((n) => n % 5 === key);
    expect(own).toEqual(own.toSorted((a, b) => a - b));
    expect(own.length).toBe(20);
  }
  const stored = await gateway.read(`eu.topic-${topic}`);
  expect(stored.length).toBe(100);
  expect(stored[0]?.headers).toEqual([
    ["a", "1"],
    ["a", "2"],
  ]);
  expect(stored[0]?.key).toBe("key0");
}, 120_000);

test("RabbitMQ → Kafka: a queue's messages arrive in order, bytes exact", async () => {
  const queue = `queue-${run}`;
  const topic = `out-${run}`;
  const bodies = Array.from({ length: 50 }, (_, index) =>
    Buffer.from([index, 0, 255, 128, ...Buffer.from(`é${index}`)]),
  );
  await publishAmqp(amqp, queue, bodies);
  await gateway.apply({
    rules: {
      r2k: {
        from: { bridge: "rabbit", queue },
        start: "earliest",
        to: { bridge: "eu", topic, create: true },
      },
    },
  });
  const records = await readTopic(kafka, topic, 50);
  expect(records.map(({ value }) => value?.toString("hex"))).toEqual(
    bodies.map((body) => body.toString("hex")),
  );
  expect(records[3]?.headers?.["index"]?.toString()).toBe("3");
}, 120_000);

test("mosquitto_pub → MQTT → Kafka, with a key from the topic's captures", async () => {
  const topic = `temps-${run}`;
  await makeTopic(kafka, topic);
  await gateway.apply({
    sources: {
      [`temps-${run}`]: {
        from: { bridge: "plant", topic: `plant-${run}/{line}/{device}/temp`, qos: 1 },
        stream: `temps-${run}`,
        key: "params.device",
      },
    },
    rules: { m2k: { from: `temps-${run}`, to: { bridge: "eu", topic } } },
  });
  await gateway.sourceRuns(`temps-${run}`);
  const url = new URL(mqtt);
  for (const [device, value] of [
    ["d1", "21.5"],
    ["d2", "22.5"],
    ["d1", "23.5"],
  ]) {
    await runProgram([
      findProgram("mosquitto_pub"),
      "-h",
      url.hostname,
      "-p",
      url.port,
      "-q",
      "1",
      "-t",
      `plant-${run}/l1/${device}/temp`,
      "-m",
      String(value),
    ]);
  }
  const records = await readTopic(kafka, topic, 3);
  expect(records.map(({ key, value }) => [key?.toString(), value?.toString()])).toEqual([
    ["d1", "21.5"],
    ["d2", "22.5"],
    ["d1", "23.5"],
  ]);
}, 120_000);

test("Kafka → MQTT: the topic made from the body, tombstones not mistaken for empty", async () => {
  const topic = `k2m-${run}`;
  await makeTopic(kafka, topic);
  await using plant = await listenMqtt(mqtt, `k2m-${run}/#`);
  await gateway.apply({
    rules: {
      k2m: {
        from: { bridge: "eu", topic },
        start: "earliest",
        where: "bytes != null",
        to: { bridge: "plant", topic: `k2m-${run}/\${key}`, qos: 1 },
      },
    },
  });
  const kcat = findProgram("kcat");
  await runProgram([kcat, "-P", "-b", kafka, "-t", topic, "-K", "|"], "a|one\nb|two\n");
  await runProgram([kcat, "-P", "-b", kafka, "-t", topic, "-K", "|", "-Z"], "c|\n");
  await waitFor("MQTT has both", () => plant.packets.length >= 2, { timeoutMs: 60_000 });
  expect(plant.packets.map(({ topic: name, payload }) => [name, String(payload)])).toEqual([
    [`k2m-${run}/a`, "one"],
    [`k2m-${run}/b`, "two"],
  ]);
  await waitFor("the tombstone is in the log", async () => {
    return (await gateway.read(`eu.topic-${topic}`)).length === 3;
  });
  const stored = await gateway.read(`eu.topic-${topic}`);
  expect(stored.map(({ body }) => body)).toEqual(["one", "two", null]);
}, 120_000);
