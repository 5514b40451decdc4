/**
 * From any bridge through any other and back, a message is what it was: the gateway's view of it
 * and the bytes on the first protocol's wire. A failure prints the seed that replays it.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { mapping } from "../../bridges/mapping.ts";
import { isProperty } from "../../bridges/mapping-carry.ts";
import type { MappedField } from "../../src/bridge.ts";
import { encodeText, type Message, type Properties, textHeader } from "../../src/message.ts";
import {
  amqpTable,
  amqpTaken,
  nowMs,
  pairs,
  plain,
  type Passed,
  type Wire,
  wires,
} from "./wires.ts";

function message(parts: Partial<Message> = {}): Message {
  return {
    id: "id-1",
    key: null,
    properties: {},
    headers: [],
    body: encodeText("body"),
    timestampMs: nowMs,
    origin: null,
    ...parts,
  };
}

function passed(result: Passed): { readonly message: Message; readonly wire: string } {
  if ("refused" in result) throw new Error(result.refused);
  return result;
}

/** Sends a message out as A has it, through B, and back out as A: what A's wire then says. */
function thereAndBack(from: Wire, to: Wire, given: Message): "same" | "refused" {
  const first = from.pass(given);
  if ("refused" in first) return "refused";
  const original = first.message;
  const again = passed(from.pass(original));
  const through = to.pass(original);
  if ("refused" in through) return "refused";
  const back = passed(from.pass(through.message));
  expect(plain(through.message)).toEqual(plain(original));
  expect(plain(back.message)).toEqual(plain(original));
  expect(back.wire).toBe(again.wire);
  return "same";
}

/** For each property a value that every protocol takes. */
const values: Required<Properties> = {
  contentType: "application/json",
  contentEncoding: "gzip",
  correlationId: "c-1",
  replyTo: "replies/1",
  type: "order",
  priority: 7,
  expiresAtMs: nowMs + 61_234,
  messageId: "producer-1",
  userId: "someone",
  appId: "shop",
  durable: false,
  retain: true,
  textBody: true,
};

const fields: Readonly<Record<Exclude<MappedField, keyof Properties>, Partial<Message>>> = {
  address: {},
  id: { id: "ü-\u{1f300}" },
  key: { key: Uint8Array.of(0, 255, 10) },
  body: { body: Uint8Array.of(0, 128, 255) },
  tombstone: { body: null },
  headers: {
    headers: [
      { name: "a", value: encodeText("1") },
      { name: "b", value: Uint8Array.of(255, 0) },
      { name: "a", value: null },
      { name: "a", value: new Uint8Array(0) },
      { name: "7", value: encodeText("ü") },
    ],
  },
  timestampMs: { timestampMs: 1_699_999_999_123 },
};

describe("every row of the mapping table through every ordered pair of bridges", () => {
  for (const [from, to] of pairs) {
    test(`${from.protocol} → ${to.protocol} → ${from.protocol}`, () => {
      for (const { field } of mapping[from.protocol]) {
        const parts = isProperty(field)
          ? { properties: { [field]: values[field] } }
          : fields[field];
        expect([field, thereAndBack(from, to, message(parts))]).toEqual([field, "same"]);
      }
      const all = message({ ...fields.headers, ...fields.key, properties: values });
      expect(thereAndBack(from, to, all)).toBe("same");
    });
  }
});

