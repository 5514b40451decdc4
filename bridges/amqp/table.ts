/**
 * Headers in an AMQP field table. A message's headers are ordered, repeatable bytes; a table has
 * unique names and types. Text goes out as text and other bytes as a byte array, so that other
 * readers see what they expect, and both come back as the same bytes. What a table can't hold as it
 * is (a repeated name, a name that the broker or JavaScript treats specially, an order that an
 * object loses) is kept under another key, `name#2`, and `isthmus-header-names` then lists the true
 * names.
 */
import { isUtf8 } from "node:buffer";
import { encodeText, type Header } from "../../src/message.ts";
import { mapping } from "../mapping.ts";
import { headerOf, ownNames } from "../mapping-carry.ts";

/** A field table as the client library takes and gives it. */
export type Table = Record<string, unknown>;

const rows = mapping.amqp;

/** The headers of our own that travel in the table beside those of single properties. */
export const ownHeader = {
  key: headerOf(rows, "key"),
  tombstone: headerOf(rows, "tombstone"),
  names: headerOf(rows, "headers"),
  id: headerOf(rows, "id"),
  timestamp: headerOf(rows, "timestampMs"),
} as const;

const OWN_KEYS = ownNames(rows);

/**
 * Keys that a header of a message never takes: ours; `CC` and `BCC`, which RabbitMQ routes by; and
 * `__proto__`, which an object would not keep.
 */
const RESERVED: ReadonlySet<string> = new Set([...OWN_KEYS, "CC", "BCC", "__proto__"]);

/** A table's keys are short strings. Bytes of UTF-8. */
const NAME_BYTES_MAX = 255;
/** The client encodes a table into a buffer of 64 KiB and fails past it. Bytes. */
const TABLE_BYTES_MAX = 64 * 1024;
/** What an entry costs beside its name and value: two lengths and a type. Bytes. */
const ENTRY_BYTES = 6;
/** What the longest number takes. Bytes. */
const NUMBER_BYTES = 8;
/** An object puts such keys first, whatever the order of their making. */
const INDEX_LIKE = /^(?:0|[1-9]\d{0,9})$/;

/**
 * The table key of each header, in order: the name itself where it is free, else `name#2` and so
 * on. The same names always give the same keys, which is how a reader finds them again.
 */
export function tableKeys(names: readonly string[]): string[] {
  const used = new Set(RESERVED);
  const next = new Map<string, number>();
  return names.map((name) => {
    let key = name;
    let n = next.get(name) ?? 2;
    for (; used.has(key); n += 1) key = `${name}#${n}`;
    next.set(name, n);
    used.add(key);
    return key;
  });
}

/**
 * Builds the table of a message's headers; `tableProblem` then says whether it can be sent.
 * `typed` gives the value of a header that text and bytes do not tell, undefined for all others.
 */
export function encodeHeaders(
  headers: readonly Header[],
  typed: ((header: Header) => unknown) | null = null,
): Table {
  const table: Table = Object.create(null);
  const names = headers.map((header) => header.name);
  const keys = tableKeys(names);
  headers.forEach((header, index) => {
    table[keys[index] ?? header.name] = typed?.(header) ?? encodeBytes(header.value);
  });
  const exact = keys.every((key, index) => key === names[index] && !INDEX_LIKE.test(key));
  if (!exact) table[ownHeader.names] = JSON.stringify(names);
  return table;
}

/** Bytes as a table value: text where they are UTF-8, else a byte array; null is AMQP's void. */
export function encodeBytes(bytes: Uint8Array | null): string | Buffer | null {
  if (bytes === null) return null;
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return isUtf8(view) ? view.toString("utf8") : view;
}

/**
 * Why a finished table can't be sent, or null. Checked beforehand, since a broker answers a frame
 * over its limit by closing the whole connection.
 */
export function tableProblem(table: Table, frameBytesMax: number): string | null {
  let bytes = 0;
  for (const [name, value] of Object.entries(table)) {
    const nameBytes = Buffer.byteLength(name);
    if (nameBytes > NAME_BYTES_MAX) {
      return `the header name "${name.slice(0, 40)}…" is longer than ${NAME_BYTES_MAX} bytes`;
    }
    bytes += ENTRY_BYTES + nameBytes + valueBytes(value);
  }
  const bound = Math.min(TABLE_BYTES_MAX, frameBytesMax);
  return bytes <= bound ? null : `the headers take ${bytes} bytes, AMQP allows ${bound} here`;
}

