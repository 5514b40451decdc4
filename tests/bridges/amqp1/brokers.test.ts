/** What the AMQP 1.0 bridge does on each of its brokers, which are not alike. */
import { describe, expect, test } from "bun:test";
import rhea from "rhea";
import { InvalidError } from "../../../src/errors.ts";
import { type BrokerKind, broker, missingBroker } from "../../brokers/broker.ts";
import {
  fresh,
  hold,
  isSilent,
  message,
  open,
  type Place,
  raw,
  send,
  sinkTo,
  sourceOf,
  take,
  textOf,
} from "./support.ts";

const names = { amqp1: "Artemis", activemq: "ActiveMQ Classic", amqp: "RabbitMQ" } as const;
const places = (kind: BrokerKind): string => names[kind as keyof typeof names];

/** Opens a bridge to the shared broker of a kind. */
async function openAt(kind: BrokerKind, parts: Record<string, unknown> = {}, name?: string) {
  return await open({ url: (await broker(kind)).url, ...parts }, name);
}

const texts = (messages: readonly Parameters<typeof textOf>[0][]): string[] => messages.map(textOf);

for (const kind of ["amqp1", "activemq", "amqp"] as const) {
  const lacks = missingBroker(kind);
  describe.skipIf(lacks !== null)(`${places(kind)} ${lacks ?? ""}`, () => {
    for (const released of [0, 1] as const) {
      test(`message ${released} of two is released in the turn in which the other is accepted`, async () => {
        await using bridge = await openAt(kind);
        const queue: Place = { queue: fresh("apart"), create: true };
        const source = await sourceOf(bridge, queue);
        const sink = await sinkTo(bridge, queue);
        const held = [];
        for (const text of ["0", "1"]) {
          await send(sink, queue, [message(text)]);
          held.push(await hold(source, text));
        }
        // The same turn: the client library by itself would tell one outcome of both.
        const told = held.map((delivery, index) =>
          index === released ? delivery.nack() : delivery.ack(),
        );
        await Promise.all(told);
        expect(texts(await take(source, 1))).toEqual([String(released)]);
        await source[Symbol.asyncDispose]();
        expect(await isSilent(await sourceOf(bridge, queue))).toBe(true);
      });
    }
  });
}

for (const kind of ["amqp1", "activemq"] as const) {
  const lacks = missingBroker(kind);
  describe.skipIf(lacks !== null)(`${places(kind)} as a broker of JMS ${lacks ?? ""}`, () => {
    test("gives a selector's messages only; the others stay", async () => {
      await using bridge = await openAt(kind);
      const queue: Place = { queue: fresh("selected"), create: true };
      const region = (name: string) => ({
        headers: [{ name: "region", value: Buffer.from(name) }],
      });
      await send(await sinkTo(bridge, queue), queue, [
        message("us", region("us")),
        message("eu", region("eu")),
      ]);
      await using chosen = await sourceOf(bridge, { ...queue, selector: "region = 'eu'" });
      expect(texts(await take(chosen, 1))).toEqual(["eu"]);
      expect(await isSilent(chosen)).toBe(true);
      await using rest = await sourceOf(bridge, queue, "rest");
      expect(texts(await take(rest, 1))).toEqual(["us"]);
    });

    test("keeps for a durable subscription what comes while its reader is away", async () => {
      const topic: Place = { topic: fresh("durable"), create: true };
      const clientId = fresh("client");
      await using writing = await openAt(kind);
      const sink = await sinkTo(writing, topic);
      for (const [index, text] of ["first", "away"].entries()) {
        await using bridge = await openAt(kind, { clientId });
        const source = await sourceOf(bridge, topic, "subscriber");
        // The first was read before the goodbye, the second came after it.
        if (index === 0) await send(sink, topic, [message(text)]);
        expect(texts(await take(source, 1))).toEqual([text]);
        await bridge[Symbol.asyncDispose]();
        if (index === 0) await send(sink, topic, [message("away")]);
      }
    });

    test("gives each reader of a topic its copy, and nothing of before when it is not durable", async () => {
      const topic: Place = { topic: fresh("copies"), create: true, durable: false };
      const target = { topic: topic["topic"], create: true };
      await using bridge = await openAt(kind);
      const sink = await sinkTo(bridge, target);
      await send(sink, target, [message("before")]);
      const readers = [await sourceOf(bridge, topic, "one"), await sourceOf(bridge, topic, "two")];
      await send(sink, target, [message("after")]);
      for (const reader of readers) expect(texts(await take(reader, 1))).toEqual(["after"]);
    });
  });
}

