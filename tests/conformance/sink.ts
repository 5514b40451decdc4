/** Behaviours of sending: what arrives, in which order, and what each message is told. */
import { expect } from "bun:test";
import { InvalidError } from "../../src/errors.ts";
import { encodeText, type Header, type Message, type Properties } from "../../src/message.ts";
import type { Case, Conformance } from "./bridge.ts";
import { bodyText, settles, type Session } from "./session.ts";

const needsSink = ({ module }: Conformance): string | null =>
  module.capabilities.sink ? null : "the kind has no sink";

const ordered = (subject: Conformance): string | null =>
  needsSink(subject) ?? (subject.module.capabilities.order === "none" ? "no order declared" : null);

const DEFAULT_PROPERTIES: readonly (keyof Properties)[] = [
  "contentType",
  "contentEncoding",
  "correlationId",
  "replyTo",
  "type",
  "priority",
  "expiresAtMs",
  "messageId",
  "appId",
];
/** Lifetimes are counted down on the way, in whole seconds by some protocols. */
const EXPIRY_TOLERANCE_MS = 5000;

function allBytes(): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_, index) => index);
}

function pseudoRandom(bytes: number): Uint8Array {
  let state = 12_345;
  return Uint8Array.from({ length: bytes }, () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return state >> 16;
  });
}

async function roundTrip(session: Session, messages: readonly Message[]): Promise<Message[]> {
  const read = await session.reader();
  const sink = await session.sink();
  // One at a time: the order of arrival then is the order of sending, whatever the partitions are.
  const arrived: Message[] = [];
  for (const message of messages) await session.sendAll(sink, [message]);
  arrived.push(...(await read(messages.length)));
  return arrived;
}

function byId(arrived: readonly Message[], sent: readonly Message[]): (Message | undefined)[] {
  return sent.map((message) => arrived.find((other) => other.id === message.id));
}

/** Pairs what arrived with what was sent, by a marker in the key, the body or the id. */
function byBody(arrived: readonly Message[], sent: readonly Message[]): (Message | undefined)[] {
  return sent.map((message) => arrived.find((other) => bodyText(other) === bodyText(message)));
}

function bytesOf(value: Uint8Array | null): string {
  return value === null ? "null" : `x${Buffer.from(value).toString("hex")}`;
}

function shown(headers: readonly Header[]): string[] {
  return headers.map((header) => `${header.name}=${bytesOf(header.value)}`);
}

function text(name: string, value: string): Header {
  return { name, value: encodeText(value) };
}

const headerSets: Readonly<Record<"bytes" | "text" | "table", readonly Header[]>> = {
  bytes: [
    text("a", "1"),
    { name: "b", value: null },
    { name: "a", value: Uint8Array.of(0, 255, 128) },
    { name: "", value: new Uint8Array(0) },
    text("2", "two"),
    text("1", "one"),
    text("a", "1"),
    text("constructor", "c"),
    text("__proto__", "p"),
    text("käse", "ü€😀"),
    { name: "b", value: new Uint8Array(0) },
  ],
  text: [text("a", "1"), text("b", "x"), text("a", "2"), text("käse", "ü€😀"), text("a", "1")],
  table: [text("a", "1"), text("b", "x"), text("kaese", "ü€😀"), text("constructor", "c")],
};

async function checkHeaders(session: Session, subject: Conformance): Promise<void> {
  const declared = subject.module.capabilities.headers;
  if (declared === "none") return;
  const headers = headerSets[declared];
  const sent = [session.message({ headers }), session.message({ headers: [] })];
  const arrived = byBody(await roundTrip(session, sent), sent);
  const sort = (list: string[]): string[] => (declared === "table" ? list.sort() : list);
  expect(sort(shown(arrived[0]?.headers ?? []))).toEqual(sort(shown(headers)));
  expect(shown(arrived[1]?.headers ?? [])).toEqual([]);
}

