/** `limit`, `concurrency` and `batch`: what they mean, and how wrong ones are refused. */
import { expect, test } from "bun:test";
import { bridgeModules } from "../../bridges/registry.ts";
import type { JsonObject, RuleDocument } from "../../src/rules/document.ts";
import { parseDefinition } from "../../src/rules/parse.ts";
import { problemsOf } from "./messages.ts";

const bridges = new Map([
  ["eu", { kind: "kafka" }],
  ["crm", { kind: "http" }],
]);
const context = { modules: bridgeModules, bridges };

const parse = (document: JsonObject): RuleDocument =>
  parseDefinition("rules", "it", { from: "s", ...document }, context) as RuleDocument;
const problems = (document: JsonObject): Record<string, string> =>
  problemsOf(() => parse(document));
const eu = { bridge: "eu", topic: "x" };
const crm = { bridge: "crm" };

test("a rule says it for each of its targets, and a target for itself", () => {
  const { to } = parse({
    limit: "100/s",
    concurrency: 4,
    batch: { messages: 50, bytes: "64KiB", wait: "200ms" },
    to: [eu, { ...crm, limit: "5/10s", concurrency: 1, batch: false }, { stream: "o" }],
  });
  const perSecond = { count: 100, perMs: 1000 };
  const batch = { messages: 50, bytes: 65_536, waitMs: 200 };
  expect(to.map(({ limit, concurrency, batch: own }) => [limit, concurrency, own])).toEqual([
    [perSecond, 4, batch],
    [{ count: 5, perMs: 10_000 }, 1, undefined],
    [perSecond, 4, batch],
  ]);
  const [plain] = parse({ to: eu }).to;
  expect([plain?.limit, plain?.concurrency, plain?.batch]).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
});

test("a batch of an HTTP target has a form, and its bounds have defaults", () => {
  const formOf = (target: JsonObject): unknown => {
    const [parsed] = parse({ to: target }).to;
    const to = parsed?.to;
    const fixed = to !== undefined && "fixed" in to ? to.fixed : undefined;
    return [parsed?.batch, fixed?.["batch"]];
  };
  const bounds = { messages: 100, bytes: 1_048_576, waitMs: 0 };
  expect(formOf({ ...crm, batch: {} })).toEqual([{ ...bounds, as: "json" }, "json"]);
  expect(formOf({ ...crm, batch: { as: "ndjson" } })).toEqual([
    { ...bounds, as: "ndjson" },
    "ndjson",
  ]);
  expect(formOf({ ...crm, batch: {}, format: "cloudevents" })).toEqual([
    { ...bounds, as: "cloudevents" },
    "cloudevents",
  ]);
  expect(formOf({ ...eu, batch: {} })).toEqual([bounds, undefined]);
});

test("is no part of a target's identity: its cursor stays", () => {
  const nameOf = (target: JsonObject): string | undefined => parse({ to: target }).to[0]?.name;
  expect(nameOf({ ...crm, batch: {}, limit: "1/s", concurrency: 2 })).toBe(nameOf(crm));
});

test.each<[JsonObject, Record<string, string>]>([
  [
    { limit: "100", to: eu },
    { "/limit": 'expected a rate such as 100/s, 5000/m or 20/10s, found "100"' },
  ],
  [
    { to: { ...eu, limit: 100 } },
    { "/to/limit": "expected a rate such as 100/s, 5000/m or 20/10s, found the number 100" },
  ],
  [
    { to: { ...eu, limit: "0/s" } },
    { "/to/limit": 'expected a rate such as 100/s, 5000/m or 20/10s, found "0/s"' },
  ],
  [
    { to: { ...eu, concurrency: 0 } },
    { "/to/concurrency": "expected a number from 1 to 10000, found the number 0" },
  ],
  [
    { concurrency: "4", to: eu },
    { "/concurrency": 'expected a number from 1 to 10000, found "4"' },
  ],
  [{ to: { ...eu, batch: 100 } }, { "/to/batch": "expected a map, found the number 100" }],
  [
    { to: { ...eu, batch: { message: 5 } } },
    { "/to/batch/message": 'unknown key; did you mean "messages"?' },
  ],
  [
    { batch: { messages: 5000 }, to: eu },
    { "/batch/messages": "expected at most 1000, found the number 5000" },
  ],
  [
    { to: { ...eu, batch: { bytes: "1GiB", wait: "5m" } } },
    {
      "/to/batch/bytes": "expected 1 to 16777216 bytes",
      "/to/batch/wait": "expected at most 60 s",
    },
  ],
  [
    { to: { ...eu, batch: { as: "json" } } },
    { "/to/batch/as": "only where messages go as one request: HTTP targets" },
  ],
  [
    { to: { ...crm, batch: { as: "xml" } } },
    { "/to/batch/as": 'expected json or ndjson, found "xml"' },
  ],
  [
    { to: { ...crm, format: "cloudevents", batch: { as: "json" } } },
    { "/to/batch/as": "events go as a batch of CloudEvents: leave out as" },
  ],
  [
    {
      batch: {},
      to: [{ ...crm, path: "/${body.id}", headers: { x: "${body.x}" } }],
    },
    {
      "/to/0/path": "a batch is one request: its address is the same for all, without ${…}",
      "/to/0/headers": "a batch is one request: its address is the same for all, without ${…}",
    },
  ],
])("%j is refused with what was expected", (document, found) => {
  expect(problems(document)).toEqual(found);
});
