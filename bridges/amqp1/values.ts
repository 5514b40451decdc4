/**
 * Values of AMQP 1.0 that anyone may have sent, as text and JSON: what a header or a body of the
 * gateway shows of them. The value's own bytes are kept beside it, so nothing depends on this text
 * being exact.
 */
import type { Typed } from "rhea";
import { isUtf8 } from "node:buffer";

/** Names of types as the standard gives them, with all encodings of one type under one name. */
export type TypeName =
  | "null"
  | "boolean"
  | "number"
  | "float"
  | "timestamp"
  | "uuid"
  | "binary"
  | "string"
  | "symbol"
  | "list"
  | "map"
  | "array"
  | "other";

const NAMES: ReadonlyMap<number, TypeName> = new Map([
  [0x40, "null"],
  ...[0x41, 0x42, 0x56].map((code) => [code, "boolean"] as const),
  ...[0x50, 0x51, 0x60, 0x61].map((code) => [code, "number"] as const),
  ...[0x43, 0x52, 0x70, 0x54, 0x71].map((code) => [code, "number"] as const),
  ...[0x44, 0x53, 0x80, 0x55, 0x81].map((code) => [code, "number"] as const),
  [0x72, "float"],
  [0x82, "float"],
  [0x83, "timestamp"],
  [0x98, "uuid"],
  [0xa0, "binary"],
  [0xb0, "binary"],
  [0xa1, "string"],
  [0xb1, "string"],
  [0xa3, "symbol"],
  [0xb3, "symbol"],
  ...[0x45, 0xc0, 0xd0].map((code) => [code, "list"] as const),
  [0xc1, "map"],
  [0xd1, "map"],
  [0xe0, "array"],
  [0xf0, "array"],
]);

const CHAR_CODE = 0x73;
const SIGNED_LONG_CODES: ReadonlySet<number> = new Set([0x55, 0x81, 0x83]);
/** Below this depth a nested value is shown as its bytes. */
const DEPTH_MAX = 32;

/** The type of a value. */
export function typeOf(value: Typed): TypeName {
  if (descriptorOf(value) !== undefined) return "other";
  return NAMES.get(codeOf(value)) ?? "other";
}

/** The text of a string or symbol; null for every other value. */
export function stringOf(value: Typed): string | null {
  const type = typeOf(value);
  if (type !== "string" && type !== "symbol") return null;
  return typeof value.value === "string" ? value.value : null;
}

/** A value in plain words: numbers in decimal, UUIDs in their usual form, lists as JSON. */
export function textOf(value: Typed): string {
  const plain = plainOf(value, 0);
  return typeof plain === "string" ? plain : JSON.stringify(plain);
}

/** The whole number of a value of an integer type or a timestamp, else null. */
export function numberOf(value: Typed): number | null {
  const type = typeOf(value);
  if (type !== "number" && type !== "timestamp") return null;
  const exact = integerOf(value);
  return typeof exact === "number" ? exact : null;
}

/** Whether a value is `true`. */
export function isTrue(value: Typed): boolean {
  return typeOf(value) === "boolean" && Boolean(value.value);
}

/** JSON of a value: bytes as text or base64, what is past ±2^53 as text. */
export function jsonOf(value: Typed): string {
  return JSON.stringify(plainOf(value, 0));
}

/** A value as plain JSON. Map keys become text. */
function plainOf(value: Typed, depth: number): unknown {
  if (depth > DEPTH_MAX) return null;
  switch (typeOf(value)) {
    case "null":
      return null;
    case "boolean":
      return Boolean(value.value);
    case "number":
    case "timestamp": {
      const exact = integerOf(value);
      return typeof exact === "bigint" ? String(exact) : exact;
    }
    case "float":
      return floatOf(value.value);
    case "uuid":
      return uuidText(bytesOf(value));
    case "binary":
      return bytesAsJson(bytesOf(value));
    case "list":
      return itemsOf(value).map((item) => plainOf(item, depth + 1));
    case "array":
      return arrayOf(value, depth);
    case "map":
      return mapOf(value, depth);
    case "string":
    case "symbol":
    case "other":
      return otherOf(value, depth);
  }
}

/** JSON has no word for what is not finite. */
function floatOf(value: unknown): unknown {
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}

function otherOf(value: Typed, depth: number): unknown {
  if (codeOf(value) === CHAR_CODE && typeof value.value === "number") {
    const isPoint = value.value <= 0x10_ff_ff;
    return isPoint ? String.fromCodePoint(value.value) : value.value;
  }
  if (typeof value.value === "string") return value.value;
  const inner = descriptorOf(value) === undefined ? null : withoutDescriptor(value);
  if (inner !== null) return plainOf(inner, depth + 1);
  return value.value instanceof Uint8Array ? { base64: base64Of(value.value) } : null;
}

/** The library hangs the descriptor on the value itself. */
function withoutDescriptor(value: Typed): Typed {
  return Object.create(value, { descriptor: { value: undefined } }) as Typed;
}

function arrayOf(value: Typed, depth: number): unknown {
  const items: readonly unknown[] = Array.isArray(value.value) ? value.value : [];
  return items.map((item) => (isTyped(item) ? plainOf(item, depth + 1) : item));
}

function mapOf(value: Typed, depth: number): unknown {
  const items = itemsOf(value);
  const entries: [string, unknown][] = [];
  for (let at = 0; at + 1 < items.length; at += 2) {
    const [key, item] = [items[at], items[at + 1]];
    if (key === undefined || item === undefined) continue;
    entries.push([textOf(key), plainOf(item, depth + 1)]);
  }
  return Object.fromEntries(entries);
}

/** What stands in a list or a map, keys and values in turn. */
export function itemsOf(value: Typed): readonly Typed[] {
  const items: unknown = value.value;
  return Array.isArray(items) ? items.filter(isTyped) : [];
}

function isTyped(value: unknown): value is Typed {
  return typeof value === "object" && value !== null && "type" in value && "value" in value;
}

function integerOf(value: Typed): number | bigint {
  const inner: unknown = value.value;
  if (typeof inner === "number") return inner;
  if (inner instanceof Date) return inner.getTime();
  if (!(inner instanceof Uint8Array) || inner.byteLength !== 8) return 0;
  const view = Buffer.from(inner.buffer, inner.byteOffset, inner.byteLength);
  return SIGNED_LONG_CODES.has(codeOf(value)) ? view.readBigInt64BE() : view.readBigUInt64BE();
}

function bytesOf(value: Typed): Uint8Array {
  const inner: unknown = value.value;
  if (!(inner instanceof Uint8Array)) return new Uint8Array(0);
  return new Uint8Array(inner.buffer, inner.byteOffset, inner.byteLength);
}

function uuidText(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString("hex");
  const cuts = [0, 8, 12, 16, 20, 32];
  return cuts
    .slice(1)
    .map((end, index) => hex.slice(cuts[index], end))
    .join("-");
}

function bytesAsJson(bytes: Uint8Array): unknown {
  if (isUtf8(bytes)) return Buffer.from(bytes).toString("utf8");
  return { base64: base64Of(bytes) };
}

function base64Of(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

function codeOf(value: Typed): number {
  const { typecode } = value.type as { typecode?: unknown };
  return typeof typecode === "number" ? typecode : -1;
}

function descriptorOf(value: Typed): unknown {
  return (value as { descriptor?: unknown }).descriptor;
}
