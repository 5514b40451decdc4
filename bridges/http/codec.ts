/**
 * Messages as HTTP requests: the body as it is, its type and encoding, the id and the time of the
 * attempt as Standard Webhooks name them, and the message's headers as far as they can be headers
 * of a request; key and properties go out in headers of ours. Bytes outside ASCII go out as they
 * are. What HTTP can't say is refused, never changed; the few headers that a request can't be given
 * are named as losses.
 */
import { isUtf8 } from "node:buffer";
import { type Loss, noLosses } from "../../src/bridge.ts";
import type { Message } from "../../src/message.ts";
import { mapping } from "../mapping.ts";
import { type Carried, carriersOf, headerOf, ownNames } from "../mapping-carry.ts";
import { signedId, type Signer } from "./sign.ts";

const rows = mapping.http;
const KEY = headerOf(rows, "key");
const TOMBSTONE = headerOf(rows, "tombstone");
const BASE64_SUFFIX = "-base64";
const carriers = carriersOf(rows);

/** Names that a message's header never sets: the connection's own, credentials, and ours. */
const NEVER: ReadonlySet<string> = new Set([
  "accept-encoding",
  "authorization",
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "cookie",
  "expect",
  "host",
  "http2-settings",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "user-agent",
  "webhook-id",
  "webhook-timestamp",
  "webhook-signature",
  ...[...ownNames(rows)].flatMap((name) => [name, `${name}${BASE64_SUFFIX}`]),
]);

const TOKEN = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
/** Visible ASCII, space, tab, and bytes above ASCII. */
// eslint-disable-next-line no-control-regex -- these are the very characters that are looked for
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
/** Visible ASCII that no server trims. */
const PLAIN = /^(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?$/;
/** Servers commonly refuse more. Bytes. */
const HEADER_BYTES_MAX = 64 * 1024;

const USER_AGENT = "isthmus";

/** Headers of a request: names in lower case; text whose characters are bytes. */
export type RequestHeaders = Readonly<Record<string, string | string[]>>;

/** A request save for where it goes. */
export interface WebhookRequest {
  readonly headers: RequestHeaders;
  readonly body: Buffer;
}

/** Why, in words, there can't be a request for a message. */
export interface Refused {
  readonly refused: string;
}

/** What a request is made with beside the message. */
export interface EncodeOptions {
  /** Headers of the bridge and the address, names in lower case. */
  readonly fixed: Readonly<Record<string, string>>;
  readonly nowMs: number;
  /** Null: the request is not signed. */
  readonly signer: Signer | null;
}

/** Whether a name can be the name of a header. */
export function isHeaderName(name: string): boolean {
  return TOKEN.test(name.toLowerCase());
}

/** Text as the bytes that travel, one character for each; null when HTTP can't carry it. */
export function headerValue(text: string): string | null {
  return bytesValue(Buffer.from(text, "utf8"));
}

function bytesValue(bytes: Uint8Array): string | null {
  const value = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
  return VALUE.test(value) ? value : null;
}

/**
 * The request for a message, or in words why there can't be one. `fixed` are the headers of the
 * bridge and the address, which win over the message's own; a signature and what it is over win
 * over all.
 */
export function encodeMessage(message: Message, options: EncodeOptions): WebhookRequest | Refused {
  const own = ownHeaders(message);
  if ("refused" in own) return own;
  const { headers } = own;
  for (const [name, text] of addedHeaders(message, options)) {
    if (text === undefined) continue;
    const value = headerValue(text);
    if (value === null) return lineBreakIn(name);
    headers[name] = value;
  }
  const bytes = headerBytes(headers);
  if (bytes > HEADER_BYTES_MAX) {
    return { refused: `the headers take ${bytes} bytes, more than ${HEADER_BYTES_MAX}` };
  }
  const body = message.body ?? new Uint8Array(0);
  return { headers, body: Buffer.from(body.buffer, body.byteOffset, body.byteLength) };
}

/** The message's headers as far as they can be a request's. */
function ownHeaders(
  message: Message,
): Refused | { readonly headers: Record<string, string | string[]> } {
  const headers: Record<string, string | string[]> = Object.create(null);
  for (const { name, value } of message.headers) {
    const lower = name.toLowerCase();
    if (!TOKEN.test(lower)) return { refused: `the header name ${shown(name)} can't be in HTTP` };
    if (NEVER.has(lower)) continue;
    const text = bytesValue(value ?? new Uint8Array(0));
    if (text === null) return lineBreakIn(name);
    const before = headers[lower];
    headers[lower] = before === undefined ? text : [before, text].flat();
  }
  return { headers };
}

/** What the bridge says beside them; a later one wins. */
function addedHeaders(
  message: Message,
  { fixed, nowMs, signer }: EncodeOptions,
): readonly (readonly [string, string | undefined])[] {
  const { id, body, properties } = message;
  const shownId = signer === null ? id : signedId(id);
  const timestamp = String(Math.floor(nowMs / 1000));
  const named = [
    ["webhook-id", shownId],
    ["webhook-timestamp", timestamp],
  ] as const;
  const added: readonly (readonly [string, string | undefined])[] = [
    ["user-agent", USER_AGENT],
    ["content-type", properties.contentType ?? "application/octet-stream"],
    ["content-encoding", properties.contentEncoding],
    // An answer is read as it comes: nothing of it is inflated.
    ["accept-encoding", "identity"],
    ...named,
    [TOMBSTONE, body === null ? "true" : undefined],
    ...ownTexts(message),
    ...Object.entries(fixed),
  ];
  if (signer === null) return added;
  const signature = signer.signature(shownId, timestamp, body ?? new Uint8Array(0));
  return [...added, ...named, ["webhook-signature", signature]];
}

/** The key, and the properties that HTTP has no header for. */
function ownTexts({ key, properties }: Message): readonly (readonly [string, string])[] {
  const texts: (readonly [string, string])[] = [];
  if (key !== null) texts.push(ownText(KEY, key));
  for (const { header, write } of carriers) {
    const value = write(properties);
    if (value !== undefined) texts.push(ownText(header, value));
  }
  return texts;
}

/** Text where HTTP carries it as it is, else base64. */
function ownText(header: string, value: Carried): readonly [string, string] {
  if (typeof value === "string" && PLAIN.test(value)) return [header, value];
  const bytes = Buffer.from(value);
  const text = isUtf8(bytes) ? bytes.toString() : null;
  if (text !== null && PLAIN.test(text)) return [header, text];
  return [`${header}${BASE64_SUFFIX}`, bytes.toString("base64")];
}

/** What of a message's headers a request can't be given. */
export function lossesOf({ headers }: Message): readonly Loss[] {
  let losses: Loss[] | null = null;
  for (const { name, value } of headers) {
    const isNever = NEVER.has(name.toLowerCase());
    if (!isNever && value !== null) continue;
    const what = `the header ${shown(name)} ${isNever ? "is not sent" : "has an empty value"}`;
    losses ??= [];
    losses.push({ field: "headers", what });
  }
  return losses ?? noLosses;
}

function lineBreakIn(name: string): Refused {
  return { refused: `the header ${shown(name)} holds a line break or control` };
}

function headerBytes(headers: RequestHeaders): number {
  let bytes = 0;
  for (const [name, value] of Object.entries(headers)) {
    for (const one of [value].flat()) bytes += name.length + one.length + 4;
  }
  return bytes;
}

function shown(name: string): string {
  return JSON.stringify(name.slice(0, 60));
}