const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 24 }),
  fc.string({ unit: "binary", maxLength: 12 }).map(encodeText),
);
const ownNames = wires.flatMap(({ protocol }) =>
  mapping[protocol].flatMap(({ place, spare, by }) => [
    ...(by === "header" ? [place, `${place}-base64`] : []),
    ...(spare === undefined ? [] : [spare]),
  ]),
);
const name = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom("a", "b", "A", "7", "0", "__proto__", "CC", "a#2") },
  { weight: 4, arbitrary: fc.string({ minLength: 1, maxLength: 8 }) },
  { weight: 2, arbitrary: fc.string({ unit: "grapheme", minLength: 1, maxLength: 4 }) },
  { weight: 1, arbitrary: fc.constantFrom(...ownNames) },
  { weight: 1, arbitrary: fc.constantFrom(...ownNames).map((own) => `isthmus-header-${own}`) },
);
const text = fc.oneof(
  fc.string({ maxLength: 12 }),
  fc.string({ unit: "binary", maxLength: 6 }),
  fc.constantFrom("a/#", "a\nb", "\0", "", " x "),
);
const properties: fc.Arbitrary<Properties> = fc.record(
  {
    contentType: text,
    contentEncoding: text,
    correlationId: fc.oneof(text, fc.uint8Array({ maxLength: 12 }), fc.constant("x".repeat(300))),
    replyTo: text,
    type: text,
    priority: fc.integer({ min: 0, max: 255 }),
    expiresAtMs: fc.integer({ min: nowMs, max: nowMs + 1e12 }),
    messageId: fc.oneof(text, fc.constant("m".repeat(400))),
    userId: text,
    appId: text,
    durable: fc.boolean(),
    retain: fc.boolean(),
    textBody: fc.boolean(),
  },
  { requiredKeys: [] },
);
const anyMessage: fc.Arbitrary<Message> = fc.record({
  id: fc.oneof(fc.uuid(), fc.string({ unit: "binary", minLength: 1, maxLength: 30 })),
  key: fc.option(bytes),
  properties,
  headers: fc.array(fc.record({ name, value: fc.option(bytes) }), { maxLength: 8 }),
  body: fc.oneof(
    fc.constant(null),
    bytes,
    fc.integer({ min: 1, max: 300_000 }).map((size) => new Uint8Array(size).fill(size & 0xff)),
  ),
  timestampMs: fc.oneof(fc.integer({ min: -1, max: 4e12 }), fc.constant(nowMs)),
  origin: fc.constant(null),
});

const scalar = fc.oneof(
  fc.boolean(),
  fc.integer(),
  fc
    .double({ noNaN: true, noDefaultInfinity: true })
    .filter((value) => !Object.is(value, -0))
    .map((value) => ({ "!": "double", value })),
  fc.string({ unit: "binary", maxLength: 8 }),
  fc.uint8Array({ maxLength: 8 }).map((value) => Buffer.from(value)),
  fc.integer({ min: 0, max: 4e9 }).map((value) => ({ "!": "timestamp", value })),
  fc
    .record({ places: fc.integer({ min: 0, max: 9 }), digits: fc.integer({ min: 0, max: 4e9 }) })
    .map((value) => ({ "!": "decimal", value })),
  fc.constant(null),
);
const { typedTable } = fc.letrec((tie) => ({
  typedTable: fc.dictionary(fc.constantFrom("a", "b", "x-death", "n"), tie("value"), {
    maxKeys: 4,
    noNullPrototype: true,
  }),
  value: fc.oneof(
    { maxDepth: 3 },
    scalar,
    fc.array(tie("value"), { maxLength: 3 }),
    tie("typedTable"),
  ),
}));

describe("an AMQP field table of any types", () => {
  for (const to of wires) {
    test(`is the same again after ${to.protocol}, unless a header was changed`, () => {
      fc.assert(
        fc.property(typedTable, (table) => {
          const { message: taken, arrived } = amqpTaken(table as Record<string, unknown>);
          const through = passed(to.pass(taken)).message;
          expect(amqpTable(through)).toEqual(amqpTable(taken));
          expect(amqpTable(through)).toEqual(arrived);
          const [first, ...rest] = through.headers;
          if (first === undefined || first.name === "isthmus-amqp") return;
          const changed = {
            ...through,
            headers: [{ ...first, value: encodeText("changed here") }, ...rest],
          };
          expect(amqpTable(changed)[first.name]).toBe("changed here");
        }),
        { numRuns: 100 },
      );
    });
  }

  test("does not take from the header of ours what the client library would choke on", () => {
    for (const forged of [
      '{"a":{"!":"void","value":1}}',
      '{"a":{"!":"decimal"}}',
      "[]",
      "1",
      "{",
    ]) {
      const headers = [textHeader("a", "1"), textHeader("isthmus-amqp", forged)];
      expect(amqpTable(message({ headers }))).toEqual({ a: "1", "isthmus-amqp": forged });
    }
  });
});

describe("any message", () => {
  for (const [from, to] of pairs) {
    test(`${from.protocol} → ${to.protocol} → ${from.protocol} is the same or refused`, () => {
      let same = 0;
      fc.assert(
        fc.property(anyMessage, (given) => {
          if (thereAndBack(from, to, given) === "same") same += 1;
        }),
        { numRuns: 150 },
      );
      expect(same).toBeGreaterThan(30);
    });
  }
});
