/**
 * The other direction: signs a test webhook as its provider would, from the same table of schemes.
 * What is signed with a private key that only the provider has can't be made here.
 */
import { InvalidError } from "../../errors.ts";
import type { VerifyDocument } from "../../rules/document.ts";
import { checkerOf, signedBases } from "./engine.ts";
import { basicCredentials, keyMaterial, macText } from "./keys.ts";
import { type Scheme, schemeOf } from "./schemes.ts";

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

/** Signs with a secret's text. @throws InvalidError the scheme can't be signed with a secret. */
export function signWebhook(document: VerifyDocument, secret: string, request: Unsigned): Signed {
  const scheme = schemeOf(document);
  const [names] = scheme.headers;
  if (names === undefined) throw new RangeError("every scheme has a header");
  const why = unsigned(document, scheme);
  if (why !== null) throw new InvalidError(`scheme ${document.scheme} ${why}`);
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

/** Why a webhook of this scheme can't be made here; null: it can. */
function unsigned({ jwt }: VerifyDocument, { keyForm, mtls }: Scheme): string | null {
  if (keyForm === "ed25519" || keyForm === "spki") {
    return "is signed with a private key that only its provider has";
  }
  if (jwt !== null) return "takes tokens that only their issuer makes";
  return mtls === null ? null : "counts only from a trusted proxy";
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
  const { scheme, request, query, timestamp } = parts;
  const { form, algorithms, keyForm } = scheme;
  const [version = ""] = Object.keys(algorithms);
  if (algorithms[version] === "token") {
    const token = keyForm === "basic" ? basicCredentials(document.username, secret) : secret;
    return `${form.prefix}${token}`;
  }
  const material = keyMaterial({
    form: keyForm,
    algorithms: Object.values(algorithms),
    text: secret,
    username: null,
  });
  if (material.kind !== "mac") throw new InvalidError("a public key can't sign");
  const { method, url, body, contentType, atMs, id } = request;
  const headers = new Headers({ "content-type": contentType });
  const signed = {
    method,
    path: new URL(url).pathname,
    query,
    headers,
    body,
    url,
    atMs,
    isProxied: false,
  };
  const [base = []] = signedBases(checkerOf(scheme), signed, { timestamp, id });
  const text = macText(material.hasher, base, form.encoding);
  if (form.list === null) return `${form.prefix}${text}`;
  const { separator, assign, timestamp: timestampName } = form.list;
  const time = timestampName === null ? [] : [`${timestampName}${assign}${timestamp}`];
  return [...time, `${version}${assign}${text}`].join(separator);
}
