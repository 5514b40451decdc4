/**
 * CloudEvents out and in through the pure half of every binding: the vectors of the specification,
 * an event of any binding sent by any other, and messages that are made events.
 */
import { describe, expect, test } from "bun:test";
import type { EventBinding } from "../../src/bridge.ts";
import { bridgeModules } from "../../bridges/registry.ts";
import { percentDecoded, percentEncoded } from "../../src/cloudevents/event.ts";
import { withEvent } from "../../src/cloudevents/read.ts";
import { asEvent, type EventMode } from "../../src/cloudevents/write.ts";
import { decodeText, type Message } from "../../src/message.ts";
import { stored } from "../rules/messages.ts";

const kinds = ["kafka", "amqp", "amqp1", "mqtt", "http"] as const;
const prefixes = {
  kafka: "ce_",
  amqp: "cloudEvents_",
  amqp1: "cloudEvents_",
  mqtt: "",
  http: "ce-",
};

function bindingOf(kind: (typeof kinds)[number]): EventBinding {
  const binding = bridgeModules.get(kind)?.events;
  if (binding === undefined) throw new Error(`${kind} has no binding`);
  return binding;
}

function send(message: Message, kind: (typeof kinds)[number], mode: EventMode = "binary"): Message {
  return asEvent(message, { mode, binding: bindingOf(kind), stream: "orders" });
}

const textOf = ({ body }: Message): string => decodeText(body ?? new Uint8Array());
const headersOf = ({ headers }: Message): Record<string, string | null> =>
  Object.fromEntries(
    headers.map(({ name, value }) => [name, value === null ? null : decodeText(value)]),
  );

const attributes = {
  specversion: "1.0",
  id: "A234-1234-1234",
  source: "https://github.com/cloudevents/spec/pull",
  type: "com.github.pull_request.opened",
  subject: "123",
  time: "2018-04-05T17:31:00Z",
  comexampleextension1: "value",
};

function eventBy(prefix: string, body: string | null, contentType: string): Message {
  const headers = Object.entries(attributes).map(
    ([name, value]) => [prefix + name, value] as const,
  );
  return stored({ headers: [...headers, ["x-own", "1"]], body, properties: { contentType } });
}

describe("an event", () => {
  for (const from of kinds) {
    for (const to of kinds) {
      test(`in binary mode from ${from} to ${to} keeps attributes, data and other headers`, () => {
        const given = eventBy(prefixes[from], '<much wow="xml"/>', "text/xml");
        const sent = send(given, to);
        expect(headersOf(sent)).toEqual({
          ...Object.fromEntries(
            Object.entries(attributes).map(([name, value]) => [prefixes[to] + name, value]),
          ),
          "x-own": "1",
        });
        expect(sent.properties.contentType).toBe("text/xml");
        expect(sent.body).toBe(given.body);
      });
    }
  }

  test("in structured mode is the JSON of the specification's example", () => {
    const sent = send(
      eventBy("ce_", '{"appinfoA":"abc","appinfoB":123}', "application/json"),
      "kafka",
      "structured",
    );
    expect(JSON.parse(textOf(sent))).toEqual({
      ...attributes,
      datacontenttype: "application/json",
      data: { appinfoA: "abc", appinfoB: 123 },
    });
    expect(sent.properties.contentType).toBe("application/cloudevents+json");
    expect(headersOf(sent)).toEqual({ "x-own": "1" });
  });

  test("that came in structured mode goes out so byte for byte, and opened in binary mode", () => {
    const body = JSON.stringify({ ...attributes, datacontenttype: "text/xml", data: "<a/>", n: 5 });
    const given = stored({
      body,
      properties: { contentType: "application/cloudevents+json; charset=UTF-8" },
    });
    expect(send(given, "http", "structured")).toBe(given);
    const opened = send(given, "http");
    expect(textOf(opened)).toBe("<a/>");
    expect(opened.properties.contentType).toBe("text/xml");
    expect(headersOf(opened)).toMatchObject({ "ce-id": attributes.id, "ce-n": "5" });
  });

  test("with bytes travels as data_base64 and comes out of it as the same bytes", () => {
    const bytes = Uint8Array.from([0, 255, 128, 7]);
    const given = stored({ body: bytes, properties: { contentType: "image/png" } });
    const structured = send(given, "kafka", "structured");
    expect(JSON.parse(textOf(structured))["data_base64"]).toBe("AP+ABw==");
    const back = send({ ...structured }, "kafka");
    expect(Buffer.from(back.body ?? []).equals(Buffer.from(bytes))).toBe(true);
    expect(back.properties.contentType).toBe("image/png");
  });

  test("without data is a tombstone in binary mode and has no data in structured mode", () => {
    const given = eventBy("ce_", null, "text/plain");
    expect(send(given, "kafka").body).toBeNull();
    const structured = JSON.parse(textOf(send(given, "kafka", "structured")));
    expect(Object.keys(structured).filter((name) => name.startsWith("data"))).toEqual([
      "datacontenttype",
    ]);
  });

  test("keeps whole numbers beyond 2^53 and the JSON's own form", () => {
    const body = '{"n":12345678901234567890,"x":1.0}';
    expect(textOf(send(stored({ body }), "kafka", "structured"))).toContain(`"data":${body}`);
  });
});

