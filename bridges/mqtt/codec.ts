/**
 * Messages as MQTT carries them. MQTT 5 has properties of its own for most that is said about a
 * message; the rest (key, id, time, tombstone and what only other protocols have) are user
 * properties that begin with `isthmus-`. MQTT 3.1.1 carries topic and body and nothing else:
 * headers, key, id and properties are lost there. The client library cuts the connection when it is
 * given what the protocol can't hold, so every field is checked first. Nothing that arrives makes
 * decoding throw.
 */
import { isUtf8 } from "node:buffer";
import type { IPublishPacket } from "mqtt";
import type { Message, Properties } from "../../src/message.ts";
import {
  base64Of,
  bytesOfBase64,
  decodeHeaders,
  encodeHeaders,
  ownProperty as own,
  type Pair,
  textOf,
} from "./headers.ts";
import { type Filter, isSafeText, paramsOf, textBytesMax, topicProblem } from "./topic.ts";

/** A message's id, as everywhere in the gateway. Bytes of UTF-8. */
const ID_BYTES_MAX = 128;
/** The longest lifetime that four bytes hold. Seconds. */
const EXPIRY_SECONDS_MAX = 4_294_967_295;
/** Correlation data carries its length in two bytes. Bytes. */
const CORRELATION_BYTES_MAX = 65_535;

export type Version = 4 | 5;

type PacketProperties = NonNullable<IPublishPacket["properties"]>;
type Mutable<T> = { -readonly [Name in keyof T]: T[Name] };

/** A message ready to be published. */
export interface Publication {
  readonly payload: Buffer;
  readonly properties?: PacketProperties;
  /** About what the packet takes on the wire. Bytes. */
  readonly bytes: number;
}

/** The publication of a message, or in words why MQTT can't carry it. */
export function encodeMessage(
  message: Message,
  options: { readonly version: Version; readonly nowMs: number },
): Publication | { readonly refused: string } {
  const { body } = message;
  const payload =
    body === null ? Buffer.alloc(0) : Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  if (options.version === 4) return { payload, bytes: payload.byteLength };
  const headers = encodeHeaders(message.headers);
  if ("refused" in headers) return headers;
  const pairs: Pair[] = [...headers, ...ownPairs(message)];
  for (const [name, value] of pairs) {
    const problem = textProblem(value);
    if (problem !== null) return { refused: `the property ${name} ${problem}` };
  }
  const properties = encodeProperties(message, options.nowMs);
  if ("refused" in properties) return properties;
  // The library's types know one object for all pairs; it writes a list of objects in its order.
  const userProperties = pairs.map(([name, value]) => ({ [name]: value })) as unknown;
  const bytes = pairs.reduce(
    (sum, [name, value]) => sum + 5 + Buffer.byteLength(name) + Buffer.byteLength(value),
    payload.byteLength + propertyBytes(properties),
  );
  return {
    payload,
    properties: {
      ...properties,
      userProperties: userProperties as NonNullable<PacketProperties["userProperties"]>,
    },
    bytes,
  };
}

/** The properties that MQTT 5 has itself. */
function encodeProperties(
  message: Message,
  nowMs: number,
): PacketProperties | { readonly refused: string } {
  const { contentType, replyTo, correlationId, expiresAtMs, textBody } = message.properties;
  const properties: Mutable<PacketProperties> = {};
  if (contentType !== undefined) {
    const problem = textProblem(contentType);
    if (problem !== null) return { refused: `the content type ${problem}` };
    properties.contentType = contentType;
  }
  if (replyTo !== undefined && topicProblem(replyTo) === null) properties.responseTopic = replyTo;
  if (correlationId !== undefined) {
    const bytes = Buffer.from(correlationId);
    if (bytes.byteLength > CORRELATION_BYTES_MAX) {
      return { refused: `the correlation id is longer than ${CORRELATION_BYTES_MAX} bytes` };
    }
    properties.correlationData = bytes;
  }
  if (expiresAtMs !== undefined) {
    const seconds = Math.ceil((expiresAtMs - nowMs) / 1000);
    properties.messageExpiryInterval = Math.min(EXPIRY_SECONDS_MAX, Math.max(1, seconds));
  }
  const isText = textBody === true && message.body !== null && isUtf8(message.body);
  if (isText) properties.payloadFormatIndicator = true;
  return properties;
}

/** What only other protocols have, in user properties. */
function ownPairs(message: Message): readonly Pair[] {
  const { properties, key } = message;
  const pairs: [string, string | undefined][] = [
    [own.id, message.id],
    [own.timestamp, String(message.timestampMs)],
    [own.tombstone, message.body === null ? "true" : undefined],
    [own.contentEncoding, properties.contentEncoding],
    [own.type, properties.type],
    [own.priority, properties.priority === undefined ? undefined : String(properties.priority)],
    [own.messageId, properties.messageId],
    [own.appId, properties.appId],
  ];
  const { replyTo } = properties;
  if (replyTo !== undefined && topicProblem(replyTo) !== null) pairs.push([own.replyTo, replyTo]);
  if (key !== null) {
    const text = textOf(key);
    pairs.push(text === null ? [own.keyBase64, base64Of(key)] : [own.key, text]);
  }
  return pairs.filter((pair): pair is [string, string] => pair[1] !== undefined);
}

