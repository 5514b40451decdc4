/**
 * Loops with real brokers: a cycle that the rules show is refused when it is saved; two-way
 * coexistence brings each message once to each side; and what no graph can see is stopped on its
 * way and stands in the dead letters with the path that it took.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect as connectAmqp } from "amqplib";
import { Kafka, logLevel } from "kafkajs";
import { broker } from "../brokers/broker.ts";
import { waitFor } from "../temporary.ts";
import { listenAmqp, makeTopic } from "./clients.ts";
import { TestGateway } from "./gateway.ts";

const run = `${process.pid}-${Math.floor(Math.random() * 1e6)}`;
let gateway: TestGateway;
let other: TestGateway;
let kafka = "";
let amqp = "";

beforeAll(async () => {
  [{ url: kafka }, { url: amqp }] = await Promise.all([broker("kafka"), broker("amqp")]);
  [gateway, other] = await Promise.all([TestGateway.start(), TestGateway.start()]);
  await Promise.all([gateway, other].map((each) => each.apply({ bridges: bridges() })));
}, 180_000);

afterAll(async () => {
  await Promise.all([gateway, other].map((each) => each[Symbol.asyncDispose]()));
});

function bridges(): Record<string, unknown> {
  return {
    eu: { kind: "kafka", urls: [kafka] },
    twin: { kind: "kafka", urls: [`kafka://${kafka}`] },
    rabbit: { kind: "amqp", url: amqp },
  };
}

async function produce(topic: string, values: readonly string[]): Promise<void> {
  const producer = new Kafka({ brokers: [kafka], logLevel: logLevel.NOTHING }).producer();
  await producer.connect();
  await producer.send({ topic, messages: values.map((value) => ({ key: value, value })) });
  await producer.disconnect();
}

/** All that a topic holds. */
async function textsIn(topic: string): Promise<readonly string[]> {
  const client = new Kafka({ brokers: [kafka], logLevel: logLevel.NOTHING });
  const admin = client.admin();
  await admin.connect();
  const [end] = await admin.fetchTopicOffsets(topic);
  await admin.disconnect();
  const count = Number(end?.high ?? 0);
  const texts: string[] = [];
  const consumer = client.consumer({ groupId: `texts-${topic}-${Math.random()}` });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    eachMessage: ({ message }) => {
      texts.push(message.value?.toString() ?? "");
      return Promise.resolve();
    },
  });
  await waitFor(`${topic} is read`, () => texts.length >= count, { timeoutMs: 60_000 });
  await consumer.disconnect();
  return texts.toSorted();
}

interface Route {
  readonly rule: string;
  readonly counts: Readonly<Record<string, number>>;
}

async function countsOf(of: TestGateway, rule: string): Promise<Route["counts"]> {
  const routes = (await of.routes()) as unknown as readonly Route[];
  return routes.find((route) => route.rule === rule)?.counts ?? {};
}

test("a cycle that the rules show is refused with its path", async () => {
  const topic = `cycle-${run}`;
  const rules = {
    out: { from: "cycle", to: { bridge: "eu", topic } },
    in: { from: { bridge: "twin", topic }, to: { stream: "cycle" } },
  };
  const put = (name: keyof typeof rules): Promise<Response> =>
    gateway.fetch(`/api/rules/${name}`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...rules[name], enabled: true }),
    });
  expect((await put("out")).status).toBe(201);
  const refused = await put("in");
  expect(refused.status).toBe(422);
  const problem = (await refused.json()) as { code: string; detail: string };
  expect(problem.code).toBe("definition-invalid");
  expect(problem.detail).toContain(`rule out → eu topic ${topic}`);
  expect((await gateway.fetch("/api/rules/in")).status).toBe(404);
}, 60_000);

test("two topics kept alike with echo: drop have each message once", async () => {
  const [a, b] = [`a-${run}`, `b-${run}`];
  await Promise.all([makeTopic(kafka, a), makeTopic(kafka, b)]);
  await gateway.apply({
    rules: {
      ab: {
        from: { bridge: "eu", topic: a },
        start: "earliest",
        echo: "drop",
        to: { bridge: "twin", topic: b },
      },
      ba: {
        from: { bridge: "eu", topic: b },
        start: "earliest",
        echo: "drop",
        to: { bridge: "twin", topic: a },
      },
    },
  });
  await Promise.all([produce(a, ["a1", "a2", "a3"]), produce(b, ["b1", "b2"])]);
  const all = ["a1", "a2", "a3", "b1", "b2"];
  await waitFor(
    "all has gone both ways",
    async () => {
      const counts = await Promise.all(["ab", "ba"].map((rule) => countsOf(gateway, rule)));
      return counts.every(({ taken }) => taken === 5);
    },
    { timeoutMs: 60_000 },
  );
  await gateway.drained("ab");
  await gateway.drained("ba");
  expect(await countsOf(gateway, "ab")).toMatchObject({
    delivered: 3,
    filtered: 2,
    deadLettered: 0,
  });
  expect(await countsOf(gateway, "ba")).toMatchObject({
    delivered: 2,
    filtered: 3,
    deadLettered: 0,
  });
  expect(await textsIn(a)).toEqual(all);
  expect(await textsIn(b)).toEqual(all);
}, 120_000);

