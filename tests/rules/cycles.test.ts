/** Cycles in the rules: which are refused when they are saved, with the path, and which are not. */
import { describe, expect, test } from "bun:test";
import { bridgeModules } from "../../bridges/registry.ts";
import { InvalidError } from "../../src/errors.ts";
import { refuseCycles } from "../../src/rules/cycles.ts";
import type { Definition, Definitions, JsonObject, Kind } from "../../src/rules/document.ts";
import { KINDS } from "../../src/rules/document.ts";
import { parseDefinition } from "../../src/rules/parse.ts";

type Documents = Partial<Record<Kind, Record<string, JsonObject>>>;

const bridges: Record<string, JsonObject> = {
  eu: { kind: "kafka", urls: ["Kafka.example:9092"] },
  eu2: { kind: "kafka", urls: ["other:9092", "kafka://kafka.example:9092"] },
  us: { kind: "kafka", urls: ["us:9092"] },
  rabbit: { kind: "amqp", url: "amqp://guest:guest@127.0.0.1:5672" },
  plant: { kind: "mqtt", url: "mqtt://127.0.0.1:1883" },
  jms: { kind: "amqp1", url: "amqp://127.0.0.1:61616" },
  crm: { kind: "http", url: "https://crm.example/in" },
};

function definitionsOf(documents: Documents): Definitions {
  const all: Documents = { bridges, ...documents };
  const known = new Map(
    Object.entries(bridges).map(([name, { kind }]) => [name, { kind: kind as string }]),
  );
  const maps = KINDS.map((kind) => {
    const named = Object.entries(all[kind] ?? {}).map(([name, document]) => {
      const context = { modules: bridgeModules, bridges: known };
      const parsed: unknown = parseDefinition(kind, name, document, context);
      const definition: Definition = { kind, name, revision: 1, project: null, document, parsed };
      return [name, definition] as const;
    });
    return [kind, new Map(named)] as const;
  });
  return { version: 1, ...Object.fromEntries(maps) } as unknown as Definitions;
}

const nothing = definitionsOf({});

/** What saving says; null: it is saved. */
function refusal(documents: Documents, before = nothing): string | null {
  try {
    refuseCycles(definitionsOf(documents), before, bridgeModules);
    return null;
  } catch (error) {
    if (!(error instanceof InvalidError)) throw error;
    expect(error.code).toBe("definition-invalid");
    expect(error.errors[0]?.pointer).toMatch(/^\/rules\/\w+\/to$/);
    return error.message;
  }
}

const at = (address: JsonObject): JsonObject => address;

