/**
 * Senders of webhooks, one for each scheme that a secret or a private key proves, signed here by
 * node:crypto alone: nothing of the code under test has a hand in what they send.
 */
import { createHash, createHmac, generateKeyPairSync, sign as signWith } from "node:crypto";

/** What the gateway of a test finds in its environment, for `${env:…}` in hooks. */
export const SENDER_ENVIRONMENT = {
  TEXT_SECRET: "a secret of senders, as text",
  WEBHOOK_SECRET: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
  TOKEN_SECRET: "a secret of senders that is long enough for tokens",
  /** Senders are their own proxies: the word on a certificate counts only from one. */
  ISTHMUS_TRUST_PROXIES: "127.0.0.0/8",
} as const;

/** The address that senders call, where they sign it. */
export const PUBLIC_URL = "https://hooks.example";

/** What is signed beside the body. */
export interface Signing {
  readonly atS: number;
  readonly id: string;
}

/** What is added to a request. */
export interface SignedRequest {
  readonly headers: Readonly<Record<string, string>>;
  /** With its question mark; `""`: none. */
  readonly query: string;
}

/** One sender. */
export interface Sender {
  /** Also the name of its hook and of its stream. */
  readonly name: string;
  readonly verify: Readonly<Record<string, unknown>>;
  /** Headers whose every bit counts: those of signature, time and id. */
  readonly covered: readonly string[];
  /** Whether the signature covers the body; tokens cover nothing. */
  readonly signsBody: boolean;
  /** Whether the signature has a time. */
  readonly hasTime: boolean;
  /** Where the sender's id of a message stands; null: it has none. */
  readonly id: "header" | "body.id" | "body.event_id" | null;
  readonly sign: (body: Uint8Array, signing: Signing) => SignedRequest;
}

type Parts = readonly (string | Uint8Array)[];
type Text = "hex" | "base64" | "base64url";

const TEXT_KEY: string = SENDER_ENVIRONMENT.TEXT_SECRET;
const WEBHOOK_KEY = Buffer.from(SENDER_ENVIRONMENT.WEBHOOK_SECRET.slice(6), "base64");
const ED25519 = generateKeyPairSync("ed25519");
const P256 = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
const ED25519_RAW = ED25519.publicKey.export({ format: "der", type: "spki" }).subarray(-32);
const P256_SPKI = P256.publicKey.export({ format: "der", type: "spki" });

function mac(parts: Parts, encoding: Text, hash = "sha256", key: string | Buffer = TEXT_KEY) {
  const hmac = createHmac(hash, key);
  for (const part of parts) hmac.update(part);
  return hmac.digest(encoding);
}

function proof(hash: "sha256" | null, parts: Parts, encoding: Text): string {
  const bytes = Buffer.concat(parts.map((part) => Buffer.from(part)));
  const { privateKey } = hash === null ? ED25519 : P256;
  return signWith(hash, bytes, privateKey).toString(encoding);
}

const secret = "${env:TEXT_SECRET}";
const DEFAULTS = { signsBody: true, hasTime: false, id: null } as const;
const TIMED = { signsBody: true, hasTime: true, id: null } as const;

function standard(prefix: "webhook" | "svix", version: "v1" | "v1a"): Sender {
  const isPublic = version === "v1a";
  const publicKey = `whpk_${ED25519_RAW.toString("base64")}`;
  return {
    ...TIMED,
    name: `${prefix}-${version}`,
    verify: {
      scheme: "standard-webhooks",
      secret: isPublic ? publicKey : "${env:WEBHOOK_SECRET}",
    },
    covered: [`${prefix}-signature`, `${prefix}-timestamp`, `${prefix}-id`],
    id: "header",
    sign: (body, { atS, id }) => {
      const parts = [`${id}.${atS}.`, body];
      const text = isPublic
        ? proof(null, parts, "base64")
        : mac(parts, "base64", "sha256", WEBHOOK_KEY);
      const headers = {
        [`${prefix}-signature`]: `${version},${text}`,
        [`${prefix}-timestamp`]: String(atS),
        [`${prefix}-id`]: id,
      };
      return { headers, query: "" };
    },
  };
}

