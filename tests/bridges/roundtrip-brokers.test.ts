/**
 * A sample of the round trips on real brokers: what a broker holds goes through a gateway to
 * another one, is taken in from there and goes back, and independent clients look at both ends.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect as connectAmqp, type ConsumeMessage } from "amqplib";
import { Kafka, logLevel } from "kafkajs";
import { broker, missingBroker } from "../brokers/broker.ts";
import { findProgram } from "../brokers/programs.ts";
import { makeTopic, runProgram } from "../e2e/clients.ts";
import { TestGateway } from "../e2e/gateway.ts";
import { waitFor } from "../temporary.ts";

const run = `${process.pid}-${crypto.randomUUID().slice(0, 8)}`;
const lacks = missingBroker("amqp1");
let gateway: TestGateway;
const urls = { kafka: "", amqp: "", amqp1: "", mqtt: "" };

beforeAll(async () => {
  const kinds = ["kafka", "amqp", "mqtt", ...(lacks === null ? (["amqp1"] as const) : [])] as const;
  await Promise.all(kinds.map(async (kind) => (urls[kind] = (await broker(kind)).url)));
  gateway = await TestGateway.start();
  await gateway.apply({
    bridges: {
      eu: { kind: "kafka", urls: [urls.kafka] },
      rabbit: { kind: "amqp", url: urls.amqp },
      plant: { kind: "mqtt", url: urls.mqtt, clientId: `roundtrip-${run}` },
      ...(lacks === null ? { jms: { kind: "amqp1", url: urls.amqp1 } } : {}),
    },
  });
}, 300_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
});

type Place = Readonly<Record<string, string | boolean>>;

/** Routes from one place to another and on to a third, and waits until all of it reads. */
async function route(name: string, places: readonly [Place, Place, Place]): Promise<void> {
  const [from, between, to] = places;
  const { create: _, ...readFrom } = between;
  const half = (end: string, source: Place, target: Place) => ({
    sources: { [`${name}-${end}`]: { from: source, stream: `${name}-${end}`, start: "earliest" } },
    rules: { [`${name}-${end}`]: { from: `${name}-${end}`, start: "earliest", to: target } },
  });
  const there = half("there", from, between);
  const back = half("back", readFrom, to);
  // What is read back is made by what is written there.
  await gateway.apply(there);
  await gateway.apply({ sources: back.sources, rules: back.rules });
  await gateway.sourceRuns(`${name}-there`);
  await gateway.sourceRuns(`${name}-back`);
}

async function produce(topic: string): Promise<void> {
  const kafka = new Kafka({ brokers: [urls.kafka], logLevel: logLevel.NOTHING });
  const producer = kafka.producer();
  await producer.connect();
  const headers = { "content-type": "text/plain", a: ["1", "2"], bin: Buffer.from([255, 0]) };
  const messages = [
    { key: Buffer.from([0, 200]), value: Buffer.from([1, 0, 254]), headers },
    { key: "k", value: "ünï", headers: { isthmus_type: "order", "isthmus-key": "theirs" } },
    { key: null, value: "", headers: {} },
    { key: "gone", value: null, headers: {} },
  ];
  await producer.send({ topic, messages: messages.map((each, index) => stamped(each, index)) });
  await producer.disconnect();
}

function stamped<T extends object>(message: T, index: number): T & { timestamp: string } {
  return { ...message, timestamp: String(1_700_000_000_123 + index) };
}

/** What kcat sees of a topic: lengths, key, value, time and headers, one record a line. */
async function records(topic: string, count: number): Promise<readonly string[]> {
  const format = "%K %k|%S %s|%T|%h\\n--\\n";
  const command = [findProgram("kcat"), "-C", "-b", urls.kafka, "-t", topic, "-e", "-q"];
  const output = await waitFor(
    `${topic} holds ${count} records`,
    async () => {
      const text = await runProgram([...command, "-f", format]);
      return text.split("\n--\n").length > count ? text : null;
    },
    { timeoutMs: 60_000 },
  );
  return output.split("\n--\n").slice(0, -1);
}

/** A record without what the gateway adds to each: its id and the way it went. */
function withoutOwn(record: string): string {
  const at = record.lastIndexOf("|");
  // The hops are a list with commas, as kcat's own of the headers is.
  const hops = /isthmus-hops=(?:[^,=]*,)*?[^,=]*(?=,[^,=]*=|$)/;
  const headers = record
    .slice(at + 1)
    .replace(hops, "")
    .split(",");
  const own = headers.filter((each) => each !== "" && !each.startsWith("isthmus-id="));
  // The gateway's own headers follow a message's: a property does not say which came first.
  return `${record.slice(0, at)}|${own.toSorted().join(",")}`;
}

const through: readonly (readonly [string, Place])[] = [
  ["rabbit", { bridge: "rabbit", queue: `q-${run}`, create: true }],
  ["plant", { bridge: "plant", topic: `t-${run}` }],
  ...(lacks === null
    ? ([["jms", { bridge: "jms", queue: `j-${run}`, create: true }]] as const)
    : []),
];

