/**
 * Messages as AMQP 0-9-1 carries them: properties by the published mapping, the key, the tombstone
 * and what a short string can't hold in headers of our own, the body as it is. Encoding checks
 * every bound of the protocol first: a field that the client or the broker would choke on is a
 * refusal of that message, never an error of the channel. Nothing that arrives makes decoding
 * throw.
 */
import type { ConsumeMessage, Options } from "amqplib";
import type { Message, Properties } from "../../src/message.ts";
import {
  decodeHeaders,
  decodeValue,
  encodeBytes,
  encodeHeaders,
  ownHeader,
  plainBytes,
  type Table,
  tableProblem,
} from "./table.ts";

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

/** The publication of a message, or in words why AMQP can't carry it. */
export function encodeMessage(
  message: Message,
  limits: { readonly nowMs: number; readonly frameBytesMax: number },
): Publication | { readonly refused: string } {
  const { properties } = message;
  const table = encodeHeaders(message.headers);
  if (message.key !== null) table[ownHeader.key] = encodeBytes(message.key);
  if (message.body === null) table[ownHeader.tombstone] = true;
  const options: Mutable<Options.Publish> & { messageId: string } = {
    messageId: messageIdOf(message, table),
    deliveryMode: properties.durable === false ? 1 : 2,
    headers: table,
  };
  const texts = shortTexts(properties);
  const problem = textProblem(texts) ?? priorityProblem(properties.priority);
  if (problem !== null) return { refused: problem };
  Object.assign(options, texts);
  setCorrelation(options, table, properties.correlationId);
  if (properties.priority !== undefined) options.priority = properties.priority;
  if (properties.expiresAtMs !== undefined) {
    const leftMs = Math.ceil(properties.expiresAtMs - limits.nowMs);
    options.expiration = String(Math.min(EXPIRATION_MS_MAX, Math.max(0, leftMs)));
  }
  // A producer's time before 1970 (Kafka's "none" is -1) has no form in the protocol.
  if (message.timestampMs >= 0) options.timestamp = Math.floor(message.timestampMs / 1000);
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
  if (given === undefined || given === "" || given === message.id) return message.id;
  if (Buffer.byteLength(given) > shortStringBytesMax) {
    table[ownHeader.messageId] = given;
    return message.id;
  }
  table[ownHeader.id] = message.id;
  return given;
}

/**
 * The properties that are short strings; `userId` is left out, RabbitMQ checks it against the
 * login.
 */
function shortTexts(properties: Properties): Record<string, string> {
  const { contentType, contentEncoding, replyTo, type, appId } = properties;
  const texts = { contentType, contentEncoding, replyTo, type, appId };
  const said = Object.entries(texts).filter((entry): entry is [string, string] => {
    return typeof entry[1] === "string";
  });
  return Object.fromEntries(said);
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
  else table[ownHeader.correlationId] = encoded;
}

function bodyOf(message: Message): Buffer {
  const { body } = message;
  if (body === null) return Buffer.alloc(0);
  return Buffer.from(body.buffer, body.byteOffset, body.byteLength);
}

/** The message in a delivery; `nowMs` stands in where its producer gave no time. */
export function decodeMessage(delivered: ConsumeMessage, place: Place, nowMs: number): Message {
  const { fields, properties: given, content } = delivered;
  const { headers, own } = decodeHeaders((given.headers ?? {}) as Table);
  const properties = decodeProperties(given, nowMs);
  const correlationId = own.get(ownHeader.correlationId);
  if (typeof correlationId === "string") properties.correlationId = correlationId;
  if (correlationId instanceof Uint8Array) properties.correlationId = plainBytes(correlationId);
  const ids = decodeId(given.messageId, own);
  if (ids.messageId !== undefined) properties.messageId = ids.messageId;
  const marker = own.get(ownHeader.tombstone);
  const tombstone = content.byteLength === 0 && (marker === true || marker === "true");
  return {
    id: ids.id,
    key: decodeValue(own.get(ownHeader.key)),
    properties,
    headers,
    body: tombstone ? null : plainBytes(content),
    timestampMs: timestampOf(given.timestamp, nowMs),
    origin: {
      bridge: place.bridge,
      address: place.queue,
      partition: null,
      offset: null,
      hops: [],
      params: { exchange: fields.exchange, routingKey: fields.routingKey },
      ...(fields.redelivered ? { redelivered: true } : {}),
    },
  };
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
  const long = own.get(ownHeader.messageId);
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