function shopify(prefix: "x-shopify" | "shopify"): Sender {
  return {
    ...DEFAULTS,
    name: prefix,
    verify: { scheme: "shopify", secret },
    covered: [`${prefix}-hmac-sha256`],
    id: "header",
    sign: (body, { id }) => {
      const signature = mac([body], "base64");
      const headers = { [`${prefix}-hmac-sha256`]: signature, [`${prefix}-webhook-id`]: id };
      return { headers, query: "" };
    },
  };
}

function own(algorithm: string, encoding: Text): Sender {
  return {
    ...TIMED,
    name: `hmac-${algorithm}-${encoding}`,
    verify: {
      scheme: "hmac",
      secret,
      algorithm,
      encoding,
      header: "X-Sign",
      prefix: "s=",
      base: "{method} {path}|{id}|{timestamp}|{body}",
      timestampHeader: "X-Time",
      idHeader: "X-Id",
    },
    covered: ["x-sign", "x-time", "x-id"],
    id: "header",
    sign: (body, { atS, id }) => {
      const path = `/hooks/hmac-${algorithm}-${encoding}`;
      const text = mac([`POST ${path}|${id}|${atS}|`, body], encoding, algorithm);
      return { headers: { "x-sign": `s=${text}`, "x-time": String(atS), "x-id": id }, query: "" };
    },
  };
}

/** Time and signature in one header, as a list with marks of its own. */
function listed(): Sender {
  return {
    ...TIMED,
    name: "hmac-list",
    verify: {
      scheme: "hmac",
      secret,
      header: "X-List",
      base: "{timestamp}:{body}",
      list: { separator: ";", assign: ":", timestamp: "ts", signature: "h1" },
    },
    covered: ["x-list"],
    sign: (body, { atS }) => {
      const headers = { "x-list": `ts:${atS};h1:${mac([`${atS}:`, body], "hex")}` };
      return { headers, query: "" };
    },
  };
}

/** `v0=` over `v0:TIME:BODY`, as Slack has it and Zoom after it. */
function versioned(name: "slack" | "zoom", signature: string, time: string): Sender {
  return {
    ...TIMED,
    name,
    verify: { scheme: name, secret },
    covered: [signature, time],
    id: name === "slack" ? "body.event_id" : null,
    sign: (body, { atS }) => {
      const text = `v0=${mac([`v0:${atS}:`, body], "hex")}`;
      return { headers: { [signature]: text, [time]: String(atS) }, query: "" };
    },
  };
}

/** A token that is the secret itself. */
function token(name: string, header: string, value: string, more: object = {}): Sender {
  return {
    ...DEFAULTS,
    name,
    verify: { scheme: name, secret, ...more },
    covered: [header],
    signsBody: false,
    sign: () => ({ headers: { [header]: value }, query: "" }),
  };
}

/** A JSON Web Token: proves who sends. */
const JWT: Sender = {
  ...DEFAULTS,
  name: "jwt",
  verify: { scheme: "jwt", secret: "${env:TOKEN_SECRET}" },
  covered: ["authorization"],
  signsBody: false,
  sign: (_body, { atS, id }) => {
    const json = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const text = `${json({ alg: "HS256", typ: "JWT" })}.${json({ sub: id, exp: atS + 600 })}`;
    const signature = mac([text], "base64url", "sha256", SENDER_ENVIRONMENT.TOKEN_SECRET);
    return { headers: { authorization: `Bearer ${text}.${signature}` }, query: "" };
  },
};

const SUBJECT = "CN=sender,O=Example,C=NL";

