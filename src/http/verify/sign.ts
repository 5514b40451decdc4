/**
 * The other direction: makes a test webhook as its provider would, from the same table of schemes.
 * Where providers sign with a private key, a key of one's own stands in for it, whose public half
 * the hook has for the test.
 */
import { createPrivateKey, type KeyObject, sign } from "node:crypto";
import { InvalidError } from "../../errors.ts";
import type { VerifyDocument } from "../../rules/document.ts";
import { checkerOf, signedBases } from "./engine.ts";
import { basicCredentials, keyMaterial, macText, type SignedParts } from "./keys.ts";
import { type Scheme, schemeOf } from "./schemes.ts";
import { certificateHeaders, testToken } from "./sign-claims.ts";

/** What is to be signed. */
export interface Unsigned {
  readonly method: string;
  /** The URL as the hook knows itself, with path and without query. */
  readonly url: string;
  readonly body: Uint8Array;
  readonly contentType: string;
  /** An id for schemes that have one, and for those that name theirs in a header. */
  readonly id: string;
  readonly atMs: number;
}

/** What is added to the request. */
export interface Signed {
  readonly headers: Readonly<Record<string, string>>;
  /** With its question mark; `""`: none. */
  readonly query: string;
}

/** How a secret of Standard Webhooks begins that signs `v1a`. */
const STANDARD_PRIVATE_KEY = "whsk_";
/** What stands before the seed of an ed25519 key in PKCS #8. */
const ED25519_PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex");
const ed25519SeedBytes = 32;

/**
 * Signs with a secret's text, or with a private key as PEM. @throws InvalidError the scheme can't
 * be signed with it.
 */
export function signWebhook(document: VerifyDocument, secret: string, request: Unsigned): Signed {
  const scheme = schemeOf(document);
  const [names] = scheme.headers;
  if (names === undefined) throw new RangeError("every scheme has a header");
  if (scheme.mtls !== null) return { headers: certificateHeaders(scheme.mtls, secret), query: "" };
  const timestamp = String(Math.floor(request.atMs / 1000));
  const query = queryOf(scheme, request);
  const headers: Record<string, string> = {};
  if (names.timestamp !== null) headers[names.timestamp] = timestamp;
  if (names.id !== null) headers[names.id] = request.id;
  else if (scheme.dedupe !== null && "headers" in scheme.dedupe) {
    const [idHeader] = scheme.dedupe.headers;
    if (idHeader !== undefined) headers[idHeader] = request.id;
  }
  headers[names.signature] = signatureHeader(document, secret, {
    scheme,
    request,
    query,
    timestamp,
  });
  return { headers, query };
}

function queryOf({ base }: Scheme, { body, contentType }: Unsigned): string {
  const isForm = contentType.startsWith("application/x-www-form-urlencoded");
  if (!base.includes("{form}") || isForm || body.length === 0) return "";
  return `?bodySHA256=${new Bun.CryptoHasher("sha256").update(body).digest("hex")}`;
}

function signatureHeader(
  document: VerifyDocument,
  secret: string,
  parts: {
    readonly scheme: Scheme;
    readonly request: Unsigned;
    readonly query: string;
    readonly timestamp: string;
  },
): string {
  const { scheme, request, timestamp } = parts;
  const { form, algorithms, keyForm } = scheme;
  if (document.jwt !== null) {
    return `${form.prefix}${testToken(document.jwt.jwt, secret, request.atMs)}`;
  }
  if (Object.values(algorithms).includes("token")) {
    const token = keyForm === "basic" ? basicCredentials(document.username, secret) : secret;
    return `${form.prefix}${token}`;
  }
  const { version, text } = signature(scheme, secret, signedParts(scheme, request, parts));
  if (form.list === null) return `${form.prefix}${text}`;
  const { separator, assign, timestamp: timestampName } = form.list;
  const time = timestampName === null ? [] : [`${timestampName}${assign}${timestamp}`];
  return [...time, `${version}${assign}${text}`].join(separator);
}

/** What is to be signed: the first way where a sender may write its URL in several. */
function signedParts(
  scheme: Scheme,
  { method, url, body, contentType, atMs, id }: Unsigned,
  { query, timestamp }: { readonly query: string; readonly timestamp: string },
): SignedParts {
  const headers = new Headers({ "content-type": contentType });
  const path = new URL(url).pathname;
  const request = { method, path, query, headers, body, url, atMs, isProxied: false };
  const [first = []] = signedBases(checkerOf(scheme), request, { timestamp, id });
  return first;
}

function signature(
  { keyForm, algorithms, form }: Scheme,
  secret: string,
  parts: SignedParts,
): { readonly version: string; readonly text: string } {
  const names = Object.keys(algorithms);
  const isPublic = (name: string): boolean => !algorithms[name]?.startsWith("hmac-");
  const key = privateKey(secret);
  if (key === null) {
    const version = names.find((name) => !isPublic(name));
    if (version === undefined) {
      throw new InvalidError("the scheme is signed with a private key: give --private-key");
    }
    const texts = { form: keyForm, algorithms: Object.values(algorithms), text: secret };
    const material = keyMaterial({ ...texts, username: null });
    if (material.kind !== "mac") throw new InvalidError("a public key can't sign");
    return { version, text: macText(material.hasher, parts, form.encoding) };
  }
  const version = names.find(isPublic);
  const type = algorithms[version ?? ""] === "ed25519" ? "ed25519" : "ec";
  if (version === undefined || key.asymmetricKeyType !== type) {
    throw new InvalidError("the scheme is not signed with a private key of this kind");
  }
  const bytes = Buffer.concat(parts.map((part) => Buffer.from(part)));
  const signed = sign(type === "ed25519" ? null : "sha256", bytes, key);
  return { version, text: signed.toString(form.encoding === "text" ? "hex" : form.encoding) };
}

/** Null: it is a secret that both sides know. @throws InvalidError it is no whole key. */
function privateKey(text: string): KeyObject | null {
  try {
    if (text.includes("PRIVATE KEY-----")) return createPrivateKey(text);
    if (!text.startsWith(STANDARD_PRIVATE_KEY)) return null;
    const bytes = Buffer.from(text.slice(STANDARD_PRIVATE_KEY.length), "base64");
    const key = Buffer.concat([ED25519_PKCS8, bytes.subarray(0, ed25519SeedBytes)]);
    return createPrivateKey({ key, format: "der", type: "pkcs8" });
  } catch (cause) {
    throw new InvalidError("it is no private key", [], { cause });
  }
}
