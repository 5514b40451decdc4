/** Definitions: defaults, and for each wrong document a pointer and what was expected. */
import { describe, expect, test } from "bun:test";
import { InvalidError } from "../../src/errors.ts";
import { KINDS, type JsonObject, type Kind } from "../../src/rules/document.ts";
import { parseDefinition, parseDefinitions } from "../../src/rules/parse.ts";
import { NAME_FORM } from "../../src/rules/units.ts";
import { bridges, modules, problemsOf } from "./messages.ts";

const context = { modules, bridges, nowMs: 1_700_000_000_000 };

function parse<K extends Kind>(kind: K, document: JsonObject) {
  return parseDefinition(kind, "it", document, context);
}

function pointers(kind: Kind, document: JsonObject): string[] {
  return Object.keys(problemsOf(() => parse(kind, document)));
}

const DAY_MS = 86_400_000;
const RETRY = { maxAgeMs: 3 * DAY_MS, attempts: 8, delayMinMs: 500, delayMaxMs: 3_600_000 };

describe("what is not said has a default", () => {
  test("of a rule", () => {
    expect(parse("rules", { from: "orders", to: { stream: "out" } })).toEqual({
      from: { stream: "orders" },
      where: null,
      start: "latest",
      order: "partition",
      set: {},
      to: [
        { name: "stream out", to: { stream: "out" }, retry: RETRY, notBefore: null, delayMs: 0 },
      ],
      onFailure: "dead-letter",
      enabled: true,
    });
  });

  test("of a stream", () => {
    const retention = {
      ageMs: 7 * DAY_MS,
      bytes: 10 * 1024 ** 3,
      messages: null,
      afterRouted: false,
      keepMs: 0,
      whenFull: "block",
    };
    const stream = { partitions: 1, retention, indexKey: false };
    expect(parse("streams", {})).toEqual(stream as never);
    expect(parse("streams", { retention: {} })).toEqual(stream as never);
    expect(parse("streams", { partitions: 8, index: ["key"] })).toMatchObject({
      partitions: 8,
      indexKey: true,
    });
  });

  test("naming one bound of the retention removes the other's default", () => {
    const retention = (given: JsonObject) => parse("streams", { retention: given }).retention;
    expect(retention({ age: "1d" })).toMatchObject({ ageMs: DAY_MS, bytes: null });
    expect(retention({ bytes: "1MB" })).toMatchObject({ ageMs: null, bytes: 1_000_000 });
    expect(retention({ messages: 5 })).toMatchObject({ ageMs: null, bytes: null, messages: 5 });
    expect(retention({ age: null })).toMatchObject({ ageMs: null, bytes: null });
    expect(retention({ after: "routed", keep: "10m" })).toMatchObject({
      ageMs: null,
      bytes: null,
      afterRouted: true,
      keepMs: 600_000,
    });
  });

  test("of sources, hooks and access", () => {
    expect(parse("sources", { from: { bridge: "eu", topic: "t" }, stream: "s" })).toEqual({
      from: { bridge: "eu", kind: "kafka", fields: { topic: "t" }, text: "topic t" },
      stream: "s",
      key: null,
      dedupe: null,
      start: "latest",
    });
    expect(parse("hooks", { stream: "s" })).toEqual({
      stream: "s",
      key: null,
      dedupe: null,
      verify: null,
      challenge: null,
      echo: null,
      answer: null,
      limits: {
        bodyBytes: 16 * 1024 * 1024,
        rate: null,
        concurrency: null,
        headerBytes: null,
        bytesPerSecond: 512,
      },
      methods: ["POST"],
      accept: null,
      inflate: false,
      dropHeaders: [],
    });
    expect(
      parse("hooks", { stream: "s", verify: { scheme: "none" }, dedupe: false }),
    ).toMatchObject({ verify: null, dedupe: false });
    expect(parse("access", { read: [{ stream: "in*", key: "claims.sub" }] })).toEqual({
      read: [{ stream: "in*", key: "claims.sub" }],
      write: [],
      jwt: null,
    });
  });

  test("of bridges by their module, under every name of the kind", () => {
    expect(parse("bridges", { kind: "rabbitmq", url: "amqp://x" })).toEqual({
      kind: "amqp",
      config: { url: "amqp://x" },
    });
  });
});

