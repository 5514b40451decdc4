/**
 * The two list sections of a message, header and properties. A field of an original that still
 * means the same is written byte for byte as it was; every other in the type that the standard
 * names for it.
 */
import type { Message } from "../../src/message.ts";
import type { Target } from "./codec.ts";
import { sameBytes } from "./entries.ts";
import type { Original } from "./original.ts";
import { headerField, propertyField, sectionCode } from "./sections.ts";
import { textOf } from "./values.ts";
import { fieldOf, isGroupId, payloadOf, type View } from "./view.ts";
import {
  type Encoded,
  encodeBinary,
  encodeBoolean,
  encodeDescribed,
  encodeList,
  encodeNull,
  encodeString,
  encodeSymbol,
  encodeTimestamp,
  encodeUbyte,
  encodeUint,
} from "./wire.ts";

/** The largest time to live that the protocol holds: 2^32 - 1. Milliseconds. */
const TTL_MS_MAX = 4_294_967_295;

/** The header section; none when it would say nothing. */
export function encodeHeader(message: Message, original: Original | null, nowMs: number): Encoded {
  const { durable, priority, expiresAtMs } = message.properties;
  const given = original?.view.sections.header ?? [];
  const kept = (index: number): Encoded | null => fieldOf(given, index)?.raw ?? null;
  const hasTtl =
    expiresAtMs !== undefined && (original === null || wantsTtl(original.view, expiresAtMs));
  return section(sectionCode.header, [
    durable === false ? falseOf(kept(headerField.durable)) : encodeBoolean(true),
    priority === undefined ? null : encodeUbyte(priority),
    hasTtl ? encodeUint(ttlOf(expiresAtMs, nowMs)) : null,
  ]);
}

/** An expiry that came without a time to live goes on without one. */
function wantsTtl(view: View, expiresAtMs: number): boolean {
  return view.ttlMs !== null || view.expiresAtMs !== expiresAtMs;
}

/** At least 1: brokers take 0 for no end. */
function ttlOf(expiresAtMs: number, nowMs: number): number {
  return Math.min(TTL_MS_MAX, Math.max(1, Math.ceil(expiresAtMs - nowMs)));
}

/** An explicit `false` stays; without one the standard's default says the same. */
function falseOf(kept: Encoded | null): Encoded | null {
  return kept === null || kept[0] === 0x41 ? null : kept;
}

/** The section of the properties. */
export function encodeProperties(
  message: Message,
  original: Original | null,
  target: Target,
): Encoded {
  const { properties, id } = message;
  const view = original?.view ?? null;
  const text = keeper(view);
  const keepsGroup = message.key !== null && view !== null && sameBytes(view.key, message.key);
  const { correlationId, contentType, contentEncoding } = properties;
  const userId = target.takesUserId ? properties.userId : undefined;
  const fields: (Encoded | null)[] = [];
  fields[propertyField.messageId] = text(
    propertyField.messageId,
    properties.messageId === "" ? id : (properties.messageId ?? id),
    encodeString,
  );
  fields[propertyField.userId] = text(propertyField.userId, userId, (value) =>
    encodeBinary(Buffer.from(value)),
  );
  fields[propertyField.to] =
    view === null || given(view, propertyField.to) === null
      ? null
      : text(propertyField.to, target.address, encodeString);
  fields[propertyField.subject] = text(propertyField.subject, properties.type, encodeString);
  fields[propertyField.replyTo] = text(propertyField.replyTo, properties.replyTo, encodeString);
  fields[propertyField.correlationId] = correlationOf(view, correlationId);
  fields[propertyField.contentType] = text(propertyField.contentType, contentType, encodeSymbol);
  fields[propertyField.contentEncoding] = text(
    propertyField.contentEncoding,
    contentEncoding,
    encodeSymbol,
  );
  fields[propertyField.absoluteExpiryTime] = expiryOf(view, properties.expiresAtMs);
  fields[propertyField.creationTime] = creationOf(view, message.timestampMs);
  fields[propertyField.groupId] = groupOf(view, message.key, keepsGroup);
  for (const index of [propertyField.groupSequence, propertyField.replyToGroupId]) {
    const sameGroup = index === propertyField.replyToGroupId || keepsGroup || message.key === null;
    fields[index] = view !== null && sameGroup ? given(view, index) : null;
  }
  return section(sectionCode.properties, fields);
}

function given(view: View, index: number): Encoded | null {
  return fieldOf(view.sections.properties, index)?.raw ?? null;
}

/** Writes a text field: the original's own bytes when they mean the same text. */
function keeper(
  view: View | null,
): (index: number, text: string | undefined, encode: (text: string) => Encoded) => Encoded | null {
  return (index, text, encode) => {
    if (text === undefined) return null;
    const field = view === null ? null : fieldOf(view.sections.properties, index);
    return field !== null && textOf(field.typed) === text ? field.raw : encode(text);
  };
}

/** Text and bytes are told apart by the original alone: other protocols carry only one of them. */
function correlationOf(view: View | null, id: string | Uint8Array | undefined): Encoded | null {
  if (id === undefined) return null;
  const field =
    view === null ? null : fieldOf(view.sections.properties, propertyField.correlationId);
  if (field !== null) {
    const bytes = typeof id === "string" ? Buffer.from(id) : id;
    const payload = payloadOf(field);
    if (payload !== null ? sameBytes(payload, bytes) : textOf(field.typed) === String(id)) {
      return field.raw;
    }
    if (payload === null && Buffer.from(bytes).toString() === textOf(field.typed)) return field.raw;
  }
  return typeof id === "string" ? encodeString(id) : encodeBinary(id);
}

function expiryOf(view: View | null, expiresAtMs: number | undefined): Encoded | null {
  if (expiresAtMs === undefined) return null;
  if (view?.expiresAtMs === expiresAtMs) return given(view, propertyField.absoluteExpiryTime);
  // The original had a time to live alone, and its end was counted here.
  const onlyTtl = view !== null && view.expiresAtMs === null && view.ttlMs !== null;
  return onlyTtl ? null : encodeTimestamp(expiresAtMs);
}

/** A producer's time before 1970 (Kafka's "none" is -1) is left out, as one that gave none. */
function creationOf(view: View | null, timestampMs: number): Encoded | null {
  if (view !== null && view.createdAtMs === null) return null;
  if (view?.createdAtMs === timestampMs) return given(view, propertyField.creationTime);
  return timestampMs < 0 ? null : encodeTimestamp(timestampMs);
}

function groupOf(view: View | null, key: Uint8Array | null, keeps: boolean): Encoded | null {
  if (key === null) return null;
  if (keeps && view !== null) {
    const same = given(view, propertyField.groupId);
    if (same !== null) return same;
  }
  return isGroupId(key) ? encodeString(Buffer.from(key).toString("utf8")) : null;
}

/** A list section without the nulls at its end. */
function section(code: number, fields: readonly (Encoded | null)[]): Encoded {
  const count = fields.findLastIndex((field) => field !== null) + 1;
  if (count === 0) return new Uint8Array(0);
  return encodeDescribed(
    code,
    encodeList(fields.slice(0, count).map((field) => field ?? encodeNull())),
  );
}
