/** The MQTT codec: what a message becomes and comes back as. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { IPublishPacket } from "mqtt";
import { decodeMessage, encodeMessage } from "../../../bridges/mqtt/codec.ts";
import { decodeHeaders, encodeHeaders, type Pair } from "../../../bridges/mqtt/headers.ts";
import { parseFilter } from "../../../bridges/mqtt/topic.ts";
import { encodeText, type Header, type Message } from "../../../src/message.ts";

const nowMs = 1_700_000_000_000;

function message(parts: Partial<Message> = {}): Message {
  return {
    id: "id-1",
    key: null,
    properties: {},
    headers: [],
    body: encodeText("body"),
    timestampMs: 1_699_999_999_123,
    origin: null,
    ...parts,
  };
}

/** The pairs as the client library gives them: grouped by name, an empty first one forgotten. */
function grouped(pairs: readonly Pair[]): Record<string, string | string[]> {
  const result: Record<string, string | string[]> = Object.create(null);
  for (const [name, value] of pairs) {
    const before = result[name];
    if (!before) result[name] = value;
    else result[name] = [before, value].flat();
  }
  return result;
}

function pairsOf(properties: unknown): readonly Pair[] {
  const list = properties as readonly Record<string, string>[];
  return list.flatMap((one) => Object.entries(one));
}

function roundTrip(parts: Partial<Message>): Message {
  const publication = encodeMessage(message(parts), { version: 5, nowMs });
  if ("refused" in publication) throw new Error(publication.refused);
  const { userProperties, ...rest } = publication.properties ?? {};
  const packet: IPublishPacket = {
    cmd: "publish",
    topic: "plant/7/temp",
    payload: publication.payload,
    qos: 1,
    dup: false,
    retain: false,
    properties: { ...rest, userProperties: grouped(pairsOf(userProperties)) },
  };
  const filter = parseFilter("plant/{line}/temp");
  if ("problem" in filter) throw new Error(filter.problem);
  return decodeMessage(packet, 1, { place: { bridge: "plant", filter }, nowMs });
}

function refusal(parts: Partial<Message>): string {
  const publication = encodeMessage(message(parts), { version: 5, nowMs });
  return "refused" in publication ? publication.refused : "taken";
}

describe("headers as user properties", () => {
  const name = fc.oneof(
    fc.constantFrom("a", "b", "1", "0", "__proto__", "constructor", ""),
    fc.string({ minLength: 1, maxLength: 6 }),
  );
  const value = fc.option(fc.oneof(fc.uint8Array({ maxLength: 12 }), fc.constant(encodeText("x"))));

  test("come back with the same names, bytes, nulls and order through the library's grouping", () => {
    fc.assert(
      fc.property(fc.array(fc.record({ name, value }), { maxLength: 10 }), (headers: Header[]) => {
        const pairs = encodeHeaders(headers);
        if ("refused" in pairs) throw new Error(pairs.refused);
        const arrived = Object.entries(grouped(pairs)).flatMap(([key, values]) =>
          [values].flat().map((one): Pair => [key, one]),
        );
        const shown = (list: readonly Header[]): string[] =>
          list.map(
            (one) =>
              `${one.name}=${one.value === null ? "null" : Buffer.from(one.value).toString("hex")}`,
          );
        expect(shown(decodeHeaders(arrived))).toEqual(shown(headers));
      }),
    );
  });

  test("stand as they are when that says it all", () => {
    const headers = [
      { name: "a", value: encodeText("1") },
      { name: "a", value: encodeText("2") },
      { name: "b", value: encodeText("ü") },
    ];
    expect(encodeHeaders(headers)).toEqual([
      ["a", "1"],
      ["a", "2"],
      ["b", "ü"],
    ]);
  });

  test("whose text a broker would cut the connection for travel as base64", () => {
    for (const text of ["a\nb", "\0", "\u007f", "\ufffe"]) {
      const pairs = encodeHeaders([{ name: "a", value: encodeText(text) }]);
      expect(pairs).toEqual([
        ["a", Buffer.from(text).toString("base64")],
        ["isthmus-headers", '[["a","b"]]'],
      ]);
    }
  });

  test("of other programs are taken in order", () => {
    expect(
      decodeHeaders([
        ["x", "1"],
        ["isthmus-headers", "{}"],
        ["y", ""],
      ]),
    ).toEqual([
      { name: "x", value: encodeText("1") },
      { name: "y", value: new Uint8Array(0) },
    ]);
  });
});

