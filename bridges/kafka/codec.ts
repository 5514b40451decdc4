/**
 * Message ↔ Kafka record. What Kafka has no place for travels as headers by the mapping table:
 * `content-type`, `content-encoding`, `isthmus-id` and `isthmus_…`. They follow the message's own
 * headers on the way out; on the way in each is taken out of the headers again when it is there
 * exactly once and well formed, else it stays a header: nothing is dropped.
 */
import { createHash } from "node:crypto";
import { encodeText, type Header, type Message, type Properties } from "../../src/message.ts";

/** The bound of `Message.id`. Bytes. */
const ID_BYTES_MAX = 128;
/** A record's fixed fields, varints at their longest. Bytes. */
const RECORD_OVERHEAD_BYTES = 70;
const HEADER_OVERHEAD_BYTES = 10;

/** A record as it is read: header names as text, everything else as bytes. */
export interface InRecord {
  readonly partition: number;
  readonly offset: string;
  readonly timestampMs: number;
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers: readonly Header[];
}

/** A record as it is written: header names as bytes, since repeated names must stay apart. */
export interface OutRecord {
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly (readonly [Buffer, Buffer | null])[];
  readonly timestampMs: number;
  /** No less than what the record takes on the wire. */
  readonly bytes: number;
}

interface Carrier {
  readonly header: string;
  readonly write: (properties: Properties) => Uint8Array | null;
  /** Null when the bytes are not what this gateway writes. */
  readonly read: (bytes: Uint8Array) => Properties | null;
}

const strictText = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function textOf(bytes: Uint8Array): string | null {
  try {
    return strictText.decode(bytes);
  } catch {
    return null;
  }
}

type Named<T> = {
  [K in keyof Properties]-?: Required<Properties>[K] extends T ? K : never;
}[keyof Properties];

function textCarrier(header: string, name: Named<string>): Carrier {
  return {
    header,
    write: (properties) => {
      const value = properties[name];
      return value === undefined ? null : encodeText(value);
    },
    read: (bytes) => {
      const text = textOf(bytes);
      return text === null ? null : { [name]: text };
    },
  };
}

function numberCarrier(header: string, name: Named<number>): Carrier {
  return {
    header,
    write: (properties) => {
      const value = properties[name];
      return value === undefined ? null : encodeText(String(value));
    },
    read: (bytes) => {
      const text = textOf(bytes) ?? "";
      return /^-?\d{1,15}$/.test(text) ? { [name]: Number(text) } : null;
    },
  };
}

function flagCarrier(header: string, name: Named<boolean>): Carrier {
  return {
    header,
    write: (properties) => {
      const value = properties[name];
      return value === undefined ? null : encodeText(value ? "1" : "0");
    },
    read: (bytes) => {
      const text = textOf(bytes);
      return text === "1" || text === "0" ? { [name]: text === "1" } : null;
    },
  };
}

const correlationCarrier: Carrier = {
  header: "isthmus_correlation_id",
  write: ({ correlationId }) =>
    typeof correlationId === "string" ? encodeText(correlationId) : (correlationId ?? null),
  read: (bytes) => ({ correlationId: textOf(bytes) ?? bytes }),
};

const ID_HEADER = "isthmus-id";
const carriers: readonly Carrier[] = [
  textCarrier("content-type", "contentType"),
  textCarrier("content-encoding", "contentEncoding"),
  correlationCarrier,
  textCarrier("isthmus_reply_to", "replyTo"),
  textCarrier("isthmus_type", "type"),
  numberCarrier("isthmus_priority", "priority"),
  numberCarrier("isthmus_expires_at", "expiresAtMs"),
  textCarrier("isthmus_message_id", "messageId"),
  textCarrier("isthmus_user_id", "userId"),
  textCarrier("isthmus_app_id", "appId"),
  flagCarrier("isthmus_durable", "durable"),
  flagCarrier("isthmus_retain", "retain"),
  flagCarrier("isthmus_pfi", "textBody"),
];
const carrierByHeader = new Map(carriers.map((carrier) => [carrier.header, carrier]));

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The record of a message. */
export function encodeRecord(message: Message): OutRecord {
  const headers: (readonly [Buffer, Buffer | null])[] = message.headers.map(({ name, value }) => [
    Buffer.from(name),
    value === null ? null : bufferOf(value),
  ]);
  for (const carrier of carriers) {
    const value = carrier.write(message.properties);
    if (value !== null) headers.push([Buffer.from(carrier.header), bufferOf(value)]);
  }
  headers.push([Buffer.from(ID_HEADER), Buffer.from(message.id)]);
  const headerBytes = headers.reduce(
    (sum, [name, value]) => sum + HEADER_OVERHEAD_BYTES + name.length + (value?.length ?? 0),
    0,
  );
  const { key, body } = message;
  return {
    key: key === null ? null : bufferOf(key),
    value: body === null ? null : bufferOf(body),
    headers,
    timestampMs: Math.max(0, Math.trunc(message.timestampMs)),
    bytes: RECORD_OVERHEAD_BYTES + headerBytes + (key?.length ?? 0) + (body?.length ?? 0),
  };
}

/** Where records come from. */
export interface RecordPlace {
  readonly bridge: string;
  readonly topic: string;
}

/** The message of a record. */
export function decodeRecord(record: InRecord, place: RecordPlace): Message {
  const { properties, headers, id } = takeOut(record.headers);
  return {
    id: id ?? positionId(record, place),
    key: record.key,
    properties,
    headers,
    body: record.value,
    timestampMs: record.timestampMs,
    origin: {
      bridge: place.bridge,
      address: place.topic,
      partition: record.partition,
      offset: record.offset,
      hops: [],
    },
  };
}

interface TakenOut {
  readonly properties: Properties;
  readonly headers: readonly Header[];
  readonly id: string | null;
}

function takeOut(headers: readonly Header[]): TakenOut {
  const counts = new Map<string, number>();
  for (const { name } of headers) {
    if (name === ID_HEADER || carrierByHeader.has(name)) {
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
  }
  if (counts.size === 0) return { properties: {}, headers, id: null };
  let properties: Properties = {};
  let id: string | null = null;
  const rest = headers.filter((header) => {
    if (header.value === null || counts.get(header.name) !== 1) return true;
    if (header.name === ID_HEADER) {
      id = idOf(header.value);
      return id === null;
    }
    const found = carrierByHeader.get(header.name)?.read(header.value) ?? null;
    if (found === null) return true;
    properties = { ...properties, ...found };
    return false;
  });
  return { properties, headers: rest, id };
}

function idOf(bytes: Uint8Array): string | null {
  return bytes.length === 0 || bytes.length > ID_BYTES_MAX ? null : textOf(bytes);
}

/** The id of a record that has none: its place, the same however often it is read. */
function positionId(record: InRecord, place: RecordPlace): string {
  const position = `${record.partition}/${record.offset}`;
  const plain = `${place.bridge}/${place.topic}/${position}`;
  if (Buffer.byteLength(plain) <= ID_BYTES_MAX) return plain;
  const digest = createHash("sha256").update(`${place.bridge}/${place.topic}`).digest("base64url");
  return `${digest}/${position}`;
}

/** What a message weighs while it is unsettled. Bytes. */
export function weightOf(message: Message): number {
  return RECORD_OVERHEAD_BYTES + (message.body?.length ?? 0) + (message.key?.length ?? 0);
}
