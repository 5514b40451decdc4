/** An explanation names the first part of a condition that said no, with the values it saw. */
import { expect, test } from "bun:test";
import { explainCondition } from "../../src/rules/explain.ts";
import { stored } from "./messages.ts";

const message = stored({
  body: '{"amount":42,"region":"us","items":[{"n":1},{"n":2}],"name":"Bo"}',
  headers: [["region", "us"]],
});

const cases: readonly (readonly [source: string, ...lines: string[]])[] = [
  ["body.amount > 100", "body.amount > 100: 42 > 100 is false"],
  [
    'body.amount > 10 && header("region") == "eu"',
    'header("region") == "eu": "us" == "eu" is false',
  ],
  ['body.amount > 100 && header("region") == "eu"', "body.amount > 100: 42 > 100 is false"],
  [
    'body.amount > 100 || header("region") == "eu"',
    "body.amount > 100: 42 > 100 is false",
    'header("region") == "eu": "us" == "eu" is false',
  ],
  ["body.amount > 10 || body.missing > 1", "body.amount > 10: 42 > 10 is true"],
  [
    "body.missing > 1 && body.amount > 10",
    "body.missing > 1: (no such field: missing) > 1 failed: no such field: missing",
  ],
  ["body.missing > 1 && body.amount > 100", "body.amount > 100: 42 > 100 is false"],
  ["!(body.amount > 10 && true)", "not: body.amount > 10: 42 > 10 is true", "not: true: is true"],
  ["!has(body.region)", "!has(body.region): is false"],
  [
    "body.items.exists(i, i.n > 2)",
    'body.items.exists(i, i.n > 2): for [{"n":1},{"n":2}] is false',
  ],
  ['body.name.startsWith("A")', 'body.name.startsWith("A"): "Bo".startsWith("A") is false'],
  ["body.amount", "body.amount: is 42, which is neither true nor false"],
  ["(body.amount + 1) * 2 > 100", "(body.amount + 1) * 2 > 100: 86 > 100 is false"],
  ["bytes == b'a' || text == 'x'", 'bytes == b"a": ', 'text == "x": '],
];

for (const [source, ...lines] of cases) {
  test(`${source} is explained`, () => {
    const found = explainCondition(source, message);
    expect(found.map((line, index) => line.slice(0, lines[index]?.length))).toEqual(lines);
    expect(found.length).toBe(lines.length);
  });
}

test("a long value is cut", () => {
  const [line = ""] = explainCondition("text == 'x'", stored({ body: "y".repeat(10_000) }));
  expect(line.length).toBeLessThan(500);
  expect(line).toContain("…");
});
