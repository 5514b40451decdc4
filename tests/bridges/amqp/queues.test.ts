/** Kinds of queues and exchanges on a real RabbitMQ, and what passes through them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect, type Channel, type ChannelModel } from "amqplib";
import type { Bridge, SourceGap } from "../../../src/bridge.ts";
import { DisconnectedError } from "../../../src/errors.ts";
import { encodeText, textHeader } from "../../../src/message.ts";
import { broker, missingBroker } from "../../brokers/broker.ts";
import { waitFor } from "../../temporary.ts";
import {
  bodies,
  memory,
  message,
  never,
  next,
  open,
  send,
  sinkTo,
  sourceOf,
  take,
} from "./support.ts";

const run = `k${process.pid}`;

describe.skipIf(missingBroker("amqp") !== null)("queues and exchanges of RabbitMQ", () => {
  let model: ChannelModel;
  let channel: Channel;
  let bridge: Bridge;
  let made = 0;

  beforeAll(async () => {
    const { url } = await broker("amqp");
    model = await connect(url);
    channel = await model.createChannel();
    bridge = await open({ url });
  }, 60_000);

  afterAll(async () => {
    await bridge[Symbol.asyncDispose]();
    await model.close();
  });

  async function queueOf(type: string, table: Record<string, unknown> = {}): Promise<string> {
    made += 1;
    const name = `${run}-${type}-${made}`;
    await channel.assertQueue(name, {
      durable: true,
      arguments: { "x-queue-type": type, ...table },
    });
    return name;
  }

  const text = (body: Uint8Array | null): string => Buffer.from(body ?? []).toString();

  test("a stream queue is read on behind what was acked, across sources", async () => {
    const queue = await queueOf("stream");
    const sink = await sinkTo(bridge, { queue });
    const sent = Array.from({ length: 300 }, () => message());
    await send(sink, { queue }, sent);
    const kept = memory();
    const first = await sourceOf(bridge, { queue }, { memory: kept });
    const half = await take(first, 100);
    await first[Symbol.asyncDispose]();
    const second = await sourceOf(bridge, { queue }, { memory: kept });
    const rest = await take(second, sent.length - half.length);
    await second[Symbol.asyncDispose]();
    expect([...half, ...rest].map(({ body }) => text(body))).toEqual(
      sent.map(({ body }) => text(body)),
    );
    // Nothing was taken off it: another reader has all of it, each with its place.
    const other = await sourceOf(bridge, { queue }, { memory: memory() });
    const all = await take(other, sent.length);
    expect(all.map(({ origin }) => origin?.offset)).toEqual(sent.map((_, index) => String(index)));
    expect(all.flatMap(({ headers }) => headers)).toEqual([]);
    expect(all.every(({ origin }) => origin?.partition === 0)).toBe(true);
    await other[Symbol.asyncDispose]();
    await channel.deleteQueue(queue);
  });

  test("what was not acked of a stream queue, or was given back, comes again", async () => {
    const queue = await queueOf("stream");
    const sink = await sinkTo(bridge, { queue });
    await send(sink, { queue }, [message(), message(), message()]);
    const kept = memory();
    const first = await sourceOf(bridge, { queue }, { memory: kept });
    const held = await next(first);
    await held.nack();
    await expect(first.receive(never)).rejects.toBeInstanceOf(DisconnectedError);
    await first[Symbol.asyncDispose]();
    const second = await sourceOf(bridge, { queue }, { memory: kept });
    expect(bodies(await next(second))).toEqual(bodies(held));
    await second[Symbol.asyncDispose]();
    await channel.deleteQueue(queue);
  });

  test("a stream queue is read from the latest on, and nothing is lost before the first ack", async () => {
    const queue = await queueOf("stream");
    const sink = await sinkTo(bridge, { queue });
    await send(sink, { queue }, [message({ body: encodeText("old") })]);
    const kept = memory();
    const first = await sourceOf(bridge, { queue }, { memory: kept, start: "latest" });
    await send(sink, { queue }, [message({ body: encodeText("new") })]);
    expect(bodies(await next(first))).toEqual(["new"]);
    await first[Symbol.asyncDispose]();
    await send(sink, { queue }, [message({ body: encodeText("newer") })]);
    const second = await sourceOf(bridge, { queue }, { memory: kept, start: "latest" });
    // From a little before the first opening: repeated rather than lost.
    const seen = await take(second, 2);
    while (text(seen.at(-1)?.body ?? null) !== "newer") seen.push(...(await take(second, 1)));
    expect(seen.map(({ body }) => text(body)).slice(-2)).toEqual(["new", "newer"]);
    await second[Symbol.asyncDispose]();
    await channel.deleteQueue(queue);
  });

  test("a stream queue goes on in order while its reader stops at its bound of bytes", async () => {
    const queue = await queueOf("stream");
    const sink = await sinkTo(bridge, { queue });
    const sent = Array.from({ length: 600 }, () => message({ body: new Uint8Array(4000) }));
    await send(sink, { queue }, sent);
    const options = { memory: memory(), unsettledBytesMax: 200_000 };
    const source = await sourceOf(bridge, { queue }, options);
    const seen = await take(source, sent.length);
    expect(seen.map(({ id }) => id)).toEqual(sent.map(({ id }) => id));
    await source[Symbol.asyncDispose]();
    await channel.deleteQueue(queue);
  });

  test("what a stream queue has thrown away before it was read is told", async () => {
    const table = { "x-max-length-bytes": 100_000, "x-stream-max-segment-size-bytes": 50_000 };
    const queue = await queueOf("stream", table);
    const sink = await sinkTo(bridge, { queue });
    const kept = memory();
    await send(sink, { queue }, [message()]);
    const first = await sourceOf(bridge, { queue }, { memory: kept });
    await take(first, 1);
    await first[Symbol.asyncDispose]();
    for (let round = 0; round < 20; round++) {
      const large = Array.from({ length: 20 }, () => message({ body: new Uint8Array(2000) }));
      await send(sink, { queue }, large);
    }
    const gaps: SourceGap[] = [];
    const onGap = (gap: SourceGap): void => void gaps.push(gap);
    const second = await sourceOf(bridge, { queue }, { memory: kept, onGap });
    const [next] = await take(second, 1);
    await second[Symbol.asyncDispose]();
    expect(Number(next?.origin?.offset)).toBeGreaterThan(1);
    expect(gaps).toEqual([
      {
        place: `stream queue ${queue}`,
        reason: `offset 1 is not kept any more; it goes on at ${next?.origin?.offset}`,
      },
    ]);
    await channel.deleteQueue(queue);
  });

  test("a stream queue is made when asked for", async () => {
    const queue = `${run}-made`;
    const create = { type: "stream" };
    const sink = await sinkTo(bridge, { queue, create });
    expect(await send(sink, { queue })).toEqual([{ sent: null }]);
    const source = await sourceOf(bridge, { queue, create });
    expect((await next(source)).messages[0]?.origin?.offset).toBe("0");
    await source[Symbol.asyncDispose]();
    await channel.deleteQueue(queue);
  });

  test("exchanges of all four types give what their bindings say", async () => {
    const cases = [
      { type: "direct", bind: ["a"], keys: ["a", "b"], headers: [{}, {}], given: ["0"] },
      { type: "fanout", bind: undefined, keys: ["a", "b"], headers: [{}, {}], given: ["0", "1"] },
      { type: "topic", bind: ["*.eu"], keys: ["a.eu", "a.us"], headers: [{}, {}], given: ["0"] },
      {
        type: "headers",
        bind: [{ headers: { region: "eu", kind: "order" }, match: "any" }, { headers: { n: "1" } }],
        keys: ["", "", ""],
        headers: [{ region: "us" }, { region: "eu" }, { n: "1" }],
        given: ["1", "2"],
      },
    ] as const;
    for (const { type, bind, keys, headers, given } of cases) {
      const exchange = `${run}-${type}`;
      const create = { type };
      const sink = await sinkTo(bridge, { exchange, create, mandatory: false });
      const name = `${run}-${type}-tap`;
      const address = bind === undefined ? { exchange } : { exchange, bind };
      const source = await sourceOf(bridge, address, { name });
      for (const [index, routingKey] of keys.entries()) {
        const pairs = Object.entries(headers[index] ?? {});
        const one = message({
          body: encodeText(String(index)),
          headers: pairs.map(([header, value]) => textHeader(header, String(value))),
        });
        await send(sink, { exchange, routingKey, mandatory: false }, [one]);
      }
      const seen = await take(source, given.length);
      expect(seen.map(({ body }) => text(body))).toEqual([...given]);
      expect(await source.receive(AbortSignal.timeout(100))).toBeNull();
      await source[Symbol.asyncDispose]();
      await channel.deleteQueue(`isthmus.${name}`);
      await channel.deleteExchange(exchange);
    }
  });

  test("an exchange that is bound by other keys than before brings nothing by the old ones", async () => {
    const exchange = `${run}-rebound`;
    const sink = await sinkTo(bridge, { exchange, create: { type: "topic" } });
    const options = { name: `${run}-rebound`, memory: memory() };
    const first = await sourceOf(bridge, { exchange, bind: ["old.*", "both"] }, options);
    await first[Symbol.asyncDispose]();
    const second = await sourceOf(bridge, { exchange, bind: ["new.*", "both"] }, options);
    for (const routingKey of ["old.a", "new.a", "both"]) {
      await send(sink, { exchange, routingKey, mandatory: false });
    }
    const seen = await take(second, 2);
    expect(seen.map(({ origin }) => origin?.params?.["routingKey"])).toEqual(["new.a", "both"]);
    expect(await second.receive(AbortSignal.timeout(100))).toBeNull();
    await second[Symbol.asyncDispose]();
    await channel.deleteQueue(`isthmus.${run}-rebound`);
    await channel.deleteExchange(exchange);
  });

  test("a message that was dead-lettered says so, as the broker wrote it", async () => {
    const dead = await queueOf("quorum");
    const queue = await queueOf("quorum", {
      "x-dead-letter-exchange": "",
      "x-dead-letter-routing-key": dead,
      "x-delivery-limit": 1,
    });
    channel.sendToQueue(queue, Buffer.from("poison"), { persistent: true });
    const source = await sourceOf(bridge, { queue });
    await (await next(source)).nack();
    const again = await next(source);
    expect(again.messages[0]?.origin?.redelivered).toBe(true);
    await again.nack();
    const letters = await sourceOf(bridge, { queue: dead });
    const [letter] = await take(letters, 1);
    const death = letter?.headers.find(({ name }) => name === "x-death");
    const told = JSON.parse(text(death?.value ?? null)) as { queue: string; reason: string }[];
    expect(told[0]).toMatchObject({ queue, reason: "delivery_limit" });
    await source[Symbol.asyncDispose]();
    await letters[Symbol.asyncDispose]();
  });

  test("priorities and lifetimes are the broker's to act on", async () => {
    const queue = await queueOf("classic", { "x-max-priority": 5 });
    const sink = await sinkTo(bridge, { queue });
    await send(sink, { queue }, [
      message({ body: encodeText("low"), properties: { priority: 1 } }),
      message({ body: encodeText("high"), properties: { priority: 5 } }),
    ]);
    const source = await sourceOf(bridge, { queue });
    const seen = await take(source, 2);
    expect(seen.map(({ body, properties }) => [text(body), properties.priority])).toEqual([
      ["high", 5],
      ["low", 1],
    ]);
    await source[Symbol.asyncDispose]();
    const brief = await queueOf("classic");
    await send(await sinkTo(bridge, { queue: brief }), { queue: brief }, [
      message({ properties: { expiresAtMs: Date.now() + 50 } }),
    ]);
    await waitFor(
      "the broker has thrown it away",
      async () => (await channel.checkQueue(brief)).messageCount === 0,
    );
  });
});
