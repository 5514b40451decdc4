/**
 * Events in binary mode: which headers of a message are attributes. Each binding has a prefix of
 * its own, and MQTT has none: there a message is an event when all required attributes are there.
 */
import { isUtf8 } from "node:buffer";
import type { EventBinding } from "../bridge.ts";
import type { Header } from "../message.ts";
import { isAttributeName, percentDecoded, REQUIRED } from "./event.ts";

/** The prefixes of all bindings: an event that came by one protocol goes out by another. */
const PREFIXES: readonly string[] = ["ce-", "ce_", "cloudEvents_", "cloudEvents:"];

/** The attributes among headers, and the headers that are none. */
export interface Found {
  readonly attributes: ReadonlyMap<string, string>;
  readonly rest: readonly Header[];
  /** All required attributes are there. */
  readonly isEvent: boolean;
}

const NONE: ReadonlyMap<string, string> = new Map();
const NO_PREFIXES: readonly string[] = [];

/** The attributes of an event as a binding writes them; null where the headers make no event. */
export function eventIn(
  headers: readonly Header[],
  { prefix, alsoRead, isPercentEncoded }: EventBinding,
): ReadonlyMap<string, string> | null {
  let found = eventBy(headers, prefix);
  for (const each of alsoRead ?? NO_PREFIXES) found ??= eventBy(headers, each);
  return found !== null && isPercentEncoded === true ? decoded(found) : found;
}

/** Most messages are no events: one look at the names tells. */
function eventBy(headers: readonly Header[], prefix: string): ReadonlyMap<string, string> | null {
  for (const { name } of headers) {
    if (!isNamed(name, prefix, "specversion")) continue;
    const { attributes, isEvent } = collect(headers, prefix);
    return isEvent ? attributes : null;
  }
  return null;
}

/** The attributes among the headers of a message of the log, whatever binding wrote them. */
export function attributesIn(headers: readonly Header[]): Found {
  for (const prefix of PREFIXES) {
    const found = collect(headers, prefix);
    if (found.attributes.size > 0) return found;
  }
  const bare = collect(headers, "");
  return bare.isEvent ? bare : { attributes: NONE, rest: headers, isEvent: false };
}

function collect(headers: readonly Header[], prefix: string): Found {
  const attributes = new Map<string, string>();
  const rest: Header[] = [];
  for (const header of headers) {
    const name = attributeOf(header.name, prefix);
    const text = name === null || attributes.has(name) ? null : textOf(header.value);
    if (name === null || text === null) rest.push(header);
    else attributes.set(name, text);
  }
  const isEvent = REQUIRED.every((name) => (attributes.get(name) ?? "") !== "");
  return { attributes, rest, isEvent };
}

function attributeOf(header: string, prefix: string): string | null {
  if (header.slice(0, prefix.length).toLowerCase() !== prefix.toLowerCase()) return null;
  const name = header.slice(prefix.length).toLowerCase();
  // Without a prefix only what is written as an attribute is one, and the trace is the transport's.
  if (prefix === "" && (header !== name || TRACE.has(name))) return null;
  return isAttributeName(name) ? name : null;
}

/** Names by which a transport and an event speak of different traces. */
export const TRACE: ReadonlySet<string> = new Set(["traceparent", "tracestate"]);

function isNamed(header: string, prefix: string, name: string): boolean {
  return header.length === prefix.length + name.length && header.toLowerCase().endsWith(name);
}

function textOf(value: Uint8Array | null): string | null {
  if (value === null || !isUtf8(value)) return null;
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("utf8");
}

function decoded(attributes: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  return new Map([...attributes].map(([name, text]) => [name, percentDecoded(text) ?? text]));
}
