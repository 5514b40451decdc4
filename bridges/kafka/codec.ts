/**
 * Message ↔ Kafka record. What Kafka has no place for travels as headers by the mapping table:
 * `content-type`, `content-encoding`, `isthmus-id` and `isthmus_…`. They follow the message's own
 * headers on the way out; on the way in each is taken out of the headers again when it is there
 * exactly once and well formed, else it stays a header: nothing is dropped. A message's own header
 * by such a name is written as `isthmus-header-NAME`.
 */
import { createHash } from "node:crypto";
import type { Header, Message } from "../../src/message.ts";
import { escapePrefix, mapping } from "../mapping.ts";
import { carriersOf, headerOf, isOurs, ownNames, type PropertiesMade } from "../mapping-carry.ts";

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

const strictText = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function textOf(bytes: Uint8Array): string | null {
  try {
    return strictText.decode(bytes);
  } catch {
    return null;
  }
}

const rows = mapping.kafka;
const ID_HEADER = headerOf(rows, "id");
const TIME_HEADER = headerOf(rows, "timestampMs");
const idName = Buffer.from(ID_HEADER);
const carriers = carriersOf(rows).map((carrier) => ({
  ...carrier,
  name: Buffer.from(carrier.header),
}));
const carrierByHeader = new Map(carriers.map((carrier) => [carrier.header, carrier]));
const OWN_NAMES = ownNames(rows);

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The record of a message. */
export function encodeRecord(message: Message): OutRecord {
  const { properties, timestampMs } = message;
  const headers: (readonly [Buffer, Buffer | null])[] = [];
  for (const header of message.headers) {
    const { name, value } = header;
    const isTaken = isOurs(OWN_NAMES, name) && wouldBeTaken(header, message);
    const written = isTaken ? `${escapePrefix}${name}` : name;
    headers.push([Buffer.from(written), value === null ? null : bufferOf(value)]);
  }
  for (const { name, write } of carriers) {
    const value = write(properties);
    if (value === undefined) continue;
    headers.push([name, typeof value === "string" ? Buffer.from(value) : bufferOf(value)]);
  }
  const recordMs = Math.max(0, Math.trunc(timestampMs));
  if (recordMs !== timestampMs) {
    headers.push([Buffer.from(TIME_HEADER), Buffer.from(String(timestampMs))]);
  }
  headers.push([idName, Buffer.from(message.id)]);
  const headerBytes = headers.reduce(
    (sum, [name, value]) => sum + HEADER_OVERHEAD_BYTES + name.length + (value?.length ?? 0),
    0,
  );
  const { key, body } = message;
  return {
    key: key === null ? null : bufferOf(key),
    value: body === null ? null : bufferOf(body),
    headers,
    timestampMs: recordMs,
    bytes: RECORD_OVERHEAD_BYTES + headerBytes + (key?.length ?? 0) + (body?.length ?? 0),
  };
}

/** Whether a header by a name of ours would be read as ours, or be in the way of it. */
function wouldBeTaken({ name, value }: Header, { headers, properties }: Message): boolean {
  const carrier = carrierByHeader.get(name);
  if (carrier === undefined || carrier.write(properties) !== undefined) return true;
  if (value === null || headers.filter((other) => other.name === name).length > 1) return false;
  return carrier.take({}, textOf(value) ?? value);
}

/** Where records come from. */
export interface RecordPlace {
  readonly bridge: string;
  readonly topic: string;
}

/** The message of a record. */
export function decodeRecord(record: InRecord, place: RecordPlace): Message {
  const { properties, headers, id, timestampMs } = takeOut(record.headers);
  return {
    id: id ?? positionId(record, place),
    key: record.key,
    properties,
    headers,
    body: record.value,
    timestampMs: timestampMs ?? record.timestampMs,
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
  readonly properties: PropertiesMade;
  readonly headers: readonly Header[];
  id: string | null;
  timestampMs: number | null;
}

function takeOut(headers: readonly Header[]): TakenOut {
  const counts = new Map<string, number>();
  for (const { name } of headers) {
    if (isOurs(OWN_NAMES, name)) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const rest: Header[] = [];
  const taken: TakenOut = { properties: {}, headers: rest, id: null, timestampMs: null };
  if (counts.size === 0) return { ...taken, headers };
  for (const header of headers) {
    const { name, value } = header;
    const count = counts.get(name);
    if (count !== undefined && name.startsWith(escapePrefix)) {
      rest.push({ name: name.slice(escapePrefix.length), value });
    } else if (count !== 1 || value === null || !take(taken, name, value)) {
      rest.push(header);
    }
  }
  return taken;
}

/** False when the value is not what this gateway writes. */
function take(taken: TakenOut, name: string, value: Uint8Array): boolean {
  if (name === ID_HEADER) {
    taken.id = idOf(value);
    return taken.id !== null;
  }
  if (name === TIME_HEADER) {
    taken.timestampMs = timeOf(value);
    return taken.timestampMs !== null;
  }
  return carrierByHeader.get(name)?.take(taken.properties, textOf(value) ?? value) === true;
}

function timeOf(bytes: Uint8Array): number | null {
  const text = textOf(bytes) ?? "";
  return /^-?\d{1,16}(?:\.\d{1,17})?$/.test(text) ? Number(text) : null;
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
