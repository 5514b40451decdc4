/** Conditions are evaluated once a message, and bodies are parsed once, or never. */
import { expect, test } from "bun:test";
import type { StoredMessage } from "../../src/message.ts";
import { conditionOf } from "../../src/rules/conditions.ts";
import { parseDefinition } from "../../src/rules/parse.ts";
import { type CompiledRule, compileRule } from "../../src/rules/transform.ts";
import { bridges, modules, stored } from "./messages.ts";

/** A message that counts how often its body is asked for as JSON. */
function counted(body: string): { readonly message: StoredMessage; readonly asked: () => number } {
  const inner = stored({ body, headers: [["region", "eu"]] });
  let asked = 0;
  const message = Object.create(inner, {
    json: {
      get: () => {
        asked++;
        return inner.json;
      },
    },
    text: {
      get: () => {
        asked++;
        return inner.text;
      },
    },
  }) as StoredMessage;
  return { message, asked: () => asked };
}

function rule(name: string, where: string, targets: number): CompiledRule {
  const to = Array.from({ length: targets }, (_, index) => ({ stream: `t${index}` }));
  const document = { from: "orders", where, to };
  const parsed = parseDefinition("rules", name, document, { modules, bridges });
  return compileRule(name, parsed, modules);
}

test("a condition that rules and targets share is evaluated once a message", () => {
  const where = "body.amount > 100 && body.shared == true";
  const rules = [rule("first", where, 5), rule("second", where, 1), rule("third", where, 2)];
  const { message, asked } = counted('{"amount":250,"shared":true}');
  for (let turn = 0; turn < 3; turn++) {
    for (const each of rules) expect(each.matches(message)).toBe("yes");
  }
  // Once for each place in the one evaluation that looks at the body.
  expect(asked()).toBe(2);
  const other = counted('{"amount":1}');
  expect(rules.map((each) => each.matches(other.message))).toEqual(["no", "no", "no"]);
});

test("a failed condition is remembered as failed, not as no", () => {
  const where = "body.gone > 1 && body.once == 1";
  const both = [rule("a", where, 2), rule("b", where, 1)];
  const message = stored({ body: "{}" });
  expect(both.map((each) => each.matches(message))).toEqual(["failed", "failed"]);
});

test("a body is not looked at when no expression needs it", () => {
  const { message, asked } = counted('{"amount":250}');
  const plain = rule("headers", 'header("region") == "eu" && key == null', 3);
  expect(plain.matches(message)).toBe("yes");
  for (const target of plain.targets) target.render(message);
  expect(asked()).toBe(0);
});

test("equal texts are one condition, and a rule alone pays nothing for it", () => {
  const one = conditionOf("body.alone == 1", "r", 1);
  expect(conditionOf("body.alone == 1", "r", 1)).toBe(one);
  const { message, asked } = counted('{"alone":1}');
  expect([one.test(message), one.test(message)]).toEqual(["yes", "yes"]);
  expect(asked()).toBe(2);
});

test("a UUID is the same for a retry, and another one at each place, rule and message", () => {
  const made = (name: string, id: string): string[] => {
    const document = {
      from: "orders",
      set: { key: "${uuid()}", headers: { a: "${uuid()} ${uuid()}" }, body: "${[uuid(), uuid()]}" },
      to: { stream: "t" },
    };
    const parsed = parseDefinition("rules", name, document, { modules, bridges });
    const [target] = compileRule(name, parsed, modules).targets;
    const { message } = target?.render(stored({ id })) ?? { message: null };
    const decoder = new TextDecoder();
    const parts = [message?.key, message?.headers[0]?.value, message?.body];
    const text = parts.map((bytes) => decoder.decode(bytes ?? new Uint8Array(0))).join(" ");
    return text.match(/[0-9a-f-]{36}/g) ?? [];
  };
  const first = made("r", "m-1");
  expect(first).toHaveLength(5);
  expect(new Set(first).size).toBe(5);
  expect(made("r", "m-1")).toEqual(first);
  const others = [...made("r", "m-2"), ...made("other", "m-1")];
  expect(new Set([...first, ...others]).size).toBe(15);
});
