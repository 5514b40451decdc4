/** Expressions: the meaning that definitions rely on, and errors that say what was expected. */
import { describe, expect, test } from "bun:test";
import { InvalidError } from "../../src/errors.ts";
import { type CompileOptions, compileExpression } from "../../src/rules/expression.ts";
import { EvaluationError } from "../../src/rules/failure.ts";
import { stored } from "./messages.ts";

const message = stored({
  id: "m-1",
  key: "c-1",
  body: '{"id":1,"amount":250,"qty":2,"price":100.5,"big":9007199254740993,"zero":0,"half":0.5,"region":"eu","items":[{"q":1},{"q":5}],"nothing":null,"flag":true,"constructor":5,"__proto__":{"x":1}}',
  headers: [
    ["Region", "us"],
    ["region", "eu"],
    ["empty", ""],
    ["none", null],
    ["raw", new Uint8Array([0xff])],
    ["__proto__", "p"],
  ],
  properties: { contentType: "application/json", priority: 3 },
  origin: {
    bridge: "plant",
    address: "topic a",
    partition: null,
    offset: null,
    hops: ["a"],
    params: { device: "d1" },
  },
});

function evaluate(source: string): unknown {
  return compileExpression(source).evaluate(message);
}

describe("variables", () => {
  test.each<[string, unknown]>([
    ["body.amount", 250],
    ["body['amount']", 250],
    ["body.items[1].q", 5],
    ["body.nothing == null", true],
    ["body.constructor", 5],
    ["text.contains('amount')", true],
    ["size(bytes) == size(text)", true],
    ["bytes == bytes(text)", true],
    ["key", "c-1"],
    ["key == 'c-1'", true],
    ["headers.region", "eu"],
    ["headers['region']", "eu"],
    ["headers.Region", "us"],
    ["headers.none == null", true],
    ["headers.raw == b'\\xff'", true],
    ["headers.__proto__", "p"],
    ["'region' in headers", true],
    ["'REGION' in headers", false],
    ["has(headers.region)", true],
    ["has(headers.toString)", false],
    ['header("REGION")', "eu"],
    ['header("re" + "gion")', "eu"],
    ['header("nope")', ""],
    ['header("none")', ""],
    ["properties.contentType", "application/json"],
    ["properties.priority + 1", 4],
    ["has(properties.replyTo)", false],
    ["params.device", "d1"],
    ["id", "m-1"],
    ["timestamp > 0", true],
    ["stream", "orders"],
    ["partition", 0],
    ["offset", 7],
    ["origin.bridge", "plant"],
    ["origin.hops[0]", "a"],
    ["raw(body.region)", "eu"],
  ])("%s", (source, expected) => {
    expect(evaluate(source)).toEqual(expected);
  });

  test("a key that is not UTF-8 is bytes, and no key is null", () => {
    const key = new Uint8Array([1, 0xff]);
    expect(compileExpression("key").evaluate(stored({ key }))).toEqual(key);
    expect(compileExpression("key == null").evaluate(stored())).toBe(true);
  });

  test("a body that isn't JSON is absent; a tombstone's body is null", () => {
    const expression = compileExpression("body.a == 1");
    expect(() => expression.evaluate(stored({ body: "{" }))).toThrow("the body is not JSON");
    expect(() => expression.evaluate(stored({ body: "" }))).toThrow("the body is not JSON");
    expect(() => expression.evaluate(stored({ body: null }))).toThrow("null has no field a");
    expect(compileExpression("body == null").evaluate(stored({ body: null }))).toBe(true);
    expect(compileExpression("text == null").evaluate(stored({ body: null }))).toBe(true);
    expect(compileExpression("body == null").evaluate(stored({ body: "null" }))).toBe(true);
  });

  test("the body is not parsed when the expression decides without it", () => {
    let parsed = 0;
    const lazy = Object.defineProperty(stored(), "json", {
      get() {
        parsed++;
        return {};
      },
    });
    const expression = compileExpression('header("x") == "y" && body.a == 1');
    expect(expression.test(lazy)).toBe("no");
    expect(parsed).toBe(0);
    expect(expression.needsBody).toBe(true);
    expect(compileExpression('headers.x == "y"').needsBody).toBe(false);
  });

  test("item is there only where it is allowed", () => {
    expect(compileExpression("item.q * 2", { item: true }).evaluate(message, { q: 4 })).toBe(8);
    expect(() => compileExpression("item.q")).toThrow(InvalidError);
  });
});