async function checkProperties(session: Session, subject: Conformance): Promise<void> {
  const all: Required<Properties> = {
    contentType: "application/json",
    contentEncoding: "gzip",
    correlationId: "correlation-7",
    replyTo: "replies",
    type: "order.created",
    priority: 5,
    expiresAtMs: Date.now() + 600_000,
    messageId: "producer-42",
    userId: "guest",
    appId: "shop",
    durable: true,
    retain: true,
    textBody: true,
  };
  const carried = subject.properties ?? DEFAULT_PROPERTIES;
  const properties: Properties = Object.fromEntries(carried.map((name) => [name, all[name]]));
  const sent = [session.message({ properties, body: encodeText('{"a":1}') }), session.message()];
  const [full, empty] = byBody(await roundTrip(session, sent), sent);
  for (const name of carried) {
    const value = full?.properties[name];
    if (name === "expiresAtMs") {
      expect(Math.abs(Number(value) - all.expiresAtMs)).toBeLessThan(EXPIRY_TOLERANCE_MS);
    } else {
      const plain = value instanceof Uint8Array ? Buffer.from(value).toString() : value;
      expect<unknown>({ [name]: plain }).toEqual({ [name]: all[name] });
    }
  }
  for (const name of carried) {
    if (name !== "durable" && name !== "textBody") {
      expect({ [name]: empty?.properties[name] }).toEqual({ [name]: undefined });
    }
  }
}

async function checkOverlap(session: Session, count: number): Promise<void> {
  const read = await session.reader();
  const sink = await session.sink();
  const sent = session.messages(count, () => ({ key: encodeText("same") }));
  const outgoing = await session.outgoing(sent);
  const calls = outgoing.map((one) => sink.send([one], session.signal));
  const outcomes = await settles("overlapping sends", Promise.all(calls));
  for (const outcome of outcomes) expect(outcome[0]).toHaveProperty("sent");
  const arrived = await read(count);
  expect(arrived.map(bodyText)).toEqual(sent.map(bodyText));
}

async function checkRefused(session: Session, subject: Conformance): Promise<void> {
  const read = await session.reader();
  const sink = await session.sink();
  const sent = session.messages(5, () => ({ key: encodeText("same") }));
  const bad = subject.refused?.(session.message({ key: encodeText("same") }));
  if (bad === undefined) return;
  const batch = [...sent.slice(0, 2), bad, ...sent.slice(2)];
  const outcomes = await settles("send", session.send(sink, batch));
  expect(outcomes.length).toBe(batch.length);
  expect(outcomes[0]).toHaveProperty("sent");
  expect(outcomes[1]).toHaveProperty("sent");
  expect(outcomes[2]).toMatchObject({ refused: expect.any(String), final: true });
  const after = outcomes.slice(3);
  if (subject.module.capabilities.failure === "independent") {
    for (const outcome of after) expect(outcome).toHaveProperty("sent");
  } else {
    for (const outcome of after) expect(outcome).not.toHaveProperty("sent");
    await session.sendAll(sink, sent.slice(2));
  }
  const arrived = await read(sent.length);
  expect([...new Set(arrived.map(bodyText))]).toEqual(sent.map(bodyText));
}