describe("a message through MQTT 5", () => {
  test("keeps its id, key, time, body and properties", () => {
    const properties = {
      contentType: "application/json",
      contentEncoding: "gzip",
      correlationId: Uint8Array.of(0, 200),
      replyTo: "replies/1",
      type: "order",
      priority: 3,
      messageId: "producer-1",
      appId: "shop",
      expiresAtMs: nowMs + 60_000,
      textBody: true,
    };
    const back = roundTrip({ properties, key: Uint8Array.of(255), id: "ü".repeat(64) });
    expect(back).toMatchObject({ id: "ü".repeat(64), key: Uint8Array.of(255), properties });
    expect(back.timestampMs).toBe(1_699_999_999_123);
    expect(Buffer.from(back.body ?? []).toString()).toBe("body");
  });

  test("tells keys, empty keys and no key apart, and a tombstone from an empty body", () => {
    for (const key of [null, new Uint8Array(0), encodeText("k\n"), encodeText("k")]) {
      expect(roundTrip({ key }).key).toEqual(key);
    }
    expect(roundTrip({ body: null }).body).toBeNull();
    expect(roundTrip({ body: new Uint8Array(0) }).body).toEqual(new Uint8Array(0));
  });

  test("does not claim that a body is text when it isn't", () => {
    const parts = { body: Uint8Array.of(255), properties: { textBody: true } };
    const publication = encodeMessage(message(parts), { version: 5, nowMs });
    if ("refused" in publication) throw new Error(publication.refused);
    expect(publication.properties?.payloadFormatIndicator).toBeUndefined();
    expect(roundTrip(parts).properties.textBody).toBe(true);
  });

  test("keeps a reply address that is no topic in a property of our own", () => {
    expect(roundTrip({ properties: { replyTo: "a/#" } }).properties.replyTo).toBe("a/#");
  });

  test("has the captures of its filter and the topic in its origin", () => {
    expect(roundTrip({}).origin).toEqual({
      bridge: "plant",
      address: "plant/7/temp",
      partition: null,
      offset: null,
      hops: [],
      params: { line: "7" },
    });
  });

  test("is refused in words when the protocol can't hold it", () => {
    expect(refusal({ headers: [{ name: "a\0", value: null }] })).toContain("forbids");
    expect(refusal({ headers: [{ name: "a", value: new Uint8Array(70_000) }] })).toContain(
      "longer",
    );
    expect(refusal({ properties: { contentType: "x".repeat(70_000) } })).toContain("content type");
    expect(refusal({ properties: { correlationId: new Uint8Array(70_000) } })).toContain(
      "correlation",
    );
  });

  test("keeps texts that MQTT forbids, and headers by names of ours", () => {
    const headers = ["isthmus-key", "isthmus-header-isthmus-key", "isthmus-headers"].map(
      (name) => ({ name, value: encodeText("own") }),
    );
    const properties = { contentType: "a\nb", type: "\0", priority: -70_000 };
    const back = roundTrip({ id: "a\nb", headers, properties });
    expect(back).toMatchObject({ id: "a\nb", headers, properties });
  });
});

describe("a message through MQTT 3.1.1", () => {
  test("is its body and nothing else", () => {
    const full = message({ key: encodeText("k"), headers: [{ name: "a", value: null }] });
    const publication = encodeMessage(full, { version: 4, nowMs });
    expect(publication).toEqual({ payload: Buffer.from("body"), bytes: 4 });
  });
});