/** A certificate's subject, as a proxy tells of it. */
const MTLS: Sender = {
  ...DEFAULTS,
  name: "mtls",
  verify: { scheme: "mtls", header: "x-client-subject", subject: SUBJECT },
  covered: ["x-client-subject"],
  signsBody: false,
  sign: () => ({ headers: { "x-client-subject": SUBJECT }, query: "" }),
};

/** All of them. */
export const SENDERS: readonly Sender[] = [
  standard("webhook", "v1"),
  standard("webhook", "v1a"),
  standard("svix", "v1"),
  {
    ...DEFAULTS,
    name: "github",
    verify: { scheme: "github", secret },
    covered: ["x-hub-signature-256"],
    id: "header",
    sign: (body, { id }) => {
      const signature = `sha256=${mac([body], "hex")}`;
      return { headers: { "x-hub-signature-256": signature, "x-github-delivery": id }, query: "" };
    },
  },
  {
    ...TIMED,
    name: "stripe",
    verify: { scheme: "stripe", secret },
    covered: ["stripe-signature"],
    id: "body.id",
    sign: (body, { atS }) => {
      const signature = `t=${atS},v1=${mac([`${atS}.`, body], "hex")}`;
      return { headers: { "stripe-signature": signature }, query: "" };
    },
  },
  versioned("slack", "x-slack-signature", "x-slack-request-timestamp"),
  versioned("zoom", "x-zm-signature", "x-zm-request-timestamp"),
  shopify("x-shopify"),
  shopify("shopify"),
  {
    ...DEFAULTS,
    name: "twilio",
    verify: { scheme: "twilio", secret, url: `${PUBLIC_URL}/hooks/twilio` },
    covered: ["x-twilio-signature"],
    id: "header",
    sign: (body, { id }) => {
      const query = `?bodySHA256=${createHash("sha256").update(body).digest("hex")}`;
      const text = mac([`${PUBLIC_URL}/hooks/twilio${query}`], "base64", "sha1");
      return { headers: { "x-twilio-signature": text, "i-twilio-idempotency-token": id }, query };
    },
  },
  {
    ...TIMED,
    name: "discord",
    verify: { scheme: "discord", publicKey: ED25519_RAW.toString("hex") },
    covered: ["x-signature-ed25519", "x-signature-timestamp"],
    id: "body.id",
    sign: (body, { atS }) => {
      const text = proof(null, [String(atS), body], "hex");
      const headers = { "x-signature-ed25519": text, "x-signature-timestamp": String(atS) };
      return { headers, query: "" };
    },
  },
  {
    ...TIMED,
    name: "sendgrid",
    verify: { scheme: "sendgrid", publicKey: P256_SPKI.toString("base64") },
    covered: ["x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp"],
    sign: (body, { atS }) => {
      const prefix = "x-twilio-email-event-webhook";
      const text = proof("sha256", [String(atS), body], "base64");
      const headers = { [`${prefix}-signature`]: text, [`${prefix}-timestamp`]: String(atS) };
      return { headers, query: "" };
    },
  },
  own("sha1", "hex"),
  own("sha256", "base64"),
  own("sha384", "base64url"),
  own("sha512", "hex"),
  listed(),
  token("gitlab", "x-gitlab-token", TEXT_KEY),
  token("bearer", "authorization", `Bearer ${TEXT_KEY}`),
  token("basic", "authorization", `Basic ${Buffer.from(`me:${TEXT_KEY}`).toString("base64")}`, {
    username: "me",
  }),
  JWT,
  MTLS,
];

/** One by its name. */
export function senderOf(name: string): Sender {
  const found = SENDERS.find((sender) => sender.name === name);
  if (found === undefined) throw new Error(`there is no sender ${name}`);
  return found;
}

/** The hooks of all senders; `more` stands in each. */
export function senderHooks(more: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return Object.fromEntries(
    SENDERS.map(({ name, verify }) => [name, { stream: name, verify, ...more }]),
  );
}
