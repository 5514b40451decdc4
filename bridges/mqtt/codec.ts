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
import { mapping } from "../mapping.ts";
import { type Carrier, carriersOf, type PropertiesMade, sparesOf } from "../mapping-carry.ts";
import {
  BASE64_SUFFIX,
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

const rows = mapping.mqtt;
const carriers = carriersOf(rows);
const spares = [...sparesOf(rows).values()];
const carrierByName: ReadonlyMap<string, Carrier> = new Map(
  [...carriers, ...spares].map((carrier) => [carrier.header, carrier]),
);

type PacketProperties = NonNullable<IPublishPacket["properties"]>;
type Mutable<T> = { -readonly [Name in keyof T]: T[Name] };

const KEY_BASE64 = `${own.key}${BASE64_SUFFIX}`;

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
  const properties = encodeProperties(message, options.nowMs);
  if ("refused" in properties) return properties;
  const pairs: Pair[] = [...headers, ...ownPairs(message, properties)];
  for (const [name, value] of pairs) {
    const problem = textProblem(value);
    if (problem !== null) return { refused: `the property ${name} ${problem}` };
  }
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
  if (contentType !== undefined && isSafeText(contentType)) {
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

/** What MQTT's own properties don't say, or not exactly, in user properties of ours. */
function ownPairs(message: Message, given: PacketProperties): readonly Pair[] {
  const { properties, key } = message;
  const pairs: Pair[] = [];
  addText(pairs, own.id, message.id);
  pairs.push([own.timestamp, String(message.timestampMs)]);
  if (message.body === null) pairs.push([own.tombstone, "true"]);
  for (const { header, write } of carriers) {
    const value = write(properties);
    if (typeof value === "string") addText(pairs, header, value);
  }
  for (const { field, header, write } of spares) {
    const value = write(properties);
    if (typeof value !== "string" || isSaid(field, message, given)) continue;
    addText(pairs, header, value);
  }
  if (key !== null) {
    const text = textOf(key);
    pairs.push(text === null ? [`${own.key}${BASE64_SUFFIX}`, base64Of(key)] : [own.key, text]);
  }
  return pairs;
}

/** A text that MQTT forbids travels in base64. */
function addText(pairs: Pair[], name: string, text: string): void {
  const isSafe = isSafeText(text);
  pairs.push(isSafe ? [name, text] : [`${name}${BASE64_SUFFIX}`, base64Of(Buffer.from(text))]);
}

/** Whether a place of MQTT's own says exactly what the message does. */
function isSaid(
  field: Carrier["field"],
  { properties }: Message,
  given: PacketProperties,
): boolean {
  if (field === "contentType") return given.contentType !== undefined;
  if (field === "replyTo") return given.responseTopic !== undefined;
  // QoS and the retain flag are the target's, and seconds are not milliseconds.
  return field === "textBody" && given.payloadFormatIndicator === properties.textBody;
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
  const ours = ownTexts(pairs);
  const payload = typeof packet.payload === "string" ? Buffer.from(packet.payload) : packet.payload;
  const body = new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength);
  const tombstone = body.byteLength === 0 && ours.get(own.tombstone) === "true";
  const params = paramsOf(place.filter, topic);
  const { properties, odd } = decodeProperties(packet, ours, { qos, nowMs });
  return {
    id: idOf(ours.get(own.id)),
    key: keyOf(ours),
    properties,
    headers: decodeHeaders(pairs, (name) => !odd.has(name)),
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

/** The texts of our own by their plain names. Keys stay as they are: they may be bytes. */
function ownTexts(pairs: readonly Pair[]): ReadonlyMap<string, string> {
  const texts = new Map<string, string>();
  for (const [name, value] of pairs) {
    if (!name.endsWith(BASE64_SUFFIX)) texts.set(name, value);
    else if (name === KEY_BASE64) texts.set(name, value);
    else {
      const plain = name.slice(0, -BASE64_SUFFIX.length);
      const isOwn = plain === own.id || carrierByName.has(plain);
      texts.set(isOwn ? plain : name, isOwn ? Buffer.from(value, "base64").toString() : value);
    }
  }
  return texts;
}

/** The id that a gateway wrote into a packet; MQTT itself has none. */
export function idGiven(packet: IPublishPacket): string | null {
  const given = ownTexts(pairsOf(packet.properties?.userProperties)).get(own.id);
  return given === undefined || given === "" ? null : given;
}

function idOf(given: string | undefined): string {
  const fits = given !== undefined && given !== "" && Buffer.byteLength(given) <= ID_BYTES_MAX;
  return fits ? given : crypto.randomUUID();
}

function keyOf(ours: ReadonlyMap<string, string>): Uint8Array | null {
  const encoded = ours.get(KEY_BASE64);
  if (encoded !== undefined) return bytesOfBase64(encoded);
  const text = ours.get(own.key);
  return text === undefined ? null : new Uint8Array(Buffer.from(text));
}

function timestampOf(given: string | undefined, nowMs: number): number {
  if (given === undefined || !/^-?\d{1,15}$/.test(given)) return nowMs;
  return Number(given);
}

/** The properties, and the names of ours whose values are none that this gateway writes. */
interface DecodedProperties {
  readonly properties: Properties;
  readonly odd: ReadonlySet<string>;
}

const NONE_ODD: ReadonlySet<string> = new Set();

function decodeProperties(
  packet: IPublishPacket,
  ours: ReadonlyMap<string, string>,
  options: { readonly qos: number; readonly nowMs: number },
): DecodedProperties {
  const given = packet.properties ?? {};
  const properties: PropertiesMade = {};
  if (given.contentType !== undefined) properties.contentType = given.contentType;
  if (given.responseTopic !== undefined) properties.replyTo = given.responseTopic;
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
  let odd: Set<string> | null = null;
  for (const [name, value] of ours) {
    const carrier = carrierByName.get(name);
    if (carrier === undefined || carrier.take(properties, value)) continue;
    odd ??= new Set();
    odd.add(name);
  }
  return { properties, odd: odd ?? NONE_ODD };
}
