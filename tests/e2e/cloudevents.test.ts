/**
 * CloudEvents through real brokers: what `format: cloudevents` sends, as clients that know nothing
 * of us read it in every binding; and events that such clients send, as the log has them.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect as connectAmqp } from "amqplib";
import { Kafka, logLevel } from "kafkajs";
import { connectAsync } from "mqtt";
import rhea from "rhea";
import { broker, missingBroker } from "../brokers/broker.ts";
import { waitFor } from "../temporary.ts";
import { listenAmqp, listenMqtt, makeTopic, readTopic } from "./clients.ts";
import { TestGateway } from "./gateway.ts";

const run = `${process.pid}-${Math.floor(Math.random() * 1e6)}`;
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
      plant: { kind: "mqtt", url: urls.mqtt, clientId: `events-${run}` },
      ...(lacks === null ? { jms: { kind: "amqp1", url: urls.amqp1 } } : {}),
    },
  });
}, 300_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
});

/** Publishes one JSON message; its id. */
async function publish(stream: string): Promise<string> {
  const receipt = await gateway.json<{ id: string }>(`/streams/${stream}/messages`, {
    method: "POST",
    headers: { "content-type": "application/json", "isthmus-key": "k-1" },
    body: '{"total":1.50}',
  });
  return receipt.id;
}

/** What every binding must say of the message, by attribute. */
const wanted = (id: string, stream: string) => ({
  specversion: "1.0",
  id,
  source: `/streams/${stream}`,
  type: "order.created",
  partitionkey: "k-1",
});

/** Attributes by name, of headers that begin with a prefix. */
function attributes(headers: Readonly<Record<string, unknown>>, prefix: string) {
  const named = Object.entries(headers).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(
    named.map(([name, value]) => [name.slice(prefix.length), String(value)]),
  );
}

/** An AMQP 1.0 queue, read by the bare client. */
async function listenAmqp1(url: string, queue: string) {
  const { hostname, port, username, password } = new URL(url);
  const messages: rhea.Message[] = [];
  const connection = rhea.create_container().connect({
    host: hostname,
    port: Number(port),
    ...(username === "" ? {} : { username, password }),
  });
  connection.on("message", ({ message }: rhea.EventContext) => {
    if (message !== undefined) messages.push(message);
  });
  const open = new Promise<unknown>((resolve) => connection.once("receiver_open", resolve));
  connection.open_receiver({ source: { address: queue, capabilities: ["queue"] } });
  await open;
  return {
    messages,
    connection,
    [Symbol.asyncDispose]: () =>
      new Promise<void>((resolve) => {
        connection.once("connection_close", () => resolve());
        connection.close();
      }),
  };
}

test("in binary mode every binding has the attributes in its own place", async () => {
  const stream = `binary-${run}`;
  const requests: Record<string, string>[] = [];
  using server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request) {
      requests.push(Object.fromEntries(request.headers));
      return new Response(null, { status: 204 });
    },
  });
  const names = { topic: `ce-${run}`, queue: `ce-q-${run}`, jms: `ce-j-${run}`, mqtt: `ce/${run}` };
  await makeTopic(urls.kafka, names.topic);
  await using rabbit = await listenAmqp(urls.amqp, "", names.queue);
  await using plant = await listenMqtt(urls.mqtt, names.mqtt);
  const crm = {
    kind: "http",
    url: `http://127.0.0.1:${server.port}/`,
    allowPrivate: ["127.0.0.0/8"],
  };
  await gateway.apply({
    bridges: { crm },
    rules: {
      [`binary-${run}`]: {
        from: stream,
        start: "earliest",
        format: "cloudevents",
        set: { properties: { type: "order.created" }, headers: { "ce-subject": "Euro €" } },
        to: [
          { bridge: "eu", topic: names.topic },
          { bridge: "rabbit", queue: names.queue },
          { bridge: "plant", topic: names.mqtt },
          { bridge: "crm" },
          ...(lacks === null ? [{ bridge: "jms", queue: names.jms, create: true }] : []),
        ],
      },
    },
  });
  const id = await publish(stream);
  const expected = { ...wanted(id, stream), subject: "Euro €" };

  const [record] = await readTopic(urls.kafka, names.topic, 1);
  expect(attributes(record?.headers ?? {}, "ce_")).toMatchObject(expected);
  expect(record?.headers?.["content-type"]?.toString()).toBe("application/json");
  expect(record?.value?.toString()).toBe('{"total":1.50}');

  await waitFor("RabbitMQ has it", () => rabbit.messages.length > 0);
  const { properties } = rabbit.messages[0] ?? { properties: { headers: {}, contentType: "" } };
  expect(attributes(properties.headers ?? {}, "cloudEvents_")).toMatchObject(expected);
  expect(properties.contentType).toBe("application/json");

  await waitFor("MQTT has it", () => plant.packets.length > 0);
  const packet = plant.packets[0]?.properties;
  expect(attributes({ ...packet?.userProperties }, "")).toMatchObject(expected);
  expect(packet?.contentType).toBe("application/json");

  await waitFor("HTTP has it", () => requests.length > 0);
  const headers = requests[0] ?? {};
  expect(attributes(headers, "ce-")).toMatchObject({
    ...expected,
    subject: "Euro%20%E2%82%AC",
  });
  expect([headers["content-type"], headers["ce-datacontenttype"]]).toEqual([
    "application/json",
    undefined,
  ]);

  if (lacks !== null) return;
  await using jms = await listenAmqp1(urls.amqp1, names.jms);
  await waitFor("Artemis has it", () => jms.messages.length > 0);
  const [message] = jms.messages;
  expect(attributes(message?.application_properties ?? {}, "cloudEvents_")).toMatchObject(expected);
  expect(String(message?.content_type)).toBe("application/json");
}, 120_000);

