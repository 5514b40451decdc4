/** Every line of the tables in docs/expressions.md says what an expression really gives. */
import { expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseJson, stringifyJson } from "../../src/json.ts";
import { compileExpression } from "../../src/rules/expression.ts";
import { type Given, stored } from "./messages.ts";

const text = await readFile(join(import.meta.dir, "../../docs/expressions.md"), "utf8");

interface Example extends Omit<Given, "body" | "origin"> {
  readonly timestamp: number;
  readonly appendedAt: number;
  readonly params: Readonly<Record<string, string>>;
  readonly body: unknown;
}

const example = parseJson(/```json\n([\s\S]*?)```/.exec(text)?.[1] ?? "") as Example;
const message = Object.assign(
  stored({
    id: "m-1",
    key: "c-7",
    headers: [
      ["region", "eu"],
      ["X-Trace", "abc"],
    ],
    properties: { contentType: "application/json" },
    timestampMs: example.timestamp,
    body: stringifyJson(example.body),
    origin: {
      bridge: "b",
      address: "a",
      partition: null,
      offset: null,
      hops: [],
      params: example.params,
    },
  }),
  { appendedAtMs: example.appendedAt },
);

const rows = [...text.matchAll(/^\| `(.*?)` \| `(.*?)` \|$/gm)].map(
  ([, source = "", gives = ""]) => [source.replaceAll("\\|", "|"), gives] as const,
);

test("the tables are found", () => {
  expect(rows.length).toBeGreaterThan(70);
});

for (const [source, gives] of rows) {
  test(`${source} gives ${gives}`, () => {
    expect(stringifyJson(compileExpression(source).evaluate(message))).toBe(
      stringifyJson(parseJson(gives)),
    );
  });
}
