/** The small notations of definitions. */
import { expect, test } from "bun:test";
import { didYouMean, nearest } from "../../src/rules/suggest.ts";
import {
  isName,
  isReadableStream,
  parseByteCount,
  parseDurationMs,
  parseTimeMs,
} from "../../src/rules/units.ts";

test.each<[unknown, number | null]>([
  ["500ms", 500],
  ["2s", 2000],
  ["5m", 300_000],
  ["1h", 3_600_000],
  ["7d", 604_800_000],
  ["1.5s", 1500],
  ["250", 250],
  [250, 250],
  [0, 0],
  ["", null],
  ["-1s", null],
  ["1 s", null],
  ["1w", null],
  ["1.0001ms", null],
  [1.5, null],
  [-1, null],
  [Number.NaN, null],
  ["99999999999999d", null],
  [null, null],
  [{}, null],
])("the duration %p is %p", (input, expected) => {
  expect(parseDurationMs(input)).toBe(expected);
});

test.each<[unknown, number | null]>([
  ["512", 512],
  [512, 512],
  ["64KiB", 65_536],
  ["10GiB", 10 * 1024 ** 3],
  ["1MB", 1_000_000],
  ["1.5KiB", 1536],
  ["10 GiB", null],
  ["10gib", null],
  ["1.5", null],
  [true, null],
])("the byte count %p is %p", (input, expected) => {
  expect(parseByteCount(input)).toBe(expected);
});

const now = Date.UTC(2026, 0, 31, 12);

test.each<[string, number | null]>([
  ["2026-01-31T12:00:00Z", now],
  ["2026-01-31t12:00:00.250z", now + 250],
  ["2026-01-31T14:30:00+02:30", now],
  ["1h ago", now - 3_600_000],
  ["90s  ago", now - 90_000],
  ["0050-01-01T00:00:00Z", new Date("0050-01-01T00:00:00Z").getTime()],
  ["2026-02-30T12:00:00Z", null],
  ["2026-01-31T24:00:00Z", null],
  ["2026-01-31T12:00:00", null],
  ["2026-01-31", null],
  ["5 ago", null],
  ["yesterday", null],
])("the time %p is %p", (text, expected) => {
  expect(parseTimeMs(text, now)).toBe(expected);
});

test("a relative time needs to know what time it is", () => {
  expect(parseTimeMs("1h ago", null)).toBeNull();
  expect(parseTimeMs("2026-01-31T12:00:00Z", null)).toBe(now);
});

test("names have letters, digits, dots, underscores and dashes", () => {
  for (const name of ["a", "A1", "orders.dead", "a_b-c", "x".repeat(100)]) {
    expect(isName(name)).toBe(true);
  }
  for (const name of ["", ".a", "-a", "_a", "$audit", "a b", "a/b", "ä", "x".repeat(101), "a\n"]) {
    expect(isName(name)).toBe(false);
  }
  expect(isReadableStream("$audit")).toBe(true);
  expect(isReadableStream("$")).toBe(false);
});

test("the nearest name is suggested, and none when all are far", () => {
  const known = ["where", "retry", "enabled", "onFailure"];
  expect(nearest("wehre", known)).toBe("where");
  expect(nearest("onfailure", known)).toBe("onFailure");
  expect(nearest("retrys", known)).toBe("retry");
  expect(nearest("colour", known)).toBeNull();
  expect(nearest("x".repeat(5000), known)).toBeNull();
  expect(didYouMean("enable", known)).toBe('; did you mean "enabled"?');
  expect(didYouMean("zzz", known)).toBe("");
});
