/**
 * Records: the bytes of one message within a batch, all numbers little-endian.
 *
 *     0  u32  bytes of the record, these 32 included
 *     4  u16  flags: 1 has a key, 2 has a body (else a tombstone), 4 has a dedupe key
 *     6  u16  bytes of the id
 *     8  u32  bytes of the key
 *    12  u32  bytes of the headers: for each u16 name bytes, u32 value bytes (2^32-1: null), both
 *    16  u32  bytes of the meta: JSON { p: properties, o: origin }; none when both are empty
 *    20  u32  bytes of the dedupe key
 *    24  f64  timestamp, Unix milliseconds
 *    32  id, key, headers, meta, dedupe key; the body is the rest
 *
 * A record read from the log is a lazy view: nothing is decoded before it is asked for.
 */
import { assert } from "../assert.ts";
import { InvalidError, LimitError } from "../errors.ts";
import { parseBody } from "../json.ts";
import {
  bodyBytesMax,
  dedupeKeyBytesMax,
  headersBytesMax,
  headersCountMax,
  idBytesMax,
  keyBytesMax,
  recordBytesMax,
} from "../limits.ts";
import {
  decodeText,
  type Header,
  type Message,
  type Origin,
  originText,
  type Properties,
  type StoredMessage,
} from "../message.ts";
import type { GroupBuffer } from "./group-buffer.ts";

export const RECORD_HEADER_BYTES = 32;
const HAS_KEY = 1;
const HAS_BODY = 2;
const HAS_DEDUPE = 4;
const NULL_VALUE = 0xffffffff;

interface Meta {
  readonly p?: Properties;
  readonly o?: Origin;
}

function encodeMeta(message: Message): string {
  const { properties, origin } = message;
  let hasProperties = false;
  for (const _ in properties) {
    hasProperties = true;
    break;
  }
  if (!hasProperties && origin === null) return "";
  const correlationId = properties.correlationId;
  const carried =
    correlationId instanceof Uint8Array
      ? { ...properties, correlationId: { base64: Buffer.from(correlationId).toString("base64") } }
      : properties;
  if (origin === null) return `{"p":${JSON.stringify(carried)}}`;
  if (!hasProperties) return `{"o":${originText(origin)}}`;
  return `{"p":${JSON.stringify(carried)},"o":${originText(origin)}}`;
}

function decodeProperties(properties: Properties | undefined): Properties {
  if (properties === undefined) return {};
  const correlationId: unknown = properties.correlationId;
  if (typeof correlationId !== "object" || correlationId === null) return properties;
  const text = (correlationId as { base64?: unknown }).base64;
  assert(typeof text === "string", "a correlation id in a record is text or base64");
  return { ...properties, correlationId: new Uint8Array(Buffer.from(text, "base64")) };
}

/** Bytes of the parts of a record. */
interface Sizes {
  readonly id: number;
  readonly key: number;
  readonly headers: number;
  readonly meta: number;
  readonly dedupe: number;
  readonly record: number;
}

function headersBytes(headers: readonly Header[]): number {
  if (headers.length > headersCountMax) {
    throw new LimitError("too-large", `a message has at most ${headersCountMax} headers`);
  }
  let bytes = 0;
  for (const { name, value } of headers) {
    const nameBytes = Buffer.byteLength(name);
    if (nameBytes > 0xffff) throw new InvalidError("a header's name is longer than 65535 bytes");
    bytes += 6 + nameBytes + (value?.length ?? 0);
  }
  if (bytes > headersBytesMax) {
    throw new LimitError("too-large", `a message's headers take at most ${headersBytesMax} bytes`);
  }
  return bytes;
}

function checkBound(bytes: number, max: number, what: string): void {
  if (bytes > max) {
    throw new LimitError("too-large", `${what} takes ${bytes} bytes; at most ${max} are kept`);
  }
}

