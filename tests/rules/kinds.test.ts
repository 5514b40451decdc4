/** Documents of the other kinds that are refused: for each a pointer and what was expected. */
import { expect, test } from "bun:test";
import type { JsonObject, Kind } from "../../src/rules/document.ts";
import { parseDefinition } from "../../src/rules/parse.ts";
import { DURATION_FORM, NAME_FORM } from "../../src/rules/units.ts";
import { bridges, modules, problemsOf } from "./messages.ts";

const EXPRESSION_FORM =
  "a CEL expression as text (leave it out, or quote it: YAML takes an unquoted ! for a tag)";

test.each<[kind: Kind, document: JsonObject, problems: Record<string, string>]>([
  [
    "bridges",
    {},
    { "/kind": "expected a kind of bridge (kafka, amqp, rabbitmq, mqtt, http), found nothing" },
  ],
  [
    "bridges",
    { kind: "kafak", url: "x" },
    { "/kind": 'there is no kind of bridge "kafak"; did you mean "kafka"?' },
  ],
  ["bridges", { kind: "amqp1", url: "x" }, { "/kind": "kind amqp1 is not available yet" }],
  ["bridges", { kind: "kafka" }, { "/url": "expected a URL" }],
  ["streams", { partitions: 0 }, { "/partitions": "expected at least 1, found the number 0" }],
  [
    "streams",
    { partitions: 1.5 },
    { "/partitions": "expected a whole number, found the number 1.5" },
  ],
  [
    "streams",
    { partitions: 5000 },
    { "/partitions": "expected at most 1024, found the number 5000" },
  ],
  [
    "streams",
    { retention: { age: "week" } },
    { "/retention/age": `expected ${DURATION_FORM}, more than nothing, found "week"` },
  ],
  [
    "streams",
    { retention: { bytes: "10 gigs" } },
    {
      "/retention/bytes":
        'expected a number of bytes such as 512, 64KiB, 10GiB or 1MB, found "10 gigs"',
    },
  ],
  [
    "streams",
    { retention: { size: 1 } },
    { "/retention/size": "unknown key; known are age, bytes, messages, after, keep or whenFull" },
  ],
  ["streams", { index: ["body"] }, { "/index/0": 'expected key, found "body"' }],
  [
    "sources",
    { from: { bridge: "eu", topic: "t" } },
    { "/stream": `is missing: expected ${NAME_FORM}` },
  ],
  ["sources", { from: "orders", stream: "s" }, { "/from": 'expected a map, found "orders"' }],
  [
    "sources",
    { from: { bridge: "eu", topic: "t" }, stream: "$x", key: "offset" },
    {
      "/stream": `expected ${NAME_FORM}, found "$x"`,
      "/key": "offset is not known yet: this runs before the message is stored",
    },
  ],
  [
    "hooks",
    { stream: "s", dedupe: true },
    { "/dedupe": `expected ${EXPRESSION_FORM}, found true` },
  ],
  ["hooks", { stream: "s", key: "body.(" }, { "/key": 'expected a name, found "("' }],
  [
    "hooks",
    { stream: "s", verify: {} },
    { "/verify/scheme": "expected the name of a scheme, found nothing" },
  ],
  [
    "hooks",
    { stream: "s", verify: { scheme: "jwt" } },
    { "/verify/jwks": "is missing: expected jwks, secret or publicKey" },
  ],
  [
    "access",
    { read: [{ stream: "a b" }] },
    { "/read/0/stream": "expected a stream's name, in which * stands for any" },
  ],
  ["access", { jwt: {} }, { "/jwt/jwks": "is missing: expected jwks, secret or publicKey" }],
])("%s %j", (kind, document, problems) => {
  const context = { modules, bridges };
  expect(problemsOf(() => parseDefinition(kind, "it", document, context))).toEqual(problems);
});