test("Kafka and RabbitMQ kept alike with echo: drop have each message once, past a restart", async () => {
  const [topic, exchange] = [`k-${run}`, `r-${run}`];
  await makeTopic(kafka, topic);
  await using seen = await listenAmqp(amqp, exchange, "#");
  await gateway.apply({
    rules: {
      kr: {
        from: { bridge: "eu", topic },
        start: "earliest",
        echo: "drop",
        to: { bridge: "rabbit", exchange, routingKey: "from.kafka" },
      },
      rk: {
        from: { bridge: "rabbit", exchange, bind: ["#"] },
        echo: "drop",
        to: { bridge: "eu", topic },
      },
    },
  });
  const tap = await sourceOf(gateway, exchange);
  await gateway.sourceRuns(tap);
  const connection = await connectAmqp(amqp);
  const channel = await connection.createConfirmChannel();
  for (const round of [1, 2]) {
    await produce(topic, [`k${round}`]);
    channel.publish(exchange, "own.key", Buffer.from(`r${round}`));
    await channel.waitForConfirms();
    await waitFor(
      "both have taken both",
      async () => {
        const counts = await Promise.all(["kr", "rk"].map((rule) => countsOf(gateway, rule)));
        return counts.every(({ taken }) => taken === 2 * round);
      },
      { timeoutMs: 60_000 },
    );
    if (round === 2) break;
    await gateway.end();
    await gateway.start();
    await gateway.sourceRuns(tap);
  }
  await connection.close();
  await gateway.drained("kr");
  await gateway.drained("rk");
  expect(await textsIn(topic)).toEqual(["k1", "k2", "r1", "r2"]);
  expect(seen.messages.map(({ content }) => content.toString()).toSorted()).toEqual([
    "k1",
    "k2",
    "r1",
    "r2",
  ]);
}, 180_000);

async function sourceOf(of: TestGateway, part: string): Promise<string> {
  const { items } = await of.json<{ items: { name: string }[] }>("/api/sources");
  const name = items.find((each) => each.name.includes(part))?.name;
  if (name === undefined) throw new Error(`no source reads ${part}`);
  return name;
}

test("two gateways in a ring stop a message, and its dead letter tells the path", async () => {
  const [a, b] = [`ring-a-${run}`, `ring-b-${run}`];
  await Promise.all([makeTopic(kafka, a), makeTopic(kafka, b)]);
  const rule = (from: string, topic: string) => ({
    from: { bridge: "eu", topic: from },
    start: "earliest",
    to: { bridge: "eu", topic },
  });
  await gateway.apply({ rules: { ring: rule(a, b) } });
  await other.apply({ rules: { ring: rule(b, a) } });
  await produce(a, ["round"]);
  await waitFor("the letter is there", async () => (await gateway.read("ring.dead")).length > 0, {
    timeoutMs: 60_000,
  });
  const [letter] = await gateway.read("ring.dead");
  const reason = String(new Map(letter?.headers).get("isthmus-reason"));
  expect(reason).toMatch(
    new RegExp(`a loop: eu/${a} → eu/${b} → \\w+/eu/${b} → \\w+/eu/${a} → eu/${a} → eu/${b}$`),
  );
  expect(await textsIn(a)).toEqual(["round", "round"]);
  expect(await textsIn(b)).toEqual(["round"]);
}, 120_000);

test("a loop by the broker's own binding is stopped in its first round", async () => {
  const [queue, exchange] = [`own-q-${run}`, `own-x-${run}`];
  const connection = await connectAmqp(amqp);
  const channel = await connection.createConfirmChannel();
  await channel.assertExchange(exchange, "fanout", { durable: true });
  await channel.assertQueue(queue, { durable: true });
  await channel.bindQueue(queue, exchange, "");
  await gateway.apply({
    rules: { own: { from: { bridge: "rabbit", queue }, to: { bridge: "rabbit", exchange } } },
  });
  channel.sendToQueue(queue, Buffer.from("once"));
  await channel.waitForConfirms();
  await waitFor("the letter is there", async () => (await gateway.read("own.dead")).length > 0, {
    timeoutMs: 60_000,
  });
  expect(await countsOf(gateway, "own")).toMatchObject({ taken: 2, delivered: 1, deadLettered: 1 });
  expect((await channel.checkQueue(queue)).messageCount).toBe(0);
  await connection.close();
}, 120_000);
