/** What only a real Mosquitto can show: held acks, sessions, QoS 2, versions, TLS, WebSocket. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect as connectTcp, type Socket } from "node:net";
import { connectAsync, type MqttClient } from "mqtt";
import { mqtt } from "../../../bridges/mqtt/module.ts";
import type { Bridge, Delivery, Outcome, Sink, Source, SourceMemory } from "../../../src/bridge.ts";
import { DisconnectedError, InvalidError } from "../../../src/errors.ts";
import { encodeText, type Message } from "../../../src/message.ts";
import { broker, missingBroker } from "../../brokers/broker.ts";
import { TcpProxy } from "../../proxy.ts";
import { freePort, waitFor } from "../../temporary.ts";
import { testCertificate, tlsFront } from "../tls.ts";

const never = new AbortController().signal;
const run = `t${process.pid}`;

/** Keeps what a source of QoS 2 does, and tells how many packet ids the broker has released. */
class ReleaseMemory implements SourceMemory {
  readonly #kept = new Map<string, Uint8Array>();

  load(name: string): Promise<Uint8Array | null> {
    return Promise.resolve(this.#kept.get(name) ?? null);
  }

  save(entries: Iterable<readonly [string, Uint8Array]>): Promise<void> {
    for (const [name, value] of entries) this.#kept.set(name, value);
    return Promise.resolve();
  }

  get released(): number {
    const records = [...this.#kept].filter(([name]) => name.startsWith("qos2 ids"));
    const counts = records.flatMap(([, bytes]) => [...bytes].filter((_, at) => at % 2 === 1));
    return counts.reduce((sum, count) => sum + count, 0);
  }
}

describe.skipIf(missingBroker("mqtt") !== null)("mqtt on Mosquitto", () => {
  let url: string;
  let plain: MqttClient;
  const opened: AsyncDisposable[] = [];
  let made = 0;

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

  async function sourceOf(
    bridge: Bridge,
    input: Record<string, unknown>,
    options: {
      name?: string;
      start?: "earliest" | "latest";
      unsettledBytesMax?: number;
      memory?: SourceMemory;
    } = {},
  ): Promise<Source> {
    return await bridge.source(mqtt.parseAddress(input, "source"), {
      name: options.name ?? "reader",
      start: options.start ?? "latest",
      unsettledBytesMax: options.unsettledBytesMax ?? 16 * 1024 * 1024,
      ...(options.memory === undefined ? {} : { memory: options.memory }),
    });
  }

  function message(parts: Partial<Message> = {}): Message {
    made += 1;
    return {
      id: `${run}-${made}`,
      key: null,
      properties: {},
      headers: [],
      body: encodeText(`body ${made}`),
      timestampMs: 1_700_000_000_000,
      origin: null,
      ...parts,
    };
  }

  function topic(): string {
    made += 1;
    return `${run}/${made}`;
  }

  async function send(
    sink: Sink,
    fields: Record<string, unknown>,
    messages = [message()],
  ): Promise<readonly Outcome[]> {
    return await sink.send(
      messages.map((one) => ({ message: one, fields })),
      never,
    );
  }

  async function next(source: Source): Promise<Delivery> {
    const delivery = await source.receive(AbortSignal.timeout(20_000));
    if (delivery === null) throw new Error("nothing came");
    return delivery;
  }

  async function take(source: Source, count: number): Promise<string[]> {
    const seen: string[] = [];
    while (seen.length < count) {
      const delivery = await next(source);
      seen.push(...bodies(delivery));
      await delivery.ack();
    }
    return seen;
  }

  const bodies = (delivery: Delivery): string[] =>
    delivery.messages.map(({ body }) => Buffer.from(body ?? []).toString());

  test("lets further messages in while earlier ones are not acked, and acks nothing by itself", async () => {
    const place = topic();
    const bridge = await open();
    const source = await sourceOf(bridge, { topic: place });
    const held: Delivery[] = [];
    for (const body of ["1", "2", "3"]) {
      await plain.publishAsync(place, body, { qos: 1 });
      held.push(await next(source));
    }
    await held[2]?.ack();
    await held[0]?.ack();
    await source[Symbol.asyncDispose]();
    const again = await sourceOf(bridge, { topic: place });
    expect(await take(again, 2)).toEqual(["2", "3"]);
    expect(await again.receive(AbortSignal.timeout(200))).toBeNull();
  });

  test("carries QoS 2 both ways, once each, and gives again what was not acked", async () => {
    const place = topic();
    const bridge = await open();
    const address = mqtt.parseAddress({ topic: place, qos: 2 }, "sink");
    const sink = await bridge.sink(address);
    const memory = new ReleaseMemory();
    const source = await sourceOf(bridge, { topic: place, qos: 2 }, { memory });
    const sent = Array.from({ length: 50 }, () => message());
    const outcomes = await send(sink, address.fields, sent);
    expect(outcomes.every((outcome) => "sent" in outcome)).toBe(true);
    const texts = sent.map(({ body }) => Buffer.from(body ?? []).toString());
    expect(await take(source, 50)).toEqual(texts);
    // What the broker does not know to be taken when the source ends it may give again.
    await waitFor("the broker has released all", () => memory.released === 50);
    await send(sink, address.fields, [message({ body: encodeText("held") })]);
    await next(source);
    await source[Symbol.asyncDispose]();
    const again = await sourceOf(bridge, { topic: place, qos: 2 }, { memory });
    expect(await take(again, 1)).toEqual(["held"]);
    expect(await again.receive(AbortSignal.timeout(200))).toBeNull();
  });

  test("gives a nacked message again to the source that is opened next", async () => {
    const place = topic();
    const bridge = await open();
    const source = await sourceOf(bridge, { topic: place });
    await plain.publishAsync(place, "again", { qos: 1 });
    await (await next(source)).nack();
    await expect(source.receive(never)).rejects.toBeInstanceOf(DisconnectedError);
    const next2 = await sourceOf(bridge, { topic: place });
    const delivery = await next(next2);
    expect(bodies(delivery)).toEqual(["again"]);
    expect(delivery.messages[0]?.origin?.redelivered).toBe(true);
  });

  test("keeps the session of a source that is away, and starts another for another filter", async () => {
    const [place, other] = [topic(), topic()];
    const bridge = await open();
    await (await sourceOf(bridge, { topic: place }))[Symbol.asyncDispose]();
    await plain.publishAsync(place, "missed", { qos: 1 });
    const changed = await sourceOf(bridge, { topic: other });
    await plain.publishAsync(other, "new", { qos: 1 });
    expect(await take(changed, 1)).toEqual(["new"]);
    const back = await sourceOf(bridge, { topic: place });
    expect(await take(back, 1)).toEqual(["missed"]);
  });

  test("takes up a session that holds more than may be unsettled", async () => {
    const place = topic();
    const bridge = await open();
    await (await sourceOf(bridge, { topic: place }))[Symbol.asyncDispose]();
    const bodies = Array.from({ length: 50 }, (_, index) => `${index}`.padEnd(1000));
    await Promise.all(bodies.map((body) => plain.publishAsync(place, body, { qos: 1 })));
    const back = await sourceOf(bridge, { topic: place }, { unsettledBytesMax: 3000 });
    expect(await take(back, bodies.length)).toEqual(bodies);
  });

  test("begins with what is retained only when it starts at the earliest", async () => {
    const place = topic();
    await plain.publishAsync(place, "state", { qos: 1, retain: true });
    const bridge = await open();
    const latest = await sourceOf(bridge, { topic: place }, { name: "latest" });
    expect(await latest.receive(AbortSignal.timeout(200))).toBeNull();
    const earliest = await sourceOf(bridge, { topic: place }, { name: "e", start: "earliest" });
    const delivery = await next(earliest);
    expect(delivery.messages[0]?.properties.retain).toBe(true);
    await delivery.ack();
    const address = mqtt.parseAddress({ topic: place, retain: true }, "sink");
    await send(await bridge.sink(address), address.fields, [message({ body: null })]);
    expect((await next(earliest)).messages[0]?.body).toBeNull();
    const cleared = await sourceOf(bridge, { topic: place }, { name: "c", start: "earliest" });
    expect(await cleared.receive(AbortSignal.timeout(200))).toBeNull();
  });

  test("shares the messages of a group among sources of different names", async () => {
    const place = topic();
    const bridge = await open();
    const readers = await Promise.all(
      ["a", "b"].map((name) => sourceOf(bridge, { topic: place, share: "g" }, { name })),
    );
    for (let index = 0; index < 20; index += 1) {
      await plain.publishAsync(place, String(index), { qos: 1 });
    }
    const seen = await Promise.all(readers.map((reader) => take(reader, 10)));
    expect(seen.flat().sort()).toEqual(Array.from({ length: 20 }, (_, i) => String(i)).sort());
  });

  test("takes what a plain client says in MQTT 5", async () => {
    const source = await sourceOf(await open(), { topic: `${run}/plant/{line}/temp` });
    await plain.publishAsync(`${run}/plant/7/temp`, "21", {
      qos: 1,
      properties: {
        contentType: "text/plain",
        correlationData: Buffer.from([0, 255]),
        userProperties: { a: ["1", "2"], b: "3" },
      },
    });
    const [got] = (await next(source)).messages;
    expect(got?.origin?.params).toEqual({ line: "7" });
    expect(got?.properties).toEqual({
      contentType: "text/plain",
      correlationId: Uint8Array.of(0, 255),
    });
    expect(
      got?.headers.map(({ name, value }) => [name, Buffer.from(value ?? []).toString()]),
    ).toEqual([
      ["a", "1"],
      ["a", "2"],
      ["b", "3"],
    ]);
  });

  test("refuses a rendered topic that can't be published, and sends the others", async () => {
    const bridge = await open();
    const sink = await bridge.sink(mqtt.parseAddress({ topic: "${body.t}" }, "sink"));
    const to = (text: unknown) => ({ message: message(), fields: { topic: text, qos: 1 } });
    const outcomes = await sink.send([to("a"), to("a/+"), to("a\0"), to(""), to("b")], never);
    expect(outcomes.map((outcome) => Object.keys(outcome)[0])).toEqual([
      "sent",
      "refused",
      "refused",
      "refused",
      "sent",
    ]);
    expect(outcomes[1]).toHaveProperty("final", true);
  });

  test("carries only the body with MQTT 3.1.1", async () => {
    const place = topic();
    const bridge = await open({ version: "3.1.1" });
    const source = await sourceOf(bridge, { topic: place });
    const address = mqtt.parseAddress({ topic: place }, "sink");
    const sent = message({
      headers: [{ name: "a", value: encodeText("1") }],
      key: encodeText("k"),
    });
    expect(await send(await bridge.sink(address), address.fields, [sent])).toEqual([
      { sent: null },
    ]);
    const [got] = (await next(source)).messages;
    expect(got).toMatchObject({ key: null, headers: [], body: sent.body });
    const shared = sourceOf(bridge, { topic: place, share: "g" });
    await expect(shared).rejects.toBeInstanceOf(InvalidError);
  });

  test("ends the source whose session another one takes over", async () => {
    const place = topic();
    const source = await sourceOf(await open(), { topic: place }, { name: "same" });
    const waiting = source.receive(never).then(
      () => null,
      (error: unknown) => error,
    );
    const heir = await sourceOf(await open(), { topic: place }, { name: "same" });
    expect(await waiting).toBeInstanceOf(DisconnectedError);
    await plain.publishAsync(place, "for the heir", { qos: 1 });
    expect(await take(heir, 1)).toEqual(["for the heir"]);
  });

  test("notices a connection that is half open", async () => {
    const upstream = new URL(url);
    await using proxy = await TcpProxy.open({
      upstream: { host: upstream.hostname, port: Number(upstream.port) },
    });
    const behind = await open({ url: `mqtt://127.0.0.1:${proxy.port}`, keepalive: "1s" });
    const address = mqtt.parseAddress({ topic: topic() }, "sink");
    const sink = await behind.sink(address);
    proxy.blackhole(true);
    await expect(send(sink, address.fields)).rejects.toBeInstanceOf(DisconnectedError);
    expect(await behind.closed).toBeInstanceOf(Error);
    proxy.blackhole(false);
  }, 60_000);

  test("connects with TLS, and only to a certificate that it knows", async () => {
    await using front = await tlsFront(Number(new URL(url).port));
    const secure = { url: `mqtts://localhost:${front.port}` };
    const error = await open(secure).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(DisconnectedError);
    expect((error as Error).message).toContain("certificate");
    const bridge = await open({ ...secure, tls: { ca: testCertificate } });
    const address = mqtt.parseAddress({ topic: topic() }, "sink");
    expect(await send(await bridge.sink(address), address.fields)).toEqual([{ sent: null }]);
    await bridge[Symbol.asyncDispose]();
  });

  test("connects over WebSocket", async () => {
    const sockets = new Map<object, Socket>();
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: await freePort(),
      fetch: (request, self) => {
        const headers = { "sec-websocket-protocol": "mqtt" };
        return self.upgrade(request, { headers }) ? undefined : new Response(null, { status: 400 });
      },
      websocket: {
        open(ws) {
          const socket = connectTcp({ host: "127.0.0.1", port: Number(new URL(url).port) });
          socket.on("data", (bytes: Buffer) => ws.sendBinary(bytes));
          socket.on("close", () => ws.close());
          sockets.set(ws, socket);
        },
        message: (ws, bytes) => void sockets.get(ws)?.write(bytes),
        close: (ws) => void sockets.get(ws)?.destroy(),
      },
    });
    const bridge = await open({ url: `ws://127.0.0.1:${server.port}/mqtt` });
    const place = topic();
    const source = await sourceOf(bridge, { topic: place });
    const address = mqtt.parseAddress({ topic: place }, "sink");
    const sent = message();
    expect(await send(await bridge.sink(address), address.fields, [sent])).toEqual([
      { sent: null },
    ]);
    expect((await next(source)).messages[0]?.body).toEqual(sent.body);
    await bridge[Symbol.asyncDispose]();
    await server.stop(true);
  });
});
