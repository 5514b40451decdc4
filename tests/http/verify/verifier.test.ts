/** What all schemes have in common: bits, times, keys, and keys that can't be had. */
import { expect, test } from "bun:test";
import { createHmac, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import fc from "fast-check";
import { InvalidError, HookUnavailableError } from "../../../src/errors.ts";
import { signWebhook } from "../../../src/http/verify/sign.ts";
import type { HookDocument, Json } from "../../../src/rules/document.ts";
import { parseDefinition } from "../../../src/rules/parse.ts";
import { ShiftedClock } from "../support.ts";
import { checkWith, outcomeOf, type Sent, verifierFor } from "./check.ts";

const AT = 1_700_000_000;
const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const HMAC = { scheme: "hmac", header: "x-sign", base: "{id}.{timestamp}.{body}" };
const URL_BASE = "https://hooks.example/hooks/h";

type Verify = Readonly<Record<string, Json>>;

/** A webhook signed with a secret, as its provider would. */
function signed(verify: Verify, secret: string, body: string | Uint8Array): Sent {
  const context = { modules: new Map(), bridges: new Map() };
  const document = { stream: "s", verify: { ...verify, secret } };
  const parsed = parseDefinition("hooks", "h", document, context) as HookDocument;
  if (parsed.verify === null) throw new Error("nothing is verified");
  const { headers, query } = signWebhook(parsed.verify, secret, {
    method: "POST",
    url: URL_BASE,
    body: typeof body === "string" ? Buffer.from(body) : body,
    contentType: "application/json",
    id: "msg_1",
    atMs: AT * 1000,
  });
  return {
    verify: document.verify,
    headers: { ...headers, "content-type": "application/json" },
    body,
    at: AT,
    url: `${URL_BASE}${query}`,
  };
}

/** A webhook signed with a private key. */
function signedBy(
  kind: "discord" | "sendgrid",
  keys: { readonly publicKey: KeyObject; readonly privateKey: KeyObject },
  body: Uint8Array,
): Sent {
  const bytes = Buffer.concat([Buffer.from(String(AT)), body]);
  const der = keys.publicKey.export({ format: "der", type: "spki" });
  const isDiscord = kind === "discord";
  const mac = sign(isDiscord ? null : "sha256", bytes, keys.privateKey);
  const publicKey = isDiscord ? der.subarray(-32).toString("hex") : der.toString("base64");
  const prefix = isDiscord ? "x-signature" : "x-twilio-email-event-webhook";
  return {
    verify: { scheme: kind, publicKey },
    headers: {
      [`${prefix}-timestamp`]: String(AT),
      [isDiscord ? `${prefix}-ed25519` : `${prefix}-signature`]: mac.toString(
        isDiscord ? "hex" : "base64",
      ),
    },
    body,
    at: AT,
  };
}

const ED25519 = generateKeyPairSync("ed25519");
const P256 = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
const withTime = { ...HMAC, timestampHeader: "x-time", idHeader: "x-id" };

/** Each scheme whose signature covers the body, and the headers that it covers or is in. */
const SIGNED: readonly (readonly [string, (body: Uint8Array) => Sent, readonly string[]])[] = [
  [
    "standard-webhooks",
    (body) => signed({ scheme: "standard-webhooks" }, SECRET, body),
    ["webhook-signature", "webhook-timestamp", "webhook-id"],
  ],
  ["github", (body) => signed({ scheme: "github" }, "k", body), ["x-hub-signature-256"]],
  ["stripe", (body) => signed({ scheme: "stripe" }, "k", body), ["stripe-signature"]],
  [
    "slack",
    (body) => signed({ scheme: "slack" }, "k", body),
    ["x-slack-signature", "x-slack-request-timestamp"],
  ],
  ["shopify", (body) => signed({ scheme: "shopify" }, "k", body), ["x-shopify-hmac-sha256"]],
  ["twilio", (body) => signed({ scheme: "twilio" }, "k", body), ["x-twilio-signature"]],
  [
    "zoom",
    (body) => signed({ scheme: "zoom" }, "k", body),
    ["x-zm-signature", "x-zm-request-timestamp"],
  ],
  ["hmac", (body) => signed(withTime, "k", body), ["x-sign", "x-time", "x-id"]],
  [
    "discord",
    (body) => signedBy("discord", ED25519, body),
    ["x-signature-ed25519", "x-signature-timestamp"],
  ],
  [
    "sendgrid",
    (body) => signedBy("sendgrid", P256, body),
    ["x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp"],
  ],
];

test.each(SIGNED)("%s: a change of any one bit is refused", async (_name, make, headers) => {
  const bodies = fc.uint8Array({ minLength: 1, maxLength: 200 });
  const property = fc.asyncProperty(bodies, fc.nat(), fc.nat(), async (body, where, bit) => {
    const sent = make(body);
    expect(await outcomeOf(sent)).toBe("key 1");
    const changed = Buffer.from(body);
    flip(changed, bit);
    expect(await outcomeOf({ ...sent, body: changed })).not.toBe("key 1");
    const name = headers[where % headers.length] ?? "";
    const value = Buffer.from(sent.headers[name] ?? "", "latin1");
    flip(value, bit);
    const other = { ...sent.headers, [name]: value.toString("latin1") };
    expect(await outcomeOf({ ...sent, headers: other })).not.toBe("key 1");
  });
  await fc.assert(property, { numRuns: 60 });
});

function flip(bytes: Uint8Array, bit: number): void {
  const index = (bit >> 3) % bytes.length;
  bytes[index] = (bytes[index] ?? 0) ^ (1 << (bit & 7));
}

const TIMED = SIGNED.filter(
  ([, , headers]) => headers.length > 1 || headers[0] === "stripe-signature",
);

test.each(TIMED)("%s: both too old and too new are refused", async (_name, make) => {
  const sent = make(Buffer.from("{}"));
  const outcomes = await Promise.all(
    [-301, -300, 0, 300, 301].map((seconds) => outcomeOf({ ...sent, at: AT + seconds })),
  );
  const outside = "timestamp-outside-tolerance";
  expect(outcomes).toEqual([outside, "key 1", "key 1", "key 1", outside]);
});

test("a document's own tolerance counts, and a wrong signature is not called an old one", async () => {
  const sent = signed({ scheme: "stripe", tolerance: "10s" }, "k", "{}");
  expect(await outcomeOf({ ...sent, at: AT + 11 })).toBe("timestamp-outside-tolerance");
  expect(await outcomeOf({ ...sent, at: AT + 11, body: "[]" })).toBe("signature-invalid");
});

test("several secrets count at once, each until its end, and show when they were last used", async () => {
  const clock = new ShiftedClock();
  const old = { secret: "${env:OLD}", until: "2023-11-14T22:13:25Z" };
  const resolve = (text: string) => Promise.resolve(text === "${env:OLD}" ? "a" : "b");
  const verifier = verifierFor({ scheme: "github", secrets: [old, "${env:NEW}"] }, resolve, clock);
  const byOld = signed({ scheme: "github" }, "a", "x");
  const byNew = signed({ scheme: "github" }, "b", "x");
  expect(await checkWith(verifier, byNew)).toBe("env:NEW");
  expect(verifier.status().keys.map(({ lastUsedAt }) => lastUsedAt)).toEqual([null, AT * 1000]);
  expect(await checkWith(verifier, { ...byOld, at: AT + 4 })).toBe("env:OLD");
  expect(await checkWith(verifier, { ...byOld, at: AT + 5 })).toBe("signature-invalid");
  expect(verifier.status().keys).toEqual([
    { id: "env:OLD", until: (AT + 5) * 1000, lastUsedAt: (AT + 4) * 1000, state: "ended" },
    { id: "env:NEW", until: null, lastUsedAt: AT * 1000, state: "active" },
  ]);
  expect(JSON.stringify(verifier.status())).not.toContain('"a"');
});

test("a reference that can't be resolved is said, and tried again from time to time", async () => {
  const clock = new ShiftedClock();
  let isThere = false;
  const resolve = (): Promise<string> =>
    isThere ? Promise.resolve("k") : Promise.reject(new InvalidError("${env:K} is not set"));
  const verifier = verifierFor({ scheme: "github", secret: "${env:K}" }, resolve, clock);
  const sent = signed({ scheme: "github" }, "k", "x");
  await expect(checkWith(verifier, sent)).rejects.toThrow(HookUnavailableError);
  isThere = true;
  await expect(checkWith(verifier, sent)).rejects.toThrow("its status says why");
  expect(verifier.status().error).toBe("${env:K} is not set");
  clock.shiftMs = 5000;
  expect(await checkWith(verifier, sent)).toBe("env:K");
  expect(verifier.status().error).toBeNull();
});

test("a secret in a file is read again when a signature doesn't fit, now and then", async () => {
  const clock = new ShiftedClock();
  let text: string | null = "old";
  let reads = 0;
  const resolve = (): Promise<string> => {
    reads += 1;
    return text === null ? Promise.reject(new InvalidError("gone")) : Promise.resolve(text);
  };
  const verifier = verifierFor({ scheme: "github", secret: "${file:/k}" }, resolve, clock);
  const byOld = signed({ scheme: "github" }, "old", "x");
  const byNew = signed({ scheme: "github" }, "new", "x");
  expect(await checkWith(verifier, byOld)).toBe("file:/k");
  text = "new";
  expect([await verifier.reread(), reads]).toEqual([false, 1]);
  clock.shiftMs = 5000;
  const all = await Promise.all([verifier.reread(), verifier.reread(), verifier.reread()]);
  expect([all, reads]).toEqual([[true, true, true], 2]);
  expect(await checkWith(verifier, byNew)).toBe("file:/k");
  expect(await checkWith(verifier, byOld)).toBe("signature-invalid");
  expect(verifier.status().keys).toMatchObject([{ id: "file:/k", lastUsedAt: AT * 1000 }]);
  text = null;
  clock.shiftMs = 10_000;
  expect([await verifier.reread(), reads]).toEqual([false, 3]);
  expect(await checkWith(verifier, byNew)).toBe("file:/k");
  const fixed = verifierFor({ scheme: "github", secret: "${env:K}" }, resolve, clock);
  clock.shiftMs = 60_000;
  expect(await fixed.reread()).toBe(false);
});

test.each([
  [{ scheme: "standard-webhooks", secret: "whsec_!!" }, "it is not base64"],
  [{ scheme: "standard-webhooks", secret: "whsec_AAAA" }, "24 to 64 bytes"],
  [{ scheme: "discord", publicKey: "abcd" }, "an ed25519 key has 32 bytes"],
  [{ scheme: "sendgrid", publicKey: "AAAA" }, "it is no public key"],
  [{ ...HMAC, base: "{body}", secret: "xyz", keyEncoding: "hex" }, "it is not hex"],
])("a key that is none is said without being shown: %j", async (verify, says) => {
  const verifier = verifierFor(verify);
  await verifier.settled();
  const { error } = verifier.status();
  expect(error).toContain(says);
  const [text = ""] = Object.values(verify).slice(1);
  expect(error).not.toContain(text);
});

test("what could be spelt in two ways is taken in one only", async () => {
  const github = signed({ scheme: "github" }, "k", "x");
  const value = github.headers["x-hub-signature-256"] ?? "";
  for (const other of [
    `sha256=${value.slice(7).toUpperCase()}`,
    value.slice(7),
    `SHA256=${value.slice(7)}`,
    ` ${value}`,
    `${value}00`,
    value.slice(0, -2),
    "",
  ]) {
    const headers = { "x-hub-signature-256": other };
    expect(await outcomeOf({ ...github, headers })).toBe("signature-invalid");
  }
  const shopify = signed({ scheme: "shopify" }, "k", "x");
  const unpadded = (shopify.headers["x-shopify-hmac-sha256"] ?? "").replace("=", "");
  const headers = { "x-shopify-hmac-sha256": unpadded };
  expect(await outcomeOf({ ...shopify, headers })).toBe("signature-invalid");
});

test("an old message whose body starts with a new time doesn't pass as a new one", async () => {
  const key = Buffer.from(SECRET.slice(6), "base64");
  // What is signed is the same text, wherever id, time and body are said to part.
  const sent = (id: string): Sent => {
    const text = createHmac("sha256", key).update(`${id}.${AT}.rest`).digest("base64");
    const headers = {
      "webhook-id": id,
      "webhook-timestamp": String(AT),
      "webhook-signature": `v1,${text}`,
    };
    return {
      verify: { scheme: "standard-webhooks", secret: SECRET },
      headers,
      body: "rest",
      at: AT,
    };
  };
  for (const id of ["msg_1.1500000000", "msg_1.1500000000.1"]) {
    expect(await outcomeOf(sent(id))).toBe("signature-invalid");
  }
  for (const id of ["evt.order.17", "1500000000", "a.b1500000000"]) {
    expect(await outcomeOf(sent(id))).toBe("key 1");
  }
});

test("a header with very many signatures, or one that is very long, costs nothing", async () => {
  const stripe = signed({ scheme: "stripe" }, "k", "x");
  const value = stripe.headers["stripe-signature"] ?? "";
  for (const more of [",v1=00".repeat(20), `,v1=${"0".repeat(5000)}`]) {
    const headers = { "stripe-signature": `${value}${more}` };
    expect(await outcomeOf({ ...stripe, headers })).toBe("signature-invalid");
  }
});