for (const [name, between] of through) {
  test(`Kafka → ${name} → Kafka: kcat sees the same records`, async () => {
    const [input, output] = [`in-${name}-${run}`, `out-${name}-${run}`];
    await makeTopic(urls.kafka, input);
    await makeTopic(urls.kafka, output);
    await route(`k-${name}`, [
      { bridge: "eu", topic: input },
      between,
      { bridge: "eu", topic: output },
    ]);
    await produce(input);
    const [sent, back] = [await records(input, 4), await records(output, 4)];
    expect(back.map(withoutOwn)).toEqual(sent.map(withoutOwn));
  }, 120_000);
}

const typed = {
  persistent: true,
  messageId: "m-1",
  timestamp: 1_700_000_000,
  contentType: "application/json",
  contentEncoding: "gzip",
  type: "order",
  appId: "shop",
  correlationId: "c-1",
  replyTo: "replies",
  priority: 4,
  headers: {
    text: "ü",
    count: 5,
    yes: true,
    none: null,
    big: 1.5,
    raw: Buffer.from([255, 0]),
    when: { "!": "timestamp", value: 1_700_000_000 },
    price: { "!": "decimal", value: { places: 2, digits: 314 } },
    list: [1, "a", { deep: Buffer.from("bytes that are text") }],
  },
};

for (const [name, between] of [
  ["eu", { bridge: "eu", topic: `amqp-${run}`, create: true }],
  ["plant", { bridge: "plant", topic: `amqp-${run}` }],
] as const) {
  test(`RabbitMQ → ${name} → RabbitMQ: amqplib sees the same properties and types`, async () => {
    const [input, output] = [`a-in-${name}-${run}`, `a-out-${name}-${run}`];
    const connection = await connectAmqp(urls.amqp);
    const channel = await connection.createConfirmChannel();
    for (const queue of [input, output]) await channel.assertQueue(queue, { durable: true });
    if (name === "eu") await makeTopic(urls.kafka, `amqp-${run}`);
    await route(`r-${name}`, [
      { bridge: "rabbit", queue: input },
      between,
      { bridge: "rabbit", queue: output },
    ]);
    const arrived: ConsumeMessage[] = [];
    await channel.consume(output, (one) => void (one !== null && arrived.push(one)), {
      noAck: true,
    });
    const body = Buffer.from([0, 255, 1]);
    channel.sendToQueue(input, body, typed);
    await channel.waitForConfirms();
    const [first] = await waitFor("it is back", () => (arrived.length > 0 ? arrived : null), {
      timeoutMs: 60_000,
    });
    await connection.close();
    const { persistent: _, ...expected } = typed;
    const given = Object.entries(first?.properties ?? {}).filter(([, each]) => each !== undefined);
    const headers = { ...(first?.properties.headers as object), "isthmus-hops": undefined };
    const back = { ...Object.fromEntries(given), headers };
    expect<unknown>(back).toEqual({ ...expected, deliveryMode: 2 });
    expect(first?.content).toEqual(body);
  }, 120_000);
}

test("MQTT → Kafka → MQTT: mosquitto_sub sees the same properties", async () => {
  const [input, output, topic] = [`m-in-${run}`, `m-out-${run}`, `mqtt-${run}`];
  await makeTopic(urls.kafka, topic);
  await route("m-eu", [
    { bridge: "plant", topic: input },
    { bridge: "eu", topic },
    { bridge: "plant", topic: output },
  ]);
  const { hostname, port } = new URL(urls.mqtt);
  const at = ["-h", hostname, "-p", port, "-V", "5", "-q", "1"];
  const format = "%C|%D|%R|%F|%P|%p";
  const publisher = findProgram("mosquitto_pub");
  const subscriber = publisher.replace(/pub$/, "sub");
  const subscribed = (name: string): Promise<string> => {
    const once = ["-C", "1", "-W", "60", "-F", format];
    return runProgram([subscriber, ...at, "-t", name, ...once]);
  };
  const properties = [
    ["content-type", "text/plain"],
    ["correlation-data", "c-1"],
    ["response-topic", "replies/1"],
    ["payload-format-indicator", "1"],
    ["user-property", "a", "1"],
    ["user-property", "b", "ü"],
    ["user-property", "a", "2"],
  ].flatMap((given) => ["-D", "publish", ...given]);
  const publish = (): Promise<string> =>
    runProgram([publisher, ...at, "-t", input, "-m", "grüße", ...properties]);
  let isDone = false;
  const ends = Promise.all([subscribed(input), subscribed(output)]).finally(() => {
    isDone = true;
  });
  // Whether both listen is not told: it is sent until both have got one.
  await waitFor(
    "both have one",
    async () => {
      if (!isDone) await publish();
      return isDone;
    },
    { timeoutMs: 60_000 },
  );
  const [sent, back] = await ends;
  const own = / ?isthmus-(?:id|timestamp|hops):[^\s|]*/g;
  expect(sent.trim()).toBe("text/plain|c-1|replies/1|1|a:1 b:ü a:2|grüße");
  const sorted = (line: string): readonly string[] =>
    line
      .trim()
      .split("|")
      .map((part) => part.trim().split(" ").toSorted().join(" "));
  expect(sorted(back.replaceAll(own, ""))).toEqual(sorted(sent));
}, 120_000);
