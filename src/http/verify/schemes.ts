/**
 * How senders of webhooks prove who they are, as data: one row a scheme, one engine over them all
 * (`engine.ts`). A row says where the signature stands, over what it is made, with which keys, how
 * old it may be, and which id of the sender's names a message.
 */
import type { MtlsDocument, VerifyDocument, VerifyScheme } from "../../rules/document.ts";

/**
 * How a signature is checked. `token`: the header holds the secret itself; `certificate`: a proxy
 * tells whose it has seen; `jwt`: a token that proves itself.
 */
export type Algorithm =
  | "hmac-sha1"
  | "hmac-sha256"
  | "hmac-sha384"
  | "hmac-sha512"
  | "ed25519"
  | "ecdsa-p256"
  | "token"
  | "certificate"
  | "jwt";

/** Headers that belong together; the first set whose signature is there counts. Lower case. */
export interface SignedHeaders {
  readonly signature: string;
  readonly timestamp: string | null;
  readonly id: string | null;
}

/** How a signature is written in its header. */
export interface SignatureForm {
  readonly encoding: "hex" | "base64" | "base64url" | "text";
  /** Stands before the signature; the letters' case counts unless it is a word of HTTP's own. */
  readonly prefix: string;
  /** Several signatures, each with its version; `timestamp` names the entry that is the time. */
  readonly list: {
    readonly separator: string;
    readonly assign: string;
    readonly timestamp: string | null;
  } | null;
}

/** How a secret's text becomes a key. `webhooks`: `whsec_` and `whpk_` with base64. */
export type KeyForm =
  | "text"
  | "hex"
  | "base64"
  | "webhooks"
  | "basic"
  | "ed25519"
  | "spki"
  | "fingerprint";

/** What a sender asks for before it sends, answered instead of stored. */
export type HandshakeName = "slack" | "zoom" | "discord";

/** Where the sender's own id of a message is: in one of some headers, or in the body by CEL. */
export type DedupeId = { readonly headers: readonly string[] } | { readonly body: string };

/** One scheme. */
export interface Scheme {
  readonly headers: readonly SignedHeaders[];
  readonly form: SignatureForm;
  /** By version; `""` where the header has none. Other versions in it are passed over. */
  readonly algorithms: Readonly<Record<string, Algorithm>>;
  /**
   * What is signed: `{body}`, `{timestamp}`, `{id}`, `{method}`, `{path}`, `{url}`, and `{form}`:
   * the fields of a form in order, or nothing when the URL holds the body's hash.
   */
  readonly base: string;
  /** Null: the scheme has no time. */
  readonly toleranceMs: number | null;
  readonly keyForm: KeyForm;
  readonly dedupe: DedupeId | null;
  /** What the provider needs as answer; null: the receipt. */
  readonly answer: { readonly status: 200 | 204 } | null;
  readonly handshake: HandshakeName | null;
  /** Where a proxy tells of a certificate; null for all schemes but `mtls`. */
  readonly mtls: MtlsDocument | null;
}

/** As the reference libraries of Standard Webhooks, Stripe and Slack have it. */
const TOLERANCE_MS = 300_000;

const HEX: SignatureForm = { encoding: "hex", prefix: "", list: null };
const BASE64: SignatureForm = { encoding: "base64", prefix: "", list: null };
const TEXT: SignatureForm = { encoding: "text", prefix: "", list: null };

const PLAIN: Scheme = {
  headers: [],
  form: HEX,
  algorithms: { "": "hmac-sha256" },
  base: "{body}",
  toleranceMs: null,
  keyForm: "text",
  dedupe: null,
  answer: null,
  handshake: null,
  mtls: null,
};

type OwnSettings = "hmac" | "jwt" | "mtls";