describe("any other message", () => {
  test("is made an event: its id, the stream, its type, time and key", () => {
    const given = stored({ key: "k-1", properties: { type: "order.created" } });
    expect(headersOf(send(given, "kafka"))).toEqual({
      ce_specversion: "1.0",
      ce_id: "m-1",
      ce_source: "/streams/orders",
      ce_type: "order.created",
      ce_time: "2023-11-14T22:13:20.000Z",
      ce_partitionkey: "k-1",
    });
    expect(send(given, "kafka")).toEqual(send(given, "kafka"));
  });

  test("has the attributes that its rule sets, and the others made", () => {
    const sent = headersOf(
      send(
        stored({
          headers: [
            ["ce-type", "x.y"],
            ["Ce-Subject", "s"],
          ],
        }),
        "mqtt",
      ),
    );
    expect(sent).toMatchObject({ type: "x.y", subject: "s", id: "m-1", source: "/streams/orders" });
  });

  test("keeps a header by an attribute's name under another one where names have no prefix", () => {
    const sent = headersOf(send(stored({ headers: [["source", "shop"]] }), "mqtt"));
    expect(sent).toMatchObject({ source: "/streams/orders", "isthmus-header-source": "shop" });
  });

  test("is refused where it can make no right event", () => {
    const wrong =
      (given: Parameters<typeof stored>[0], mode: EventMode = "binary") =>
      () =>
        send(stored(given), "kafka", mode);
    expect(wrong({ headers: [["ce-specversion", "0.3"]] })).toThrow('specversion: expected "1.0"');
    expect(wrong({ headers: [["ce-time", "yesterday"]] })).toThrow(
      "time: expected an RFC 3339 time",
    );
    expect(wrong({ headers: [["ce-subject", "a\u0007"]] })).toThrow("subject: a control character");
    const coded = { properties: { contentEncoding: "gzip" } };
    expect(wrong(coded, "structured")).toThrow("encoded (gzip)");
    expect(wrong(coded)).not.toThrow();
  });
});

describe("HTTP values", () => {
  test("are percent-encoded as the binding's example is", () => {
    expect(percentEncoded("Euro € 😀")).toBe("Euro%20%E2%82%AC%20%F0%9F%98%80");
    expect(percentDecoded("Euro%20%E2%82%AC%20%F0%9F%98%80")).toBe("Euro € 😀");
    expect(percentDecoded('"a \\"b\\""')).toBe('a "b"');
    expect(percentDecoded("%C0%A0")).toBeNull();
    expect(percentDecoded(percentEncoded('100% "so"'))).toBe('100% "so"');
  });

  test("of an event go out encoded by HTTP alone", () => {
    const given = stored({ headers: [["ce_subject", "Euro € 😀"]] });
    expect(headersOf(send(given, "http"))["ce-subject"]).toBe("Euro%20%E2%82%AC%20%F0%9F%98%80");
    expect(headersOf(send(given, "mqtt"))["subject"]).toBe("Euro € 😀");
  });
});

describe("taken in", () => {
  for (const kind of kinds) {
    test(`by ${kind} an event gives its type, id and key, and stays as it came`, () => {
      const given = eventBy(prefixes[kind], "x", "text/plain");
      const headers = [
        ...given.headers,
        ...stored({ headers: [[`${prefixes[kind]}partitionkey`, "p"]] }).headers,
      ];
      const taken = withEvent({ ...given, headers }, bindingOf(kind));
      expect(taken.headers).toBe(headers);
      expect(taken.properties).toEqual({
        contentType: "text/plain",
        type: attributes.type,
        messageId: attributes.id,
      });
      expect(decodeText(taken.key ?? new Uint8Array())).toBe("p");
    });

    test(`by ${kind} what was sent as an event is that event`, () => {
      for (const mode of ["binary", "structured"] as const) {
        const sent = send(
          stored({ key: null, body: '{"a":1}', properties: { type: "t" } }),
          kind,
          mode,
        );
        const taken = withEvent({ ...sent, properties: { ...sent.properties } }, bindingOf(kind));
        expect(taken.properties.type).toBe("t");
      }
    });
  }

  test("by AMQP both separators are read", () => {
    const taken = withEvent(eventBy("cloudEvents:", "x", "text/plain"), bindingOf("amqp1"));
    expect(taken.properties.type).toBe(attributes.type);
  });

  test("what is no right event is the very same message", () => {
    const plain = stored({
      headers: [
        ["ce_id", "1"],
        ["ce_specversion", "1.0"],
      ],
    });
    expect(withEvent(plain, bindingOf("kafka"))).toBe(plain);
    const properties = { contentType: "application/cloudevents+json" };
    for (const body of ["{", "[]", '{"id":"1"}', null]) {
      const given = stored({ body, properties });
      expect(withEvent(given, bindingOf("kafka"))).toBe(given);
    }
  });

  test("what the protocol says itself stands above what the event says", () => {
    const given = eventBy("ce_", "x", "text/plain");
    const taken = withEvent(
      { ...given, key: Buffer.from("own"), properties: { type: "own" } },
      bindingOf("kafka"),
    );
    expect([decodeText(taken.key ?? new Uint8Array()), taken.properties.type]).toEqual([
      "own",
      "own",
    ]);
  });
});
