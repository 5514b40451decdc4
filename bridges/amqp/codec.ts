/**
 * Messages as AMQP 0-9-1 carries them: properties by the published mapping, the key, the tombstone
 * and what a short string can't hold in headers of our own, the body as it is. Encoding checks
 * every bound of the protocol first: a field that the client or the broker would choke on is a
 * refusal of that message, never an error of the channel. Nothing that arrives makes decoding
 * throw.
 */
import type { ConsumeMessage, Options } from "amqplib";
import { type Header, hopOf, type Message, type Properties } from "../../src/message.ts";
import { mapping } from "../mapping.ts";
import {
  type Carried,
  type Carrier,
  carriersOf,
  isProperty,
  type PropertiesMade,
  sparesOf,
} from "../mapping-carry.ts";
import { exchangePlace } from "../places.ts";
import {
  decodeHeaders,
  decodeValue,
  encodeBytes,
  encodeHeaders,
  isOwn,
  ownHeader,
  plainBytes,
  type Table,
  tableProblem,
} from "./table.ts";
import { originalHeader, restore, typedValue } from "./original.ts";

/** Short strings of the protocol. Bytes of UTF-8. */
export const shortStringBytesMax = 255;
/** A message's id, as everywhere in the gateway. Bytes of UTF-8. */
const ID_BYTES_MAX = 128;
/** The largest expiration that RabbitMQ takes: 2^32 - 1. Milliseconds. */
const EXPIRATION_MS_MAX = 4_294_967_295;
/** What the property frame holds beside its texts and the table: flags, numbers, lengths. Bytes. */
const FRAME_BYTES = 64;

/** A message ready to be published. */
export interface Publication {
  readonly content: Buffer;
  readonly options: Options.Publish & { readonly messageId: string };
}

/** Where a message was taken from, for its origin. */
export interface Place {
  readonly bridge: string;
  readonly queue: string;
}

type Mutable<T> = { -readonly [Name in keyof T]: T[Name] };

const rows = mapping.amqp;
const carriers = carriersOf(rows);
const spares = sparesOf(rows);
const LONG_ID = spares.get("messageId")?.header ?? "";
const carrierByHeader: ReadonlyMap<string, Carrier> = new Map(
  [...carriers, ...spares.values()]
    .filter(({ header }) => header !== LONG_ID)
    .map((carrier) => [carrier.header, carrier]),
);
/** The properties that stand in a short string of the same name. */
const SHORT_STRINGS = rows.flatMap(({ field, form, spare }) =>
  form === "short string" && spare === undefined && isProperty(field) ? [field] : [],
);

/** The publication of a message, or in words why AMQP can't carry it. */
export function encodeMessage(
  message: Message,
  limits: { readonly nowMs: number; readonly frameBytesMax: number },
): Publication | { readonly refused: string } {
  const { properties } = message;
  const restored = restore(message.headers);
  const typed = restored.values.size === 0 ? null : (one: Header) => typedValue(one, restored);
  const table = encodeHeaders(restored.headers, typed);
  if (message.key !== null) table[ownHeader.key] = encodeBytes(message.key);
  if (message.body === null) table[ownHeader.tombstone] = true;
  for (const { header, write } of carriers) {
    const value = write(properties);
    if (value !== undefined) table[header] = value;
  }
  const options: Mutable<Options.Publish> & { messageId: string } = {
    messageId: messageIdOf(message, table),
    deliveryMode: properties.durable === false ? 1 : 2,
    headers: table,
  };
  const texts = shortTexts(properties);
  const problem = textProblem(texts) ?? priorityProblem(properties.priority);
  if (problem !== null) return { refused: problem };
  Object.assign(options, texts);
  // The mode says it of a message that does not say it, too.
  if (properties.durable === true) setSpare(table, "durable", "true");
  setCorrelation(options, table, properties.correlationId);
  if (properties.priority !== undefined) options.priority = properties.priority;
  if (properties.expiresAtMs !== undefined) {
    const leftMs = Math.ceil(properties.expiresAtMs - limits.nowMs);
    options.expiration = String(Math.min(EXPIRATION_MS_MAX, Math.max(0, leftMs)));
    setSpare(table, "expiresAtMs", String(properties.expiresAtMs));
  }
  // A producer's time before 1970 (Kafka's "none" is -1) has no form in the protocol.
  if (message.timestampMs >= 0) options.timestamp = Math.floor(message.timestampMs / 1000);
  if (message.timestampMs < 0 || message.timestampMs % 1000 !== 0) {
    table[ownHeader.timestamp] = String(message.timestampMs);
  }
  const textBytes = Object.values(texts).reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  const spare = FRAME_BYTES + textBytes + 2 * shortStringBytesMax;
  const refused = tableProblem(table, limits.frameBytesMax - spare);
  return refused === null ? { content: bodyOf(message), options } : { refused };
}

