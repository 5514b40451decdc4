/**
 * The providers' own packages against the gateway: what they sign is taken, and what the gateway's
 * own signing makes they take. None of the two has seen the other's code.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { sign as signGithub, verify as verifyGithub } from "@octokit/webhooks-methods";
import { Webhook as StandardWebhook } from "standardwebhooks";
import { Stripe } from "stripe";
import { Webhook as SvixWebhook } from "svix";
import twilio from "twilio";
import { signWebhook } from "../../src/http/verify/sign.ts";
import type { HookDocument } from "../../src/rules/document.ts";
import { parseDefinition } from "../../src/rules/parse.ts";
import { TestGateway } from "../e2e/gateway.ts";

/** Two that count, one whose end has come, and one that the hooks don't know. */
const KEYS = ["NEWER", "OLDER", "ENDED", "UNKNOWN"] as const;
type KeyName = (typeof KEYS)[number];
const ACCEPTED: readonly KeyName[] = ["NEWER", "OLDER"];

const SECRETS = Object.fromEntries(
  KEYS.map((name) => [name, `whsec_${randomBytes(32).toString("base64")}`]),
) as Record<KeyName, string>;
const PUBLIC_URL = "https://hooks.example:8443/base/hooks/twilio";
const BODY = '{"id":"evt_1","amount":1.0,"text":"é漢😀"}\r\n';
const FORM = {
  CallSid: "CA1234567890ABCDE",
  From: "+14158675309",
  Body: "é漢😀 & more = 1+1%",
  Empty: "",
};

/** A webhook that some package has signed. */
interface Sent {
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly query?: string;
}

/** A package: how it signs, and whether it takes what is signed. */
interface Oracle {
  readonly hook: string;
  readonly sign: (key: string, atMs: number) => Promise<Sent>;
  readonly takes: (key: string, sent: Required<Sent>) => Promise<boolean>;
}

function standard(prefix: "webhook" | "svix", make: typeof StandardWebhook): Oracle {
  return {
    hook: "standard-webhooks",
    sign: (key, atMs) => {
      const at = new Date(atMs);
      const headers = {
        [`${prefix}-id`]: "msg_1",
        [`${prefix}-timestamp`]: String(Math.floor(atMs / 1000)),
        [`${prefix}-signature`]: new make(key).sign("msg_1", at, BODY),
      };
      return Promise.resolve({ headers });
    },
    takes: (key, { headers, body }) => takes(() => new make(key).verify(body, headers)),
  };
}

/** Packages throw at what they don't take; what else they say is of no interest. */
async function takes(verify: () => unknown): Promise<boolean> {
  try {
    return (await verify()) !== false;
  } catch {
    return false;
  }
}

const FORM_TYPE = "application/x-www-form-urlencoded";
const ORACLES: Readonly<Record<string, Oracle>> = {
  standardwebhooks: standard("webhook", StandardWebhook),
  svix: standard("svix", SvixWebhook as unknown as typeof StandardWebhook),
  stripe: {
    hook: "stripe",
    sign: async (secret, atMs) => {
      const timestamp = Math.floor(atMs / 1000);
      const options = { payload: BODY, secret, timestamp };
      const header = await Stripe.webhooks.generateTestHeaderStringAsync(options);
      return { headers: { "stripe-signature": header } };
    },
    takes: (secret, { headers, body }) =>
      takes(() =>
        Stripe.webhooks.constructEventAsync(body, headers["stripe-signature"] ?? "", secret),
      ),
  },
  "@octokit/webhooks-methods": {
    hook: "github",
    sign: async (secret) => ({
      headers: { "x-hub-signature-256": await signGithub(secret, BODY) },
    }),
    takes: (secret, { headers, body }) =>
      takes(() => verifyGithub(secret, body, headers["x-hub-signature-256"] ?? "")),
  },
  "twilio, JSON": {
    hook: "twilio",
    sign: (token) => {
      const query = `?bodySHA256=${twilio.getExpectedBodyHash(BODY)}`;
      const signature = twilio.getExpectedTwilioSignature(token, `${PUBLIC_URL}${query}`, {});
      return Promise.resolve({ headers: { "x-twilio-signature": signature }, query });
    },
    takes: (token, { headers, body, query }) =>
      takes(() => {
        const signature = headers["x-twilio-signature"] ?? "";
        return twilio.validateRequestWithBody(token, signature, `${PUBLIC_URL}${query}`, body);
      }),
  },
  "twilio, form": {
    hook: "twilio",
    sign: (token) => {
      const query = "?foo=1&bar=2";
      const signature = twilio.getExpectedTwilioSignature(token, `${PUBLIC_URL}${query}`, FORM);
      const headers = { "x-twilio-signature": signature, "content-type": FORM_TYPE };
      return Promise.resolve({ headers, query, body: new URLSearchParams(FORM).toString() });
    },
    takes: (token, { headers, query }) =>
      takes(() => {
        const signature = headers["x-twilio-signature"] ?? "";
        return twilio.validateRequest(token, signature, `${PUBLIC_URL}${query}`, FORM);
      }),
  },
};

/** Those whose signature has a time. */
const TIMED = ["standardwebhooks", "svix", "stripe"];

let gateway: TestGateway;

