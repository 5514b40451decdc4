/** Message to record and back, and records that others wrote. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decodeRecord, encodeRecord, type OutRecord } from "../../../bridges/kafka/codec.ts";
import { encodeText, type Header, type Message, type Properties } from "../../../src/message.ts";

const place = { bridge: "eu", topic: "orders" };

function message(parts: Partial<Message> = {}): Message {
  return {
    id: "m-1",
    key: null,
    properties: {},
    headers: [],
    body: encodeText("{}"),
    timestampMs: 1_700_000_000_123,
    origin: null,
    ...parts,
  };
}

function received(record: OutRecord): Message {
  const headers = record.headers.map(
    ([name, value]): Header => ({ name: name.toString("utf8"), value }),
  );
  const { key, value, timestampMs } = record;
  return decodeRecord({ partition: 3, offset: "42", timestampMs, key, value, headers }, place);
}

function decoded(headers: readonly Header[]): Message {
  return decodeRecord(
    { partition: 0, offset: "7", timestampMs: 5, key: null, value: null, headers },
    place,
  );
}

const bytes = fc.uint8Array({ maxLength: 40 });
const header = fc.record({
  name: fc.string({ unit: "grapheme", maxLength: 12 }),
  value: fc.option(bytes, { nil: null }),
});
const text = fc.string({ unit: "grapheme", maxLength: 20 });
const properties: fc.Arbitrary<Properties> = fc.record(
  {
    contentType: text,
    contentEncoding: text,
    correlationId: text,
    replyTo: text,
    type: text,
    priority: fc.nat(255),
    expiresAtMs: fc.nat(2_000_000_000),
    messageId: text,
    userId: text,
    appId: text,
    durable: fc.boolean(),
    retain: fc.boolean(),
    textBody: fc.boolean(),
  },
  { requiredKeys: [] },
);

describe("records", () => {
  test("give the same message back", () => {
    fc.assert(
      fc.property(
        fc.array(header, { maxLength: 6 }),
        properties,
        fc.option(bytes, { nil: null }),
        fc.option(bytes, { nil: null }),
        (headers, props, key, body) => {
          const sent = message({ headers, properties: props, key, body });
          const back = received(encodeRecord(sent));
          expect<unknown>({ ...back, origin: null }).toEqual({
            ...sent,
            key: key === null ? null : Buffer.from(key),
            body: body === null ? null : Buffer.from(body),
            headers: headers.map(({ name, value }) => ({
              name,
              value: value === null ? null : Buffer.from(value),
            })),
          });
        },
      ),
      { numRuns: 300 },
    );
  });

  test("keep a binary correlation id as bytes", () => {
    const correlationId = Uint8Array.of(0xff, 0x00, 0xfe);
    const back = received(encodeRecord(message({ properties: { correlationId } })));
    expect(new Uint8Array(back.properties.correlationId as Uint8Array)).toEqual(correlationId);
  });

  test("take a foreign content-type as a property and keep a repeated one as headers", () => {
    const json = encodeText("application/json");
    expect(decoded([{ name: "content-type", value: json }])).toMatchObject({
      properties: { contentType: "application/json" },
      headers: [],
    });
    const twice = [
      { name: "content-type", value: json },
      { name: "content-type", value: encodeText("text/plain") },
    ];
    expect(decoded(twice)).toMatchObject({ properties: {}, headers: twice });
  });

  test("keep as headers what is not well formed", () => {
    const headers = [
      { name: "isthmus_priority", value: encodeText("high") },
      { name: "isthmus_durable", value: encodeText("yes") },
      { name: "content-type", value: Uint8Array.of(0xff) },
      { name: "isthmus_type", value: null },
      { name: "isthmus-id", value: new Uint8Array(129).fill(97) },
    ];
    expect(decoded(headers)).toMatchObject({ properties: {}, headers, id: "eu/orders/0/7" });
  });

  test("without an id of ours are known by their place, in at most 128 bytes", () => {
    expect(decoded([]).id).toBe("eu/orders/0/7");
    const record = {
      partition: 999,
      offset: "9223372036854775807",
      timestampMs: 1,
      key: null,
      value: null,
      headers: [],
    };
    const long = decodeRecord(record, { bridge: "b".repeat(100), topic: "t".repeat(249) });
    expect(Buffer.byteLength(long.id)).toBeLessThanOrEqual(128);
    expect(long.id).toEndWith("/999/9223372036854775807");
    expect(decodeRecord(record, { bridge: "b".repeat(100), topic: "t".repeat(248) }).id).not.toBe(
      long.id,
    );
  });

  test("carry where they came from", () => {
    expect(received(encodeRecord(message())).origin).toEqual({
      bridge: "eu",
      address: "orders",
      partition: 3,
      offset: "42",
      hops: [],
    });
  });
});
