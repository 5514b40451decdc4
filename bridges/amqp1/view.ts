/**
 * What the sections of an AMQP 1.0 message mean to the gateway: its properties, headers, key and
 * body. Application properties and message annotations are headers, annotations first; the rest has
 * a property of its own or stays in the original (see `original.ts`). The same reading serves the
 * decoding of what arrives and, on the way out, the question what of an original is unchanged.
 */
import { isUtf8 } from "node:buffer";
import { encodeText, type Header, type Properties } from "../../src/message.ts";
import { mapping } from "../mapping.ts";
import { headerOf as carriedIn } from "../mapping-carry.ts";
import {
  type Entry,
  headerField,
  propertyField,
  sectionCode,
  type Sections,
  type Value,
} from "./sections.ts";
import { isTrue, jsonOf, numberOf, textOf, typeOf } from "./values.ts";

/** Application properties of our own: what AMQP 1.0 has no place for. */
export const ownProperty = {
  key: carriedIn(mapping.amqp1, "key"),
  id: carriedIn(mapping.amqp1, "id"),
  names: carriedIn(mapping.amqp1, "headers"),
  timestamp: carriedIn(mapping.amqp1, "timestampMs"),
  messageId: carriedIn(mapping.amqp1, "messageId"),
  userId: carriedIn(mapping.amqp1, "userId"),
  appId: carriedIn(mapping.amqp1, "appId"),
  durable: carriedIn(mapping.amqp1, "durable"),
  retain: carriedIn(mapping.amqp1, "retain"),
  textBody: carriedIn(mapping.amqp1, "textBody"),
} as const;

const OWN_NAMES: ReadonlySet<string> = new Set(Object.values(ownProperty));

/** Annotations for applications begin so; a header of such a name is sent as one. */
export const ANNOTATION_PREFIX = "x-opt-";

/** What a group id holds in every broker seen. Bytes of UTF-8. */
const GROUP_ID_BYTES_MAX = 255;

/** A header and the entry that it was read from. */
export interface ViewHeader extends Header {
  readonly section: "annotation" | "application";
  readonly entry: Entry;
}

/** How the body was given; `exact` is a value or a sequence that bytes do not tell of. */
export type BodyForm = "none" | "data" | "parts" | "text" | "bytes" | "exact";

/** The body and its form. */
export interface BodyView {
  readonly form: BodyForm;
  readonly bytes: Uint8Array | null;
}

/** A message's sections as the gateway sees them. */
export interface View {
  readonly sections: Sections;
  readonly properties: Properties;
  readonly headers: readonly ViewHeader[];
  /** Our own application properties. */
  readonly own: ReadonlyMap<string, Value>;
  readonly key: Uint8Array | null;
  readonly messageId: string | null;
  readonly createdAtMs: number | null;
  readonly expiresAtMs: number | null;
  readonly ttlMs: number | null;
  readonly redelivered: boolean;
  readonly body: BodyView;
}

/** Reads sections. */
export function viewOf(sections: Sections): View {
  const own = new Map<string, Value>();
  const headers: ViewHeader[] = sections.messageAnnotations.map((entry) =>
    headerOf(entry, "annotation"),
  );
  for (const entry of sections.applicationProperties) {
    if (OWN_NAMES.has(entry.name)) own.set(entry.name, entry.value);
    else headers.push(headerOf(entry, "application"));
  }
  const body = bodyOf(sections);
  return {
    sections,
    properties: propertiesOf(sections, own, body),
    headers,
    own,
    key: keyOf(sections, own),
    messageId: fieldText(sections.properties, propertyField.messageId),
    createdAtMs: createdAt(sections, own),
    expiresAtMs: fieldNumber(sections.properties, propertyField.absoluteExpiryTime),
    ttlMs: fieldNumber(sections.header, headerField.ttl),
    redelivered: isRedelivered(sections.header),
    body,
  };
}

/** The field of a list section, or null where it is null or left off. */
export function fieldOf(fields: readonly Value[], index: number): Value | null {
  const field = fields[index];
  return field === undefined || typeOf(field.typed) === "null" ? null : field;
}

/** A time before 1970, which the protocol is not given, travels by itself. */
function createdAt({ properties }: Sections, own: ReadonlyMap<string, Value>): number | null {
  const carried = own.get(ownProperty.timestamp);
  const early = carried === undefined ? null : numberOf(carried.typed);
  return early ?? fieldNumber(properties, propertyField.creationTime);
}

/** The text of a field, or null. */
export function fieldText(fields: readonly Value[], index: number): string | null {
  const field = fieldOf(fields, index);
  return field === null ? null : textOf(field.typed);
}

function fieldNumber(fields: readonly Value[], index: number): number | null {
  const field = fieldOf(fields, index);
  return field === null ? null : numberOf(field.typed);
}