beforeAll(async () => {
  gateway = await TestGateway.start(SECRETS);
  const secrets = [
    "${env:NEWER}",
    { secret: "${env:OLDER}", until: "2999-01-01T00:00:00Z" },
    { secret: "${env:ENDED}", until: "2001-01-01T00:00:00Z" },
  ];
  const hook = (scheme: string, more: object = {}): object => ({
    stream: scheme,
    dedupe: false,
    verify: { scheme, secrets, ...more },
  });
  await gateway.apply({
    hooks: {
      "standard-webhooks": hook("standard-webhooks"),
      stripe: hook("stripe"),
      github: hook("github"),
      twilio: hook("twilio", { url: PUBLIC_URL }),
    },
  });
}, 60_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
});

/** 2xx, or the code of the refusal. */
async function outcome(hook: string, sent: Sent): Promise<string> {
  const { headers, query = "", body = BODY } = sent;
  const response = await fetch(`${gateway.url}/hooks/${hook}${query}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
  });
  const text = await response.text();
  if (response.ok) return "taken";
  return String((JSON.parse(text) as { code?: string }).code);
}

describe.each(Object.entries(ORACLES))("%s", (name, oracle) => {
  test.each(KEYS)("what it signs with %s is taken only by a key that counts", async (key) => {
    const sent = await oracle.sign(SECRETS[key], Date.now());
    const expected = ACCEPTED.includes(key) ? "taken" : "signature-invalid";
    expect(await outcome(oracle.hook, sent)).toBe(expected);
  });

  test("what it signs is refused with another body", async () => {
    const sent = await oracle.sign(SECRETS.NEWER, Date.now());
    const body = `${sent.body ?? BODY} `;
    expect(await outcome(oracle.hook, { ...sent, body })).toBe("signature-invalid");
  });

  test("what it signs too long ago, or for later, is refused where there is a time", async () => {
    const outcomes: string[] = [];
    for (const seconds of [-3600, -320, -280, 280, 320, 3600]) {
      const sent = await oracle.sign(SECRETS.NEWER, Date.now() + seconds * 1000);
      outcomes.push(await outcome(oracle.hook, sent));
    }
    const outside = TIMED.includes(name) ? "timestamp-outside-tolerance" : "taken";
    expect(outcomes).toEqual([outside, outside, "taken", "taken", outside, outside]);
  });

  test("what the gateway's own signing makes it takes, and not with another key", async () => {
    const sent = signedByUs(oracle.hook, SECRETS.NEWER, name.endsWith("form"));
    expect(await oracle.takes(SECRETS.NEWER, sent)).toBe(true);
    expect(await oracle.takes(SECRETS.OLDER, sent)).toBe(false);
  });
});

function signedByUs(scheme: string, secret: string, isForm: boolean): Required<Sent> {
  const context = { modules: new Map(), bridges: new Map() };
  const document = { stream: "s", verify: { scheme, secret: "x" } };
  const { verify } = parseDefinition("hooks", "h", document, context) as HookDocument;
  if (verify === null) throw new Error("nothing is verified");
  const body = isForm ? new URLSearchParams(FORM).toString() : BODY;
  const { headers, query } = signWebhook(verify, secret, {
    method: "POST",
    url: PUBLIC_URL,
    body: Buffer.from(body),
    contentType: isForm ? FORM_TYPE : "application/json",
    id: "msg_1",
    atMs: Date.now(),
  });
  // svix reads its own names, or those of the standard.
  return { headers, query, body };
}

test("while a secret is rolled, a message signed with several keys is taken by any one", async () => {
  const at = Date.now();
  const now = String(Math.floor(at / 1000));
  const signatures = KEYS.map((key) =>
    new StandardWebhook(SECRETS[key]).sign("m", new Date(at), BODY),
  );
  const [newer = "", , ended = "", unknown = ""] = signatures;
  const standardWith = (...all: string[]): Sent => ({
    headers: { "webhook-id": "m", "webhook-timestamp": now, "webhook-signature": all.join(" ") },
  });
  const both = await outcome("standard-webhooks", standardWith(unknown, newer));
  const none = await outcome("standard-webhooks", standardWith(unknown, ended));
  expect([both, none]).toEqual(["taken", "signature-invalid"]);

  const stripe = await Promise.all(
    KEYS.map(async (key) => (await ORACLES["stripe"]?.sign(SECRETS[key], at))?.headers),
  );
  const v1 = stripe.map((headers) => headers?.["stripe-signature"]?.split(",")[1] ?? "");
  const stripeWith = (...all: (string | undefined)[]): Sent => ({
    headers: { "stripe-signature": [`t=${now}`, ...all].join(",") },
  });
  expect(await outcome("stripe", stripeWith(v1[3], "v0=aa", v1[1]))).toBe("taken");
  expect(await outcome("stripe", stripeWith(v1[3], v1[2]))).toBe("signature-invalid");
});

test("the hook tells which key was last used, and which has ended", async () => {
  const sent = await ORACLES["stripe"]?.sign(SECRETS.OLDER, Date.now());
  if (sent === undefined) throw new Error("it signs nothing");
  const before = Date.now();
  expect(await outcome("stripe", sent)).toBe("taken");
  const { status } = await gateway.json<{
    status: { keys: { id: string; state: string; lastUsedAt: number | null }[] };
  }>("/api/hooks/stripe");
  const [, older, ended] = status.keys;
  expect(older).toMatchObject({ id: "env:OLDER", state: "active" });
  expect(older?.lastUsedAt).toBeGreaterThanOrEqual(before);
  expect(ended).toMatchObject({ id: "env:ENDED", state: "ended", lastUsedAt: null });
});