describe.skipIf(missingBroker("amqp1") !== null)("Artemis alone", () => {
  test("shares a subscription between two readers", async () => {
    const topic = fresh("shared");
    const place: Place = { topic, shared: true, durable: "both", create: true };
    await using bridge = await openAt("amqp1", { clientId: fresh("client") });
    const readers = [await sourceOf(bridge, place, "one"), await sourceOf(bridge, place, "two")];
    const target = { topic, create: true };
    const sent = Array.from({ length: 20 }, (_, index) => message(String(index)));
    await send(await sinkTo(bridge, target), target, sent);
    const shares = await Promise.all(
      readers.map(async (reader) => {
        const seen: string[] = [];
        while (!(await isDry(reader, seen)));
        return seen;
      }),
    );
    expect(shares.every((share) => share.length > 0)).toBe(true);
    expect(shares.flat().toSorted()).toEqual(texts(sent).toSorted());
  });

  test("that is full is busy for the message that it rejects, which is not refused", async () => {
    await using bridge = await openAt("amqp1");
    const queue: Place = { queue: `full.${fresh("q")}`, create: true };
    const sink = await sinkTo(bridge, queue);
    for (const text of ["1", "2"]) {
      expect(await send(sink, queue, [message(text)])).toEqual([{ sent: null }]);
    }
    const outcomes = await send(sink, queue, [message("3")]);
    expect(outcomes).toEqual([{ busyMs: 1000, reason: expect.stringMatching(/full|credit/i) }]);
  });

  test("has every section of a message, typed, as it was after a way through the gateway", async () => {
    const { url } = await broker("amqp1");
    const [direct, input, output] = [fresh("direct"), fresh("in"), fresh("out")];
    const place = (address: string) => ({ address, capabilities: ["queue"] });
    await using client = await raw(url);
    for (const address of [direct, input]) await client.send(place(address), everything());
    const expected = await client.receive(place(direct), everything().length);
    await using bridge = await openAt("amqp1");
    const messages = await take(
      await sourceOf(bridge, { queue: input, create: true }),
      everything().length,
    );
    const target = { queue: output, create: true };
    const outcomes = await send(await sinkTo(bridge, target), target, messages);
    expect(outcomes.every((outcome) => "sent" in outcome)).toBe(true);
    const arrived = await client.receive(place(output), everything().length);
    expect(arrived.map(plain)).toEqual(expected.map(plain));
  });
});

describe.skipIf(missingBroker("amqp") !== null)("RabbitMQ's plugin alone", () => {
  test("has a queue that is not there told to writers, which it would not, and to readers", async () => {
    await using bridge = await openAt("amqp");
    const queue: Place = { queue: fresh("missing") };
    await expect(sinkTo(bridge, queue)).rejects.toThrow("does not exist");
    await expect(sourceOf(bridge, queue)).rejects.toThrow("does not exist");
    await using source = await sourceOf(bridge, { ...queue, create: true });
    const sink = await sinkTo(bridge, queue);
    expect(await send(sink, queue, [message("there")])).toEqual([{ sent: null }]);
    expect(texts(await take(source, 1))).toEqual(["there"]);
  });

  test("keeps no durable subscription and knows no selector, and that is said", async () => {
    await using bridge = await openAt("amqp");
    const topic = fresh("t");
    const durable = sourceOf(bridge, { topic });
    await expect(durable).rejects.toBeInstanceOf(InvalidError);
    await expect(durable).rejects.toThrow("durable: false");
    await using source = await sourceOf(bridge, { topic, durable: false });
    await send(await sinkTo(bridge, { topic }), { topic }, [message("now")]);
    expect(texts(await take(source, 1))).toEqual(["now"]);
    const queue: Place = { queue: fresh("q"), create: true, selector: "a = 1" };
    await expect(sourceOf(bridge, queue)).rejects.toThrow("does not know selectors");
  });
});

describe.skipIf(missingBroker("activemq") !== null)("ActiveMQ Classic alone", () => {
  test("shares no subscription, and that is said", async () => {
    await using bridge = await openAt("activemq", { clientId: fresh("client") });
    const place: Place = { topic: fresh("t"), shared: true, durable: "both" };
    await expect(sourceOf(bridge, place)).rejects.toThrow("does not share subscriptions");
  });
});

/** Takes one message, or tells that there is none. */
async function isDry(
  reader: Awaited<ReturnType<typeof sourceOf>>,
  seen: string[],
): Promise<boolean> {
  const delivery = await reader.receive(AbortSignal.timeout(1000));
  if (delivery === null) return true;
  seen.push(...delivery.messages.map(textOf));
  await delivery.ack();
  return false;
}

/**
 * A message but for `to`, which is the place that it was sent to, and for what says nothing: false
 * is what an absent `first-acquirer` means.
 */
function plain(one: rhea.Message): unknown {
  const { to: _, first_acquirer: isFirst = false, ...rest } = one;
  return JSON.parse(JSON.stringify({ ...rest, isFirst })) as unknown;
}

/** A message for each form of body, with all that the sections can hold. */
function everything(): rhea.Message[] {
  const { types } = rhea;
  const sections = {
    durable: true,
    priority: 7,
    first_acquirer: false,
    message_id: "id-1",
    user_id: "someone",
    to: "elsewhere",
    subject: "order",
    reply_to: "replies",
    correlation_id: types.wrap_ulong(5),
    content_type: "application/json",
    content_encoding: "gzip",
    creation_time: new Date(1_700_000_000_123),
    group_id: "group",
    group_sequence: 3,
    reply_to_group_id: "others",
    message_annotations: {
      "x-opt-jms-msg-type": types.wrap_byte(2),
      "x-opt-own": types.wrap_symbol("symbol"),
    },
    application_properties: {
      text: "ü",
      int: types.wrap_int(-5),
      long: types.wrap_long(1234567890123),
      ubyte: types.wrap_ubyte(255),
      float: types.wrap_float(0.5),
      double: types.wrap_double(0.1),
      flag: false,
      none: null,
      when: types.wrap_timestamp(1_700_000_000_123),
      uuid: types.wrap_uuid(Buffer.alloc(16, 7)),
      bytes: types.wrap_binary(Buffer.from([255, 0])),
    },
    footer: { "x-sum": types.wrap_uint(9) },
  };
  const bodies = [
    rhea.message.data_section(Buffer.from([0, 255, 1])),
    rhea.message.data_sections([Buffer.from("a"), Buffer.from("b")]),
    "a string",
    types.wrap_long(5),
    { map: types.wrap_int(1), nested: [1, "two"] },
    rhea.message.sequence_section([1, "two", types.wrap_symbol("three")]),
    null,
  ];
  return bodies.map((body) => ({ ...sections, body }) as unknown as rhea.Message);
}