export const sinkBehaviours: readonly Case[] = [
  {
    name: "keeps the order of equal keys",
    notFor: ordered,
    run: async (session, { module }) => {
      const read = await session.reader();
      const sink = await session.sink();
      const keyOf = (index: number): string =>
        module.capabilities.key ? `key ${index % 5}` : "none";
      const sent = session.messages(300, (index) => ({
        key: encodeText(keyOf(index)),
        body: encodeText(`${keyOf(index)}/${index}`),
      }));
      for (let at = 0; at < sent.length; at += 60) {
        await session.sendAll(sink, sent.slice(at, at + 60));
      }
      const arrived = (await read(sent.length)).map(bodyText);
      expect(arrived.length).toBe(sent.length);
      for (let key = 0; key < 5; key += 1) {
        const ofKey = (texts: readonly string[]): string[] =>
          texts.filter((body) => body.startsWith(`${keyOf(key)}/`));
        expect(ofKey(arrived)).toEqual(ofKey(sent.map(bodyText)));
      }
    },
  },
  {
    name: "carries bodies byte for byte",
    notFor: needsSink,
    run: async (session) => {
      const bodies = [allBytes(), new Uint8Array(0), pseudoRandom(200_000), encodeText("ü€😀\0")];
      const sent = bodies.map((body) => session.message({ body }));
      const arrived = await roundTrip(session, sent);
      expect(arrived.map((message) => bytesOf(message.body)).sort()).toEqual(
        bodies.map(bytesOf).sort(),
      );
    },
  },
  {
    name: "tells a tombstone from an empty body",
    notFor: (subject) =>
      needsSink(subject) ??
      (subject.module.capabilities.tombstones ? null : "no tombstones declared"),
    run: async (session) => {
      const sent = [
        session.message({ key: encodeText("k"), body: null }),
        session.message({ key: encodeText("k"), body: new Uint8Array(0) }),
      ];
      const arrived = await roundTrip(session, sent);
      expect(arrived.map((message) => bytesOf(message.body))).toEqual(["null", "x"]);
    },
  },
  {
    name: "carries keys byte for byte, and their absence",
    notFor: (subject) =>
      needsSink(subject) ?? (subject.module.capabilities.key ? null : "no keys declared"),
    run: async (session) => {
      const keys = [null, new Uint8Array(0), allBytes(), encodeText("schlüssel")];
      const sent = keys.map((key) => session.message({ key }));
      const arrived = byBody(await roundTrip(session, sent), sent);
      expect(arrived.map((message) => bytesOf(message?.key ?? null))).toEqual(keys.map(bytesOf));
    },
  },
  {
    name: "carries headers as far as declared",
    notFor: (subject) =>
      needsSink(subject) ??
      (subject.module.capabilities.headers === "none" ? "no headers declared" : null),
    run: checkHeaders,
  },
  {
    name: "carries the properties of the mapping table",
    notFor: needsSink,
    run: checkProperties,
  },
  {
    name: "keeps the message id",
    notFor: needsSink,
    run: async (session) => {
      const sent = [session.message(), session.message({ id: "ü".repeat(64) })];
      const arrived = byId(await roundTrip(session, sent), sent);
      expect(arrived.map((message) => message?.id)).toEqual(sent.map((message) => message.id));
    },
  },
  {
    name: "keeps the timestamp",
    notFor: needsSink,
    run: async (session, { timestampUnitMs = 1 }) => {
      const sent = [1_700_000_000_123, 1_600_000_000_999].map((timestampMs) =>
        session.message({ timestampMs }),
      );
      const arrived = byBody(await roundTrip(session, sent), sent);
      for (const [index, message] of sent.entries()) {
        const difference = Math.abs((arrived[index]?.timestampMs ?? 0) - message.timestampMs);
        expect(difference).toBeLessThan(timestampUnitMs);
      }
    },
  },
  {
    name: "gives each message its outcome at its index",
    notFor: needsSink,
    run: async (session) => {
      const read = await session.reader();
      const sink = await session.sink();
      const sent = session.messages(50);
      const outcomes = await session.send(sink, sent);
      expect(outcomes.length).toBe(sent.length);
      for (const outcome of outcomes) expect(outcome).toHaveProperty("sent");
      expect(await session.send(sink, [])).toEqual([]);
      const arrived = await read(sent.length);
      expect(arrived.map(bodyText).sort()).toEqual(sent.map(bodyText).sort());
    },
  },
  {
    name: "keeps the order of overlapping sends",
    notFor: ordered,
    run: async (session, subject) => {
      for (const count of [2, 3, 100]) {
        await using inner = session.fresh(subject);
        await checkOverlap(inner, count);
      }
    },
  },
  {
    name: "gives a refused message its outcome at its index",
    notFor: (subject) =>
      needsSink(subject) ?? (subject.refused === undefined ? "nothing is refused for good" : null),
    run: checkRefused,
  },
  {
    name: "resolves an aborted send",
    notFor: needsSink,
    run: async (session) => {
      const read = await session.reader();
      const sink = await session.sink();
      const outgoing = await session.outgoing(session.messages(10));
      const before = await settles("send", sink.send(outgoing, AbortSignal.abort()));
      expect(before.length).toBe(10);
      for (const outcome of before) {
        expect("sent" in outcome || "unknown" in outcome).toBe(true);
      }
      const abort = new AbortController();
      const running = sink.send(outgoing, abort.signal);
      abort.abort();
      expect((await settles("send", running)).length).toBe(10);
      const marker = session.message();
      await session.sendAll(sink, [marker]);
      const seen: Message[] = [];
      while (!seen.some((message) => bodyText(message) === bodyText(marker))) {
        seen.push(...(await read(1)));
      }
    },
  },
  {
    name: "refuses a missing place",
    notFor: (subject) =>
      needsSink(subject) ?? (subject.missingSink === undefined ? "no place can be missing" : null),
    run: async (session, { module, missingSink }) => {
      const bridge = await session.connect();
      const address = module.parseAddress(missingSink ?? {}, "sink");
      const error = await settles(
        "sink",
        bridge.sink(address).then(
          () => null,
          (thrown: unknown) => thrown,
        ),
      );
      expect(error).toBeInstanceOf(InvalidError);
      expect((error as InvalidError).message).toContain("create: true");
    },
  },
];