describe("refused", () => {
  test("streams that lead back to where it began, with the path of rules", () => {
    const rules = {
      a: { from: "one", to: { stream: "two" } },
      b: { from: "two", to: [{ stream: "elsewhere" }, { stream: "three" }] },
      c: { from: "three", where: "body.again", to: { stream: "one" } },
    };
    expect(refusal({ rules })).toBe(
      "rule a: the rules make a cycle: stream one → rule a → stream two → rule b → stream three → " +
        "rule c → stream one; say echo: drop on one of them, or send elsewhere",
    );
    const { c: _, ...open } = rules;
    expect(refusal({ rules: open })).toBeNull();
  });

  test("a rule that sends to what it reads itself", () => {
    expect(refusal({ rules: { a: { from: "one", to: { stream: "one" } } } })).toContain("rule a →");
    const from = at({ bridge: "eu", topic: "x" });
    expect(refusal({ rules: { a: { from, to: from } } })).toContain("eu topic x");
  });

  test.each<[name: string, from: JsonObject, to: JsonObject]>([
    ["a Kafka topic", { bridge: "eu", topic: "x" }, { bridge: "eu", topic: "x", partition: 1 }],
    [
      "a topic in another group",
      { bridge: "eu", topic: "x", group: "g" },
      { bridge: "eu", topic: "x" },
    ],
    ["two bridges of one broker", { bridge: "eu", topic: "x" }, { bridge: "eu2", topic: "x" }],
    ["a queue", { bridge: "rabbit", queue: "q" }, { bridge: "rabbit", queue: "q" }],
    [
      "a queue by the default exchange",
      { bridge: "rabbit", queue: "q" },
      { bridge: "rabbit", exchange: "", routingKey: "q" },
    ],
    [
      "an exchange that is tapped",
      { bridge: "rabbit", exchange: "e", bind: ["a.#"] },
      { bridge: "rabbit", exchange: "e", routingKey: "a.b.c" },
    ],
    [
      "an MQTT filter",
      { bridge: "plant", topic: "a/{line}/+/t" },
      { bridge: "plant", topic: "a/1/2/t" },
    ],
    ["an MQTT filter with #", { bridge: "plant", topic: "a/#" }, { bridge: "plant", topic: "a" }],
    ["an AMQP 1.0 queue", { bridge: "jms", queue: "q" }, { bridge: "jms", queue: "q" }],
  ])("through %s", (_, from, to) => {
    const rules = { back: { from: "one", to }, there: { from, to: { stream: "one" } } };
    expect(refusal({ rules })).toContain("the rules make a cycle");
    const sources = { s: { from, stream: "one" } };
    expect(refusal({ sources, rules: { back: { from: "one", to } } })).toContain("cycle");
    const echo = { back: { from: "one", to: { ...to, echo: "drop" } }, there: rules.there };
    expect(refusal({ rules: echo })).toBeNull();
  });

  test("a source or a bridge that closes what was open", () => {
    const rules = { back: { from: "one", to: { bridge: "eu", topic: "x" } } };
    const before = definitionsOf({ rules });
    const sources = { s: { from: { bridge: "eu", topic: "x" }, stream: "one" } };
    expect(refusal({ rules, sources }, before)).toContain("cycle");
  });
});

describe("saved", () => {
  test.each<[name: string, from: JsonObject, to: JsonObject]>([
    ["another topic", { bridge: "eu", topic: "x" }, { bridge: "eu", topic: "y" }],
    ["another cluster", { bridge: "eu", topic: "x" }, { bridge: "us", topic: "x" }],
    [
      "an address made from the message",
      { bridge: "eu", topic: "x" },
      { bridge: "eu", topic: "${body.t}" },
    ],
    [
      "another routing key",
      { bridge: "rabbit", exchange: "e", bind: ["in.#"] },
      { bridge: "rabbit", exchange: "e", routingKey: "out.a" },
    ],
    [
      "a queue of an exchange's name",
      { bridge: "rabbit", queue: "e" },
      { bridge: "rabbit", exchange: "e" },
    ],
    [
      "a topic beside the filter",
      { bridge: "plant", topic: "a/+/t" },
      { bridge: "plant", topic: "a/b/c/t" },
    ],
    ["a webhook", { bridge: "eu", topic: "x" }, { bridge: "crm" }],
  ])("%s", (_, from, to) => {
    const rules = { back: { from: "one", to }, there: { from, to: { stream: "one" } } };
    expect(refusal({ rules })).toBeNull();
  });

  test("what is not enabled, and what stood there before", () => {
    const cycle = {
      a: { from: "one", to: { stream: "two" } },
      b: { from: "two", to: { stream: "one" } },
    };
    expect(refusal({ rules: { ...cycle, b: { ...cycle.b, enabled: false } } })).toBeNull();
    expect(refusal({ rules: { ...cycle, b: { ...cycle.b, echo: "drop" } } })).toBeNull();
    const before = definitionsOf({ rules: cycle });
    const next = { ...before, rules: new Map(before.rules) };
    expect(() => refuseCycles(next, before, bridgeModules)).not.toThrow();
  });

  test("ten thousand rules in one chain, in reasonable time", () => {
    const rules = Object.fromEntries(
      Array.from({ length: 5000 }, (_, n) => [
        `r${n}`,
        { from: `s${n}`, to: { stream: `s${n + 1}` } },
      ]),
    );
    const before = definitionsOf({ rules });
    const last = { from: "s5000", to: { stream: "s0" } };
    const made = definitionsOf({ rules: { last } }).rules;
    const next = { ...before, rules: new Map([...before.rules, ...made]) };
    expect(() => refuseCycles(next, before, bridgeModules)).toThrow("the rules make a cycle");
  });
});
