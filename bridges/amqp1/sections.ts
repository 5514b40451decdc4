/**
 * The sections of an AMQP 1.0 message: read field by field, each value with its own bytes, so that
 * what is passed on unchanged is passed on exactly, whatever its type and encoding.
 *
 *   header 70 · delivery annotations 71 · message annotations 72 · properties 73 ·
 *   application properties 74 · data 75 (many) | sequence 76 (many) | value 77 · footer 78
 */
import rhea, { type Typed } from "rhea";
import { stringOf } from "./values.ts";
import { type Encoded, encodeDescribed, encodeMap } from "./wire.ts";

/** The codes of the sections. */
export const sectionCode = {
  header: 0x70,
  deliveryAnnotations: 0x71,
  messageAnnotations: 0x72,
  properties: 0x73,
  applicationProperties: 0x74,
  data: 0x75,
  sequence: 0x76,
  value: 0x77,
  footer: 0x78,
} as const;

/** Where a field stands in the list of its section. */
export const headerField = {
  durable: 0,
  priority: 1,
  ttl: 2,
  firstAcquirer: 3,
  deliveryCount: 4,
} as const;

/** Where a field stands in the list of the properties. */
export const propertyField = {
  messageId: 0,
  userId: 1,
  to: 2,
  subject: 3,
  replyTo: 4,
  correlationId: 5,
  contentType: 6,
  contentEncoding: 7,
  absoluteExpiryTime: 8,
  creationTime: 9,
  groupId: 10,
  groupSequence: 11,
  replyToGroupId: 12,
} as const;

/** A value and the bytes that it came in. */
export interface Value {
  readonly typed: Typed;
  readonly raw: Encoded;
}

/** One entry of a map section. */
export interface Entry {
  /** The key's text; what is no string is written out. */
  readonly name: string;
  readonly key: Value;
  readonly value: Value;
}

/** One section of the body: its code and its value. */
export interface BodySection {
  readonly code: number;
  readonly value: Value;
}

/** A message taken apart. Absent sections are empty. */
export interface Sections {
  readonly header: readonly Value[];
  readonly deliveryAnnotations: readonly Entry[];
  readonly messageAnnotations: readonly Entry[];
  readonly properties: readonly Value[];
  readonly applicationProperties: readonly Entry[];
  readonly body: readonly BodySection[];
  readonly footer: readonly Entry[];
}

/** The client library's reader of values; its types leave it out. */
interface Reader {
  readonly buffer: Buffer;
  readonly position: number;
  read(): Typed;
  read_typecode(): number;
  read_size_count(width: number): { readonly size: number; readonly count: number };
  remaining(): number;
}
const { Reader: ValueReader } = rhea.types as unknown as {
  readonly Reader: new (buffer: Buffer) => Reader;
};

const LIST_EMPTY = 0x45;
/** Compounds whose size and count take one byte each; of the others they take four. */
const SHORT_COMPOUNDS: ReadonlySet<number> = new Set([0xc0, 0xc1]);
const COMPOUNDS: ReadonlySet<number> = new Set([0xc0, 0xc1, 0xd0, 0xd1]);
const DESCRIBED = 0x00;

/** Takes a message apart; null when the bytes are no message. */
export function readSections(bytes: Uint8Array): Sections | null {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    return readAll(new ValueReader(buffer));
  } catch (error) {
    // The library's reader throws its own TypeError for codes that it does not know, and the
    // buffer's RangeError past the end.
    if (error instanceof Error) return null;
    throw error;
  }
}

function readAll(reader: Reader): Sections | null {
  const lists = new Map<number, readonly Value[]>();
  const maps = new Map<number, readonly Entry[]>();
  const body: BodySection[] = [];
  while (reader.remaining() > 0) {
    if (reader.read_typecode() !== DESCRIBED) return null;
    const code = codeOf(reader.read());
    if (code === sectionCode.header || code === sectionCode.properties) {
      lists.set(code, readItems(reader));
    } else if (isBody(code)) {
      body.push({ code, value: readValue(reader) });
    } else if (code !== null) {
      maps.set(code, pairsOf(readItems(reader)));
    } else {
      return null;
    }
    if (reader.remaining() < 0) return null;
  }
  return {
    header: lists.get(sectionCode.header) ?? [],
    deliveryAnnotations: maps.get(sectionCode.deliveryAnnotations) ?? [],
    messageAnnotations: maps.get(sectionCode.messageAnnotations) ?? [],
    properties: lists.get(sectionCode.properties) ?? [],
    applicationProperties: maps.get(sectionCode.applicationProperties) ?? [],
    body,
    footer: maps.get(sectionCode.footer) ?? [],
  };
}

function isBody(code: number | null): code is number {
  return code === sectionCode.data || code === sectionCode.sequence || code === sectionCode.value;
}

const CODES_BY_SYMBOL: ReadonlyMap<string, number> = new Map([
  ["amqp:header:list", sectionCode.header],
  ["amqp:delivery-annotations:map", sectionCode.deliveryAnnotations],
  ["amqp:message-annotations:map", sectionCode.messageAnnotations],
  ["amqp:properties:list", sectionCode.properties],
  ["amqp:application-properties:map", sectionCode.applicationProperties],
  ["amqp:data:binary", sectionCode.data],
  ["amqp:amqp-sequence:list", sectionCode.sequence],
  ["amqp:amqp-value:*", sectionCode.value],
  ["amqp:footer:map", sectionCode.footer],
]);

function codeOf(descriptor: Typed): number | null {
  const symbol = stringOf(descriptor);
  if (symbol !== null) return CODES_BY_SYMBOL.get(symbol) ?? null;
  const code: unknown = descriptor.value;
  const known = typeof code === "number" && code >= sectionCode.header;
  return known && code <= sectionCode.footer ? code : null;
}

function readValue(reader: Reader): Value {
  const start = reader.position;
  const typed = reader.read();
  return { typed, raw: reader.buffer.subarray(start, reader.position) };
}

/** The values of a list or a map, keys and values in turn; an empty one for null. */
function readItems(reader: Reader): readonly Value[] {
  const code = reader.read_typecode();
  if (code === LIST_EMPTY || code === 0x40) return [];
  if (!COMPOUNDS.has(code)) throw new TypeError("a section is neither a list nor a map");
  const width = SHORT_COMPOUNDS.has(code) ? 1 : 4;
  const { count } = reader.read_size_count(width);
  const items: Value[] = [];
  for (let index = 0; index < count; index += 1) items.push(readValue(reader));
  return items;
}

function pairsOf(items: readonly Value[]): readonly Entry[] {
  const entries: Entry[] = [];
  for (let at = 0; at + 1 < items.length; at += 2) {
    const [key, value] = [items[at], items[at + 1]];
    if (key === undefined || value === undefined) continue;
    entries.push({ name: stringOf(key.typed) ?? String(key.typed), key, value });
  }
  return entries;
}

/** The bytes of a map section; none when it is empty. */
export function mapSection(
  code: number,
  entries: readonly (readonly [Encoded, Encoded])[],
): Encoded {
  return entries.length === 0
    ? new Uint8Array(0)
    : encodeDescribed(code, encodeMap(entries.flat()));
}

/** The bytes of a map section as it was read. */
export function sameSection(code: number, entries: readonly Entry[]): Encoded {
  return mapSection(
    code,
    entries.map(({ key, value }) => [key.raw, value.raw]),
  );
}
