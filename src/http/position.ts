/**
 * Places in a stream as clients write them: `earliest`, `latest`, an offset, a time, `1h ago`, or
 * a cursor. And what is missing at a place: a gap is told at once, and reading begins behind it.
 */
import { InvalidError, OffsetError } from "../errors.ts";
import {
  type Cursor,
  cursorAt,
  earliestCursor,
  latestCursor,
  parseCursor,
  shortEpoch,
  timeCursor,
} from "../log/cursor.ts";
import type { Gap } from "../log/stream-reader.ts";
import type { Stream } from "../log/stream.ts";
import type { StoredMessage } from "../message.ts";
import { parseTimeMs } from "../rules/units.ts";

/** What a place is read against. */
export interface PlaceContext {
  readonly stream: Stream;
  /** The one partition that is read; null: all. */
  readonly partition: number | null;
  readonly nowMs: number;
  /** Of the place in the input, for errors: `from` or `to`. */
  readonly name: string;
}

const OFFSET = /^\d{1,15}$/;

/** A place as a cursor. @throws InvalidError, and OffsetError for an offset past the end. */
export async function placeCursor(text: string, context: PlaceContext): Promise<Cursor> {
  const { stream, nowMs, name } = context;
  if (text === "earliest") return earliestCursor(stream);
  if (text === "latest") return latestCursor(stream);
  if (OFFSET.test(text)) return offsetCursor(Number(text), context);
  const timeMs = parseTimeMs(text, nowMs);
  if (timeMs !== null) return await timeCursor(stream, timeMs);
  try {
    return parseCursor(text, stream);
  } catch (error) {
    if (!(error instanceof InvalidError)) throw error;
    const errors = error.errors.map(({ detail }) => ({ pointer: `/${name}`, detail }));
    throw new InvalidError(`${name}: ${error.message}`, errors, { cause: error });
  }
}

function offsetCursor(offset: number, context: PlaceContext): Cursor {
  const { stream, name } = context;
  const only = context.partition ?? (stream.partitions.length === 1 ? 0 : null);
  if (only === null) {
    const detail = `an offset needs ?partition=, for ${stream.name} has several partitions`;
    throw new InvalidError(`${name}: ${detail}`, [{ pointer: `/${name}`, detail }]);
  }
  const partition = stream.partitions[only];
  const latest = partition?.offsetEnd ?? 0;
  if (offset > latest && name === "from") {
    const earliest = partition?.offsetStart ?? 0;
    const message = `offset ${offset} is past the end of ${stream.name}/${only}, which is ${latest}`;
    throw new OffsetError(message, { earliest, latest });
  }
  return cursorAt(stream, (index) =>
    index === only ? offset : (stream.partitions[index]?.offsetStart ?? 0),
  );
}

/** A cursor with which reading can begin, and what was asked for and is not there any more. */
export function adjusted(
  stream: Stream,
  cursor: Cursor,
  only: number | null,
): { readonly cursor: Cursor; readonly gaps: readonly Gap[] } {
  const gaps: Gap[] = [];
  const places = stream.partitions.map((partition, index) => {
    const { offsetStart: to, offsetEnd } = partition;
    const epoch = shortEpoch(partition.epoch);
    const place = cursor[index];
    if (place === undefined) return { epoch, offset: to };
    const { offset: from } = place;
    const isOther = from > 0 && (place.epoch !== epoch || from > offsetEnd);
    const reason = isOther ? "epoch" : "retention";
    if (!isOther && from >= to) return { epoch, offset: from };
    if (only === null || only === index) gaps.push({ partition: index, from, to, reason });
    return { epoch, offset: to };
  });
  return { cursor: places, gaps };
}

/** The cursor at one message: `after` it, or `before` it, with all other partitions as given. */
export function cursorAtMessage(
  cursor: Cursor,
  message: Pick<StoredMessage, "partition" | "offset">,
  side: "before" | "after",
): Cursor {
  const offset = side === "after" ? message.offset + 1 : message.offset;
  return cursor.map((place, index) =>
    index === message.partition ? { epoch: place.epoch, offset } : place,
  );
}

/** A gap as clients see it. */
export function gapJson(gap: Gap): string {
  const { partition, from, to, reason } = gap;
  return JSON.stringify({ partition, from, to, reason });
}