function encodeHeaders(buffer: GroupBuffer, start: number, headers: readonly Header[]): number {
  let at = start;
  const { bytes, view } = buffer;
  for (const { name, value } of headers) {
    const nameBytes = bytes.write(name, at + 6);
    view.setUint16(at, nameBytes, true);
    view.setUint32(at + 2, value === null ? NULL_VALUE : value.length, true);
    at += 6 + nameBytes;
    if (value !== null) {
      bytes.set(value, at);
      at += value.length;
    }
  }
  return at;
}

function measure(message: Message, meta: string, dedupeKey: string | null): Sizes {
  const id = Buffer.byteLength(message.id);
  if (id === 0) throw new InvalidError("a message's id is not empty");
  checkBound(id, idBytesMax, "the id");
  const key = message.key?.length ?? 0;
  checkBound(key, keyBytesMax, "the key");
  const body = message.body?.length ?? 0;
  checkBound(body, bodyBytesMax, "the body");
  const dedupe = dedupeKey === null ? 0 : Buffer.byteLength(dedupeKey);
  checkBound(dedupe, dedupeKeyBytesMax, "the dedupe key");
  const headers = headersBytes(message.headers);
  const metaBytes = Buffer.byteLength(meta);
  const record = RECORD_HEADER_BYTES + id + key + headers + metaBytes + dedupe + body;
  checkBound(record, recordBytesMax, "the message");
  return { id, key, headers, meta: metaBytes, dedupe, record };
}

/** Whether a message can be encoded. @throws LimitError, InvalidError: it can't. */
export function checkRecord(message: Message, dedupeKey: string | null): void {
  measure(message, encodeMeta(message), dedupeKey);
}

/**
 * Encodes a message at the buffer's end. @throws LimitError, InvalidError: nothing was encoded.
 */
export function encodeRecord(
  buffer: GroupBuffer,
  message: Message,
  dedupeKey: string | null,
): void {
  const meta = encodeMeta(message);
  const sizes = measure(message, meta, dedupeKey);
  const start = buffer.reserve(sizes.record);
  const { bytes, view } = buffer;
  view.setUint32(start, sizes.record, true);
  const flags =
    (message.key === null ? 0 : HAS_KEY) |
    (message.body === null ? 0 : HAS_BODY) |
    (dedupeKey === null ? 0 : HAS_DEDUPE);
  view.setUint16(start + 4, flags, true);
  view.setUint16(start + 6, sizes.id, true);
  view.setUint32(start + 8, sizes.key, true);
  view.setUint32(start + 12, sizes.headers, true);
  view.setUint32(start + 16, sizes.meta, true);
  view.setUint32(start + 20, sizes.dedupe, true);
  view.setFloat64(start + 24, message.timestampMs, true);
  let at = start + RECORD_HEADER_BYTES;
  at += bytes.write(message.id, at);
  if (message.key !== null) {
    bytes.set(message.key, at);
    at += sizes.key;
  }
  at = encodeHeaders(buffer, at, message.headers);
  if (sizes.meta > 0) at += bytes.write(meta, at);
  if (dedupeKey !== null) at += bytes.write(dedupeKey, at);
  if (message.body !== null) bytes.set(message.body, at);
  const bodyBytes = message.body?.length ?? 0;
  assert(at + bodyBytes === start + sizes.record, "a record fills what was reserved for it");
}

/** Where a record stands: what every record of a batch shares, and its own place. */
export interface RecordPlace {
  readonly stream: string;
  readonly partition: number;
  readonly appendedAtMs: number;
  readonly bytes: Buffer;
  readonly view: DataView;
}

/** A message in the log, decoded as far as it was asked for. */
export class StoredRecord implements StoredMessage {
  readonly offset: number;
  readonly #place: RecordPlace;
  readonly #start: number;
  #id: string | undefined;
  #headers: readonly Header[] | undefined;
  #meta: Meta | undefined;
  #properties: Properties | undefined;
  #text: string | null | undefined;
  #json: unknown;
  #jsonKnown = false;

  constructor(place: RecordPlace, start: number, offset: number) {
    this.#place = place;
    this.#start = start;
    this.offset = offset;
  }

  get stream(): string {
    return this.#place.stream;
  }

  get partition(): number {
    return this.#place.partition;
  }

  get appendedAtMs(): number {
    return this.#place.appendedAtMs;
  }

