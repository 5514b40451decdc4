/** The AMQP codec: what a message becomes and comes back as. */
import { describe, expect, test } from "bun:test";
import type { ConsumeMessage } from "amqplib";
import fc from "fast-check";
import { decodeMessage, encodeMessage, type Publication } from "../../../bridges/amqp/codec.ts";
import { decodeHeaders, encodeHeaders, tableKeys } from "../../../bridges/amqp/table.ts";
import { encodeText, type Header, type Message } from "../../../src/message.ts";

const nowMs = 1_700_000_000_000;
const limits = { nowMs, frameBytesMax: 131_072 };

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

function encoded(parts: Partial<Message>): Publication {
  const publication = encodeMessage(message(parts), limits);
  if ("refused" in publication) throw new Error(publication.refused);
  return publication;
}

function refusal(parts: Partial<Message>): string {
  const publication = encodeMessage(message(parts), limits);
  return "refused" in publication ? publication.refused : "taken";
}

/** A delivery as the client library gives it. */
function delivery(
  properties: Record<string, unknown>,
  content: Buffer = Buffer.from("body"),
): ConsumeMessage {
  return {
    content,
    fields: {
      deliveryTag: 1,
      redelivered: true,
      exchange: "orders",
      routingKey: "orders.eu",
      consumerTag: "c",
    },
    properties: { headers: {}, deliveryMode: 2, ...properties } as ConsumeMessage["properties"],
  };
}

const place = { bridge: "rabbit", queue: "q" };

function roundTrip(parts: Partial<Message>): Message {
  const { content, options } = encoded(parts);
  return decodeMessage(delivery({ ...options }, content), place, nowMs);
}

describe("headers in an AMQP table", () => {
  const bytes = fc.uint8Array({ maxLength: 20 });
  const name = fc.oneof(
    fc.constantFrom(
      "a",
      "b",
      "a#2",
      "a#2#2",
      "1",
      "0",
      "CC",
      "BCC",
      "__proto__",
      "isthmus-key",
      "",
    ),
    fc.string({ unit: "binary", maxLength: 8 }),
  );
  const header = fc.record({ name, value: fc.option(bytes) });

  test("come back with the same names, bytes, nulls and order, whatever they are", () => {
    fc.assert(
      fc.property(fc.array(header, { maxLength: 12 }), (headers: Header[]) => {
        const table = encodeHeaders(headers);
        const back = decodeHeaders({ ...table }).headers;
        const shown = (list: readonly Header[]): string[] =>
          list.map(
            ({ name: n, value }) =>
              `${n}=${value === null ? "null" : Buffer.from(value).toString("hex")}`,
          );
        expect(shown(back)).toEqual(shown(headers));
      }),
    );
  });

  test("stand under their own names as long as a table can hold them so", () => {
    const table = encodeHeaders([
      { name: "region", value: encodeText("eu") },
      { name: "raw", value: Uint8Array.of(255, 0) },
      { name: "none", value: null },
    ]);
    expect({ ...table }).toEqual({ region: "eu", raw: Buffer.from([255, 0]), none: null });
  });

  test("repeat under names with a number", () => {
    expect(tableKeys(["a", "a", "a#2", "a"])).toEqual(["a", "a#2", "a#2#2", "a#3"]);
    const headers = ["1", "2"].map((value) => ({ name: "a", value: encodeText(value) }));
    expect({ ...encodeHeaders(headers) }).toEqual({
      a: "1",
      "a#2": "2",
      "isthmus-header-names": '["a","a"]',
    });
  });

  test("of other programs are taken as they stand, their types as JSON text", () => {
    const death = [{ count: 2, queue: "q", time: { "!": "timestamp", value: 1_700_000_000 } }];
    const { headers } = decodeHeaders({
      int: 5,
      yes: true,
      none: null,
      "a#2": "kept",
      big: 1.5,
      price: { "!": "decimal", value: { places: 2, digits: 314 } },
      when: { "!": "timestamp", value: 17 },
      "x-death": death,
      nested: { bytes: Buffer.from([255]), text: Buffer.from("t") },
      "isthmus-header-names": "not ours",
    });
    expect(
      headers.map(({ name: n, value }) => [
        n,
        value === null ? null : Buffer.from(value).toString(),
      ]),
    ).toEqual([
      ["int", "5"],
      ["yes", "true"],
      ["none", null],
      ["a#2", "kept"],
      ["big", "1.5"],
      ["price", "3.14"],
      ["when", "17"],
      ["x-death", '[{"count":2,"queue":"q","time":1700000000}]'],
      ["nested", '{"bytes":{"base64":"/w=="},"text":"t"}'],
    ]);
  });
});

