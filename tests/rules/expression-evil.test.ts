/**
 * 200 evil patterns and 10,000 random expressions: none takes longer than a route can spare, and
 * none reaches a prototype. Seeded: ISTHMUS_TEST_SEED replays a run.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { InvalidError } from "../../src/errors.ts";
import { compileExpression } from "../../src/rules/expression.ts";
import { EvaluationError } from "../../src/rules/failure.ts";
import { stored } from "./messages.ts";

/** What one expression may take. A stalled machine gets two further tries. Milliseconds. */
const LIMIT_MS = 50;
const TRIES = 3;

const seed = Number(process.env["ISTHMUS_TEST_SEED"] ?? 20_260_131);

/** The CPU time of a run, which another process on the machine does not add to. */
function cpuMs(run: () => void): number {
  const before = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

function expectSoon(what: string, run: () => void): void {
  let took = Number.POSITIVE_INFINITY;
  for (let tries = 0; tries < TRIES && took > LIMIT_MS; tries++) took = Math.min(took, cpuMs(run));
  if (took > LIMIT_MS) throw new Error(`${what} took ${took} ms of CPU (seed ${seed})`);
}

/** 200 patterns from the shapes that stop engines which go back: nested and overlapping repeats. */
function evilPatterns(): string[] {
  const atoms = ["a", "[a-z]", "\\w", "(?:a|a)", ".", "[^b]", "(?i)a", "\\p{L}", "(a|aa)", "a?"];
  const shapes = [
    (x: string) => `(${x}+)+$`,
    (x: string) => `(${x}*)*b`,
    (x: string) => `(${x}|${x}${x})+$`,
    (x: string) => `^(${x}+){1,20}$`,
    (x: string) => `(${x}+${x}+)+b`,
    (x: string) => `(${x}{1,30}){1,30}$`,
    (x: string) => `(${x}*)(${x}*)(${x}*)(${x}*)b`,
    (x: string) => `((${x}+)?)+[0-9]`,
    (x: string) => `(${x}?){30}${x}{30}b`,
    (x: string) => `(.*${x}.*){8}[bc]$`,
    (x: string) => `^(?:${x}+\\.?)+@`,
    (x: string) => `(${x}+)*\\d`,
    (x: string) => `(?s)(.*)${x}(.*)${x}(.*)b`,
    (x: string) => `(${x}+|b+)*c`,
    (x: string) => `(${x}{0,20}){0,20}c`,
    (x: string) => `(?:${x}|b|c|d|e)+$`,
    (x: string) => `^(${x}${x}?)*$`,
    (x: string) => `((${x}*)+)+b`,
    (x: string) => `(${x}+)(${x}+)(${x}+)(${x}+)(${x}+)b`,
    (x: string) => `(\\s*${x}\\s*)+;`,
  ];
  return shapes.flatMap((shape) => atoms.map(shape));
}

const patterns = evilPatterns();

test("200 evil patterns end soon, on short texts and on long ones", () => {
  expect(new Set(patterns).size).toBe(200);
  const messages = [40, 2_000, 30_000].map((length) => stored({ body: `${"a".repeat(length)}!` }));
  for (const pattern of patterns) {
    for (const [index, message] of messages.entries()) {
      expectSoon(`${pattern} on text ${index}`, () => {
        try {
          compileExpression(`text.matches(r'${pattern}')`).test(message);
        } catch (cause) {
          if (!(cause instanceof InvalidError)) throw cause;
        }
      });
    }
  }
}, 120_000);

const names = fc.constantFrom(
  ..."a b list map name __proto__ constructor prototype toString valueOf hasOwnProperty".split(" "),
);
const atom = fc.oneof(
  names.map((name) => `body.${name}`),
  names.map((name) => `body['${name}']`),
  names.map((name) => `headers.${name}`),
  names.map((name) => `properties['${name}']`),
  fc.constantFrom("key", "text", "bytes", "now", "id", "origin", "params", "timestamp", "body"),
  fc.constantFrom("1", "-3", "2.5", "'x'", "true", "null", "[1, 2]", "{'a': 1}", "uuid()"),
);
const unary = fc.constantFrom(
  ..."size json jsonDecode base64 base64Decode hex hexDecode sha256 string int double type".split(
    " ",
  ),
);
const method = fc.constantFrom(
  ".trim()",
  ".upperAscii()",
  ".reverse()",
  ".split('')",
  ".join('')",
  ".replace('', 'xx')",
  ".charAt(0)",
  ".format('%Y')",
  ".getFullYear()",
  ".substring(1)",
);
const { expression } = fc.letrec<{ expression: string }>((tie) => ({
  expression: fc.oneof(
    { maxDepth: 6 },
    atom,
    fc.tuple(unary, tie("expression")).map(([name, inner]) => `${name}(${inner})`),
    fc.tuple(tie("expression"), method).map(([inner, call]) => `(${inner})${call}`),
    fc.tuple(tie("expression"), names).map(([inner, name]) => `(${inner}).${name}`),
    fc
      .tuple(
        tie("expression"),
        fc.constantFrom("+", "-", "*", "/", "==", "<", "&&", "||", "in"),
        tie("expression"),
      )
      .map(([left, operator, right]) => `(${left} ${operator} ${right})`),
    fc
      .tuple(fc.constantFrom("map", "filter", "all", "exists"), tie("expression"))
      .map(([macro, inner]) => `body.list.${macro}(i, ${inner})`),
    fc.tuple(tie("expression"), tie("expression")).map(([a, b]) => `hmac(${a}, ${b})`),
    fc.tuple(tie("expression"), tie("expression")).map(([a, b]) => `cel.bind(v, ${a}, [v, ${b}])`),
  ),
}));

test("10,000 random expressions end soon and reach no prototype", () => {
  const list = Array.from({ length: 200 }, (_, index) => index);
  const body = JSON.stringify({ a: 1, b: "x".repeat(1000), list, map: { a: { b: 1 } }, name: "n" });
  const message = stored({ body, key: "k", headers: [["a", "b"]] });
  const reached: unknown[] = [Object.prototype, Array.prototype, Function.prototype, Object, Array];
  let evaluated = 0;
  for (const source of fc.sample(expression, { numRuns: 10_000, seed })) {
    expectSoon(source, () => {
      try {
        const value = compileExpression(source).evaluate(message);
        evaluated++;
        if (typeof value === "function" || reached.includes(value)) {
          throw new Error(`${source} reached ${String(value)} (seed ${seed})`);
        }
      } catch (cause) {
        if (!(cause instanceof InvalidError || cause instanceof EvaluationError)) throw cause;
      }
    });
  }
  expect(evaluated).toBeGreaterThan(500);
  expect(Object.keys(Object.prototype)).toEqual([]);
}, 120_000);