/**
 * The property that receivers know a message by: its producer's id where it has one, and ours then
 * in a header; one that is too long for the property travels in a header itself.
 */
function messageIdOf(message: Message, table: Table): string {
  const given = message.properties.messageId;
  if (given === undefined) return message.id;
  const isTold = given === "" || given === message.id;
  if (isTold || Buffer.byteLength(given) > shortStringBytesMax) {
    setSpare(table, "messageId", given);
    return message.id;
  }
  table[ownHeader.id] = message.id;
  return given;
}

/** Keeps in a header of ours what the place of a property can't hold. */
function setSpare(table: Table, field: keyof Properties, value: string | Buffer | null): void {
  const spare = spares.get(field);
  if (spare !== undefined) table[spare.header] = value;
}

/** The properties that are short strings. */
function shortTexts(properties: Properties): Record<string, string> {
  const texts: Record<string, string> = {};
  for (const name of SHORT_STRINGS) {
    const value = properties[name];
    if (typeof value === "string") texts[name] = value;
  }
  return texts;
}

function textProblem(texts: Record<string, string>): string | null {
  for (const [name, text] of Object.entries(texts)) {
    if (Buffer.byteLength(text) <= shortStringBytesMax) continue;
    return `the property ${name} is longer than ${shortStringBytesMax} bytes, which AMQP can't carry`;
  }
  return null;
}

function priorityProblem(priority: number | undefined): string | null {
  if (priority === undefined) return null;
  if (Number.isInteger(priority) && priority >= 0 && priority <= 255) return null;
  return `the property priority is ${priority}; AMQP takes whole numbers from 0 to 255`;
}

/** Text where a short string holds it; bytes and long texts travel in a header. */
function setCorrelation(
  options: Mutable<Options.Publish>,
  table: Table,
  id: string | Uint8Array | undefined,
): void {
  if (id === undefined) return;
  const encoded = typeof id === "string" ? id : encodeBytes(id);
  const short = typeof encoded === "string" && Buffer.byteLength(encoded) <= shortStringBytesMax;
  if (short) options.correlationId = encoded;
  else setSpare(table, "correlationId", encoded);
}

function bodyOf(message: Message): Buffer {
  const { body } = message;
  if (body === null) return Buffer.alloc(0);
  return Buffer.from(body.buffer, body.byteOffset, body.byteLength);
}