const SCHEMES: Readonly<Record<Exclude<VerifyScheme, OwnSettings>, Scheme>> = {
  "standard-webhooks": {
    ...PLAIN,
    headers: ["webhook", "svix"].map((prefix) => ({
      signature: `${prefix}-signature`,
      timestamp: `${prefix}-timestamp`,
      id: `${prefix}-id`,
    })),
    form: {
      encoding: "base64",
      prefix: "",
      list: { separator: " ", assign: ",", timestamp: null },
    },
    algorithms: { v1: "hmac-sha256", v1a: "ed25519" },
    base: "{id}.{timestamp}.{body}",
    toleranceMs: TOLERANCE_MS,
    keyForm: "webhooks",
    dedupe: { headers: ["webhook-id", "svix-id"] },
  },
  github: {
    ...PLAIN,
    headers: [header("x-hub-signature-256")],
    form: { ...HEX, prefix: "sha256=" },
    dedupe: { headers: ["x-github-delivery"] },
  },
  stripe: {
    ...PLAIN,
    headers: [header("stripe-signature")],
    form: { encoding: "hex", prefix: "", list: { separator: ",", assign: "=", timestamp: "t" } },
    algorithms: { v1: "hmac-sha256" },
    base: "{timestamp}.{body}",
    toleranceMs: TOLERANCE_MS,
    dedupe: { body: "body.id" },
  },
  slack: {
    ...PLAIN,
    headers: [header("x-slack-signature", "x-slack-request-timestamp")],
    form: { ...HEX, prefix: "v0=" },
    base: "v0:{timestamp}:{body}",
    toleranceMs: TOLERANCE_MS,
    dedupe: { body: "body.event_id" },
    answer: { status: 200 },
    handshake: "slack",
  },
  shopify: {
    ...PLAIN,
    headers: [header("x-shopify-hmac-sha256"), header("shopify-hmac-sha256")],
    form: BASE64,
    dedupe: { headers: ["x-shopify-webhook-id", "shopify-webhook-id"] },
  },
  twilio: {
    ...PLAIN,
    headers: [header("x-twilio-signature")],
    form: BASE64,
    algorithms: { "": "hmac-sha1" },
    base: "{url}{form}",
    dedupe: { headers: ["i-twilio-idempotency-token"] },
    answer: { status: 204 },
  },
  gitlab: {
    ...PLAIN,
    headers: [header("x-gitlab-token")],
    form: TEXT,
    algorithms: { "": "token" },
    dedupe: { headers: ["idempotency-key"] },
  },
  discord: {
    ...PLAIN,
    headers: [header("x-signature-ed25519", "x-signature-timestamp")],
    algorithms: { "": "ed25519" },
    base: "{timestamp}{body}",
    toleranceMs: TOLERANCE_MS,
    keyForm: "ed25519",
    dedupe: { body: "body.id" },
    answer: { status: 204 },
    handshake: "discord",
  },
  zoom: {
    ...PLAIN,
    headers: [header("x-zm-signature", "x-zm-request-timestamp")],
    form: { ...HEX, prefix: "v0=" },
    base: "v0:{timestamp}:{body}",
    toleranceMs: TOLERANCE_MS,
    answer: { status: 204 },
    handshake: "zoom",
  },
  sendgrid: {
    ...PLAIN,
    headers: [
      header("x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp"),
    ],
    form: BASE64,
    algorithms: { "": "ecdsa-p256" },
    base: "{timestamp}{body}",
    toleranceMs: TOLERANCE_MS,
    keyForm: "spki",
  },
  basic: {
    ...PLAIN,
    headers: [header("authorization")],
    form: { ...TEXT, prefix: "Basic " },
    algorithms: { "": "token" },
    keyForm: "basic",
  },
  bearer: {
    ...PLAIN,
    headers: [header("authorization")],
    form: { ...TEXT, prefix: "Bearer " },
    algorithms: { "": "token" },
  },
};

function header(signature: string, timestamp: string | null = null): SignedHeaders {
  return { signature, timestamp, id: null };
}

/** The scheme that a hook's document names, with what the document says itself. */
export function schemeOf(document: VerifyDocument): Scheme {
  const { scheme, toleranceMs } = document;
  if (scheme === "hmac") return hmacScheme(document);
  if (scheme === "jwt") return jwtScheme(document);
  if (scheme === "mtls") return mtlsScheme(document);
  const found = SCHEMES[scheme];
  return toleranceMs === null ? found : { ...found, toleranceMs };
}

function jwtScheme({ jwt }: VerifyDocument): Scheme {
  if (jwt === null) throw new RangeError("scheme jwt comes with its own settings");
  const prefix = jwt.header === "authorization" ? "Bearer " : "";
  const form = { ...TEXT, prefix };
  return { ...PLAIN, headers: [header(jwt.header)], form, algorithms: { "": "jwt" } };
}

function mtlsScheme({ mtls }: VerifyDocument): Scheme {
  if (mtls === null) throw new RangeError("scheme mtls comes with its own settings");
  return {
    ...PLAIN,
    headers: [header(mtls.header)],
    form: TEXT,
    algorithms: { "": "certificate" },
    keyForm: mtls.part === "fingerprint" ? "fingerprint" : "text",
    mtls,
  };
}

function hmacScheme({ hmac, toleranceMs }: VerifyDocument): Scheme {
  if (hmac === null) throw new RangeError("scheme hmac comes with its own settings");
  const { timestampHeader, idHeader, list, prefix } = hmac;
  const hasTime = timestampHeader !== null || (list !== null && list.timestamp !== null);
  return {
    ...PLAIN,
    headers: [{ signature: hmac.header, timestamp: timestampHeader, id: idHeader }],
    form: { encoding: hmac.encoding, prefix, list },
    algorithms: { [list?.signature ?? ""]: `hmac-${hmac.algorithm}` },
    base: hmac.base,
    toleranceMs: hasTime ? (toleranceMs ?? TOLERANCE_MS) : null,
    keyForm: hmac.keyEncoding,
    dedupe: idHeader === null ? null : { headers: [idHeader] },
  };
}
