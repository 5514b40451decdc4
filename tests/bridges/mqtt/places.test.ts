/** What brokers keep and publish by themselves: retained messages, last wills; and the transports. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect as connectTcp, type Socket } from "node:net";
import { connectAsync, type MqttClient } from "mqtt";
import { mqtt } from "../../../bridges/mqtt/module.ts";
import type { Bridge } from "../../../src/bridge.ts";
import { InvalidError } from "../../../src/errors.ts";
import { encodeText, type Message } from "../../../src/message.ts";
import { broker, missingBroker } from "../../brokers/broker.ts";
import { TcpProxy } from "../../proxy.ts";
import { freePort, waitFor } from "../../temporary.ts";
import { testCertificate, tlsFront } from "../tls.ts";

const never = new AbortController().signal;
const run = `p${process.pid}`;

describe.skipIf(missingBroker("mqtt") !== null)("places of an MQTT broker", () => {
  let url: string;
  let plain: MqttClient;
  let made = 0;
  const opened: AsyncDisposable[] = [];

  beforeAll(async () => {
    ({ url } = await broker("mqtt"));
    plain = await connectAsync(url, { protocolVersion: 5 });
  });

  afterAll(async () => {
    for (const one of opened.reverse()) await one[Symbol.asyncDispose]();
    await plain.endAsync();
  });

  async function open(document: Record<string, unknown> = {}): Promise<Bridge> {
    const bridge = await mqtt.connect(mqtt.parseConfig({ url, ...document }), {
      name: run,
      resolve: (text) => Promise.resolve(text),
      signal: never,
    });
    opened.push(bridge);
    return bridge;
  }

  function message(body: Uint8Array | null): Message {
    made += 1;
    return {
      id: `${run}-${made}`,
      key: null,
      properties: {},
      headers: [],
      body,
      timestampMs: 1_700_000_000_000,
      origin: null,
    };
  }

  /** What a client that comes anew is given for a topic. */
  async function retained(topic: string): Promise<string[]> {
    const client = await connectAsync(url, { protocolVersion: 5 });
    const seen: string[] = [];
    client.on("message", (_topic, payload) => seen.push(payload.toString()));
    await client.subscribeAsync(topic, { qos: 1 });
    // What is retained comes before what is published now.
    await client.publishAsync(topic, "marker", { qos: 1 });
    await waitFor("the marker has come", () => seen.includes("marker"));
    await client.endAsync();
    return seen.filter((body) => body !== "marker");
  }

  for (const version of ["5", "3.1.1"]) {
    test(`a retained message stays until a tombstone clears it, with MQTT ${version}`, async () => {
      const topic = `${run}/kept/${version}`;
      const bridge = await open({ version });
      const address = mqtt.parseAddress({ topic, retain: true }, "sink");
      const sink = await bridge.sink(address);
      const send = async (body: Uint8Array | null): Promise<void> => {
        const outgoing = [{ message: message(body), fields: address.fields }];
        expect(await sink.send(outgoing, never)).toEqual([{ sent: null }]);
      };
      await send(encodeText("on"));
      expect(await retained(topic)).toEqual(["on"]);
      await send(encodeText("off"));
      expect(await retained(topic)).toEqual(["off"]);
      await send(null);
      expect(await retained(topic)).toEqual([]);
    });
  }

  test("the last will is published when the connection breaks, and not after a goodbye", async () => {
    const upstream = new URL(url);
    await using proxy = await TcpProxy.open({
      upstream: { host: upstream.hostname, port: Number(upstream.port) },
    });
    const topic = `${run}/will`;
    const will = { topic, body: "gone", qos: 1, retain: true };
    const document = { url: `mqtt://127.0.0.1:${proxy.port}`, will };
    const polite = await open(document);
    await polite[Symbol.asyncDispose]();
    expect(await retained(topic)).toEqual([]);
    const broken = await open(document);
    proxy.cut();
    expect(await broken.closed).toBeInstanceOf(Error);
    await waitFor("the will is there", async () => (await retained(topic)).includes("gone"));
    await plain.publishAsync(topic, "", { retain: true });
  });

  test("a last will to a topic that can't be published to is refused with a pointer", () => {
    for (const topic of ["a/+", "#", ""]) {
      let pointers: string[] = [];
      try {
        mqtt.parseConfig({ url: "mqtt://a", will: { topic } });
      } catch (error) {
        if (error instanceof InvalidError) pointers = error.errors.map(({ pointer }) => pointer);
      }
      expect(pointers).toEqual(["/will/topic"]);
    }
  });

  test("many topics share few aliases, and each message arrives under its own", async () => {
    const bridge = await open();
    const sink = await bridge.sink(mqtt.parseAddress({ topic: "${raw(key)}" }, "sink"));
    const seen: string[] = [];
    const client = await connectAsync(url, { protocolVersion: 5 });
    client.on("message", (topic, payload) => seen.push(`${topic}=${payload.toString()}`));
    await client.subscribeAsync(`${run}/alias/#`, { qos: 1 });
    const sent = Array.from({ length: 200 }, (_, index) => ({
      topic: `${run}/alias/${(index * 7) % 23}`,
      body: String(index),
    }));
    const outcomes = await sink.send(
      sent.map(({ topic, body }) => ({
        message: message(encodeText(body)),
        fields: { topic, qos: 1, retain: false },
      })),
      never,
    );
    expect(outcomes.every((outcome) => "sent" in outcome)).toBe(true);
    await waitFor("all have come", () => seen.length === sent.length);
    expect(seen).toEqual(sent.map(({ topic, body }) => `${topic}=${body}`));
    await client.endAsync();
  });

  test("what no broker may take is refused before it is sent, and the others pass", async () => {
    const upstream = new URL(url);
    await using proxy = await TcpProxy.open({
      upstream: { host: upstream.hostname, port: Number(upstream.port) },
    });
    const bridge = await open({ url: `mqtt://127.0.0.1:${proxy.port}` });
    const sink = await bridge.sink(mqtt.parseAddress({ topic: "${raw(key)}" }, "sink"));
    const topics = ["ok/1", "a/+", "a/#", "", "a\0b", "x".repeat(65_536), "ok/2"];
    const outcomes = await sink.send(
      topics.map((topic) => ({
        message: message(encodeText("x")),
        fields: { topic, qos: 1, retain: false },
      })),
      never,
    );
    const kinds = outcomes.map((outcome) => ("refused" in outcome ? "refused" : "sent"));
    expect(kinds).toEqual(["sent", "refused", "refused", "refused", "refused", "refused", "sent"]);
    // The one connection is still there: nothing of it reached the broker, which would have cut it.
    expect([proxy.accepted, proxy.connections]).toEqual([1, 1]);
    await bridge[Symbol.asyncDispose]();
  });

  test("WebSocket with TLS carries messages both ways", async () => {
    const upstream = await broker("mqtt");
    const port = await freePort();
    // A front that speaks WebSocket to the client and plain MQTT to the broker.
    const front = webSocketFront(port, new URL(upstream.url));
    await using secure = await tlsFront(port);
    const document = {
      url: `wss://localhost:${secure.port}/mqtt`,
      tls: { ca: testCertificate },
    };
    const bridge = await open(document);
    const topic = `${run}/wss`;
    const source = await bridge.source(mqtt.parseAddress({ topic }, "source"), {
      name: "wss",
      start: "latest",
      unsettledBytesMax: 1_000_000,
    });
    const address = mqtt.parseAddress({ topic }, "sink");
    const sink = await bridge.sink(address);
    const body = new Uint8Array(100_000).fill(7);
    await sink.send([{ message: message(body), fields: address.fields }], never);
    const delivery = await source.receive(AbortSignal.timeout(20_000));
    expect(delivery?.messages[0]?.body).toEqual(body);
    await delivery?.ack();
    await bridge[Symbol.asyncDispose]();
    await front.stop(true);
  });
});

function webSocketFront(
  port: number,
  { hostname, port: target }: URL,
): ReturnType<typeof Bun.serve> {
  return Bun.serve<{ upstream: Socket | null }>({
    hostname: "127.0.0.1",
    port,
    fetch(request, server) {
      const headers = { "sec-websocket-protocol": "mqtt" };
      const isUpgraded = server.upgrade(request, { data: { upstream: null }, headers });
      return isUpgraded ? undefined : new Response(null, { status: 400 });
    },
    websocket: {
      open(ws) {
        const upstream = connectTcp({ host: hostname, port: Number(target) });
        upstream.on("data", (bytes: Buffer) => void ws.sendBinary(bytes));
        upstream.on("close", () => ws.close());
        ws.data.upstream = upstream;
      },
      message: (ws, bytes) => void ws.data.upstream?.write(bytes),
      close: (ws) => void ws.data.upstream?.destroy(),
    },
  });
}