function textProblem(text: string): string | null {
  if (!isSafeText(text)) return "holds a character that MQTT forbids";
  return Buffer.byteLength(text) <= textBytesMax ? null : `is longer than ${textBytesMax} bytes`;
}

function propertyBytes(properties: PacketProperties): number {
  const { contentType, responseTopic, correlationData } = properties;
  const texts = Buffer.byteLength(contentType ?? "") + Buffer.byteLength(responseTopic ?? "");
  return 32 + texts + (correlationData?.byteLength ?? 0);
}

/** Where a message was taken from, for its origin. */
export interface Place {
  readonly bridge: string;
  readonly filter: Filter;
}

/** The message in a packet; `qos` is the one that it came with. */
export function decodeMessage(
  packet: IPublishPacket,
  qos: number,
  options: { readonly place: Place; readonly nowMs: number },
): Message {
  const { place, nowMs } = options;
  const topic = packet.topic.toString();
  const pairs = pairsOf(packet.properties?.userProperties);
  const ours = new Map(pairs);
  const payload = typeof packet.payload === "string" ? Buffer.from(packet.payload) : packet.payload;
  const body = new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength);
  const tombstone = body.byteLength === 0 && ours.get(own.tombstone) === "true";
  const params = paramsOf(place.filter, topic);
  return {
    id: idOf(ours.get(own.id)),
    key: keyOf(ours),
    properties: decodeProperties(packet, ours, { qos, nowMs }),
    headers: decodeHeaders(pairs),
    body: tombstone ? null : body,
    timestampMs: timestampOf(ours.get(own.timestamp), nowMs),
    origin: {
      bridge: place.bridge,
      address: topic,
      partition: null,
      offset: null,
      hops: [],
      ...(params === null ? {} : { params }),
      ...(packet.dup ? { redelivered: true } : {}),
    },
  };
}

/** The library gives one object; a name that repeats has a list. */
function pairsOf(given: PacketProperties["userProperties"]): readonly Pair[] {
  const pairs: Pair[] = [];
  for (const [name, value] of Object.entries(given ?? {})) {
    const values: readonly unknown[] = Array.isArray(value) ? value : [value];
    for (const one of values) pairs.push([name, String(one)]);
  }
  return pairs;
}

/** The id that a gateway wrote into a packet; MQTT itself has none. */
export function idGiven(packet: IPublishPacket): string | null {
  const given = new Map(pairsOf(packet.properties?.userProperties)).get(own.id);
  return given === undefined || given === "" ? null : given;
}

function idOf(given: string | undefined): string {
  const fits = given !== undefined && given !== "" && Buffer.byteLength(given) <= ID_BYTES_MAX;
  return fits ? given : crypto.randomUUID();
}

function keyOf(ours: ReadonlyMap<string, string>): Uint8Array | null {
  const encoded = ours.get(own.keyBase64);
  if (encoded !== undefined) return bytesOfBase64(encoded);
  const text = ours.get(own.key);
  return text === undefined ? null : new Uint8Array(Buffer.from(text));
}

function timestampOf(given: string | undefined, nowMs: number): number {
  if (given === undefined || !/^-?\d{1,15}$/.test(given)) return nowMs;
  return Number(given);
}

function decodeProperties(
  packet: IPublishPacket,
  ours: ReadonlyMap<string, string>,
  options: { readonly qos: number; readonly nowMs: number },
): Properties {
  const given = packet.properties ?? {};
  const properties: Mutable<Properties> = {};
  if (given.contentType !== undefined) properties.contentType = given.contentType;
  const replyTo = given.responseTopic ?? ours.get(own.replyTo);
  if (replyTo !== undefined) properties.replyTo = replyTo;
  if (given.correlationData !== undefined) {
    const bytes = given.correlationData;
    properties.correlationId = isUtf8(bytes) ? bytes.toString("utf8") : new Uint8Array(bytes);
  }
  if (given.messageExpiryInterval !== undefined) {
    properties.expiresAtMs = options.nowMs + given.messageExpiryInterval * 1000;
  }
  if (given.payloadFormatIndicator === true) properties.textBody = true;
  if (packet.retain) properties.retain = true;
  if (options.qos === 0) properties.durable = false;
  for (const name of ["contentEncoding", "type", "messageId", "appId"] as const) {
    const text = ours.get(own[name]);
    if (text !== undefined) properties[name] = text;
  }
  const priority = ours.get(own.priority);
  if (priority !== undefined && /^\d{1,3}$/.test(priority)) properties.priority = Number(priority);
  return properties;
}