  /** Bytes of the record on disk. */
  get recordBytes(): number {
    return this.#u32(0);
  }

  /** The same record over memory of its own, which is no larger than it. */
  detached(): StoredRecord {
    const bytes = Buffer.allocUnsafeSlow(this.recordBytes);
    this.#place.bytes.copy(bytes, 0, this.#start, this.#start + bytes.length);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    return new StoredRecord({ ...this.#place, bytes, view }, 0, this.offset);
  }

  get id(): string {
    this.#id ??= this.#textAt(this.#idStart(), this.#idBytes());
    return this.#id;
  }

  get key(): Uint8Array | null {
    if ((this.#flags() & HAS_KEY) === 0) return null;
    return this.#slice(this.#keyStart(), this.#u32(8));
  }

  get headers(): readonly Header[] {
    this.#headers ??= this.#decodeHeaders();
    return this.#headers;
  }

  get properties(): Properties {
    this.#properties ??= decodeProperties(this.#decodeMeta().p);
    return this.#properties;
  }

  get origin(): Origin | null {
    return this.#decodeMeta().o ?? null;
  }

  get timestampMs(): number {
    return this.#place.view.getFloat64(this.#start + 24, true);
  }

  /** The key that the message was appended once by, if it has one. */
  get dedupeKey(): string | null {
    if ((this.#flags() & HAS_DEDUPE) === 0) return null;
    return this.#textAt(this.#dedupeStart(), this.#u32(20));
  }

  get body(): Uint8Array | null {
    if ((this.#flags() & HAS_BODY) === 0) return null;
    const start = this.#dedupeStart() + this.#u32(20);
    return this.#place.bytes.subarray(start, this.#start + this.#u32(0));
  }

  get text(): string | null {
    if (this.#text === undefined) {
      const body = this.body;
      this.#text = body === null ? null : decodeText(body);
    }
    return this.#text;
  }

  get json(): unknown {
    if (!this.#jsonKnown) {
      this.#jsonKnown = true;
      this.#json = parseBody(this.body, this.text);
    }
    return this.#json;
  }

  #flags(): number {
    return this.#place.view.getUint16(this.#start + 4, true);
  }

  #u32(field: number): number {
    return this.#place.view.getUint32(this.#start + field, true);
  }

  #slice(start: number, bytes: number): Buffer {
    return this.#place.bytes.subarray(start, start + bytes);
  }

  /** Without a view of its own: that costs as much as the text. */
  #textAt(start: number, bytes: number): string {
    return this.#place.bytes.toString("utf8", start, start + bytes);
  }

  #idBytes(): number {
    return this.#place.view.getUint16(this.#start + 6, true);
  }

  #idStart(): number {
    return this.#start + RECORD_HEADER_BYTES;
  }

  #keyStart(): number {
    return this.#idStart() + this.#idBytes();
  }

  #headersStart(): number {
    return this.#keyStart() + this.#u32(8);
  }

  #metaStart(): number {
    return this.#headersStart() + this.#u32(12);
  }

  #dedupeStart(): number {
    return this.#metaStart() + this.#u32(16);
  }

  #decodeMeta(): Meta {
    if (this.#meta === undefined) {
      const bytes = this.#u32(16);
      const text = this.#textAt(this.#metaStart(), bytes);
      this.#meta = bytes === 0 ? {} : (JSON.parse(text) as Meta);
    }
    return this.#meta;
  }

  #decodeHeaders(): readonly Header[] {
    const headers: Header[] = [];
    const end = this.#metaStart();
    let at = this.#headersStart();
    const { view } = this.#place;
    while (at < end) {
      const nameBytes = view.getUint16(at, true);
      const valueBytes = view.getUint32(at + 2, true);
      at += 6;
      const name = this.#textAt(at, nameBytes);
      at += nameBytes;
      const value = valueBytes === NULL_VALUE ? null : this.#slice(at, valueBytes);
      at += value?.length ?? 0;
      headers.push({ name, value });
    }
    assert(at === end, "a record's headers fill their place");
    return headers;
  }
}