describe("a message as a publication", () => {
  test("carries every property of the mapping table", () => {
    const properties = {
      contentType: "application/json",
      contentEncoding: "gzip",
      correlationId: "c",
      replyTo: "replies",
      type: "order",
      priority: 9,
      expiresAtMs: nowMs + 60_000,
      messageId: "producer-1",
      appId: "shop",
    };
    const { options } = encoded({ properties });
    expect(options).toMatchObject({
      contentType: "application/json",
      contentEncoding: "gzip",
      correlationId: "c",
      replyTo: "replies",
      type: "order",
      priority: 9,
      expiration: "60000",
      messageId: "producer-1",
      appId: "shop",
      deliveryMode: 2,
      timestamp: nowMs / 1000,
    });
    expect(options.userId).toBeUndefined();
    expect(roundTrip({ properties }).properties).toEqual(properties);
  });

  test("leaves the user id out, which RabbitMQ compares with the login", () => {
    expect(encoded({ properties: { userId: "someone" } }).options.userId).toBeUndefined();
  });

  test("keeps bytes and long texts that a short string can't hold", () => {
    for (const correlationId of [Uint8Array.of(0, 255), "x".repeat(300)]) {
      const back = roundTrip({ properties: { correlationId } }).properties.correlationId;
      expect(back).toEqual(correlationId);
    }
    const messageId = "m".repeat(300);
    const long = roundTrip({ properties: { messageId } });
    expect([long.id, long.properties.messageId]).toEqual(["id-1", messageId]);
  });

  test("keeps keys and tombstones apart from their absence", () => {
    for (const key of [null, new Uint8Array(0), encodeText("k"), Uint8Array.of(254)]) {
      expect(roundTrip({ key }).key).toEqual(key);
    }
    expect(roundTrip({ body: null }).body).toBeNull();
    expect(roundTrip({ body: new Uint8Array(0) }).body).toEqual(new Uint8Array(0));
  });

  test("leaves out a time before 1970 and never expires in the past", () => {
    expect(encoded({ timestampMs: -1 }).options.timestamp).toBeUndefined();
    expect(encoded({ properties: { expiresAtMs: nowMs - 5 } }).options.expiration).toBe("0");
    expect(encoded({ properties: { expiresAtMs: nowMs * 9 } }).options.expiration).toBe(
      "4294967295",
    );
  });

  test("is refused in words when the protocol can't hold it", () => {
    expect(refusal({ properties: { contentType: "x".repeat(256) } })).toContain("contentType");
    expect(refusal({ properties: { priority: 256 } })).toContain("0 to 255");
    expect(refusal({ properties: { priority: 1.5 } })).toContain("0 to 255");
    expect(refusal({ headers: [{ name: "n".repeat(256), value: null }] })).toContain(
      "longer than 255",
    );
    const big = { name: "big", value: new Uint8Array(70_000) };
    expect(refusal({ headers: [big] })).toContain("the headers take");
  });
});

describe("a delivery as a message", () => {
  test("has the queue, exchange, routing key and the redelivered flag in its origin", () => {
    expect(decodeMessage(delivery({}), place, nowMs).origin).toEqual({
      bridge: "rabbit",
      address: "q",
      partition: null,
      offset: null,
      hops: ["/rabbit/exchange%20orders/orders.eu"],
      params: { exchange: "orders", routingKey: "orders.eu" },
      redelivered: true,
    });
  });

  test("has the producer's message id as its own where it fits", () => {
    const idOf = (messageId: unknown): string =>
      decodeMessage(delivery({ messageId }), place, nowMs).id;
    expect(idOf("order-1")).toBe("order-1");
    expect(idOf("x".repeat(200))).toBe(idOf("x".repeat(200)));
    expect(idOf("x".repeat(200)).length).toBeLessThanOrEqual(128);
    expect(idOf(undefined)).not.toBe(idOf(undefined));
  });

  test("takes what anyone may have put into its properties", () => {
    const odd = delivery({
      timestamp: 1e18,
      expiration: "soon",
      priority: "high",
      deliveryMode: 1,
      headers: undefined,
    });
    const { properties, timestampMs } = decodeMessage(odd, place, nowMs);
    expect(properties).toEqual({ durable: false });
    expect(timestampMs).toBe(nowMs);
  });
});
