/** Definition files: plain data with positions, and YAML's traps refused with the fix. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { InvalidError } from "../../src/errors.ts";
import { parseDefinition, parseDefinitions } from "../../src/rules/parse.ts";
import { parseFile } from "../../src/rules/yaml.ts";
import { modules, testModule } from "./messages.ts";

function refusal(run: () => unknown): InvalidError {
  try {
    run();
  } catch (cause) {
    if (cause instanceof InvalidError) return cause;
    throw cause;
  }
  throw new Error("it was not refused");
}

describe("what is read", () => {
  test.each<[string, unknown]>([
    ["a: 1\nb: [x, 2.5, true, null, ~]\n", { a: 1, b: ["x", 2.5, true, null, null] }],
    ["a: yes\nb: off\nc: 1e3\nd: 0x1F\ne: 012", { a: "yes", b: "off", c: 1000, d: 31, e: 12 }],
    ["a: 2026-01-01T00:00:00Z", { a: "2026-01-01T00:00:00Z" }],
    ["1: x\ntrue: y", { "1": "x", true: "y" }],
    ["a: |\n  x\n  y\nb: >\n  x\n  y\n", { a: "x\ny\n", b: "x y\n" }],
    ["where: body.a > 1 && header('x') == 'y'", { where: "body.a > 1 && header('x') == 'y'" }],
    ["a: ${body.x}", { a: "${body.x}" }],
    ['{"a": "b",\t"c": [1,\n\t2]}', { a: "b", c: [1, 2] }],
    ["", null],
    ["# nothing\n", null],
    ["a:\n", { a: null }],
  ])("%j", (text, expected) => {
    expect(parseFile(text, "f").value as unknown).toEqual(expected);
  });

  test("any JSON is read as it is", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 4 }), (value) => {
        const text = JSON.stringify({ value });
        fc.pre(!/\d{16}|<</.test(text) && !text.includes("-0"));
        expect(JSON.stringify(parseFile(text, "f").value)).toBe(text);
      }),
    );
  });

  test("__proto__ is a key like any other", () => {
    const { value } = parseFile("__proto__: { admin: true }", "f");
    expect(Object.keys(value as object)).toEqual(["__proto__"]);
    expect("admin" in (value as object)).toBe(false);
  });
});

describe("what is refused", () => {
  test.each<[text: string, pointer: string, at: [number, number], detail: string]>([
    [
      "rules:\n  a: { where: !x }",
      "/rules/a/where",
      [2, 15],
      "!x is a YAML tag: quote the value when the ! belongs to it",
    ],
    [
      "rules:\n  a:\n    where: !body.urgent && true",
      "/rules/a/where",
      [3, 12],
      "!body.urgent is a YAML tag: quote the value when the ! belongs to it",
    ],
    ["a: !foo [1]", "/a", [1, 4], "!foo is a YAML tag: quote the value when the ! belongs to it"],
    ["a: &x 5", "/a", [1, 7], "anchors (&name) are not taken: write the value where it is used"],
    ["a: { <<: { b: 1 } }", "/a", [1, 6], "merge keys (<<) are not taken: write the keys out"],
    ["a:\n  b: 1\n  b: 2", "", [3, 3], "this key stands here twice: expected each key once"],
    ["a: 1\n---\nb: 2", "", [2, 1], "a file holds one document: expected no further ---"],
    [
      "a: 12345678901234567890",
      "/a",
      [1, 4],
      'a number out of range: quote it, or write "${…}" to keep it a number',
    ],
    [
      "a: .nan",
      "/a",
      [1, 4],
      'a number out of range: quote it, or write "${…}" to keep it a number',
    ],
    ["? [a]\n: b", "", [1, 3], "expected a plain key"],
    [
      "a: { b: ${body.x} }",
      "",
      [1, 10],
      "a value with ${…} is quoted in flow style, between { } or [ ]",
    ],
    [
      "a: [1\nb: 2",
      "",
      [2, 1],
      "Flow sequence in block collection must be sufficiently indented and end with a ]",
    ],
    ["a:\n\tb: 1", "", [2, 1], "Tabs are not allowed as indentation"],
    [
      `a: ${"[".repeat(100)}${"]".repeat(100)}`,
      `/a${"/0".repeat(34)}`,
      [1, 38],
      "nested deeper than 34 levels",
    ],
  ])("%j", (text, pointer, [line, column], detail) => {
    const error = refusal(() => parseFile(text, "defs.yaml"));
    expect(error.errors[0]).toEqual({ pointer, detail, line, column });
    expect(error.code).toBe("definition-invalid");
    expect(error.message).toStartWith(`defs.yaml:${line}:${column}: `);
  });

  test("nesting that would overflow the stack", () => {
    for (const part of ["[", "- ", "{a: ", "? "]) {
      const error = refusal(() => parseFile(part.repeat(50_000), "f"));
      expect(error.errors[0]?.detail).toContain("nested deeper");
      expect(error.errors.length).toBeLessThan(20);
    }
  });
});

describe("positions", () => {
  const text = [
    "rules:",
    "  quoted:",
    '    where: "body.x >"',
    "    set: { key: '${body.}' }",
    "  plain:",
    "    where: body.x >",
    "  block:",
    "    where: |",
    "      body.a &&",
    "      body.b >",
    '    note: "\\u0041 ${x}"',
  ].join("\n");
  const file = parseFile(text, "defs.yaml");

  test.each<[string, number, number]>([
    ["/rules/quoted/where", 3, 12],
    ["/rules/quoted/set/key", 4, 17],
    ["/rules/plain", 6, 5],
    ["/rules/plain/missing", 6, 5],
    ["/nothing", 1, 1],
    ["", 1, 1],
  ])("%s is at %i:%i", (pointer, line, column) => {
    expect(file.locate(pointer)).toEqual({ line, column });
  });

  test("an expression's line and column become those of the file", () => {
    const at = (pointer: string, line: number, column: number) => {
      const error = new InvalidError("x", [{ pointer, detail: "d", line, column }]);
      const [explained] = file.explain(error).errors;
      return [explained?.line, explained?.column];
    };
    expect(at("/rules/quoted/where", 1, 9)).toEqual([3, 21]);
    expect(at("/rules/plain/where", 1, 9)).toEqual([6, 20]);
    expect(at("/rules/block/where", 2, 9)).toEqual([10, 15]);
    expect(at("/rules/block/note", 1, 5)).toEqual([11, 11]);
    const error = file.explain(
      new InvalidError("x", [{ pointer: "/rules/plain/to", detail: "d" }]),
    );
    expect(error.errors).toEqual([{ pointer: "/rules/plain/to", detail: "d", line: 6, column: 5 }]);
    expect(error.message).toBe("defs.yaml:6:5: /rules/plain/to: d");
  });
});

test("the quickstart is a valid file", () => {
  const text = readFileSync(new URL("../../examples/quickstart.yaml", import.meta.url), "utf8");
  const { documents, project } = parseDefinitions(parseFile(text, "quickstart.yaml").value);
  expect(project).toBe("quickstart");
  const kinds = documents.filter((each) => each.kind === "bridges");
  const named = new Map(
    kinds.map((each) => [each.name, { kind: each.document["kind"] as string }]),
  );
  expect([...named.keys()]).toEqual(["kafka", "rabbit", "mqtt", "webhook"]);
  const lenient = { parseConfig: (input: unknown) => input };
  const all = new Map(
    [...modules.values()].map((module) => [
      module.kind,
      testModule(module.kind, [], {
        ...lenient,
        parseAddress: (input) => ({ text: JSON.stringify(input), fields: input }),
      }),
    ]),
  );
  for (const { kind, name, document } of documents) {
    parseDefinition(kind, name, document, { modules: all, bridges: named });
  }
});
