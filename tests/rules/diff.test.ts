/** Differences read as people expect them: few lines, the right ones, with what is around. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { diffLines, diffValues } from "../../src/rules/diff.ts";

test("a changed field is two lines with its surroundings", () => {
  const before = { from: "orders", where: "body.amount > 100", enabled: true, to: { stream: "a" } };
  expect(diffValues(before, { ...before, where: "body.amount > 200" })).toEqual([
    "  from: orders",
    "- where: body.amount > 100",
    "+ where: body.amount > 200",
    "  enabled: true",
    "  to:",
    "  …",
  ]);
});

test("what is made or deleted is all of its lines, and equal values are none", () => {
  expect(diffValues(null, { a: 1 })).toEqual(["+ a: 1"]);
  expect(diffValues({ a: 1 }, null)).toEqual(["- a: 1"]);
  expect(diffValues({ a: 1n, b: "x" }, { a: 1n, b: "x" })).toEqual([]);
});

test("a part beyond the bound of work is shown as replaced", () => {
  const many = (mark: string): string[] => Array.from({ length: 1500 }, (_, n) => `${mark}${n}`);
  const lines = diffLines(["head", ...many("a"), "tail"], ["head", ...many("b"), "tail"]);
  expect(lines.filter((line) => line.startsWith("- "))).toHaveLength(1500);
  expect([lines[0], lines.at(-1)]).toEqual(["  head", "  tail"]);
});

test("any difference leads from the one to the other", () => {
  const line = fc.constantFrom("a", "b", "c", "d");
  fc.assert(
    fc.property(
      fc.array(line, { maxLength: 4 }),
      fc.array(line, { maxLength: 4 }),
      (old, young) => {
        const lines = diffLines(old, young);
        if (lines.length === 0) return expect(young).toEqual(old);
        if (lines.includes("  …")) return;
        const without = (sign: string): string[] =>
          lines.filter((each) => !each.startsWith(sign)).map((each) => each.slice(2));
        expect(without("+")).toEqual(old);
        expect(without("-")).toEqual(young);
      },
    ),
    { numRuns: 2000, seed: 7 },
  );
});