test("in structured mode every binding has the event as its body", async () => {
  const stream = `structured-${run}`;
  const names = { topic: `ces-${run}`, queue: `ces-q-${run}`, mqtt: `ces/${run}` };
  await makeTopic(urls.kafka, names.topic);
  await using rabbit = await listenAmqp(urls.amqp, "", names.queue);
  await using plant = await listenMqtt(urls.mqtt, names.mqtt);
  const format = { type: "cloudevents", mode: "structured" };
  await gateway.apply({
    rules: {
      [`structured-${run}`]: {
        from: stream,
        start: "earliest",
        set: { properties: { type: "order.created" } },
        to: [
          { bridge: "eu", topic: names.topic, format },
          { bridge: "rabbit", queue: names.queue, format },
          { bridge: "plant", topic: names.mqtt, format },
        ],
      },
    },
  });
  const id = await publish(stream);
  const expected = {
    ...wanted(id, stream),
    datacontenttype: "application/json",
    data: { total: 1.5 },
  };
  const [record] = await readTopic(urls.kafka, names.topic, 1);
  await waitFor("the others have it", () => rabbit.messages.length + plant.packets.length === 2);
  const got = [
    [record?.headers?.["content-type"]?.toString(), record?.value?.toString()],
    [rabbit.messages[0]?.properties.contentType, rabbit.messages[0]?.content.toString()],
    [plant.packets[0]?.properties?.contentType, String(plant.packets[0]?.payload)],
  ];
  for (const [type, body] of got) {
    expect(type).toBe("application/cloudevents+json");
    expect(JSON.parse(body ?? "")).toMatchObject(expected);
  }
}, 120_000);

