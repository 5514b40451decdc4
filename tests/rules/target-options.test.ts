/** `format` and `echo` of rules and targets: what they mean, and how a wrong one is refused. */
import { expect, test } from "bun:test";
import { bridgeModules } from "../../bridges/registry.ts";
import type { JsonObject, RuleDocument } from "../../src/rules/document.ts";
import { parseDefinition } from "../../src/rules/parse.ts";
import { problemsOf } from "./messages.ts";

const bridges = new Map([["eu", { kind: "kafka" }]]);
const context = { modules: bridgeModules, bridges };

const parse = (document: JsonObject): RuleDocument =>
  parseDefinition("rules", "it", { from: "s", ...document }, context) as RuleDocument;
const problems = (document: JsonObject): Record<string, string> =>
  problemsOf(() => parse(document));
const eu = { bridge: "eu", topic: "x" };

test("a rule says it for its targets, and a target for itself", () => {
  const { to } = parse({
    format: "cloudevents",
    echo: "drop",
    to: [
      eu,
      { ...eu, name: "own", format: { type: "cloudevents", mode: "structured" } },
      { stream: "o" },
    ],
  });
  expect(to.map(({ format, echo }) => [format, echo])).toEqual([
    ["binary", "drop"],
    ["structured", "drop"],
    [undefined, "drop"],
  ]);
  expect(parse({ to: { ...eu, format: { mode: "binary" } } }).to[0]?.format).toBe("binary");
  const [plain] = parse({ to: eu }).to;
  expect([plain?.format, plain?.echo]).toEqual([undefined, undefined]);
});

test("a wrong one is refused with what was expected", () => {
  const form = "expected cloudevents, or { type: cloudevents, mode: binary or structured }";
  expect(problems({ format: "avro", to: eu })).toEqual({ "/format": form });
  expect(problems({ to: { ...eu, format: { mode: "batch" } } })).toEqual({ "/to/format": form });
  expect(problems({ echo: "keep", to: eu })).toEqual({ "/echo": 'expected drop, found "keep"' });
  expect(problems({ to: [{ stream: "o", format: "cloudevents" }] })).toEqual({
    "/to/0/format": "a stream of the log takes no format; its messages stay as they are",
  });
});
