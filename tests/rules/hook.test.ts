/** What a hook's document may say of its senders, its limits and its answers. */
import { expect, test } from "bun:test";
import { InvalidError } from "../../src/errors.ts";
import type { HookDocument, Json } from "../../src/rules/document.ts";
import { parseDefinition } from "../../src/rules/parse.ts";

type Members = Readonly<Record<string, Json>>;

function parse(document: Members): HookDocument {
  const context = { modules: new Map(), bridges: new Map() };
  return parseDefinition("hooks", "h", { stream: "s", ...document }, context) as HookDocument;
}

function problems(document: Members): Readonly<Record<string, string>> {
  try {
    parse(document);
  } catch (error) {
    if (!(error instanceof InvalidError)) throw error;
    return Object.fromEntries(error.errors.map(({ pointer, detail }) => [pointer, detail]));
  }
  return {};
}

test("secrets are one or many, each with an end where it is given", () => {
  const one = parse({ verify: { scheme: "github", secret: "a" } });
  expect(one.verify?.secrets).toEqual([{ text: "a", untilMs: null }]);
  const until = "2026-01-31T12:00:00Z";
  const many = parse({ verify: { scheme: "github", secrets: ["a", { secret: "b", until }] } });
  expect(many.verify?.secrets).toEqual([
    { text: "a", untilMs: null },
    { text: "b", untilMs: Date.parse(until) },
  ]);
});

test("limits, answers and methods are taken", () => {
  const limits = { body: "1MiB", rate: "20/10s", concurrency: 5 };
  const parsed = parse({ limits, answer: { body: "ok" }, methods: ["PUT", "POST", "PUT"] });
  expect(parsed.limits).toEqual({
    bodyBytes: 1_048_576,
    rate: { count: 20, perMs: 10_000 },
    concurrency: 5,
    headerBytes: null,
    bytesPerSecond: 512,
  });
  expect(parsed.answer).toEqual({ status: 200, body: "ok", contentType: null });
  expect(parsed.methods).toEqual(["PUT", "POST"]);
});

const hmac = { scheme: "hmac", secret: "k", header: "x-sign" };

test.each<[Members, Readonly<Record<string, string>>]>([
  [
    { verify: { scheme: "github" } },
    { "/verify/secret": "is missing: expected secret or secrets" },
  ],
  [
    { verify: { scheme: "github", secret: "a", secrets: ["b"] } },
    { "/verify/secret": "stands beside the other: expected secret or secrets" },
  ],
  [
    { verify: { scheme: "discord", secret: "a" } },
    {
      "/verify/secret":
        "unknown key; known are scheme, publicKey, publicKeys, tolerance, challenge, token or echo",
      "/verify/publicKey": "is missing: expected publicKey or publicKeys",
    },
  ],
  [
    { verify: { scheme: "githup", secret: "a" } },
    { "/verify/scheme": 'there is no scheme "githup"; did you mean "github"?' },
  ],
  [
    { verify: { scheme: "mtls" } },
    {
      "/verify/fingerprint":
        "is missing: expected fingerprint, subject or uri of those who may send",
    },
  ],
  [
    { verify: { scheme: "mtls", subject: "CN=a", uris: ["spiffe://a"] } },
    { "/verify/uris": "stands beside subject: expected one of them" },
  ],
  [
    { verify: { scheme: "jwt" } },
    { "/verify/jwks": "is missing: expected jwks, secret or publicKey" },
  ],
  [
    { verify: { scheme: "jwt", jwks: "https://id.example/jwks", tolerance: "5s", audience: "a" } },
    {
      "/verify/tolerance": expect.stringContaining(
        "unknown key; known are scheme, header, jwks",
      ) as string,
    },
  ],
  [
    { verify: { scheme: "none", echo: { member: "a..b" } } },
    { "/verify/echo/member": "expected a name, or up to 8 names with dots between" },
  ],
  [
    { accept: ["json"] },
    { "/accept/0": "expected a media type such as application/json or text/*" },
  ],
  [
    { verify: { scheme: "github", secret: "a", tolerence: "5s" } },
    {
      "/verify/tolerence":
        "unknown key; known are scheme, secret, secrets, challenge, token or echo",
    },
  ],
  [
    { verify: { scheme: "none", secret: "a" } },
    { "/verify/secret": "unknown key; known are scheme, challenge, token or echo" },
  ],
  [
    { verify: { scheme: "basic", password: "p" } },
    { "/verify/username": "is missing: expected text" },
  ],
  [
    { verify: { scheme: "github", secrets: [{ secret: "a", until: "soon" }] } },
    { "/verify/secrets/0": "expected a time such as 2026-01-31T12:00:00Z" },
  ],
  [
    { verify: { scheme: "github", secret: 12345 } },
    {
      "/verify/secret": "expected a secret as text, or { secret, until }, found the number 12345",
    },
  ],
  [
    { verify: { ...hmac, base: "{timestamp}" } },
    {
      "/verify/base": "must hold {body}: it has to be signed",
      "/verify/timestampHeader": "is missing: the base holds {timestamp}",
    },
  ],
  [
    { verify: { ...hmac, base: "{boddy}{body}" } },
    { "/verify/base": "there is no {boddy}; known are body, timestamp, id, method, path, url" },
  ],
  [
    { verify: { ...hmac, timestampHeader: "x-time" } },
    { "/verify/base": "must hold {timestamp}: a time that is not signed proves nothing" },
  ],
  [
    {
      verify: {
        ...hmac,
        base: "{timestamp}{body}",
        prefix: "v1=",
        timestampHeader: "x-time",
        list: { signature: "a=b", timestamp: "t" },
      },
    },
    {
      "/verify/prefix": "stands beside list, which has names",
      "/verify/timestampHeader": "stands beside list.timestamp: expected one of them",
      "/verify/list": 'the name "a=b" holds a separator',
    },
  ],
  [
    { verify: { ...hmac, list: { signature: "v1", timestamp: "t" } } },
    { "/verify/base": "must hold {timestamp}: a time that is not signed proves nothing" },
  ],
  [
    { verify: { scheme: "none", challenge: "c", token: "t" } },
    { "/verify/challenge": "expected { parameter, token } beside a token" },
  ],
  [
    { verify: { scheme: "none", challenge: { parameter: "c", token: "t" } } },
    { "/verify/token": "token and challenge.token (the parameter it comes in) go together" },
  ],
  [
    { limits: { rate: "fast" } },
    { "/limits/rate": "expected a rate such as 100/s, 5000/m or 20/10s" },
  ],
  [{ limits: { body: "1GiB" } }, { "/limits/body": "expected at most 16777216 bytes" }],
  [{ answer: { status: 204, body: "x" } }, { "/answer/body": "an answer of 204 has no body" }],
  [
    { methods: ["OPTIONS"] },
    { "/methods/0": 'expected POST, PUT, PATCH, GET or DELETE, found "OPTIONS"' },
  ],
])("%j is refused where it is wrong", (document, expected) => {
  expect(problems(document)).toEqual(expected);
});
