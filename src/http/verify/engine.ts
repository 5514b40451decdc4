/**
 * The one check of all schemes: finds the signature's headers, puts together what was signed from
 * the raw bytes, compares with each key that counts, and looks at the time last, so that a time is
 * only spoken of when the signature over it holds. A refusal says which check failed, and never
 * what would have been right.
 */
import { UnauthorizedError } from "../../errors.ts";
import { hookHeaderCharsMax, hookSignaturesMax, jwtCharsMax } from "../../limits.ts";
import { parseTimeMs } from "../../rules/units.ts";
import { certificateNames } from "./certificate.ts";
import { formParts } from "./form.ts";
import { isSignedBy, type SignedParts, type VerifyKey } from "./keys.ts";
import type { Algorithm, Scheme, SignedHeaders } from "./schemes.ts";

/** A webhook as it came, or as it is kept. */
export interface SignedRequest {
  readonly method: string;
  readonly path: string;
  /** With its question mark; `""` when there is none. */
  readonly query: string;
  /** The values' bytes as Latin-1 characters. */
  readonly headers: Pick<Headers, "get">;
  readonly body: Uint8Array;
  /** As the sender calls it, without the query; null where nobody has said. */
  readonly url: string | null;
  /** When it came, Unix milliseconds: what its own time is compared with. */
  readonly atMs: number;
  /** Whether the peer of the connection is a trusted proxy. */
  readonly isProxied: boolean;
}

/** A scheme with the parts of its base told apart. */
export interface Checker {
  readonly scheme: Scheme;
  readonly base: readonly BasePart[];
}

type Placeholder = "body" | "timestamp" | "id" | "method" | "path" | "url" | "form";
type BasePart = { readonly text: string } | { readonly part: Placeholder };

/** Makes a checker. */
export function checkerOf(scheme: Scheme): Checker {
  const base = scheme.base
    .split(/(\{[a-z]+\})/)
    .filter((text) => text !== "")
    .map((text): BasePart => {
      return text.startsWith("{") ? { part: text.slice(1, -1) as Placeholder } : { text };
    });
  return { scheme, base };
}

/**
 * An id that ends with an old time would let an old message pass as a new one, whose time then is
 * the start of the old body: both are the same text where a full stop parts id, time and body.
 */
const TIME_IN_ID = /\.\d{10,}(\.|$)/;

/**
 * The key that the webhook was signed with.
 * @throws UnauthorizedError `signature-invalid`, or `timestamp-outside-tolerance` when all but the
 * time is right: the sender is refused, nothing was changed.
 */
export function checkSignature(
  checker: Checker,
  keys: readonly VerifyKey[],
  request: SignedRequest,
): VerifyKey {
  const { scheme } = checker;
  const headers = presentHeaders(scheme, request);
  const { timestamp, signatures } = signaturesOf(headers, scheme, request);
  const signedTime = timestamp ?? optionalHeader(headers.timestamp, request);
  const id = optionalHeader(headers.id, request);
  if (id !== null && scheme.base.includes("{id}.{timestamp}") && TIME_IN_ID.test(id)) {
    throw refusal(`the id in ${headers.id} holds what could be a time`);
  }
  const encoding = scheme.form.encoding;
  const alive = keys.filter(({ untilMs }) => untilMs === null || request.atMs < untilMs);
  for (const parts of signedBases(checker, request, { timestamp: signedTime, id })) {
    const key = alive.find(({ material }) => isSignedBy(material, signatures, { parts, encoding }));
    if (key === undefined) continue;
    checkTime(signedTime, scheme, request.atMs);
    return key;
  }
  throw refusal(`the signature in ${headers.signature} does not fit this request`);
}

function presentHeaders(scheme: Scheme, request: SignedRequest): SignedHeaders {
  const found = scheme.headers.find(({ signature }) => request.headers.get(signature) !== null);
  if (found !== undefined) return found;
  const names = scheme.headers.map(({ signature }) => signature);
  throw refusal(`the header ${names.join(" or ")} is missing`);
}

function headerValue(
  name: string,
  request: SignedRequest,
  charsMax: number = hookHeaderCharsMax,
): string {
  const value = request.headers.get(name);
  if (value === null || value === "") throw refusal(`the header ${name} is missing`);
  if (value.length > charsMax) throw refusal(`the header ${name} is too long`);
  return value;
}

function optionalHeader(name: string | null, request: SignedRequest): string | null {
  return name === null ? null : headerValue(name, request);
}

/** What is shown instead of a signature where there is none: a token, bare. @throws */
export function tokenIn({ scheme }: Checker, request: SignedRequest): string {
  const headers = presentHeaders(scheme, request);
  const value = headerValue(headers.signature, request, jwtCharsMax);
  return signaturesIn(value, headers, scheme).signatures[0]?.text ?? "";
}

