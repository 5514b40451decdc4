/**
 * No expression holds up the others: evil patterns, nested loops, growing texts and numbers all
 * end soon, and nothing reaches a prototype.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { InvalidError } from "../../src/errors.ts";
import { stringifyJson } from "../../src/json.ts";
import { compileExpression } from "../../src/rules/expression.ts";
import { EvaluationError } from "../../src/rules/failure.ts";
import { stored } from "./messages.ts";

/** Far above what any of these takes (a few milliseconds), far below what they could take. */
const LIMIT_MS = 2000;

function timed(run: () => void): number {
  const startMs = performance.now();
  run();
  return performance.now() - startMs;
}

describe("patterns", () => {
  const patterns = [
    "(a+)+$",
    "(a|a)*b",
    "(a|aa)+$",
    "(.*)*=",
    "(x+x+)+y",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "(a*)*(a*)*(a*)*b",
    "([a-zA-Z]+)*\\d",
    "(.*a.*){10}[bc]",
    "(\\w{1,100}\\s?){9}$",
    "(?i)(a|b|c|d|e|f|g)+$",
    "[\\p{L}]{1,500}$",
    "(a{0,30}){0,30}$",
    "(?:a?){30}a{30}[bc]",
  ];

  test.each(patterns)("%s ends soon or is refused", (pattern) => {
    const text = `${"a".repeat(20_000)}!`;
    const took = timed(() => {
      try {
        compileExpression(`text.matches(r'${pattern}')`).test(stored({ body: text }));
      } catch (cause) {
        expect(cause).toBeInstanceOf(InvalidError);
      }
    });
    expect(took).toBeLessThan(LIMIT_MS);
  });

  test("patterns from messages are bounded and kept", () => {
    const expression = compileExpression("'abc'.matches(text)");
    expect(expression.test(stored({ body: "^a.c$" }))).toBe("yes");
    expect(expression.test(stored({ body: "^a.c$" }))).toBe("yes");
    expect(expression.test(stored({ body: "x" }))).toBe("no");
    expect(expression.test(stored({ body: "(" }))).toBe("failed");
    expect(expression.test(stored({ body: "a".repeat(1001) }))).toBe("failed");
    expect(expression.test(stored({ body: "((a{100}){100}){10}" }))).toBe("failed");
    for (let index = 0; index < 1000; index++) {
      expect(expression.test(stored({ body: `b${index}` }))).toBe("no");
    }
  });

  test("a text too long for a pattern fails instead of waiting", () => {
    const expression = compileExpression("text.matches('(a+)+$')");
    expect(() => expression.evaluate(stored({ body: "a".repeat(1_000_000) }))).toThrow(
      "needs more than",
    );
  });
});

describe("steps", () => {
  const list = JSON.stringify(Array.from({ length: 300 }, (_, index) => index));
  const big = JSON.stringify(Array.from({ length: 100_000 }, (_, index) => index));

  test.each([
    ["body.all(a, body.all(b, body.all(c, a + b + c >= 0)))", list],
    ["body.map(a, body.map(b, body.map(c, a)))", list],
    ["body.exists(a, body.exists(b, body.exists(c, false)) && true)", list],
    ["body.all(a, a in body)", big],
    ["body.all(a, body == body + [])", big],
    ["body.map(a, body + body)", big],
    ["false || body.all(a, body.all(b, b >= 0))", big],
  ])("%s is stopped", (source, body) => {
    const expression = compileExpression(source);
    const message = stored({ body });
    const took = timed(() => {
      expect(() => expression.evaluate(message)).toThrow(EvaluationError);
      expect(expression.test(message)).toBe("failed");
    });
    expect(took).toBeLessThan(LIMIT_MS);
  });

  test("a usual loop over a long list is not stopped", () => {
    expect(compileExpression("body.exists(a, a == 99999)").evaluate(stored({ body: big }))).toBe(
      true,
    );
  });

  test("doubling a list, a text or a number is stopped", () => {
    const nest = (start: string, step: string): string => {
      let source = "v25";
      for (let index = 25; index > 0; index--) {
        const before = `v${index - 1}`;
        source = `cel.bind(v${index}, ${step.replaceAll("x", before)}, ${source})`;
      }
      return `cel.bind(v0, ${start}, ${source})`;
    };
    for (const source of [
      nest("[1]", "[x, x]"),
      nest("[1]", "x + x"),
      nest("text", "x + x"),
      nest("bytes", "x + x"),
      nest("12345678901234567890", "x * x"),
    ]) {
      const expression = compileExpression(source);
      const took = timed(() => {
        expect(() => stringifyJson(expression.evaluate(stored({ body: "abc" })))).toThrow(
          EvaluationError,
        );
      });
      expect(took).toBeLessThan(LIMIT_MS);
    }
  });
});

describe("prototypes", () => {
  const names = ["__proto__", "constructor", "prototype", "toString", "valueOf", "hasOwnProperty"];
  const roots = ["body", "headers", "properties", "params", "origin", "body.list", "text", "key"];

  test("no name reaches one, read or looked for", () => {
    const message = stored({ body: '{"list":[1],"a":1}', key: "k", headers: [["a", "b"]] });
    for (const root of roots) {
      for (const name of names) {
        for (const source of [`${root}.${name}`, `${root}['${name}']`, `${root}.a.${name}`]) {
          expect([source, verdict(source, message)]).toEqual([source, "failed"]);
        }
        const looked = [`has(${root}.${name})`, `'${name}' in ${root}`];
        for (const source of looked) expect(verdict(source, message)).not.toBe("yes");
      }
    }
  });

  function verdict(source: string, message: ReturnType<typeof stored>): string {
    try {
      return compileExpression(source).test(message);
    } catch (cause) {
      if (cause instanceof InvalidError) return "failed";
      throw cause;
    }
  }
});

test("random texts either compile or are refused with a place, and never throw otherwise", () => {
  const words = fc.constantFrom(
    ..."body .a [0] ( ) + - == && || ! ? : 'a' 1 2.5 has(body.a) .exists(x,x) .map(x,x)".split(" "),
    ..."header('x') .matches('a') [ ] { } , in __proto__ null true // $ é 0x b'".split(" "),
    "\n",
    "\u0000",
  );
  const message = stored({ body: '{"a":[1,2,{"a":1}]}' });
  fc.assert(
    fc.property(fc.array(words, { maxLength: 12 }), (parts) => {
      const source = parts.join(fc.sample(fc.constantFrom("", " "), 1)[0]);
      try {
        compileExpression(source).test(message);
      } catch (cause) {
        expect(cause).toBeInstanceOf(InvalidError);
        const [error] = (cause as InvalidError).errors;
        expect(error?.line).toBeGreaterThan(0);
        expect(error?.column).toBeGreaterThan(0);
        expect(error?.detail).not.toBe("");
      }
    }),
    { numRuns: 3000 },
  );
});
