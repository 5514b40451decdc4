/** What every bridge reads its own documents with: pointers, nearest keys, references. */
import { describe, expect, test } from "bun:test";
import { z } from "zod";
import {
  connectionShape,
  durationMs,
  invalid,
  parseDocument,
  resolveAll,
  urlsOf,
} from "../../bridges/document.ts";
import { InvalidError } from "../../src/errors.ts";

const schema = z.strictObject({
  ...connectionShape,
  version: z.union([z.literal(4), z.literal(5)]).optional(),
  timeout: durationMs.optional(),
  nested: z.array(z.strictObject({ name: z.string() })).optional(),
  create: z.union([z.boolean(), z.strictObject({ partitions: z.int() })]).optional(),
});

function errorsOf(input: unknown): { pointer: string; detail: string }[] {
  try {
    parseDocument(schema, input);
  } catch (error) {
    if (error instanceof InvalidError) return [...error.errors];
    throw error;
  }
  return [];
}

describe("bridge documents", () => {
  test("name the nearest known key for an unknown one, at any depth", () => {
    expect(errorsOf({ urll: "x" })).toEqual([
      { pointer: "/urll", detail: 'unknown key "urll": did you mean "url"?' },
    ]);
    expect(errorsOf({ nested: [{ name: "a", nam: 1 }] })).toEqual([
      { pointer: "/nested/0/nam", detail: 'unknown key "nam": did you mean "name"?' },
    ]);
    expect(errorsOf({ create: { partition: 3, partitions: 3 } })).toEqual([
      {
        pointer: "/create/partition",
        detail: 'unknown key "partition": did you mean "partitions"?',
      },
    ]);
    expect(errorsOf({ tls: { certificate: "x" } })[0]?.pointer).toBe("/tls/certificate");
  });

  test("list the known keys when none is near", () => {
    expect(errorsOf({ nested: [{ name: "a", zzzzzzzz: 1 }] })[0]?.detail).toContain(
      "known are name",
    );
  });

  test("say what was expected, with a pointer for each problem", () => {
    expect(errorsOf({ username: 3, version: 6 })).toEqual([
      { pointer: "/username", detail: "expected string" },
      { pointer: "/version", detail: "expected 4 or 5" },
    ]);
    expect(errorsOf(null)).toEqual([{ pointer: "", detail: "expected object" }]);
    expect(errorsOf({ nested: [{}] })).toEqual([
      { pointer: "/nested/0/name", detail: "missing: expected string" },
    ]);
    expect(errorsOf({ timeout: "soon" })[0]?.detail).toContain("500ms");
  });

  test("read durations", () => {
    const durations = ["500ms", "2s", "5m", "1h", "7d", 250].map(
      (timeout) => parseDocument(schema, { timeout }).timeout,
    );
    expect(durations).toEqual([500, 2000, 300_000, 3_600_000, 604_800_000, 250]);
  });

  test("take exactly one of url and urls", () => {
    expect(urlsOf({ url: "a" })).toEqual(["a"]);
    expect(urlsOf({ urls: ["a", "b"] })).toEqual(["a", "b"]);
    expect(() => urlsOf({})).toThrow(InvalidError);
    expect(() => urlsOf({ url: "a", urls: ["b"] })).toThrow(InvalidError);
  });

  test("resolve the references in every text, at any depth, and nothing else", async () => {
    const asked: string[] = [];
    const resolved = await resolveAll(
      { a: "${env:A}", list: ["plain", "x ${file:b}"], deep: { n: 3, none: null, on: true } },
      async (text) => {
        asked.push(text);
        return `<${text.length}>`;
      },
    );
    expect(resolved).toEqual({
      a: "<8>",
      list: ["plain", "<11>"],
      deep: { n: 3, none: null, on: true },
    });
    expect(asked.length).toBe(2);
  });

  test("put the first problem and the number of the others into the error's text", () => {
    const error = invalid([
      { pointer: "/a", detail: "wrong" },
      { pointer: "/b", detail: "worse" },
    ]);
    expect(error.message).toBe("/a: wrong (and 1 more)");
  });
});
