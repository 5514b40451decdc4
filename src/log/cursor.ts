/**
 * Cursors: one opaque string that covers all partitions of a stream. It holds, for each, the
 * epoch's first four bytes and the next offset to read, and a checksum. The same string works in
 * HTTP reads, Server-Sent Events, WebSocket and on the command line.
 *
 *     u8 version 1 · u16 count · count × { u32 epoch, u48 offset } · u32 CRC-32, base64url
 */
import { InvalidError } from "../errors.ts";
import type { Offset } from "./log.ts";
import type { Stream } from "./stream.ts";

/** The next offset to read of one partition. */
export interface CursorPlace {
  readonly epoch: number;
  readonly offset: Offset;
}

/** Places by partition index. */
export type Cursor = readonly CursorPlace[];

const VERSION = 1;
const HEADER_BYTES = 3;
const PLACE_BYTES = 10;

/** The part of an epoch that stands in cursors. */
export function shortEpoch(epoch: string): number {
  return Number.parseInt(epoch.slice(0, 8), 16);
}

/** A cursor as text. */
export function encodeCursor(cursor: Cursor): string {
  const length = HEADER_BYTES + cursor.length * PLACE_BYTES;
  const bytes = Buffer.allocUnsafe(length + 4);
  bytes.writeUInt8(VERSION, 0);
  bytes.writeUInt16BE(cursor.length, 1);
  let at = HEADER_BYTES;
  for (const { epoch, offset } of cursor) {
    bytes.writeUInt32BE(epoch, at);
    bytes.writeUIntBE(offset, at + 4, 6);
    at += PLACE_BYTES;
  }
  bytes.writeUInt32BE(Bun.hash.crc32(bytes.subarray(0, length)), length);
  return bytes.toString("base64url");
}

/** Reads a cursor's text; null when it isn't one. */
export function decodeCursor(text: string): Cursor | null {
  if (!/^[A-Za-z0-9_-]{9,20000}$/.test(text)) return null;
  const bytes = Buffer.from(text, "base64url");
  const length = bytes.length - 4;
  if (length < HEADER_BYTES || bytes.readUInt8(0) !== VERSION) return null;
  if (length !== HEADER_BYTES + bytes.readUInt16BE(1) * PLACE_BYTES) return null;
  if (bytes.readUInt32BE(length) !== Bun.hash.crc32(bytes.subarray(0, length))) return null;
  const cursor: CursorPlace[] = [];
  for (let at = HEADER_BYTES; at < length; at += PLACE_BYTES) {
    cursor.push({ epoch: bytes.readUInt32BE(at), offset: bytes.readUIntBE(at + 4, 6) });
  }
  return cursor;
}

/** The cursor of offsets given for each partition of a stream. */
export function cursorAt(stream: Stream, offset: (index: number) => Offset): Cursor {
  return stream.partitions.map((partition, index) => ({
    epoch: shortEpoch(partition.epoch),
    offset: offset(index),
  }));
}

/** From now on. */
export function latestCursor(stream: Stream): Cursor {
  return cursorAt(stream, (index) => stream.partitions[index]?.offsetEnd ?? 0);
}

/** From the oldest kept. */
export function earliestCursor(stream: Stream): Cursor {
  return cursorAt(stream, (index) => stream.partitions[index]?.offsetStart ?? 0);
}

/** From a time on, by our own time of the append. */
export async function timeCursor(stream: Stream, timestampMs: number): Promise<Cursor> {
  const offsets = await Promise.all(
    stream.partitions.map((partition) => partition.offsetAt(timestampMs)),
  );
  return cursorAt(stream, (index) => offsets[index] ?? 0);
}

/** Reads a cursor that has to fit a stream. @throws InvalidError */
export function parseCursor(text: string, stream: Stream): Cursor {
  const cursor = decodeCursor(text);
  if (cursor === null) {
    throw new InvalidError(`"${text.slice(0, 60)}" is not a cursor`, [
      { pointer: "/from", detail: "give earliest, latest, an offset, a time or a cursor" },
    ]);
  }
  if (cursor.length > stream.partitions.length) {
    throw new InvalidError(`this cursor belongs to a stream of ${cursor.length} partitions`, [
      { pointer: "/from", detail: `${stream.name} has ${stream.partitions.length}` },
    ]);
  }
  return cursor;
}
