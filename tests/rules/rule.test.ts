/** Rules that are refused: for each a pointer and what was expected. */
import { expect, test } from "bun:test";
import type { JsonObject } from "../../src/rules/document.ts";
import { parseDefinition } from "../../src/rules/parse.ts";
import { DURATION_FORM, NAME_FORM } from "../../src/rules/units.ts";
import { bridges, modules, problemsOf } from "./messages.ts";

const EXPRESSION_FORM =
  "a CEL expression as text (leave it out, or quote it: YAML takes an unquoted ! for a tag)";
const KNOWN =
  "known are from, where, start, order, set, to, retry, limit, concurrency, batch, notBefore, delay, translation, format, echo, onFailure, enabled or sign";

const rule = { from: "orders", to: { stream: "out" } };
const to = (target: JsonObject): JsonObject => ({ from: "orders", to: [{ stream: "a" }, target] });

test.each<[document: JsonObject, problems: Record<string, string>]>([
  [{}, { "/from": "is missing: expected a value", "/to": "is missing: expected a value" }],
  [{ ...rule, wehre: "true" }, { "/wehre": 'unknown key; did you mean "where"?' }],
  [
    { ...rule, colour: 1, retires: {} },
    { "/colour": `unknown key; ${KNOWN}`, "/retires": `unknown key; ${KNOWN}` },
  ],
  [{ ...rule, where: null }, { "/where": `expected ${EXPRESSION_FORM}, found null` }],
  [{ ...rule, where: true }, { "/where": `expected ${EXPRESSION_FORM}, found true` }],
  [{ ...rule, where: "body.amount >" }, { "/where": "expected a value, found the end" }],
  [
    { ...rule, where: "header('x')" },
    { "/where": "expected a condition that is true or false, this is always string" },
  ],
  [{ ...rule, enabled: "yes" }, { "/enabled": 'expected true or false, found "yes"' }],
  [
    { ...rule, start: "soon" },
    {
      "/start":
        'expected earliest, latest, a time such as 2026-01-31T12:00:00Z, or 1h ago, found "soon"',
    },
  ],
  [{ ...rule, order: "random" }, { "/order": 'expected partition, key or none, found "random"' }],
  [
    { ...rule, onFailure: "ignore" },
    { "/onFailure": 'expected dead-letter, block or park, found "ignore"' },
  ],
  [{ ...rule, notBefore: "body." }, { "/notBefore": "expected a name, found the end" }],
  [
    { ...rule, delay: "soon" },
    { "/delay": 'expected a duration such as 500ms, 2s, 5m, 1h or 7d, found "soon"' },
  ],
  [{ ...rule, set: { headers: [] } }, { "/set/headers": "expected a map, found a list" }],
  [{ ...rule, set: { bodi: 1 } }, { "/set/bodi": 'unknown key; did you mean "body"?' }],
  [{ ...rule, set: { key: "${body.}" } }, { "/set/key": "expected a name, found the end" }],
  [
    { ...rule, set: { body: { a: ["${x}"] } } },
    { "/set/body/a/0": 'expected a variable, "x" is none' },
  ],
  [
    { ...rule, set: { headers: { "a b": "1" } } },
    { "/set/headers/a b": "expected a header's name without spaces, colons and control signs" },
  ],
  [
    { ...rule, set: { headers: { A: "1", a: "2" } } },
    { "/set/headers/a": 'the same header as "A"' },
  ],
  [
    { ...rule, set: { properties: { contenttype: "x" } } },
    { "/set/properties/contenttype": 'unknown key; did you mean "contentType"?' },
  ],
  [
    { ...rule, retry: { attempts: 0 } },
    { "/retry/attempts": "expected at least 1, found the number 0" },
  ],
  [
    { ...rule, retry: { delayMin: "2x" } },
    { "/retry/delayMin": `expected ${DURATION_FORM}, more than nothing, found "2x"` },
  ],
  [
    { ...rule, retry: { maxAge: [] } },
    { "/retry/maxAge": `expected ${DURATION_FORM}, found a list` },
  ],
  [
    { ...rule, retry: { delayMin: "2s", delayMax: "1s" } },
    { "/retry/delayMin": "delayMin is longer than delayMax" },
  ],
  [
    { ...rule, from: 5 },
    { "/from": "expected a stream's name or { bridge: … }, found the number 5" },
  ],
  [
    { ...rule, from: "a b" },
    { "/from": 'expected a stream\'s name or { bridge: … }, found "a b"' },
  ],
  [
    { ...rule, from: { topic: "x" } },
    { "/from/bridge": "expected the name of a bridge, found nothing" },
  ],
  [
    { ...rule, from: { bridge: "ue", topic: "x" } },
    { "/from/bridge": 'there is no bridge "ue"; did you mean "eu"?' },
  ],
  [
    { ...rule, from: { bridge: "crm" } },
    { "/from/bridge": "a bridge of kind http can't be read from" },
  ],
  [
    { ...rule, from: { bridge: "eu", topik: "x" } },
    { "/from/topik": "unknown key", "/from/topic": "is missing" },
  ],
  [{ ...rule, to: [] }, { "/to": "expected at least one target, found an empty list" }],
  [{ ...rule, to: "out" }, { "/to": 'expected { bridge: … } or { stream: … }, found "out"' }],
  [{ ...rule, to: { bridge: "nope" } }, { "/to/bridge": 'there is no bridge "nope"' }],
  [to({ bridge: "nope", topic: "x" }), { "/to/1/bridge": 'there is no bridge "nope"' }],
  [to({ bridge: "eu", topic: "a.${x}" }), { "/to/1/topic": 'expected a variable, "x" is none' }],
  [
    to({ bridge: "eu", stream: "x" }),
    { "/to/1": "expected { bridge: … } or { stream: … }, found a map" },
  ],
  [
    to({ stream: "$audit" }),
    { "/to/1/stream": `expected a stream's name: ${NAME_FORM}; found "$audit"` },
  ],
  [
    to({ stream: "b", topic: "x" }),
    {
      "/to/1/topic":
        "unknown key; known are stream, each, key, name, retry, notBefore, delay, translation, format, echo, limit, concurrency or batch",
    },
  ],
  [to({ stream: "b-${body.}" }), { "/to/1/stream": "expected a name, found the end" }],
  [to({ stream: "a" }), { "/to/1": 'another target is called "stream a"; give one a name' }],
  [to({ stream: "b", name: "a b" }), { "/to/1/name": `expected ${NAME_FORM}, found "a b"` }],
  [
    to({ stream: "b", retry: { attempt: 1 } }),
    { "/to/1/retry/attempt": 'unknown key; did you mean "attempts"?' },
  ],
])("%j", (document, problems) => {
  const context = { modules, bridges };
  expect(problemsOf(() => parseDefinition("rules", "it", document, context))).toEqual(problems);
});
