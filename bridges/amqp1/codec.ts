/**
 * Messages as AMQP 1.0 carries them. Each field of the gateway has its place in the sections by the
 * mapping table; where a message came from AMQP 1.0 before, what is unchanged is written as it was
 * (`original.ts`). Encoding refuses a field that the protocol can't hold; nothing that arrives
 * makes decoding throw.
 *
 *   key ↔ group-id · type ↔ subject · timestamp ↔ creation-time · tombstone ↔ null value
 *   expiry ↔ absolute-expiry-time and ttl · text body ↔ value of a string · other bodies ↔ data
 *   headers ↔ application properties, `x-opt-…` ↔ message annotations
 */
import { isUtf8 } from "node:buffer";
import type { Message } from "../../src/message.ts";
import { propertyProblem } from "./bounds.ts";
import { encodeBytes, encodeEntries, ownPair, sameBytes, trueNames } from "./entries.ts";
import { encodeHeader, encodeProperties } from "./lists.ts";
import { ORIGINAL_HEADER, type Original, originalOf, readOriginal } from "./original.ts";
import { readSections, sameSection, sectionCode } from "./sections.ts";
import { textOf } from "./values.ts";
import { isGroupId, ownProperty, plainBytes, type View, viewOf } from "./view.ts";
import {
  type Encoded,
  encodeBinary,
  encodeBoolean,
  encodeDescribed,
  encodeNull,
  encodeString,
  encodeTimestamp,
} from "./wire.ts";

/** A message's id, as everywhere in the gateway. Bytes of UTF-8. */
const ID_BYTES_MAX = 128;

/** Where a message goes, as far as its bytes depend on it. */
export interface Target {
  /** The address of the link. */
  readonly address: string;
  /** Whether it is a queue or a topic, where that is said. */
  readonly kind: "queue" | "topic" | null;
  /** Whether the broker takes a user id that is not the login's. */
  readonly takesUserId: boolean;
}

/** Where a message was taken from, for its origin. */
export interface Place {
  readonly bridge: string;
  readonly address: string;
}

/** A message that arrived, and the id that its producer gave it. */
export interface Decoded {
  readonly message: Message;
  readonly id: string | null;
}

/** The bytes of a message, or in words why AMQP 1.0 can't carry it. */
export function encodeMessage(
  message: Message,
  target: Target,
  nowMs: number,
): { readonly payload: Buffer } | { readonly refused: string } {
  const problem = propertyProblem(message.properties);
  if (problem !== null) return { refused: problem };
  const original = originalIn(message);
  const kept = original?.view.sections;
  const body = encodeBody(message, original);
  const own = ownPairs(message, { isText: body.isText, takesUserId: target.takesUserId });
  const entries = encodeEntries(message, { original, kind: target.kind, own });
  const payload = Buffer.concat([
    encodeHeader(message, original, nowMs),
    sameSection(sectionCode.deliveryAnnotations, kept?.deliveryAnnotations ?? []),
    entries.annotations,
    encodeProperties(message, original, target),
    entries.application,
    body.encoded,
    sameSection(sectionCode.footer, kept?.footer ?? []),
  ]);
  return { payload };
}

/** The original that a message carries, when it is one. */
function originalIn(message: Message): Original | null {
  const carried = message.headers.filter(({ name }) => name === ORIGINAL_HEADER);
  const [only] = carried;
  const { value = null } = only ?? {};
  return carried.length === 1 && value !== null ? readOriginal(value) : null;
}

/** Our own properties: what the protocol has no place for. */
function ownPairs(
  { id, key, properties, timestampMs }: Message,
  { isText, takesUserId }: { readonly isText: boolean; readonly takesUserId: boolean },
): [Encoded, Encoded][] {
  const { messageId, userId, appId, durable, retain, textBody } = properties;
  const isTold = messageId === "" || messageId === id;
  const own: (readonly [string, Encoded] | null)[] = [
    messageId === undefined || isTold ? null : [ownProperty.id, encodeString(id)],
    isTold ? [ownProperty.messageId, encodeString(messageId)] : null,
    timestampMs < 0 ? [ownProperty.timestamp, encodeTimestamp(timestampMs)] : null,
    userId === undefined || takesUserId ? null : [ownProperty.userId, encodeString(userId)],
    durable === true ? [ownProperty.durable, encodeBoolean(true)] : null,
    key === null || isGroupId(key) ? null : [ownProperty.key, encodeBytes(key)],
    appId === undefined ? null : [ownProperty.appId, encodeString(appId)],
    retain === undefined ? null : [ownProperty.retain, encodeBoolean(retain)],
    textBody === undefined || (textBody && isText)
      ? null
      : [ownProperty.textBody, encodeBoolean(textBody)],
  ];
  return own.flatMap((pair) => (pair === null ? [] : [[...ownPair(...pair)]]));
}