function signaturesOf(headers: SignedHeaders, scheme: Scheme, request: SignedRequest): Found {
  if (scheme.mtls !== null) {
    const names = certificateNames(scheme.mtls, request, refusal).slice(0, hookSignaturesMax);
    return {
      timestamp: null,
      signatures: names.map((text) => ({ algorithm: "certificate", text })),
    };
  }
  return signaturesIn(headerValue(headers.signature, request), headers, scheme);
}

interface Found {
  readonly timestamp: string | null;
  readonly signatures: readonly { readonly algorithm: Algorithm; readonly text: string }[];
}

function signaturesIn(value: string, { signature: name }: SignedHeaders, scheme: Scheme): Found {
  const { form, algorithms } = scheme;
  if (form.list === null) {
    const algorithm = algorithms[""];
    const text = withoutPrefix(value, form.prefix);
    if (text === null || algorithm === undefined) {
      throw refusal(`the header ${name} does not begin with ${JSON.stringify(form.prefix.trim())}`);
    }
    return { timestamp: null, signatures: [{ algorithm, text }] };
  }
  const { separator, assign, timestamp: timestampName } = form.list;
  const entries = value.split(separator).map((entry) => {
    const at = entry.indexOf(assign);
    return at < 0 ? ["", ""] : [entry.slice(0, at), entry.slice(at + 1)];
  });
  const signatures = entries.flatMap(([version = "", text = ""]) => {
    const algorithm = Object.hasOwn(algorithms, version) ? algorithms[version] : undefined;
    return algorithm === undefined ? [] : [{ algorithm, text }];
  });
  if (signatures.length === 0) throw refusal(`the header ${name} holds no known signature`);
  if (signatures.length > hookSignaturesMax) throw refusal(`the header ${name} holds too many`);
  if (timestampName === null) return { timestamp: null, signatures };
  const times = entries.filter(([version]) => version === timestampName);
  const time = times[0]?.[1];
  if (times.length !== 1 || time === undefined) throw refusal(`the header ${name} holds no time`);
  return { timestamp: time, signatures };
}

/** The words of HTTP's own schemes, `Basic` and `Bearer`, end with a space and have no case. */
function withoutPrefix(value: string, prefix: string): string | null {
  const start = value.slice(0, prefix.length);
  const isThere = prefix.endsWith(" ")
    ? start.toLowerCase() === prefix.toLowerCase()
    : start === prefix;
  return isThere ? value.slice(prefix.length) : null;
}

/** What may have been signed: several where a sender writes its URL in more than one way. */
export function* signedBases(
  { base }: Checker,
  request: SignedRequest,
  values: { readonly timestamp: string | null; readonly id: string | null },
): Iterable<SignedParts> {
  const hasUrl = base.some((each) => "part" in each && each.part === "url");
  for (const url of hasUrl ? urlsOf(request) : [""]) {
    yield base.flatMap((each): SignedParts => {
      if ("text" in each) return [each.text];
      switch (each.part) {
        case "body":
          return [request.body];
        case "timestamp":
          return [Buffer.from(values.timestamp ?? "", "latin1")];
        case "id":
          return [Buffer.from(values.id ?? "", "latin1")];
        case "method":
          return [request.method];
        case "path":
          return [request.path];
        case "url":
          return [url];
        case "form":
          return formParts(request, refusal);
      }
    });
  }
}

/** The URL as it is, and with and without the port that its protocol means anyway. */
function urlsOf({ url, query }: SignedRequest): readonly string[] {
  if (url === null) return [];
  const match = /^(https?):\/\/([^/?#]*?)(?::(\d+))?([/?#].*)?$/i.exec(url);
  if (match === null) return [`${url}${query}`];
  const [, protocol = "", host = "", port, path = ""] = match;
  const usual = protocol.toLowerCase() === "https" ? "443" : "80";
  const own = `${url}${query}`;
  if (port !== undefined && port !== usual) return [own, `${protocol}://${host}${path}${query}`];
  const other = port === undefined ? `:${usual}` : "";
  return [own, `${protocol}://${host}${other}${path}${query}`];
}

function checkTime(timestamp: string | null, { toleranceMs }: Scheme, nowMs: number): void {
  if (toleranceMs === null) return;
  const sentMs = timestamp === null ? null : timeMsOf(timestamp);
  if (sentMs === null) throw refusal("the time is neither a whole number nor a date");
  if (Math.abs(nowMs - sentMs) <= toleranceMs) return;
  const how = sentMs < nowMs ? "old" : "far in the future";
  throw new UnauthorizedError(
    `the signature's time is too ${how}: it may differ by ${toleranceMs / 1000} s`,
    "timestamp-outside-tolerance",
  );
}

/** Seconds or milliseconds of Unix, or a date such as `2026-01-31T12:00:00Z`; null: none. */
function timeMsOf(text: string): number | null {
  if (!/^\d{1,15}$/.test(text)) return parseTimeMs(text, null);
  // Eleven digits of seconds are the year 5138: so many are milliseconds.
  return text.length > 11 ? Number(text) : Number(text) * 1000;
}

function refusal(detail: string): UnauthorizedError {
  return new UnauthorizedError(detail, "signature-invalid");
}
