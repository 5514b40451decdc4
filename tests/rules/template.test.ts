/** Templates and addresses: what `${…}` becomes, and what it may not become. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { InvalidError } from "../../src/errors.ts";
import { stringifyJson } from "../../src/json.ts";
import { compileAddress } from "../../src/rules/address.ts";
import { EvaluationError } from "../../src/rules/failure.ts";
import { compileTemplate } from "../../src/rules/template.ts";
import { stored } from "./messages.ts";

const message = stored({
  body: '{"id":1,"amount":250,"big":9007199254740993,"region":"eu","half":0.5,"tags":["a"],"flag":true,"none":null,"slash":"a/b","empty":"","map":{"__proto__":1}}',
  key: new Uint8Array([0xff]),
});

function render(template: unknown): unknown {
  return compileTemplate(template).render(message);
}

describe("templates", () => {
  test.each<[unknown, unknown]>([
    ["shop", "shop"],
    ["", ""],
    ["${body.id}", 1],
    ["${body.big}", 9007199254740993n],
    ["${body.tags}", ["a"]],
    ["${body.none}", null],
    ["${key}", new Uint8Array([0xff])],
    ["${body.region}", "eu"],
    ["${body.amount * 2.0}", 500],
    ["id ${body.id}", "id 1"],
    ["${body.id} ${body.big} ${body.half}", "1 9007199254740993 0.5"],
    ["${body.amount * 2.0}!", "500!"],
    ["${body.flag}/${body.none}/${body.tags}", 'true/null/["a"]'],
    ["${'}'}${\"{\"}", "}{"],
    ["${{'a': {'b': 1}}.a.b}", 1],
    ["${r'\\d}'}", "\\d}"],
    ["${'''}'''}-", "}-"],
    ["${'\\'}'}", "'}"],
    ["${1 // }\n}", 1],
    ["$${body.id}", "${body.id}"],
    ["$$${body.id}", "$${body.id}"],
    ["a$b{c}$", "a$b{c}$"],
    ["$${a} ${body.id}", "${a} 1"],
    [5, 5],
    [null, null],
    [true, true],
    [
      { id: "${body.id}", list: ["${body.region}", 2, null] },
      { id: 1, list: ["eu", 2, null] },
    ],
    [{ key: "${key}" }, { key: "/w==" }],
    [{ a: "$${x}" }, { a: "${x}" }],
  ])("%j", (template, expected) => {
    expect(render(template)).toEqual(expected as never);
  });

  test("__proto__ is a name like any other", () => {
    const template = JSON.parse('{"__proto__":"${body.id}"}') as unknown;
    expect(stringifyJson(render(template))).toBe('{"__proto__":1}');
  });

  test("text without expressions stays as it is", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        fc.pre(!text.includes("${"));
        expect(render(text)).toBe(text);
        expect(compileTemplate(text).constant).toBe(true);
      }),
    );
  });

  test("a text in an expression comes out as it went in", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        fc.pre(!/[\n\r]/.test(text));
        const quoted = text.replaceAll("\\", "\\\\").replaceAll("'", "\\'");
        expect(render(`\${'${quoted}'}`)).toBe(text);
      }),
    );
  });

  test.each(["${body.missing}", "a ${key}", "${body.id / 0}"])("%s fails", (template) => {
    expect(() => render(template)).toThrow(EvaluationError);
  });

  test.each<[template: unknown, pointer: string, at: [number, number], detail: string]>([
    ["${", "", [1, 1], 'expected "}" that closes "${", found the end'],
    ["ab ${'x}", "", [1, 4], 'expected "}" that closes "${", found the end'],
    ["${}", "", [1, 3], "expected an expression, found nothing"],
    ["id: ${body.}", "", [1, 12], "expected a name, found the end"],
    ["a\nb ${bdy.id}", "", [2, 5], 'expected a variable, "bdy" is none; did you mean "body"?'],
    ["${a\n  + x}", "", [1, 3], 'expected a variable, "a" is none'],
    [{ a: [1, { "b/c": "${1 +}" }] }, "/a/1/b~1c", [1, 6], "expected a value, found the end"],
    [
      "${env:SECRET}",
      "",
      [1, 3],
      "expected an expression; references such as ${env:NAME} work in bridges and hooks",
    ],
  ])("%j is refused", (template, pointer, [line, column], detail) => {
    try {
      compileTemplate(template);
    } catch (cause) {
      expect((cause as InvalidError).errors).toEqual([{ pointer, detail, line, column }]);
      return;
    }
    throw new Error("it was not refused");
  });

  test("all that is wrong is said at once", () => {
    expect.assertions(1);
    try {
      compileTemplate({ a: "${x}", b: ["${y}"] });
    } catch (cause) {
      expect((cause as InvalidError).errors.map((error) => error.pointer)).toEqual(["/a", "/b/0"]);
    }
  });
});

describe("addresses", () => {
  const specials = { topic: "/+#" };

  test("an address without expressions is the same for all", () => {
    const address = compileAddress({ topic: "a/b", qos: 1, retain: true }, specials);
    expect(address.constant).toBe(true);
    expect(address.render(message)).toEqual({ topic: "a/b", qos: 1, retain: true });
  });

  test.each<[string, unknown]>([
    ["orders/${body.region}", "orders/eu"],
    ["${body.id}", "1"],
    ["${body.big}/x", "9007199254740993/x"],
    ["${raw(body.slash)}", "a/b"],
    ["x/${raw(body.slash)}", "x/a/b"],
    ["x${raw(body.empty)}", "x"],
    ["x${raw(body.none)}", "x"],
    ["${body.flag ? raw(body.slash) : body.region}", "a/b"],
  ])("%s", (topic, expected) => {
    expect(compileAddress({ topic }, specials).render(message)).toEqual({ topic: expected });
  });

  test.each<[string, string]>([
    ["a/${body.slash}", 'contains "/"'],
    ["${raw(body.slash) + ''}", 'contains "/"'],
    ["${'#'}", 'contains "#"'],
    ["${body.empty}", "is empty"],
    ["x/${body.none}", "is empty"],
    ["${body.missing}", "no such field"],
    ["${key}", "not UTF-8"],
  ])("%s fails", (topic, reason) => {
    const address = compileAddress({ topic }, specials);
    expect(() => address.render(message)).toThrow(EvaluationError);
    expect(() => address.render(message)).toThrow(reason);
  });

  test("no value with a separator or wildcard gets through", () => {
    const address = compileAddress({ topic: "a/${text}/b" }, specials);
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), (text) => {
        const given = stored({ body: text });
        if (/[/+#]/.test(text)) expect(() => address.render(given)).toThrow(EvaluationError);
        else expect(address.render(given)).toEqual({ topic: `a/${text}/b` });
      }),
    );
  });

  test("a field that is no text by nature keeps its type", () => {
    const address = compileAddress({ partition: "${body.id}", note: "n${body.id}" }, specials);
    expect(address.render(message)).toEqual({ partition: 1, note: "n1" });
    const none = compileAddress({ partition: "${body.none}" }, specials);
    expect(() => none.render(message)).toThrow("is empty");
  });

  test("specials are looked up as own names", () => {
    const address = compileAddress({ constructor: "${body.slash}" }, specials);
    expect(address.render(message)).toEqual({ constructor: "a/b" } as never);
  });
});
