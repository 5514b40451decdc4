/**
 * Values of a field table that a header's bytes do not tell apart: numbers, booleans, timestamps,
 * decimals, nested tables and lists, byte arrays that happen to be text. Messages show them as
 * text; the header `isthmus-amqp` carries them as they were, through the log and through other
 * protocols, so that a message that comes back to AMQP has them again. A header that was changed
 * since goes out as it is then. The types of whole numbers are the client library's to choose.
 *
 * The header's value is JSON, an object of names and values; bytes are `{"!":"bytes","value":…}`
 * in base64, timestamps and decimals stand as the client library gives them.
 */
import { isUtf8 } from "node:buffer";
import { encodeText, type Header } from "../../src/message.ts";
import { decodeValue, type Table } from "./table.ts";

/** The header that carries them. */
export const ORIGINAL_HEADER = "isthmus-amqp";

/** Deeper values are shown as text alone. */
const DEPTH_MAX = 32;
const UINT_MAX = 4_294_967_295;

/** The header for a table that arrived, or null where text and bytes say it all. */
export function originalHeader(table: Table, isOwn: (name: string) => boolean): Header | null {
  let typed: [string, unknown][] | null = null;
  for (const name of Object.keys(table)) {
    const value = table[name];
    if (isPlain(value) || isOwn(name)) continue;
    typed ??= [];
    typed.push([name, toJson(value, 0)]);
  }
  if (typed === null) return null;
  const known = typed.filter(([, value]) => value !== undefined);
  return { name: ORIGINAL_HEADER, value: encodeText(JSON.stringify(Object.fromEntries(known))) };
}

function isPlain(value: unknown): boolean {
  if (value instanceof Uint8Array) return !isUtf8(value);
  return value === null || value === undefined || typeof value === "string";
}

/** The headers without the one of ours, and the values that others of them had. */
export interface Restored {
  readonly headers: readonly Header[];
  readonly values: ReadonlyMap<string, unknown>;
}

const NO_VALUES: ReadonlyMap<string, unknown> = new Map();

/** Takes the header of ours out, where there is exactly one and it is what this bridge writes. */
export function restore(headers: readonly Header[]): Restored {
  const at = headers.findIndex(({ name }) => name === ORIGINAL_HEADER);
  const value = headers[at]?.value ?? null;
  if (value === null) return { headers, values: NO_VALUES };
  const values = valuesIn(value);
  if (values === null) return { headers, values: NO_VALUES };
  return { headers: headers.toSpliced(at, 1), values };
}

/** What a header had been, as long as it still says the same; undefined otherwise. */
export function typedValue({ name, value }: Header, { values }: Restored): unknown {
  if (value === null || !values.has(name)) return undefined;
  const typed = values.get(name);
  const shown = decodeValue(typed);
  return shown !== null && Buffer.compare(shown, value) === 0 ? typed : undefined;
}

function valuesIn(bytes: Uint8Array): ReadonlyMap<string, unknown> | null {
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString());
  } catch {
    // Another program's header by our name stays a header.
    return null;
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return null;
  const values = Object.entries(parsed).map(([name, value]: [string, unknown]) => {
    return [name, ofJson(value, 0)] as const;
  });
  // What the client library would not take is not ours: it throws on types that it doesn't know.
  return values.some(([, value]) => value === undefined) ? null : new Map(values);
}

/** Undefined: it can't be kept. */
function toJson(value: unknown, depth: number): unknown {
  if (depth > DEPTH_MAX || value === undefined) return undefined;
  if (value === null || typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number") return Number.isFinite(value) ? value : undefined;
  if (value instanceof Uint8Array) {
    return { "!": "bytes", value: Buffer.from(value).toString("base64") };
  }
  return within(value, (item) => toJson(item, depth + 1));
}

function ofJson(value: unknown, depth: number): unknown {
  if (depth > DEPTH_MAX) return undefined;
  if (value === null || typeof value === "string" || typeof value === "boolean") return value;
  // The client library takes large whole numbers for integers, and throws past 64 bits.
  if (typeof value === "number") {
    return Number.isSafeInteger(value) ? value : { "!": "double", value };
  }
  if (typeof value === "object" && Object.hasOwn(value, "!")) return tagged(value);
  return within(value, (item) => ofJson(item, depth + 1));
}

/** A list or an object of values; undefined when one of them is. */
function within(value: unknown, each: (item: unknown) => unknown): unknown {
  if (Array.isArray(value)) {
    const items = value.map(each);
    return items.includes(undefined) ? undefined : items;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const entries = Object.entries(value).map(([name, item]) => [name, each(item)] as const);
  return entries.some(([, item]) => item === undefined) ? undefined : Object.fromEntries(entries);
}

function tagged(value: object): unknown {
  const { "!": type, value: inner } = value as { readonly "!": unknown; readonly value?: unknown };
  if (type === "bytes") return typeof inner === "string" ? Buffer.from(inner, "base64") : undefined;
  if (type === "timestamp") return isUint(inner, Number.MAX_SAFE_INTEGER) ? value : undefined;
  if (type !== "decimal" || typeof inner !== "object" || inner === null) return undefined;
  const { places, digits } = inner as { readonly places?: unknown; readonly digits?: unknown };
  return isUint(places, 255) && isUint(digits, UINT_MAX) ? value : undefined;
}

function isUint(value: unknown, max: number): boolean {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) <= max;
}