describe("numbers", () => {
  test.each<[string, unknown]>([
    ["body.amount * body.qty", 500],
    ["body.amount * body.qty == 500", true],
    ["body.price > 100", true],
    ["100 < 100.5", true],
    ["100 < body.price", true],
    ["body.amount == 250.0", true],
    ["body.amount * 1.5", 375],
    ["body.amount / 100", 2],
    ["body.amount / 100.0", 2.5],
    ["5.0 / 2", 2.5],
    ["2.5 * 2 / 4", 1.25],
    ["double(5) / 2", 2.5],
    ["body.half + body.half", 1],
    ["(body.half + body.half) / 2", 0.5],
    ["7 / 2", 3],
    ["-7 / 2", -3],
    ["-7 % 3", -1],
    ["body.big", 9007199254740993n],
    ["body.big == 9007199254740993", true],
    ["body.big == 9007199254740992", false],
    ["body.big > 9007199254740992.0", true],
    ["body.big - 9007199254740992", 1],
    ["body.big + 1", 9007199254740994n],
    ["9007199254740991 + 2", 9007199254740993n],
    ["9223372036854775807 * 9223372036854775807", 85070591730234615847396907784232501249n],
    ["-9223372036854775808 - 1", -9223372036854775809n],
    ["9007199254740991 * 3 / 3", 9007199254740991],
    ["1 in [1.0, 2.0]", true],
    ["-body.zero", 0],
    ["0 * -1", 0],
    ["0.1 + 0.2", 0.1 + 0.2],
    ["5u + 5u", 10],
    ["int('12345678901234567890')", 12345678901234567890n],
    ["int(2.9)", 2],
    ["double('2.5')", 2.5],
    ["string(5.0)", "5"],
    ["string(9007199254740993)", "9007199254740993"],
    ["[1.0, 2.5, body.big]", [1, 2.5, 9007199254740993n]],
    ["{'a': 2.0 * 3}.a / 4", 1.5],
    ["body.flag ? 1 : 2.5", 1],
  ])("%s", (source, expected) => {
    const result = evaluate(source);
    expect(result).toEqual(expected);
    expect(typeof result).toBe(typeof expected);
  });

  test.each([
    "1 / 0",
    "1 % 0",
    "1.0 / 0.0",
    "1e308 * 10.0",
    "body.price % 2",
    "int('1.5')",
    "int('')",
    "double('x')",
    "uint(-1)",
    "body.amount > 'a'",
    "body.region > 1",
    "body.region + 1",
    "body.nothing + 1",
    "body.nothing < 1",
    "-body.region",
    "body.items[2]",
    "body.items[-1]",
    "body.items[0.5]",
    "body.missing",
    "body.toString",
    "body.region.length",
    "body.amount.x",
    "headers.nope",
    "headers.toString",
    "body.flag && body.amount",
    "!body.amount",
    "body.amount ? 1 : 2",
  ])("%s fails", (source) => {
    expect(() => evaluate(source)).toThrow(EvaluationError);
    expect(compileExpression(source).test(message)).toBe("failed");
  });
});

describe("logic, lists, maps and texts", () => {
  test.each<[string, unknown]>([
    ["body.missing == 1 || true", true],
    ["true || body.missing == 1", true],
    ["body.missing == 1 && false", false],
    ["body.items.exists(i, i.q > 4)", true],
    ["body.items.exists(i, i.missing > 4 || i.q > 4)", true],
    ["body.items.all(i, i.q > 0)", true],
    ["body.items.exists_one(i, i.q == 5)", true],
    ["body.items.map(i, i.q * 2)", [2, 10]],
    ["body.items.map(i, i.q > 1, i.q)", [5]],
    ["body.items.filter(i, i.q > 1).size()", 1],
    [
      "body.items.map(i, body.items.map(j, i.q * j.q))",
      [
        [1, 5],
        [5, 25],
      ],
    ],
    ["{'b': 1, 'a': 2}.map(k, k)", ["b", "a"]],
    ["cel.bind(x, body.amount, x + x)", 500],
    ["has(body.amount) && !has(body.missing)", true],
    ["has(body.nothing)", true],
    ["has(body.toString)", false],
    ["[1, 2] + [3]", [1, 2, 3]],
    ["[1, [2.0]] == [1.0, [2]]", true],
    ["body.items[0] == {'q': 1.0}", true],
    ["{'a': 1} == {'b': 1}", false],
    ["body.amount == '250'", false],
    ["int(timestamp('1970-01-01T00:01:00Z'))", 60],
    ["body.region in ['eu', 'us']", true],
    ["'amount' in body", true],
    ["'toString' in body", false],
    ["text.size() > 10", true],
    ["'a😀'.size()", 2],
    ["'a' + 'b' < 'b'", true],
    ["'Abc'.lowerAscii()", "abc"],
    ["'a,b'.split(',')", ["a", "b"]],
    ["['a', 'b'].join('-')", "a-b"],
    ["'abc'.substring(1)", "bc"],
    ["'abc'.startsWith('ab') && 'abc'.endsWith('bc')", true],
    ["'order-17'.matches('^order-[0-9]+$')", true],
    ["'order-17'.matches('[0-9]' + '{2}')", true],
    ["string(b'abc')", "abc"],
    ["type(body.amount) == int && type(body.price) == double", true],
    ["type(body.items) == list && type(body) == map", true],
    ["timestamp('2026-01-31T12:00:00Z').getFullYear()", 2026],
    ["timestamp('2026-01-31T12:00:00Z') + duration('1h')", "2026-01-31T13:00:00.000Z"],
    ["timestamp('2026-01-31T12:00:00Z') < timestamp('2027-01-31T12:00:00Z')", true],
    ["string(duration('90s'))", "90s"],
    ["duration('1h') > duration('59m')", true],
    ["body.flag ? 'a' : null", "a"],
  ])("%s", (source, expected) => {
    expect(evaluate(source)).toEqual(expected);
  });

  test.each([
    "body.items.exists(i, i.missing > 4)",
    "body.items.map(i, i.missing)",
    "body.amount.exists(i, i > 4)",
    "text.matches(body.region + '(')",
    "string(b'\\xff')",
    "size(body.amount)",
    "1 in body.amount",
  ])("%s fails", (source) => {
    expect(() => evaluate(source)).toThrow(EvaluationError);
  });

  test("what an expression makes of __proto__ is data and nothing else", () => {
    const made = evaluate("{'__proto__': {'admin': true}, 'constructor': 1}") as object;
    expect(Object.keys(made)).toEqual(["__proto__", "constructor"]);
    expect("admin" in made).toBe(false);
    expect(evaluate("body.__proto__.x")).toBe(1);
    expect(({} as Record<string, unknown>)["admin"]).toBeUndefined();
  });
});