/** The bytes inside a string, symbol or binary value; null for every other. */
export function payloadOf({ typed, raw }: Value): Uint8Array | null {
  const type = typeOf(typed);
  if (type !== "string" && type !== "symbol" && type !== "binary") return null;
  // The constructor and a length of one byte, or of four.
  return plainBytes(raw.subarray((raw[0] ?? 0) >= 0xb0 ? 5 : 2));
}

/** The same bytes without the class that the library wraps them in. */
export function plainBytes(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function headerOf(entry: Entry, section: "annotation" | "application"): ViewHeader {
  return { name: entry.name, value: headerValueOf(entry.value), section, entry };
}

function headerValueOf(value: Value): Uint8Array | null {
  const type = typeOf(value.typed);
  if (type === "null") return null;
  return payloadOf(value) ?? encodeText(textOf(value.typed));
}

/** Whether a key travels as the group id: text that is not empty and not too long. */
export function isGroupId(key: Uint8Array): boolean {
  return key.byteLength > 0 && key.byteLength <= GROUP_ID_BYTES_MAX && isUtf8(key);
}

function keyOf(sections: Sections, own: ReadonlyMap<string, Value>): Uint8Array | null {
  const carried = own.get(ownProperty.key);
  if (carried !== undefined) return headerValueOf(carried);
  const group = fieldOf(sections.properties, propertyField.groupId);
  return group === null ? null : headerValueOf(group);
}

/**
 * Brokers say it by a count, or (RabbitMQ) by `first-acquirer`. A producer's own `false` beside a
 * count is not believed.
 */
function isRedelivered(header: readonly Value[]): boolean {
  const count = fieldNumber(header, headerField.deliveryCount);
  if (count !== null) return count > 0;
  const first = fieldOf(header, headerField.firstAcquirer);
  return first !== null && typeOf(first.typed) === "boolean" && !isTrue(first.typed);
}

type Mutable<T> = { -readonly [Name in keyof T]: T[Name] };

const TEXT_FIELDS = [
  ["contentType", propertyField.contentType],
  ["contentEncoding", propertyField.contentEncoding],
  ["replyTo", propertyField.replyTo],
  ["type", propertyField.subject],
] as const;

function propertiesOf(
  { header, properties: fields }: Sections,
  own: ReadonlyMap<string, Value>,
  body: BodyView,
): Properties {
  const properties: Mutable<Properties> = {};
  for (const [name, index] of TEXT_FIELDS) {
    const text = fieldText(fields, index);
    if (text !== null) properties[name] = text;
  }
  const userId = own.get(ownProperty.userId) ?? fieldOf(fields, propertyField.userId);
  if (userId !== null) properties.userId = textOf(userId.typed);
  const correlation = fieldOf(fields, propertyField.correlationId);
  if (correlation !== null) properties.correlationId = correlationOf(correlation);
  const priority = fieldNumber(header, headerField.priority);
  if (priority !== null) properties.priority = priority;
  const durable = fieldOf(header, headerField.durable);
  if (durable === null || !isTrue(durable.typed)) properties.durable = false;
  const stated = own.get(ownProperty.durable);
  if (stated !== undefined) properties.durable = isTrue(stated.typed);
  const appId = own.get(ownProperty.appId);
  if (appId !== undefined) properties.appId = textOf(appId.typed);
  const retain = own.get(ownProperty.retain);
  if (retain !== undefined) properties.retain = isTrue(retain.typed);
  const textBody = own.get(ownProperty.textBody);
  if (body.form === "text") properties.textBody = true;
  if (textBody !== undefined) properties.textBody = isTrue(textBody.typed);
  return properties;
}

/** Bytes that are text come as text, as from every protocol; the original tells them apart. */
function correlationOf(value: Value): string | Uint8Array {
  const bytes = typeOf(value.typed) === "binary" ? payloadOf(value) : null;
  return bytes === null || isUtf8(bytes) ? textOf(value.typed) : bytes;
}

function bodyOf({ body }: Sections): BodyView {
  const [first] = body;
  if (first === undefined) return { form: "none", bytes: null };
  if (first.code === sectionCode.data) return dataOf(body.map(({ value }) => value));
  const type = typeOf(first.value.typed);
  if (first.code === sectionCode.value && body.length === 1) {
    if (type === "null") return { form: "none", bytes: null };
    if (type === "string") return { form: "text", bytes: payloadOf(first.value) };
    if (type === "binary") return { form: "bytes", bytes: payloadOf(first.value) };
  }
  const [only, ...more] = body.map(({ value }) => jsonOf(value.typed));
  const json = more.length === 0 ? (only ?? "null") : `[${[only, ...more].join(",")}]`;
  return { form: "exact", bytes: encodeText(json) };
}

function dataOf(values: readonly Value[]): BodyView {
  const parts = values.map((value) => payloadOf(value) ?? new Uint8Array(0));
  const [only] = parts;
  if (parts.length === 1 && only !== undefined) return { form: "data", bytes: only };
  return { form: "parts", bytes: plainBytes(Buffer.concat(parts)) };
}