interface EncodedBody {
  readonly encoded: Encoded;
  /** Whether it went out as a string. */
  readonly isText: boolean;
}

function encodeBody({ body, properties }: Message, original: Original | null): EncodedBody {
  const plain = (code: number, value: Encoded): EncodedBody => ({
    encoded: encodeDescribed(code, value),
    isText: false,
  });
  if (body === null) return plain(sectionCode.value, encodeNull());
  const exact = original?.exact ?? null;
  if (exact !== null && sameBytes(exact.shown, body)) {
    return { encoded: exact.encoded, isText: false };
  }
  if (original?.form === "bytes") return plain(sectionCode.value, encodeBinary(body));
  const asText = properties.textBody ?? original?.form === "text";
  if (asText && isUtf8(body)) {
    const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("utf8");
    return { encoded: encodeDescribed(sectionCode.value, encodeString(text)), isText: true };
  }
  const parts = partsOf(body, original?.lengths ?? []);
  const sections = parts.map((part) => encodeDescribed(sectionCode.data, encodeBinary(part)));
  return { encoded: Buffer.concat(sections), isText: false };
}

/** A body in the parts that it came in, when they make up its length; else in one. */
function partsOf(body: Uint8Array, lengths: readonly number[]): readonly Uint8Array[] {
  if (lengths.reduce((sum, length) => sum + length, 0) !== body.byteLength) return [body];
  if (lengths.length === 0) return [body];
  let at = 0;
  return lengths.map((length) => body.subarray(at, (at += length)));
}

/** The message in what has arrived; `nowMs` stands in where its producer gave no time. */
export function decodeMessage(bytes: Uint8Array, place: Place, nowMs: number): Decoded {
  const sections = readSections(bytes);
  if (sections === null) return { message: opaqueMessage(bytes, place, nowMs), id: null };
  const view = viewOf(sections);
  const original = originalOf(view);
  const listed = view.own.get(ownProperty.names);
  const headers = trueNames(view.headers, listed === undefined ? null : textOf(listed.typed));
  const expiresAtMs = expiryOf(view, nowMs);
  const ids = idsOf(view);
  const message: Message = {
    id: ids.id,
    key: view.key,
    properties: {
      ...view.properties,
      ...(expiresAtMs === null ? {} : { expiresAtMs }),
      ...(ids.messageId === null ? {} : { messageId: ids.messageId }),
    },
    headers: original === null ? headers : [...headers, original],
    body: view.body.bytes,
    timestampMs: view.createdAtMs ?? nowMs,
    origin: originOf(place, view.redelivered),
  };
  return { message, id: view.messageId === "" ? null : view.messageId };
}

/** What is no AMQP message is passed on as it is. */
function opaqueMessage(bytes: Uint8Array, place: Place, nowMs: number): Message {
  return {
    id: crypto.randomUUID(),
    key: null,
    properties: {},
    headers: [],
    body: plainBytes(bytes),
    timestampMs: nowMs,
    origin: originOf(place, false),
  };
}

function originOf({ bridge, address }: Place, redelivered: boolean): Message["origin"] {
  return {
    bridge,
    address,
    partition: null,
    offset: null,
    hops: [],
    ...(redelivered ? { redelivered: true } : {}),
  };
}

/** How much of a time to live has passed at the broker is not said; it counts from here. */
function expiryOf({ expiresAtMs, ttlMs }: View, nowMs: number): number | null {
  if (expiresAtMs !== null && expiresAtMs > 0) return expiresAtMs;
  return ttlMs === null || ttlMs === 0 ? null : nowMs + ttlMs;
}

/**
 * The message's id: ours where we sent it; the producer's where it fits, else one made from it, so
 * that a redelivery has the same; a made one where there is none.
 */
function idsOf({ messageId, own }: View): { id: string; messageId: string | null } {
  if (messageId === null || messageId === "") return { id: crypto.randomUUID(), messageId: null };
  const told = own.get(ownProperty.messageId);
  if (told !== undefined) return { id: messageId, messageId: textOf(told.typed) };
  const carried = own.get(ownProperty.id);
  const id = carried === undefined ? null : textOf(carried.typed);
  if (id !== null && isId(id)) return { id, messageId };
  if (isId(messageId)) return { id: messageId, messageId: null };
  return { id: new Bun.CryptoHasher("sha256").update(messageId).digest("hex"), messageId };
}

function isId(text: string): boolean {
  return text !== "" && Buffer.byteLength(text) <= ID_BYTES_MAX;
}