function valueBytes(value: unknown): number {
  if (typeof value === "string") return Buffer.byteLength(value);
  if (value instanceof Uint8Array) return value.byteLength;
  if (typeof value !== "object" || value === null) return NUMBER_BYTES;
  // Types and lengths take more than JSON's signs do, but not three times as much.
  return 3 * JSON.stringify(value).length;
}

/** The headers of a table in their order, without our own, and ours by themselves. */
export interface DecodedTable {
  readonly headers: readonly Header[];
  readonly own: ReadonlyMap<string, unknown>;
}

/** Reads a table that anyone may have written; what isn't text or bytes becomes its JSON text. */
export function decodeHeaders(table: Table): DecodedTable {
  const own = new Map<string, unknown>();
  const rest = new Map<string, unknown>();
  for (const [key, value] of Object.entries(table)) {
    (isOwn(key) ? own : rest).set(key, value);
  }
  const headers: Header[] = [];
  const names = parseNames(own.get(ownHeader.names));
  const keys = tableKeys(names);
  names.forEach((name, index) => {
    const key = keys[index] ?? name;
    if (!rest.has(key)) return;
    headers.push({ name, value: decodeValue(rest.get(key)) });
    rest.delete(key);
  });
  for (const [name, value] of rest) headers.push({ name, value: decodeValue(value) });
  return { headers, own };
}

/** Whether a key of a table is one of ours. */
export function isOwn(key: string): boolean {
  return OWN_KEYS.has(key);
}

/** The true names in their order; none when nobody of ours wrote them. */
function parseNames(value: unknown): readonly string[] {
  if (typeof value !== "string") return [];
  const parsed = parseJson(value);
  if (!Array.isArray(parsed)) return [];
  return parsed.every((name): name is string => typeof name === "string") ? parsed : [];
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Another program's header by our name: its headers are taken as they stand in the table.
    return undefined;
  }
}

/**
 * A table's value as bytes: text as UTF-8, a byte array as it is, void as null, the rest as JSON.
 */
export function decodeValue(value: unknown): Uint8Array | null {
  if (value === null || value === undefined) return null;
  if (value instanceof Uint8Array) return plainBytes(value);
  if (typeof value === "string") return encodeText(value);
  return encodeText(jsonText(value));
}

/** The same bytes without the class that the library wraps them in. */
export function plainBytes(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function jsonText(value: unknown): string {
  if (typeof value === "number") return String(value);
  const decimal = decimalText(value);
  return decimal ?? JSON.stringify(plainValue(value)) ?? "null";
}

/** A value of a table as plain JSON: timestamps as seconds, bytes as text or base64. */
function plainValue(value: unknown): unknown {
  if (value instanceof Uint8Array) {
    const encoded = encodeBytes(value);
    return typeof encoded === "string" ? encoded : { base64: encoded?.toString("base64") };
  }
  if (Array.isArray(value)) return value.map(plainValue);
  if (typeof value !== "object" || value === null) return value;
  const decimal = decimalText(value);
  if (decimal !== null) return decimal;
  if (isTyped(value)) return value.value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plainValue(item)]));
}

function isTyped(value: object): value is { "!": unknown; value: unknown } {
  return Object.hasOwn(value, "!") && Object.hasOwn(value, "value");
}

/** `{places: 2, digits: 314}` is 3.14, kept exact as text. */
function decimalText(value: unknown): string | null {
  if (typeof value !== "object" || value === null || !isTyped(value)) return null;
  const inner = value.value;
  if (value["!"] !== "decimal" || typeof inner !== "object" || inner === null) return null;
  const { places, digits } = inner as { places?: unknown; digits?: unknown };
  if (typeof places !== "number" || typeof digits !== "number") return null;
  const text = String(digits).padStart(places + 1, "0");
  return places === 0 ? text : `${text.slice(0, -places)}.${text.slice(-places)}`;
}