/** The message in a delivery; `nowMs` stands in where its producer gave no time. */
export function decodeMessage(delivered: ConsumeMessage, place: Place, nowMs: number): Message {
  const { fields, properties: given, content } = delivered;
  const table = (given.headers ?? {}) as Table;
  const { headers, own } = decodeHeaders(table);
  const original = originalHeader(table, isOwn);
  const properties = decodeProperties(given, nowMs);
  takeOwn(own, properties);
  const ids = decodeId(given.messageId, own);
  if (ids.messageId !== undefined) properties.messageId = ids.messageId;
  const marker = own.get(ownHeader.tombstone);
  const tombstone = content.byteLength === 0 && (marker === true || marker === "true");
  return {
    id: ids.id,
    key: decodeValue(own.get(ownHeader.key)),
    properties,
    headers: original === null ? headers : [...headers, original],
    body: tombstone ? null : plainBytes(content),
    timestampMs: ownTime(own) ?? timestampOf(given.timestamp, nowMs),
    origin: {
      bridge: place.bridge,
      address: place.queue,
      partition: null,
      offset: null,
      hops: passed(place.bridge, fields),
      params: { exchange: fields.exchange, routingKey: fields.routingKey },
      ...(fields.redelivered ? { redelivered: true } : {}),
    },
  };
}

/** Properties that stand in headers of ours. The long message id is the ids' (`decodeId`). */
function takeOwn(own: ReadonlyMap<string, unknown>, properties: PropertiesMade): void {
  for (const [header, value] of own) {
    const carrier = carrierByHeader.get(header);
    if (carrier === undefined || !isCarried(value)) continue;
    carrier.take(properties, typeof value === "string" ? value : plainBytes(value));
  }
}

function isCarried(value: unknown): value is Carried {
  return typeof value === "string" || value instanceof Uint8Array;
}

/** The producer's time where the protocol's seconds did not hold it. */
function ownTime(own: ReadonlyMap<string, unknown>): number | null {
  const text = own.get(ownHeader.timestamp);
  const isTime = typeof text === "string" && /^-?\d{1,16}(?:\.\d{1,17})?$/.test(text);
  return isTime ? Number(text) : null;
}

/**
 * The message's id: ours where we sent it; the producer's where it fits, else one made from it, so
 * that a redelivery has the same; a made one where there is none.
 */
function decodeId(
  given: unknown,
  own: ReadonlyMap<string, unknown>,
): { id: string; messageId?: string } {
  const id = own.get(ownHeader.id);
  const long = own.get(LONG_ID);
  if (typeof given !== "string" || given === "") return { id: crypto.randomUUID() };
  if (isId(id)) return { id, messageId: given };
  if (!isId(given)) {
    return { id: new Bun.CryptoHasher("sha256").update(given).digest("hex"), messageId: given };
  }
  return typeof long === "string" ? { id: given, messageId: long } : { id: given };
}

function isId(value: unknown): value is string {
  return typeof value === "string" && value !== "" && Buffer.byteLength(value) <= ID_BYTES_MAX;
}

function decodeProperties(given: ConsumeMessage["properties"], nowMs: number): Mutable<Properties> {
  const properties: Mutable<Properties> = {};
  for (const name of [
    "contentType",
    "contentEncoding",
    "correlationId",
    "replyTo",
    "type",
    "userId",
    "appId",
  ] as const) {
    const value: unknown = given[name];
    if (typeof value === "string") properties[name] = value;
  }
  const priority: unknown = given.priority;
  if (typeof priority === "number") properties.priority = priority;
  // How much of it has passed in the queue is not said; it counts from here.
  const expiration: unknown = given.expiration;
  if (typeof expiration === "string" && /^\d{1,15}$/.test(expiration)) {
    properties.expiresAtMs = nowMs + Number(expiration);
  }
  if (given.deliveryMode !== 2) properties.durable = false;
  return properties;
}

function timestampOf(seconds: unknown, nowMs: number): number {
  if (typeof seconds !== "number") return nowMs;
  const ms = seconds * 1000;
  return Number.isSafeInteger(ms) ? ms : nowMs;
}

/** An exchange that a message has passed on its way to the queue; the default one is no place. */
function passed(bridge: string, { exchange, routingKey }: ConsumeMessage["fields"]): string[] {
  if (exchange === "") return [];
  const { name, detail } = exchangePlace(exchange, routingKey);
  return [hopOf(bridge, name, detail)];
}
