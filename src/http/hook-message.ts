/**
 * What a webhook becomes: a message with the headers that may be kept, its key, and the dedupe key
 * by which a second one of the same is known. The sender's own secrets are never kept.
 */
import { withHttpEvent } from "../cloudevents/read.ts";
import { dedupeKeyBytesMax, keyBytesMax } from "../limits.ts";
import { type Header, HOPS_HEADER, type Message, type Origin } from "../message.ts";
import { arrived } from "../routing/hops.ts";
import { dedupeFrom, keyFrom } from "../routing/keys.ts";
import type { HookDocument } from "../rules/document.ts";
import { idempotencyKey } from "./append.ts";
import { contentProperties, headerBytes } from "./request.ts";
import type { HookFace } from "./services.ts";
import type { Scheme } from "./verify/schemes.ts";
import type { Verifier } from "./verify/verifier.ts";

const EVENT_PREFIX = "ce-";

/** Headers that are secrets of the sender, or belong to one connection only. */
const LEFT_OUT = [
  "authorization",
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "cookie",
  "expect",
  "keep-alive",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "x-api-key",
  "x-auth-token",
  "x-amz-security-token",
  "x-gitlab-token",
];

/** The headers that a hook does not keep: those lists, its own, and what holds its secret. */
export function droppedHeaders(document: HookDocument, scheme: Scheme | null): ReadonlySet<string> {
  const algorithms = scheme === null ? [] : Object.values(scheme.algorithms);
  const isSecret = algorithms.includes("token") || algorithms.includes("jwt");
  const own = isSecret ? (scheme?.headers ?? []).map(({ signature }) => signature) : [];
  return new Set([...LEFT_OUT, ...document.dropHeaders, ...own]);
}

/** A message whose key is found by looking at the message. */
export interface KeylessMessage extends Message {
  key: Uint8Array | null;
}

/** The message of a request, without key. */
export function messageOf(
  headers: Headers,
  parts: {
    readonly id: string;
    readonly body: Uint8Array;
    readonly atMs: number;
    readonly origin: Origin;
    readonly dropped: ReadonlySet<string>;
  },
): KeylessMessage {
  const kept = keptHeaders(headers, parts.dropped);
  const { origin } = parts;
  const hasHops = kept.some(({ name }) => name === HOPS_HEADER);
  const hasEvent = kept.some(({ name }) => name.startsWith(EVENT_PREFIX));
  const properties = contentProperties(headers, origin.http?.inflated !== undefined);
  const message = {
    id: parts.id,
    key: null,
    properties,
    headers: kept,
    body: parts.body,
    timestampMs: parts.atMs,
    origin,
  };
  // Most have neither come through a gateway nor are they events: a look at the names tells.
  const isPlain = !hasEvent && properties.contentType === undefined;
  const here = hasHops ? arrived(message) : message;
  return isPlain ? here : withHttpEvent(here);
}

/**
 * In the order in which they came, HTTP's own names before all others: iterating over the headers
 * would sort them. Lines of one name come joined.
 */
function keptHeaders(headers: Headers, dropped: ReadonlySet<string>): readonly Header[] {
  const kept: Header[] = [];
  const values: Readonly<Record<string, string | readonly string[]>> = headers.toJSON();
  for (const name in values) {
    if (dropped.has(name)) continue;
    const value = values[name] ?? "";
    const lines = typeof value === "string" ? [value] : value;
    for (const line of lines) kept.push({ name, value: headerBytes(line) });
  }
  return kept;
}

/** How a second one of the same is known. */
export interface Dedupe {
  readonly key: string | null;
  /** Whether it is the sender's `Idempotency-Key`: another body under it is a mistake. */
  readonly isIdempotency: boolean;
}

const NO_DEDUPE: Dedupe = { key: null, isIdempotency: false };
const NOT_COUNTED = (): void => undefined;

/**
 * Gives the message its key, and says by what it is known. What an expression can't give, or the
 * log couldn't hold, is none. @throws InvalidError the `Idempotency-Key` is malformed.
 */
export function prepare(
  hook: HookFace,
  message: KeylessMessage,
  headers: Headers,
  { name, failed }: { readonly name: string; readonly failed: () => void },
): Dedupe {
  if (hook.key !== null) {
    const key = keyFrom(hook.key, message, failed);
    if (key !== null && key.length > keyBytesMax) failed();
    else if (key !== null) message.key = key;
  }
  if (hook.dedupe !== null) return found(dedupeFrom(hook.dedupe, message, { name, failed }));
  if (hook.document.dedupe === false) return NO_DEDUPE;
  const { verifier } = hook;
  const own = verifier === undefined ? null : senderId(verifier, message, headers, name);
  if (own !== null) return found(own);
  const given = idempotencyKey(headers.get("idempotency-key"));
  return given === null ? NO_DEDUPE : { key: `${name}/key/${given}`, isIdempotency: true };
}

function found(key: string | null): Dedupe {
  return key === null ? NO_DEDUPE : { key, isIdempotency: false };
}

/** The id that the scheme's provider gives each message; many kinds of messages have none. */
function senderId(
  verifier: Verifier,
  message: Message,
  headers: Headers,
  name: string,
): string | null {
  const expression = verifier.dedupeExpression;
  if (expression !== null) return dedupeFrom(expression, message, { name, failed: NOT_COUNTED });
  const dedupe = verifier.scheme?.dedupe ?? null;
  if (dedupe === null || !("headers" in dedupe)) return null;
  const value = dedupe.headers.map((each) => headers.get(each)).find((each) => each !== null);
  if (value === undefined || value === null || value === "") return null;
  const key = `${name}/${value}`;
  if (Buffer.byteLength(key) <= dedupeKeyBytesMax) return key;
  return `${name}#${new Bun.CryptoHasher("sha256").update(value).digest("hex")}`;
}
