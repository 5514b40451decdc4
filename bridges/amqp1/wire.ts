/**
 * Values of AMQP 1.0's type system, in the one form that this bridge writes: short encodings where
 * they fit. Reading is the client library's; what is read keeps its own bytes (see `sections.ts`).
 * A value here is the encoded bytes, constructor included.
 */

/** An encoded value. */
export type Encoded = Uint8Array;

const NULL = Uint8Array.of(0x40);
const TRUE = Uint8Array.of(0x41);
const FALSE = Uint8Array.of(0x42);
/** Lengths up to this take one byte. */
const SHORT_MAX = 255;
const UINT_BYTES = 4;

export function encodeNull(): Encoded {
  return NULL;
}

export function encodeBoolean(value: boolean): Encoded {
  return value ? TRUE : FALSE;
}

export function encodeByte(value: number): Encoded {
  return Uint8Array.of(0x51, value & 0xff);
}

export function encodeUbyte(value: number): Encoded {
  return Uint8Array.of(0x50, value);
}

export function encodeUint(value: number): Encoded {
  if (value === 0) return Uint8Array.of(0x43);
  if (value <= SHORT_MAX) return Uint8Array.of(0x52, value);
  const bytes = Buffer.alloc(1 + UINT_BYTES);
  bytes.writeUInt32BE(value, bytes.writeUInt8(0x70, 0));
  return bytes;
}

/** Unix milliseconds. */
export function encodeTimestamp(ms: number): Encoded {
  const bytes = Buffer.alloc(9);
  bytes.writeBigInt64BE(BigInt(Math.trunc(ms)), bytes.writeUInt8(0x83, 0));
  return bytes;
}

export function encodeBinary(bytes: Uint8Array): Encoded {
  return sized({ short: 0xa0, long: 0xb0 }, bytes);
}

export function encodeString(text: string): Encoded {
  return sized({ short: 0xa1, long: 0xb1 }, Buffer.from(text));
}

/** The text must be ASCII. */
export function encodeSymbol(text: string): Encoded {
  return sized({ short: 0xa3, long: 0xb3 }, Buffer.from(text, "latin1"));
}

export function encodeList(items: readonly Encoded[]): Encoded {
  return items.length === 0 ? Uint8Array.of(0x45) : compound({ short: 0xc0, long: 0xd0 }, items);
}

/** Keys and values in turn. */
export function encodeMap(items: readonly Encoded[]): Encoded {
  return compound({ short: 0xc1, long: 0xd1 }, items);
}

/** A value described by a code under 256: each of the message's sections is one. */
export function encodeDescribed(code: number, value: Encoded): Encoded {
  return Buffer.concat([Uint8Array.of(0x00, 0x53, code), value]);
}

interface Codes {
  readonly short: number;
  readonly long: number;
}

function sized(codes: Codes, bytes: Uint8Array): Encoded {
  return Buffer.concat([sizes(codes, [bytes.byteLength]), bytes]);
}

function compound(codes: Codes, items: readonly Encoded[]): Encoded {
  const bytes = Buffer.concat(items);
  // The count is part of the size.
  const short = bytes.byteLength < SHORT_MAX && items.length <= SHORT_MAX;
  const size = bytes.byteLength + (short ? 1 : UINT_BYTES);
  const prefix = short ? [codes.short, size, items.length] : null;
  return Buffer.concat([
    prefix === null ? wide(codes.long, [size, items.length]) : Uint8Array.from(prefix),
    bytes,
  ]);
}

function sizes(codes: Codes, lengths: readonly [number]): Uint8Array {
  const [length] = lengths;
  return length <= SHORT_MAX ? Uint8Array.of(codes.short, length) : wide(codes.long, lengths);
}

function wide(code: number, numbers: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(1 + UINT_BYTES * numbers.length);
  let at = bytes.writeUInt8(code, 0);
  for (const number of numbers) at = bytes.writeUInt32BE(number, at);
  return bytes;
}