describe("what is said is taken", () => {
  test("by a rule with everything", () => {
    const rule = parse("rules", {
      from: { bridge: "plant", topic: "a/#" },
      where: 'body.amount > 100 && header("region") == "eu"',
      start: "1h ago",
      order: "partition",
      set: {
        key: "${body.customer}",
        headers: { "x-total": "${body.amount * body.qty}", source: "shop", "x-old": null },
        body: { id: "${body.id}" },
        properties: { contentType: "application/json" },
      },
      to: [
        { bridge: "rabbit", exchange: "orders", routingKey: "orders.${body.region}" },
        { name: "crm", bridge: "crm", retry: { maxAge: "1d", attempts: 3 } },
        { stream: "audit", retry: { maxAge: null } },
      ],
      retry: { delayMin: "1s" },
      onFailure: "block",
      enabled: false,
    });
    expect(rule.from).toMatchObject({ bridge: "plant", text: "topic a/#" });
    expect(rule.start).toEqual({ timestampMs: context.nowMs - 3_600_000 });
    expect(rule.to.map(({ name, retry }) => [name, retry])).toEqual([
      ["rabbit exchange orders", { ...RETRY, delayMinMs: 1000 }],
      ["crm", { ...RETRY, delayMinMs: 1000, maxAgeMs: DAY_MS, attempts: 3 }],
      ["stream audit", { ...RETRY, delayMinMs: 1000, maxAgeMs: null }],
    ]);
    expect(rule).toMatchObject({ onFailure: "block", enabled: false });
  });

  test("internal streams can be read", () => {
    for (const from of ["$audit", "big-orders.dead"]) {
      expect(parse("rules", { from, to: { stream: "x" } }).from).toEqual({ stream: from });
    }
  });
});

const rule = { from: "orders", to: { stream: "out" } };

describe("what is wrong has a place", () => {
  test("expressions have line and column, below the pointer of the document", () => {
    try {
      const pointer = "/rules/big-orders";
      parseDefinition(
        "rules",
        "big-orders",
        { ...rule, where: "body.a &&\n  body.b >" },
        { ...context, pointer },
      );
    } catch (cause) {
      expect((cause as InvalidError).errors).toEqual([
        {
          pointer: "/rules/big-orders/where",
          detail: "expected a value, found the end",
          line: 2,
          column: 11,
        },
      ]);
      expect((cause as InvalidError).message).toBe(
        'rule "big-orders": /rules/big-orders/where: expected a value, found the end',
      );
      return;
    }
    throw new Error("it was not refused");
  });

  test("all that is wrong is said at once", () => {
    const document = {
      from: { bridge: "nope" },
      wher: "x",
      where: "(",
      enabled: 1,
      to: [{ bridge: "no" }, { stream: "" }],
    };
    expect(pointers("rules", document).sort()).toEqual(
      ["/enabled", "/from/bridge", "/to/0/bridge", "/to/1/stream", "/wher", "/where"].sort(),
    );
  });

  test("names, numbers and depth are checked for every kind", () => {
    let deep: JsonObject = {};
    for (let level = 0; level < 40; level++) deep = { deep };
    for (const kind of KINDS) {
      for (const name of ["", "$audit", "a/b", "__proto__", "x".repeat(101)]) {
        expect(Object.keys(problemsOf(() => parseDefinition(kind, name, {}, context)))[0]).toBe("");
      }
      expect(pointers(kind, deep)[0]).toStartWith("/deep/deep");
      expect(pointers(kind, { n: 12345678901234567890n } as never)[0]).toBe("/n");
      expect(pointers(kind, { n: Number.NaN })[0]).toBe("/n");
      for (const document of [null, [], "x", 5]) {
        expect(problemsOf(() => parse(kind, document as never))[""]).toStartWith("expected a map");
      }
    }
  });
});

describe("a file", () => {
  test("is taken apart in the order in which kinds depend on one another", () => {
    const file = {
      rules: { r: rule },
      project: "shop",
      streams: { orders: null },
      bridges: { eu: { kind: "kafka" } },
    };
    expect(parseDefinitions(file)).toEqual({
      project: "shop",
      documents: [
        { kind: "bridges", name: "eu", document: { kind: "kafka" } },
        { kind: "streams", name: "orders", document: {} },
        { kind: "rules", name: "r", document: rule },
      ],
    });
    expect(parseDefinitions({})).toEqual({ project: null, documents: [] });
  });

  test.each<[unknown, Record<string, string>]>([
    [[], { "": "expected a map of bridges, streams, sources, hooks, rules, access, found a list" }],
    [{ rule: {} }, { "/rule": 'unknown key; did you mean "rules"?' }],
    [{ rules: [] }, { "/rules": "expected a map of names, found a list" }],
    [{ rules: { a: [] } }, { "/rules/a": "expected a map, found a list" }],
    [{ project: 5 }, { "/project": `expected ${NAME_FORM}, found the number 5` }],
    [{ streams: { "a/b": {} } }, { "/streams/a~1b": `expected ${NAME_FORM}, found "a/b"` }],
  ])("%j is refused", (file, expected) => {
    expect(problemsOf(() => parseDefinitions(file))).toEqual(expected);
  });
});