test("events that others send give their type, id and key", async () => {
  const names = {
    topic: `cei-${run}`,
    queue: `cei-q-${run}`,
    mqtt: `cei/${run}`,
    jms: `cei-j-${run}`,
  };
  const event = { specversion: "1.0", id: "e-1", source: "/s", type: "t.x", partitionkey: "p" };
  await makeTopic(urls.kafka, names.topic);
  const amqp = await connectAmqp(urls.amqp);
  const channel = await amqp.createConfirmChannel();
  await channel.assertQueue(names.queue, { durable: true });
  const source = (name: string, from: object) => ({
    from,
    stream: `${name}-${run}`,
    start: "earliest",
  });
  const sources: Record<string, object> = {
    [`k-${run}`]: source("k", { bridge: "eu", topic: names.topic }),
    [`r-${run}`]: source("r", { bridge: "rabbit", queue: names.queue }),
    [`m-${run}`]: source("m", { bridge: "plant", topic: names.mqtt }),
    ...(lacks === null
      ? { [`j-${run}`]: source("j", { bridge: "jms", queue: names.jms, create: true }) }
      : {}),
  };
  await gateway.apply({ sources });
  for (const name of Object.keys(sources)) await gateway.sourceRuns(name);
  const prefixed = (prefix: string): Record<string, string> =>
    Object.fromEntries(Object.entries(event).map(([name, value]) => [prefix + name, value]));
  const structured = JSON.stringify({ ...event, data: { a: 1 } });
  const structuredType = "application/cloudevents+json; charset=utf-8";

  const producer = new Kafka({ brokers: [urls.kafka], logLevel: logLevel.NOTHING }).producer();
  await producer.connect();
  const messages = [
    { value: "data", headers: prefixed("ce_") },
    { value: structured, headers: { "content-type": structuredType } },
  ];
  await producer.send({ topic: names.topic, messages });
  await producer.disconnect();
  channel.sendToQueue(names.queue, Buffer.from("data"), { headers: prefixed("cloudEvents_") });
  channel.sendToQueue(names.queue, Buffer.from(structured), { contentType: structuredType });
  await channel.waitForConfirms();
  await amqp.close();
  const mqtt = await connectAsync(urls.mqtt, { protocolVersion: 5 });
  const userProperties = prefixed("");
  await mqtt.publishAsync(names.mqtt, "data", { qos: 1, properties: { userProperties } });
  const properties = { contentType: structuredType };
  await mqtt.publishAsync(names.mqtt, structured, { qos: 1, properties });
  await mqtt.endAsync();
  if (lacks === null) {
    await using jms = await listenAmqp1(urls.amqp1, `${names.jms}-other`);
    const sender = jms.connection.open_sender({
      target: { address: names.jms, capabilities: ["queue"] },
    });
    await new Promise((resolve) => sender.once("sendable", resolve));
    const settled = new Promise((resolve) => sender.once("accepted", resolve));
    sender.send({ body: "data", application_properties: prefixed("cloudEvents:") });
    await settled;
    const again = new Promise((resolve) => sender.once("accepted", resolve));
    sender.send({
      body: rhea.message.data_section(Buffer.from(structured)),
      content_type: structuredType,
    });
    await again;
  }
  for (const name of Object.keys(sources)) {
    await waitFor(`${name} has both`, async () => (await gateway.read(name)).length === 2);
    for (const { properties: own, key } of await gateway.read(name)) {
      expect(own).toMatchObject({ type: "t.x", messageId: "e-1" });
      expect(key).toBe("p");
    }
  }
}, 120_000);

test("a batch over HTTP is as many events", async () => {
  const stream = `batch-${run}`;
  const one = { specversion: "1.0", source: "/s", type: "t" };
  const receipts = await gateway.json<unknown[]>(`/streams/${stream}/messages`, {
    method: "POST",
    headers: { "content-type": "application/cloudevents-batch+json" },
    body: JSON.stringify([
      { ...one, id: "1" },
      { ...one, id: "2", data: [1] },
    ]),
  });
  expect(receipts).toHaveLength(2);
  const messages = await gateway.read(stream);
  expect(messages.map(({ properties }) => properties["messageId"])).toEqual(["1", "2"]);
}, 60_000);

test("an event that a webhook brings goes out as the same event", async () => {
  const topic = `ceh-${run}`;
  await makeTopic(urls.kafka, topic);
  await gateway.apply({
    hooks: { [`ceh-${run}`]: { stream: topic } },
    rules: {
      [`ceh-${run}`]: {
        from: topic,
        start: "earliest",
        format: "cloudevents",
        to: { bridge: "eu", topic },
      },
    },
  });
  const attributesGiven = { specversion: "1.0", id: "h-1", source: "/a%2520b", type: "t.h" };
  const headers = Object.entries(attributesGiven).map(([name, value]) => [`ce-${name}`, value]);
  const answer = await fetch(`${gateway.url}/hooks/ceh-${run}`, {
    method: "POST",
    headers: Object.fromEntries([...headers, ["ce-subject", "Euro%20%E2%82%AC"]]),
    body: "x",
  });
  expect(answer.status).toBe(202);
  const [record] = await readTopic(urls.kafka, topic, 1);
  expect(attributes(record?.headers ?? {}, "ce_")).toEqual({
    ...attributesGiven,
    source: "/a%20b",
    subject: "Euro €",
  });
  const [message] = await gateway.read(topic);
  expect(message?.properties).toMatchObject({ type: "t.h", messageId: "h-1" });
}, 60_000);
