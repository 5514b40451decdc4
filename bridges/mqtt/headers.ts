/**
 * Headers as MQTT 5 user properties: ordered, repeatable pairs of text. What a pair can't hold
 * (bytes that are no text, a header without a value) or what the client library would lose on the
 * way in (the order among different names, an empty value of a repeated name) is listed in one
 * property of our own, `isthmus-headers`: a JSON array in the headers' order, each item a name or
 * `[name, how]`.
 *
 *   how   on the wire                    meaning
 *   b     one pair, value in base64      bytes
 *   e     no pair                        an empty value
 *   n     no pair                        no value
 */
import { isUtf8 } from "node:buffer";
import { encodeText, type Header } from "../../src/message.ts";
import { escapePrefix, mapping } from "../mapping.ts";
import { headerOf, isOurs, ownNames } from "../mapping-carry.ts";
import { isSafeText, textBytesMax } from "./topic.ts";

/** A user property: MQTT keeps their order, and names may repeat. */
export type Pair = readonly [name: string, value: string];

const rows = mapping.mqtt;

/** The user properties of our own beside those of single properties. */
export const ownProperty = {
  headers: headerOf(rows, "headers"),
  id: headerOf(rows, "id"),
  key: headerOf(rows, "key"),
  timestamp: headerOf(rows, "timestampMs"),
  tombstone: headerOf(rows, "tombstone"),
} as const;

/** Ends the name of a property of ours whose text MQTT forbids, and that therefore is base64. */
export const BASE64_SUFFIX = "-base64";

const PLAIN_NAMES = ownNames(rows);
const OWN_NAMES: ReadonlySet<string> = new Set(
  [...PLAIN_NAMES].flatMap((name) => [name, `${name}${BASE64_SUFFIX}`]),
);

type How = "b" | "e" | "n";
type Item = string | readonly [string, How];

/** Object keys of this form lose their place in the client library. */
const INDEX_LIKE = /^(?:0|[1-9]\d{0,9})$/;

/** The pairs of a message's headers, or in words why they can't exist. */
export function encodeHeaders(
  headers: readonly Header[],
): readonly Pair[] | { readonly refused: string } {
  const counts = new Map<string, number>();
  for (const { name } of headers) counts.set(name, (counts.get(name) ?? 0) + 1);
  const pairs: Pair[] = [];
  const items: Item[] = [];
  for (const { name: given, value } of headers) {
    const name = isOurs(OWN_NAMES, given) ? `${escapePrefix}${given}` : given;
    const problem = nameProblem(name);
    if (problem !== null) return { refused: problem };
    const [how, text] = encodeValue(value, (counts.get(given) ?? 0) > 1);
    if (text !== null) pairs.push([name, text]);
    if (text !== null && Buffer.byteLength(text) > textBytesMax) {
      return { refused: `the header "${name}" is longer than ${textBytesMax} bytes` };
    }
    items.push(how === null ? name : [name, how]);
  }
  if (items.some((item) => typeof item !== "string") || losesOrder(pairs)) {
    const list = JSON.stringify(items);
    if (Buffer.byteLength(list) > textBytesMax) return { refused: "there are too many headers" };
    pairs.push([ownProperty.headers, list]);
  }
  return pairs;
}

function nameProblem(name: string): string | null {
  const shown = JSON.stringify(name.slice(0, 60));
  if (!isSafeText(name)) return `the header name ${shown} holds a character that MQTT forbids`;
  if (Buffer.byteLength(name) <= textBytesMax) return null;
  return `the header name ${shown} is longer than ${textBytesMax} bytes`;
}

function encodeValue(value: Uint8Array | null, repeated: boolean): [How | null, string | null] {
  if (value === null) return ["n", null];
  if (value.byteLength === 0) return repeated ? ["e", null] : [null, ""];
  const text = textOf(value);
  return text === null ? ["b", base64Of(value)] : [null, text];
}

/** Bytes as text that MQTT carries; null when they are none. */
export function textOf(bytes: Uint8Array): string | null {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!isUtf8(view)) return null;
  const text = view.toString("utf8");
  return isSafeText(text) ? text : null;
}

export function base64Of(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

export function bytesOfBase64(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "base64"));
}

/** The library groups the pairs by name on the way in, in the order of first appearance. */
function losesOrder(pairs: readonly Pair[]): boolean {
  const grouped = new Set<string>();
  let last: string | null = null;
  for (const [name] of pairs) {
    if (INDEX_LIKE.test(name) || name === "__proto__") return true;
    if (name !== last && grouped.has(name)) return true;
    grouped.add(name);
    last = name;
  }
  return false;
}

/**
 * The headers among the pairs of a message from anyone, ours or not. `isTaken` says of a pair by a
 * name of ours that it was one of ours; without it all are.
 */
export function decodeHeaders(
  pairs: readonly Pair[],
  isTaken: (name: string) => boolean = () => true,
): readonly Header[] {
  const left = new Map<string, string[]>();
  let list: string | null = null;
  for (const [name, value] of pairs) {
    if (name === ownProperty.headers) list = value;
    else if (!OWN_NAMES.has(name) || !isTaken(name))
      left.set(name, [...(left.get(name) ?? []), value]);
  }
  const headers: Header[] = [];
  for (const item of list === null ? [] : parseItems(list)) {
    const header = decodeItem(item, left);
    if (header !== null) headers.push(header);
  }
  for (const [name, values] of left) {
    const plain = plainName(name);
    for (const value of values) headers.push({ name: plain, value: encodeText(value) });
  }
  return headers;
}

/** The name that a header had before it was escaped. */
function plainName(name: string): string {
  return name.startsWith(escapePrefix) && isOurs(OWN_NAMES, name)
    ? name.slice(escapePrefix.length)
    : name;
}

function decodeItem(item: Item, left: ReadonlyMap<string, string[]>): Header | null {
  const [wireName, how] = typeof item === "string" ? [item, null] : item;
  const name = plainName(wireName);
  if (how === "n") return { name, value: null };
  if (how === "e") return { name, value: new Uint8Array(0) };
  const text = left.get(wireName)?.shift();
  if (text === undefined) return null;
  return { name, value: how === "b" ? bytesOfBase64(text) : encodeText(text) };
}

/** The list of our own; nothing when somebody else wrote something by its name. */
function parseItems(text: string): readonly Item[] {
  const parsed = parseJson(text);
  return Array.isArray(parsed) && parsed.every(isItem) ? parsed : [];
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not ours: the headers are taken as they came.
    return null;
  }
}

function isItem(value: unknown): value is Item {
  if (typeof value === "string") return true;
  if (!Array.isArray(value) || value.length !== 2) return false;
  return typeof value[0] === "string" && ["b", "e", "n"].includes(String(value[1]));
}
