/**
 * Our evaluation against the CEL library's own, on random expressions: where the library can
 * evaluate at all (it does not mix numbers, nor go beyond 64 bits), both mean the same.
 */
import { Environment } from "@marcbachmann/cel-js";
import { expect, test } from "bun:test";
import fc from "fast-check";
import { parseJson, stringifyJson } from "../../src/json.ts";
import { compileExpression } from "../../src/rules/expression.ts";
import { stored } from "./messages.ts";

const library = new Environment({ homogeneousAggregateLiterals: false })
  .registerVariable("body", "dyn")
  .registerVariable("headers", "map<string, dyn>")
  .registerVariable("key", "dyn");

const field = fc.constantFrom("a", "b", "list", "map", "name", "flag", "nothing");
const number = fc.integer({ min: -20, max: 20 }).map(String);
const text = fc.constantFrom("'eu'", "'us'", "''", '"a"');
const path = fc.oneof(
  field.map((name) => `body.${name}`),
  field.map((name) => `body.map.${name}`),
  field.map((name) => `body['${name}']`),
  number.map((index) => `body.list[${index}]`),
  fc.constantFrom("headers.region", "headers.missing", "key"),
);
const literal = fc.oneof(number, text, fc.constantFrom("true", "false", "null"));
const equality = fc.constantFrom("==", "!=");
const order = fc.constantFrom("<", "<=", ">", ">=");

const { condition } = fc.letrec<{ condition: string; value: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    path,
    literal,
    fc
      .tuple(tie("value"), fc.constantFrom("+", "-", "*", "/", "%"), tie("value"))
      .map(([left, operator, right]) => `(${left} ${operator} ${right})`),
    fc
      .tuple(tie("condition"), tie("value"), tie("value"))
      .map(([test, yes, no]) => `(${test} ? dyn(${yes}) : dyn(${no}))`),
    tie("value").map((value) => `size(${value})`),
    tie("value").map((value) => `body.list.map(i, ${value})`),
  ),
  condition: fc.oneof(
    { maxDepth: 4 },
    fc.tuple(path, equality, literal).map((parts) => parts.join(" ")),
    fc.tuple(path, order, number).map((parts) => parts.join(" ")),
    fc
      .tuple(tie("value"), equality, tie("value"))
      .map(([left, operator, right]) => `(dyn(${left}) ${operator} dyn(${right}))`),
    fc
      .tuple(tie("condition"), fc.constantFrom("&&", "||"), tie("condition"))
      .map(([left, operator, right]) => `(${left} ${operator} ${right})`),
    tie("condition").map((each) => `!(${each})`),
    field.map((name) => `has(body.${name})`),
    field.map((name) => `'${name}' in body`),
    fc.oneof(path, literal).map((value) => `${value} in body.list`),
    fc
      .tuple(fc.constantFrom("exists", "all", "exists_one"), tie("condition"))
      .map(([macro, each]) => `body.list.${macro}(i, i > 2 || ${each})`),
  ),
}));

const bodies = [
  { a: 1, b: -3, list: [1, 2, 3], map: { a: 2 }, name: "eu", flag: true, nothing: null },
  { a: 0, list: [], map: {}, name: "", flag: false },
  { a: "x", b: [1], list: ["eu", 5, null], map: { map: { a: 1 } } },
  { list: { eu: 1 } },
];

/** Numbers as the library wants whole ones: bigint. */
function forLibrary(value: unknown): unknown {
  if (typeof value === "number") return BigInt(value);
  if (Array.isArray(value)) return value.map(forLibrary);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, forLibrary(each)]));
}

function outcome(run: () => unknown): string {
  try {
    return stringifyJson(run());
  } catch {
    return "failed";
  }
}

test("conditions mean what they mean in the library", () => {
  let compared = 0;
  fc.assert(
    fc.property(condition, fc.constantFrom(...bodies), (source, body) => {
      const theirs = library.parse(source);
      // What its type checker refuses it can't evaluate; ours refuses nearly the same.
      fc.pre(theirs.check().valid);
      compared++;
      const context = { body: forLibrary(body), headers: { region: "eu" }, key: "k" };
      const message = stored({
        key: "k",
        headers: [["region", "eu"]],
        body: stringifyJson(parseJson(JSON.stringify(body))),
      });
      const ours = compileExpression(source);
      expect([source, outcome(() => ours.evaluate(message))]).toEqual([
        source,
        outcome(() => theirs(context)),
      ]);
    }),
    { numRuns: 1500, seed: 20260131 },
  );
  expect(compared).toBeGreaterThan(1000);
});
