/** Rules in running form: what they take, what they make of it, and where it goes. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decodeText, type Message, type StoredMessage } from "../../src/message.ts";
import type { JsonObject } from "../../src/rules/document.ts";
import { EvaluationError } from "../../src/rules/failure.ts";
import { parseDefinition } from "../../src/rules/parse.ts";
import { compileRule } from "../../src/rules/transform.ts";
import { bridges, modules, stored } from "./messages.ts";

function ruleOf(document: JsonObject) {
  const full = { from: "orders", to: { stream: "out" }, ...document };
  return compileRule("r", parseDefinition("rules", "r", full, { modules, bridges }), modules);
}

function changed(set: JsonObject, message: StoredMessage): Message {
  const target = ruleOf({ set, to: { bridge: "eu", topic: "t" } }).targets[0];
  if (target === undefined) throw new Error("no target");
  return target.render(message).message;
}

const body = '{"id":1,"amount":250,"qty":2,"region":"eu","none":null}';

describe("where", () => {
  test("takes, leaves, or fails, which counts as leaving", () => {
    const rule = ruleOf({ where: 'body.amount > 100 && header("region") == "eu"' });
    const headers = [["Region", "eu"]] as const;
    expect(rule.matches(stored({ body, headers }))).toBe("yes");
    expect(rule.matches(stored({ body }))).toBe("no");
    expect(rule.matches(stored({ body: '{"amount":"250"}', headers }))).toBe("failed");
    expect(rule.matches(stored({ body: "x", headers }))).toBe("failed");
    expect(ruleOf({}).matches(stored({ body: null }))).toBe("yes");
    expect(ruleOf({ where: "body.amount" }).matches(stored({ body }))).toBe("failed");
  });
});

describe("set", () => {
  test("leaves what it does not name: the same parts, byte for byte", () => {
    fc.assert(
      fc.property(
        fc.option(fc.uint8Array(), { nil: null }),
        fc.option(fc.uint8Array(), { nil: null }),
        fc.array(fc.tuple(fc.string(), fc.option(fc.uint8Array(), { nil: null }))),
        (given, key, headers) => {
          const message = stored({ body: given, key, headers });
          const result = changed({ properties: { type: "t" } }, message);
          expect(result.body).toBe(message.body);
          expect(result.key).toBe(message.key);
          expect(result.headers).toBe(message.headers);
          expect(result).toMatchObject({ id: message.id, timestampMs: message.timestampMs });
        },
      ),
    );
    const message = stored();
    const target = ruleOf({ to: { bridge: "eu", topic: "t" } }).targets[0];
    expect(target?.render(message).message).toBe(message);
  });

  test.each<[JsonObject[string], string | null]>([
    ["${body.region}", "eu"],
    ["${body.id}", "1"],
    ["k-${body.id}", "k-1"],
    ["${body.none}", null],
    [null, null],
    ["", ""],
    [7, "7"],
    ["${body.amount * 1.0}", "250"],
    ["${9007199254740993}", "9007199254740993"],
  ])("the key %j", (key, expected) => {
    const result = changed({ key }, stored({ body, key: "old" })).key;
    expect(result === null ? null : decodeText(result)).toBe(expected);
  });

  test("a binary key can be taken from bytes", () => {
    const key = new Uint8Array([0, 255]);
    expect(changed({ key: "${key}" }, stored({ key })).key).toEqual(key);
    expect(() => changed({ key: "${text}" }, stored({ body: "x".repeat(70_000) }))).toThrow(
      EvaluationError,
    );
  });

  test("headers are merged by name, letter case ignored, and null removes", () => {
    const message = stored({
      body,
      headers: [
        ["X-Old", "1"],
        ["x-total", "1"],
        ["X-TOTAL", "2"],
        ["keep", "a"],
        ["keep", null],
      ],
    });
    const set = {
      headers: {
        "x-Total": "${body.amount * body.qty}",
        "x-old": null,
        "x-gone": "${body.none}",
        source: "shop",
        list: ["${body.id}", 2],
      },
    };
    const result = changed(set, message).headers.map(({ name, value }) => [
      name,
      value === null ? null : decodeText(value),
    ]);
    expect(result).toEqual([
      ["keep", "a"],
      ["keep", null],
      ["x-Total", "500"],
      ["source", "shop"],
      ["list", "[1,2]"],
    ]);
  });

  test.each<[JsonObject[string], string | null, string | undefined]>([
    [{ id: "${body.id}", total: "${body.amount * body.qty}" }, '{"id":1,"total":500}', "json"],
    [["${body.region}"], '["eu"]', "json"],
    ["${body}", body, "json"],
    ["${body.amount}", "250", "json"],
    ["${body.region}", "eu", "text"],
    ["plain", "plain", "text"],
    ["${bytes}", body, "text"],
    ["${body.none}", null, "text"],
    [null, null, "text"],
    ["", "", "text"],
  ])("the body %j", (value, expected, form) => {
    const properties = { contentType: "text/plain", contentEncoding: "gzip", type: "order" };
    const result = changed({ body: value }, stored({ body, properties }));
    expect(result.body === null ? null : decodeText(result.body)).toBe(expected);
    expect(result.properties.contentType).toBe(form === "json" ? "application/json" : "text/plain");
    expect(result.properties.type).toBe("order");
    const isKept = value === "${bytes}";
    expect(result.properties.contentEncoding).toBe(isKept ? "gzip" : undefined);
  });

  test("properties are set, removed and checked", () => {
    const message = stored({ body, properties: { type: "a", replyTo: "q" } });
    const properties = {
      type: "${body.region}",
      replyTo: null,
      priority: "${body.id}",
      durable: false,
      contentType: "text/csv",
      correlationId: "${bytes}",
    };
    expect(changed({ properties, body: { a: 1 } }, message).properties).toEqual({
      type: "eu",
      priority: 1,
      durable: false,
      contentType: "text/csv",
      correlationId: message.body as Uint8Array,
    });
    for (const wrong of [{ priority: "high" }, { durable: "${body.id}" }, { priority: -1 }]) {
      expect(() => changed({ properties: wrong }, message)).toThrow(EvaluationError);
    }
  });

  test("what fails is a failure of the message", () => {
    const failing = [
      { key: "${body.missing}" },
      { body: { a: "${1 / 0}" } },
      { headers: { a: "${body.x}" } },
    ];
    for (const set of failing)
      expect(() => changed(set, stored({ body }))).toThrow(EvaluationError);
    expect(() =>
      changed({ body: "${text}${text}" }, stored({ body: "x".repeat(9_000_000) })),
    ).toThrow(EvaluationError);
  });
});

describe("to", () => {
  test("each target has its address, and all have the same changed message", () => {
    const rule = ruleOf({
      set: { key: "${body.region}" },
      to: [
        { bridge: "rabbit", exchange: "orders", routingKey: "orders.${body.region}" },
        { bridge: "plant", topic: "orders/${body.region}", qos: 1 },
        { name: "hook", bridge: "crm" },
      ],
    });
    const message = stored({ body });
    const sent = rule.targets.map((target) => target.render(message));
    expect(rule.targets.map((target) => target.name)).toEqual([
      "rabbit exchange orders",
      "plant topic orders/${body.region}",
      "hook",
    ]);
    expect(sent.map((each) => each.fields)).toEqual([
      { exchange: "orders", routingKey: "orders.eu" },
      { topic: "orders/eu", qos: 1 },
      {},
    ]);
    expect(sent[1]?.message).toBe(sent[0]?.message as Message);
    expect(sent[0]?.message).toMatchObject({ id: "m-1", origin: null });
  });

  test("a value with a separator fails for that target only", () => {
    const rule = ruleOf({
      to: [
        { bridge: "rabbit", exchange: "x", routingKey: "orders.${body.region}" },
        { bridge: "eu", topic: "t" },
      ],
    });
    const message = stored({ body: '{"region":"a.b"}' });
    expect(() => rule.targets[0]?.render(message)).toThrow(EvaluationError);
    expect(rule.targets[1]?.render(message).fields).toEqual({ topic: "t" });
  });

  test("into a stream the message says where it was", () => {
    const origin = {
      bridge: "plant",
      address: "topic a",
      partition: null,
      offset: "9",
      hops: ["plant"],
      params: { device: "d" },
    };
    const [target] = ruleOf({ to: { stream: "out" } }).targets;
    const message = stored({ body, origin, key: "k", headers: [["a", "b"]] });
    expect(target?.render(message)).toEqual({
      fields: { stream: "out" },
      message: {
        id: "m-1",
        key: message.key,
        properties: {},
        headers: message.headers,
        body: message.body,
        timestampMs: message.timestampMs,
        origin: {
          bridge: "rule",
          address: "orders",
          partition: 0,
          offset: "7",
          hops: ["plant", "/plant/topic%20a", "orders"],
          params: { device: "d" },
        },
      },
    });
  });

  test("a stream's name made from the message must be one", () => {
    const [target] = ruleOf({ to: { stream: "orders-${body.region}" } }).targets;
    expect(target?.render(stored({ body })).fields).toEqual({ stream: "orders-eu" });
    for (const region of ["a b", "../x", "$x/", ""]) {
      const message = stored({ body: JSON.stringify({ region }) });
      expect(() => target?.render(message)).toThrow(EvaluationError);
    }
  });

  test("the same message always gives the same result", () => {
    const rule = ruleOf({
      set: { body: { total: "${body.amount * body.qty}", now: "${timestamp}" } },
      to: { bridge: "eu", topic: "t" },
    });
    const render = () => rule.targets[0]?.render(stored({ body }));
    expect(render()).toEqual(render() as NonNullable<ReturnType<typeof render>>);
  });
});
