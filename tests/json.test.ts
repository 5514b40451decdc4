/** JSON: exact whole numbers, bounds, and the same data out as in. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { InvalidError } from "../src/errors.ts";
import { parseBody, parseJson, stableText, stringifyJson } from "../src/json.ts";
import { encodeText } from "../src/message.ts";

describe("parseJson", () => {
  test("gives back any JSON as it was", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = JSON.stringify(value);
        expect(stringifyJson(parseJson(text))).toBe(text);
      }),
    );
  });

  test("keeps whole numbers exact at any size, both ways", () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n })), (numbers) => {
        const text = `{"list":[${numbers.join(",")}],"id":"1234567890123456789"}`;
        const parsed = parseJson(text) as { list: (number | bigint)[] };
        expect(parsed.list.map(BigInt)).toEqual(numbers);
        for (const number of parsed.list) {
          expect(typeof number === "bigint").toBe(!Number.isSafeInteger(Number(number)));
        }
        expect(stringifyJson(parsed)).toBe(text);
      }),
    );
  });

  test.each([
    ["9007199254740993", 9007199254740993n],
    ["-9007199254740993", -9007199254740993n],
    ["9007199254740991", 9007199254740991],
    ["12345678901234567890.5", 12345678901234567000],
    ["1e20", 1e20],
    ['{"a":12345678901234567890,"a":1}', { a: 1 }],
    ['{"a":1,"a":12345678901234567890}', { a: 12345678901234567890n }],
  ])("%s", (text, expected) => {
    expect(parseJson(text)).toEqual(expected);
  });

  test("takes __proto__ as plain data", () => {
    const value = parseJson('{"__proto__":{"admin":true},"n":12345678901234567890}') as object;
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
    expect(Object.keys(value)).toEqual(["__proto__", "n"]);
    expect("admin" in value).toBe(false);
    expect(stringifyJson(value)).toBe('{"__proto__":{"admin":true},"n":12345678901234567890}');
  });

  test.each([
    "",
    "{",
    "[1,]",
    "NaN",
    "01",
    '"\n"',
    "\u0000",
    "{'a':1}",
    "[".repeat(129) + "]".repeat(129),
    '{"a":'.repeat(100_000),
    "1".repeat(1001),
  ])("refuses %#", (text) => {
    expect(() => parseJson(text)).toThrow(InvalidError);
  });

  test("counts only brackets outside of texts for the depth", () => {
    const deep = "[".repeat(128) + "]".repeat(128);
    expect(stringifyJson(parseJson(deep))).toBe(deep);
    const text = JSON.stringify({ text: `${"[".repeat(500)}"\\` });
    expect(stringifyJson(parseJson(text))).toBe(text);
    const many = JSON.stringify(Array.from({ length: 500 }, () => ({ a: [1] })));
    expect(stringifyJson(parseJson(many))).toBe(many);
  });
});

describe("parseBody", () => {
  test("gives undefined for what isn't JSON, bytes that are not UTF-8 included", () => {
    expect(parseBody(null, null)).toBeUndefined();
    expect(parseBody(encodeText("x"), "x")).toBeUndefined();
    const bytes = new Uint8Array([0x22, 0xff, 0x22]);
    expect(parseBody(bytes, new TextDecoder().decode(bytes))).toBeUndefined();
    expect(parseBody(encodeText('"\uFFFD"'), '"\uFFFD"')).toBe("\uFFFD");
  });
});

describe("stringifyJson", () => {
  test("refuses numbers that JSON does not have", () => {
    for (const value of [Number.NaN, [Number.POSITIVE_INFINITY], { a: { b: -Infinity } }]) {
      expect(() => stringifyJson(value)).toThrow(InvalidError);
    }
    expect(stringifyJson({ a: null, b: "null" })).toBe('{"a":null,"b":"null"}');
  });

  test("refuses what has no JSON form", () => {
    expect(() => stringifyJson(undefined)).toThrow(InvalidError);
  });
});

test("stableText is the same whatever the order of keys", () => {
  const one = stableText({ b: [1, { d: 1n << 70n, c: null }], a: "x" });
  const other = stableText({ a: "x", b: [1, { c: null, d: 1n << 70n }] });
  expect(one).toBe(other);
  expect(one).toBe('{"a":"x","b":[1,{"c":null,"d":1180591620717411303424}]}');
});