describe("what does not compile", () => {
  test.each<[source: string, line: number, column: number, detail: string]>([
    ["", 1, 1, "expected an expression, found nothing"],
    ["body.amount >", 1, 14, "expected a value, found the end"],
    ["body.amount = 1", 1, 13, 'expected an operator, found "="; did you mean "=="?'],
    ["body.a &\n& body.b", 1, 8, 'expected an operator, found "&"; did you mean "&&"?'],
    ["body.a &&\n  (1 + 2", 2, 9, 'expected ")", found the end'],
    ["body.a body.b", 1, 8, 'expected an operator or the end, found "body"'],
    ["'abc", 1, 1, "expected the quote that closes this text, found the end"],
    ["foo.bar == 1", 1, 1, 'expected a variable, "foo" is none'],
    ["bdy.amount", 1, 1, 'expected a variable, "bdy" is none; did you mean "body"?'],
    [
      "true && heder('x') == ''",
      1,
      9,
      'expected a function, "heder" is none; did you mean "header"?',
    ],
    [
      "text.startWith('a')",
      1,
      6,
      'expected a function, "startWith" is none; did you mean "startsWith"?',
    ],
    ["size()", 1, 1, "size is not called with 0 arguments in this way"],
    ["header(1)", 1, 1, "expected other arguments: header(int) is not defined"],
    ["'a' + 1", 1, 1, "expected types that fit: + is not defined for string and int"],
    ["header('x') > 5", 1, 1, "expected types that fit: > is not defined for string and int"],
    ["has(body)", 1, 1, "has needs a field, such as has(body.amount)"],
    ["body.map(1, 2)", 1, 10, "map(var, transform) invalid predicate iteration variable"],
    [
      "text.matches('(')",
      1,
      14,
      'the pattern "(" is not valid RE2: error parsing regexp: missing closing ): `(`',
    ],
    [
      "text.matches('a(?=b)')",
      1,
      14,
      'the pattern "a(?=b)" is not valid RE2: error parsing regexp: invalid or unsupported Perl syntax: `(?=`',
    ],
    ["__proto__", 1, 1, "reserved identifier: __proto__"],
    ["constructor", 1, 1, 'expected a variable, "constructor" is none'],
    ["body.?a", 1, 6, 'expected a name, found "?"'],
    ["1 + @", 1, 5, 'expected an operator or the end, found "@"'],
  ])("%j", (source, line, column, detail) => {
    expect(refusal(source)).toEqual({ pointer: "", detail, line, column });
  });

  test("an expression has bounds of size and depth", () => {
    expect(refusal(`'${"a".repeat(5000)}'`).detail).toContain("at most 4096 characters");
    expect(refusal(`${"(".repeat(100)}1${")".repeat(100)}`).detail).toContain("maxDepth");
    expect(refusal(`1${" + 1".repeat(1001)}`).detail).toContain("maxAstNodes");
    expect(() => compileExpression(`${"!".repeat(500)}true`)).not.toThrow();
  });

  test("a condition is true or false", () => {
    for (const source of ["5", "'a'", "body.items.map(i, i)", "header('x')"]) {
      expect(refusal(source, { condition: true }).detail).toContain("expected a condition");
    }
    for (const source of ["body.a", "body.a == 1", "true ? true : false", "!body.a"]) {
      expect(() => compileExpression(source, { condition: true })).not.toThrow();
    }
  });

  test("what runs before the message is stored does not know its place", () => {
    for (const source of ["stream", "partition + 1", "offset"]) {
      expect(refusal(source, { stored: false }).detail).toContain("before the message is stored");
    }
  });
});

function refusal(source: string, options?: CompileOptions) {
  try {
    compileExpression(source, options);
  } catch (cause) {
    if (cause instanceof InvalidError && cause.errors[0] !== undefined) return cause.errors[0];
    throw cause;
  }
  throw new Error(`${source} was not refused`);
}
