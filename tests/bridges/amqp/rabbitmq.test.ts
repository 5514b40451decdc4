/** What only a real RabbitMQ can show: returns, nacks, closed channels, taps, dead connections. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect, type Channel, type ChannelModel } from "amqplib";
import { amqp } from "../../../bridges/amqp/module.ts";
import type { Bridge, Delivery, Outcome, Sink, Source } from "../../../src/bridge.ts";
import { DisconnectedError, InvalidError } from "../../../src/errors.ts";
import { encodeText, type Message } from "../../../src/message.ts";
import { broker, missingBroker } from "../../brokers/broker.ts";
import { TcpProxy } from "../../proxy.ts";
import { waitFor } from "../../temporary.ts";
import { testCertificate, tlsFront } from "../tls.ts";

const never = new AbortController().signal;
const run = `t${process.pid}`;

describe.skipIf(missingBroker("amqp") !== null)("amqp on RabbitMQ", () => {
  let model: ChannelModel;
  let channel: Channel;
  let bridge: Bridge;
  let url: string;

  async function open(document: Record<string, unknown>): Promise<Bridge> {
    return await amqp.connect(amqp.parseConfig(document), {
      name: "rabbit",
      resolve: (text) => Promise.resolve(text),
      signal: never,
    });
  }

  beforeAll(async () => {
    ({ url } = await broker("amqp"));
    model = await connect(url);
    channel = await model.createChannel();
    bridge = await open({ url });
  }, 60_000);

  afterAll(async () => {
    await bridge[Symbol.asyncDispose]();
    await model.close();
  });

  let made = 0;
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

  async function fresh(options: Parameters<Channel["assertQueue"]>[1] = {}): Promise<string> {
    made += 1;
    const name = `${run}-q${made}`;
    await channel.assertQueue(name, { durable: true, ...options });
    return name;
  }

  async function sinkTo(input: Record<string, unknown>, on = bridge): Promise<Sink> {
    return await on.sink(amqp.parseAddress(input, "sink"));
  }

  async function sourceOf(input: Record<string, unknown>, on = bridge): Promise<Source> {
    return await on.source(amqp.parseAddress(input, "source"), {
      name: `${run}-source`,
      start: "earliest",
      unsettledBytesMax: 16 * 1024 * 1024,
    });
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

  const bodies = (delivery: Delivery): string[] =>
    delivery.messages.map(({ body }) => Buffer.from(body ?? []).toString());

  test("refuses exactly the messages that no queue takes, under concurrency", async () => {
    const queue = await fresh();
    await channel.assertExchange(`${run}-x`, "topic");
    await channel.bindQueue(queue, `${run}-x`, "good");
    const sink = await sinkTo({ exchange: `${run}-x`, routingKey: "${body.key}" });
    const calls = Array.from({ length: 20 }, (_, call) =>
      sink.send(
        Array.from({ length: 20 }, (_, index) => ({
          // One id and one body for all: only the routing key and the order tell them apart.
          message: message({ id: "same", body: encodeText("same") }),
          fields: { exchange: `${run}-x`, routingKey: (call + index) % 3 === 0 ? "bad" : "good" },
        })),
        never,
      ),
    );
    const outcomes = await Promise.all(calls);
    for (const [call, list] of outcomes.entries()) {
      for (const [index, outcome] of list.entries()) {
        if ((call + index) % 3 !== 0) expect(outcome).toEqual({ sent: null });
        else expect(outcome).toEqual({ refused: expect.stringContaining("312 NO_ROUTE") });
      }
    }
    await sink[Symbol.asyncDispose]();
  });

  test("says busy for a queue that takes no more", async () => {
    const queue = await fresh({ maxLength: 1, overflow: "reject-publish" });
    const sink = await sinkTo({ queue });
    expect(await send(sink, { queue })).toEqual([{ sent: null }]);
    const outcomes = await send(sink, { queue }, [message(), message(), message()]);
    expect(outcomes.at(-1)).toEqual({ busyMs: expect.any(Number) });
  });

  test("refuses messages to a missing exchange and sends the others", async () => {
    const queue = await fresh();
    const sink = await sinkTo({ exchange: "${body.x}", routingKey: queue });
    const to = (exchange: string) => ({
      message: message(),
      fields: { exchange, routingKey: queue },
    });
    const outcomes = await sink.send([to(""), to("nowhere"), to("")], never);
    expect(outcomes).toEqual([
      { sent: null },
      { refused: expect.stringContaining('the exchange "nowhere" does not exist') },
      { sent: null },
    ]);
  });

  test("finds the message that makes the broker close the channel, and sends the others", async () => {
    const queue = await fresh();
    await channel.assertExchange(`${run}-internal`, "fanout", { internal: true });
    const sink = await sinkTo({ exchange: "${body.x}", routingKey: queue });
    let open = Array.from({ length: 9 }, (_, index) => ({
      message: message(),
      fields: { exchange: index === 4 ? `${run}-internal` : "", routingKey: queue },
    }));
    const guilty = open[4];
    const refused: string[] = [];
    for (let round = 0; open.length > 0 && round < 10; round += 1) {
      const outcomes = await sink.send(open, never);
      open = open.filter((one, index) => {
        const outcome = outcomes[index] ?? { unknown: true };
        if ("refused" in outcome)
          refused.push(one === guilty ? outcome.refused : "an innocent one");
        return "unknown" in outcome;
      });
    }
    expect(open).toEqual([]);
    expect(refused).toEqual([expect.stringContaining("ACCESS_REFUSED")]);
    expect(await send(sink, { exchange: "", routingKey: queue })).toEqual([{ sent: null }]);
  });

  test("makes what is missing when asked to, and says what is wrong with what is there", async () => {
    const queue = `${run}-made`;
    const sink = await sinkTo({ queue, create: { type: "quorum" } });
    expect(await send(sink, { queue })).toEqual([{ sent: null }]);
    const error = await sinkTo({ queue, create: true }).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(InvalidError);
    expect((error as Error).message).toContain("exists with other settings");
    const source = await sourceOf({ queue });
    expect((await next(source)).messages.length).toBe(1);
    await source[Symbol.asyncDispose]();
    await channel.deleteQueue(queue);
  });

  test("takes a copy of an exchange's messages through a queue of its own", async () => {
    const exchange = `${run}-tapped`;
    await channel.assertExchange(exchange, "topic");
    const tap = { exchange, bind: ["orders.*", "bills.#"] };
    const source = await sourceOf(tap);
    for (const key of ["orders.eu", "other", "bills.a.b"]) {
      channel.publish(exchange, key, Buffer.from(key));
    }
    const seen: string[] = [];
    while (seen.length < 2) {
      const delivery = await next(source);
      seen.push(...bodies(delivery));
      expect(delivery.messages[0]?.origin?.address).toBe(`isthmus.${run}-source`);
      await delivery.ack();
    }
    expect(seen).toEqual(["orders.eu", "bills.a.b"]);
    await source[Symbol.asyncDispose]();
    channel.publish(exchange, "orders.us", Buffer.from("while away"));
    const again = await sourceOf(tap);
    expect(bodies(await next(again))).toEqual(["while away"]);
    await again[Symbol.asyncDispose]();
    await channel.deleteQueue(`isthmus.${run}-source`);
  });

  test("tells a queue and an exchange that are not there", async () => {
    for (const input of [{ queue: "not-there" }, { exchange: "not-there" }]) {
      const error = await sourceOf(input).then(
        () => null,
        (thrown: unknown) => thrown,
      );
      expect(error).toBeInstanceOf(InvalidError);
      expect((error as Error).message).toContain('"not-there" does not exist');
    }
  });

  test("ends a source whose queue is deleted, and leaves the others running", async () => {
    const [queue, other] = [await fresh(), await fresh()];
    const [source, running] = [await sourceOf({ queue }), await sourceOf({ queue: other })];
    const waiting = source.receive(never).then(
      () => null,
      (error: unknown) => error,
    );
    await channel.deleteQueue(queue);
    expect(await waiting).toBeInstanceOf(DisconnectedError);
    channel.sendToQueue(other, Buffer.from("still here"));
    expect(bodies(await next(running))).toEqual(["still here"]);
    await running[Symbol.asyncDispose]();
  });

  test("gives repeated, binary and null headers back as they were", async () => {
    const queue = await fresh();
    const headers = [
      { name: "a", value: encodeText("1") },
      { name: "1", value: Uint8Array.of(255, 0) },
      { name: "a", value: null },
      { name: "CC", value: encodeText("elsewhere") },
      { name: "", value: new Uint8Array(0) },
      { name: "__proto__", value: encodeText("p") },
    ];
    const sink = await sinkTo({ queue });
    const key = Uint8Array.of(200, 1);
    expect(await send(sink, { queue }, [message({ headers, key })])).toEqual([{ sent: null }]);
    const source = await sourceOf({ queue });
    const delivery = await next(source);
    expect(delivery.messages[0]?.headers).toEqual(headers);
    expect(delivery.messages[0]?.key).toEqual(key);
    await source[Symbol.asyncDispose]();
  });

  test("takes many messages in few deliveries and acks them in order received", async () => {
    const queue = await fresh();
    const sink = await sinkTo({ queue });
    const sent = Array.from({ length: 2000 }, () => message());
    expect((await send(sink, { queue }, sent)).every((outcome) => "sent" in outcome)).toBe(true);
    const source = await sourceOf({ queue });
    const deliveries: Delivery[] = [];
    const seen: string[] = [];
    while (seen.length < sent.length) {
      const delivery = await next(source);
      deliveries.push(delivery);
      seen.push(...bodies(delivery));
      // Every other one is acked late and out of order.
      if (deliveries.length % 2 === 0) {
        await delivery.ack();
        await deliveries.at(-2)?.ack();
      }
    }
    if (deliveries.length % 2 === 1) await deliveries.at(-1)?.ack();
    expect(seen).toEqual(sent.map(({ body }) => Buffer.from(body ?? []).toString()));
    expect(deliveries.length).toBeLessThan(sent.length / 4);
    await source[Symbol.asyncDispose]();
    await waitFor(
      "all are acked",
      async () => (await channel.checkQueue(queue)).messageCount === 0,
    );
  });

  test("delivers on while all that came is unsettled, whatever the first ones were like", async () => {
    for (const type of ["classic", "quorum"]) {
      const queue = await fresh({ arguments: { "x-queue-type": type } });
      const sink = await sinkTo({ queue });
      // The last of the first push is large, so that few more of its like would fit.
      const sent = Array.from({ length: 500 }, (_, index) =>
        message(index === 63 ? { body: new Uint8Array(4 * 1024 * 1024) } : {}),
      );
      expect(await send(sink, { queue }, sent)).toEqual(sent.map(() => ({ sent: null })));
      const source = await sourceOf({ queue });
      const held: Delivery[] = [];
      const ids: string[] = [];
      while (ids.length < sent.length) {
        const delivery = await next(source);
        held.push(delivery);
        ids.push(...delivery.messages.map(({ id }) => id));
      }
      expect(ids).toEqual(sent.map(({ id }) => id));
      for (const delivery of held.toReversed()) await delivery.ack();
      await source[Symbol.asyncDispose]();
      expect((await channel.deleteQueue(queue)).messageCount).toBe(0);
    }
  });

  test("keeps the order of a quorum queue while it stops and goes on", async () => {
    const queue = await fresh({ arguments: { "x-queue-type": "quorum" } });
    const sink = await sinkTo({ queue });
    const sent = Array.from({ length: 2000 }, (_, index) =>
      message({ body: new Uint8Array(index % 50 === 0 ? 20_000 : 200) }),
    );
    const sending = send(sink, { queue }, sent);
    const source = await bridge.source(amqp.parseAddress({ queue }, "source"), {
      name: `${run}-source`,
      start: "earliest",
      unsettledBytesMax: 60_000,
    });
    const ids: string[] = [];
    let held: Delivery[] = [];
    while (ids.length < sent.length) {
      const delivery = await next(source);
      held.push(delivery);
      ids.push(...delivery.messages.map(({ id }) => id));
      // Acked late, in twos and backwards, but never later than a source that is full goes on.
      const bytes = held.flatMap(({ messages }) => messages).map(({ body }) => body?.length ?? 0);
      if (held.length < 2 && bytes.reduce((sum, one) => sum + one) < 30_000) continue;
      for (const one of held.toReversed()) await one.ack();
      held = [];
    }
    for (const one of held) await one.ack();
    expect(ids).toEqual(sent.map(({ id }) => id));
    expect((await sending).every((outcome) => "sent" in outcome)).toBe(true);
    await source[Symbol.asyncDispose]();
  });

  test("connects with TLS, and only to a certificate that it knows", async () => {
    await using front = await tlsFront(Number(new URL(url).port));
    const secure = { url: `amqps://guest:guest@localhost:${front.port}` };
    const error = await open(secure).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(DisconnectedError);
    expect((error as Error).message).toContain("certificate");
    const behind = await open({ ...secure, tls: { ca: testCertificate } });
    const queue = await fresh();
    expect(await send(await sinkTo({ queue }, behind), { queue })).toEqual([{ sent: null }]);
    await behind[Symbol.asyncDispose]();
  });

  test("tells a login that the broker refuses", async () => {
    const error = await open({ url, username: "nobody", password: "wrong" }).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(DisconnectedError);
    expect((error as Error).message).toContain("ACCESS");
  });

  test("notices a connection that is half open", async () => {
    const upstream = new URL(url);
    await using proxy = await TcpProxy.open({
      upstream: { host: upstream.hostname, port: Number(upstream.port) },
    });
    upstream.port = String(proxy.port);
    const queue = await fresh();
    const { behind, sink } = await waitFor("a sink is open behind the proxy", async () => {
      const behind = await open({ url: upstream.href, heartbeat: "1s" });
      try {
        return { behind, sink: await sinkTo({ queue }, behind) };
      } catch (error) {
        // So short a heartbeat ends a connection by itself when the machine stands still.
        await behind[Symbol.asyncDispose]();
        if (error instanceof DisconnectedError) return null;
        throw error;
      }
    });
    proxy.blackhole(true);
    const sending = send(sink, { queue }).then(
      () => null,
      (error: unknown) => error,
    );
    expect(await behind.closed).toBeInstanceOf(Error);
    expect(await sending).toBeInstanceOf(DisconnectedError);
    await behind[Symbol.asyncDispose]();
  }, 60_000);
});
