/**
 * The original of a message, carried in the header `isthmus-amqp1` through the log and through
 * other protocols, so that a message that comes back to AMQP 1.0 is what it was: types of
 * properties and annotations, ids that are no text, the form of the body, annotations for the
 * delivery, the footer. It is there only where the gateway's own fields do not tell the same.
 * What a rule or another protocol has changed since counts; the original only says how to write
 * what is unchanged.
 *
 * The header's value is itself an AMQP message: the sections as they came, without the body's
 * bytes, and a value section that names the body's form. After it, the lengths of a body in several
 * parts (a sequence), or an exact body's own sections.
 */
import { isUtf8 } from "node:buffer";
import type { Header } from "../../src/message.ts";
import {
  type Entry,
  headerField,
  propertyField,
  readSections,
  sameSection,
  sectionCode,
  type Sections,
  type Value,
} from "./sections.ts";
import { itemsOf, numberOf, stringOf, type TypeName, typeOf } from "./values.ts";
import {
  ANNOTATION_PREFIX,
  type BodyForm,
  fieldOf,
  isGroupId,
  payloadOf,
  type View,
  type ViewHeader,
  viewOf,
} from "./view.ts";
import { type Encoded, encodeDescribed, encodeList, encodeString, encodeUint } from "./wire.ts";

/** The header that carries it. */
export const ORIGINAL_HEADER = "isthmus-amqp1";

/** An original as it is read back. */
export interface Original {
  readonly view: View;
  readonly form: BodyForm;
  /** Of a body in several parts. */
  readonly lengths: readonly number[];
  /** Of an exact body: its sections, and the text that the gateway shows of them. */
  readonly exact: { readonly encoded: Encoded; readonly shown: Uint8Array | null } | null;
}

const FORMS: ReadonlySet<string> = new Set(["none", "data", "parts", "text", "bytes", "exact"]);

/** The header for a message that arrived, or null where nothing would be lost without it. */
export function originalOf(view: View): Header | null {
  if (isPlain(view)) return null;
  const { sections } = view;
  const value = Buffer.concat([
    listSection(sectionCode.header, sections.header),
    sameSection(sectionCode.deliveryAnnotations, sections.deliveryAnnotations),
    sameSection(sectionCode.messageAnnotations, sections.messageAnnotations),
    listSection(sectionCode.properties, sections.properties),
    sameSection(sectionCode.applicationProperties, sections.applicationProperties),
    encodeDescribed(sectionCode.value, encodeString(view.body.form)),
    bodyOf(view),
    sameSection(sectionCode.footer, sections.footer),
  ]);
  return {
    name: ORIGINAL_HEADER,
    value: new Uint8Array(value.buffer, value.byteOffset, value.byteLength),
  };
}

/** Reads the header; null when it is not what this bridge writes. */
export function readOriginal(value: Uint8Array): Original | null {
  const sections = readSections(value);
  const [named, ...rest] = sections?.body ?? [];
  if (sections === null || named === undefined) return null;
  const form = stringOf(named.value.typed);
  if (form === null || !FORMS.has(form)) return null;
  const lengths = form === "parts" && rest[0] !== undefined ? numbersOf(rest[0].value) : [];
  const body = form === "exact" ? rest : [];
  const view = viewOf({ ...sections, body });
  const encoded = Buffer.concat(body.map(({ code, value: { raw } }) => encodeDescribed(code, raw)));
  const exact = form === "exact" ? { encoded, shown: view.body.bytes } : null;
  return { view, form: form as BodyForm, lengths, exact };
}

function numbersOf({ typed }: Value): readonly number[] {
  return itemsOf(typed).map((item) => numberOf(item) ?? 0);
}

function listSection(code: number, fields: readonly Value[]): Encoded {
  if (fields.length === 0) return new Uint8Array(0);
  return encodeDescribed(code, encodeList(fields.map(({ raw }) => raw)));
}

function bodyOf({ body, sections }: View): Encoded {
  if (body.form === "exact") {
    return Buffer.concat(sections.body.map(({ code, value }) => encodeDescribed(code, value.raw)));
  }
  if (body.form !== "parts") return new Uint8Array(0);
  const lengths = sections.body.map(({ value }) => payloadOf(value)?.byteLength ?? 0);
  return encodeDescribed(sectionCode.sequence, encodeList(lengths.map(encodeUint)));
}

/** Whether this bridge would write the same message without having seen the original. */
function isPlain(view: View): boolean {
  const { sections, headers, key, body, ttlMs, expiresAtMs, properties } = view;
  const names = new Set(headers.map(({ name }) => name));
  return (
    isPlainBody(body.form, properties) &&
    sections.deliveryAnnotations.length === 0 &&
    sections.footer.length === 0 &&
    arePlain(view) &&
    (key === null || isGroupId(key) === (groupIdOf(sections) !== null)) &&
    (ttlMs === null) === (expiresAtMs === null) &&
    isPlainDurable(fieldOf(sections.header, headerField.durable)) &&
    names.size === headers.length &&
    headers.every(isPlainHeader)
  );
}

/** A text body is told by a property of the message. */
function isPlainBody(form: BodyForm, { textBody }: View["properties"]): boolean {
  return form === "data" || form === "none" || (form === "text" && textBody === true);
}

function groupIdOf({ properties }: Sections): Value | null {
  return fieldOf(properties, propertyField.groupId);
}

function isPlainDurable(durable: Value | null): boolean {
  return durable === null || durable.raw[0] === 0x41;
}

/** The type in which this bridge writes each property; those without one it never writes. */
const PLAIN_TYPES: readonly [index: number, type: TypeName][] = [
  [propertyField.messageId, "string"],
  [propertyField.subject, "string"],
  [propertyField.replyTo, "string"],
  [propertyField.correlationId, "string"],
  [propertyField.contentType, "symbol"],
  [propertyField.contentEncoding, "symbol"],
  [propertyField.absoluteExpiryTime, "timestamp"],
  [propertyField.creationTime, "timestamp"],
  [propertyField.groupId, "string"],
];
const PLAIN_BY_INDEX = new Map(PLAIN_TYPES);

function arePlain({ sections: { properties }, createdAtMs }: View): boolean {
  if (createdAtMs === null) return false;
  return properties.every((value, index) => {
    const type = typeOf(value.typed);
    if (type === "null" || type === PLAIN_BY_INDEX.get(index)) return true;
    const bytes = type === "binary" ? payloadOf(value) : null;
    if (bytes === null) return false;
    // Whom it is from is written as bytes; a correlation id that is no text can only be bytes.
    if (index === propertyField.userId) return isUtf8(bytes);
    return index === propertyField.correlationId && !isUtf8(bytes);
  });
}

function isPlainHeader({ section, entry, name }: ViewHeader): boolean {
  if (name.startsWith(ANNOTATION_PREFIX) !== (section === "annotation")) return false;
  if (!isPlainKey(entry, section)) return false;
  const type = typeOf(entry.value.typed);
  if (type === "string" || type === "null") return true;
  const bytes = type === "binary" ? payloadOf(entry.value) : null;
  return bytes !== null && !isUtf8(bytes);
}

function isPlainKey({ key }: Entry, section: ViewHeader["section"]): boolean {
  return typeOf(key.typed) === (section === "annotation" ? "symbol" : "string");
}
