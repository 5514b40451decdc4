/**
 * Reads a part of a stream for a client: from a cursor on, at most as far as an end that was fixed
 * when the read began, and only what the client's filter lets through.
 */
import type { BodyForm } from "./message-json.ts";
import type { Cursor } from "../log/cursor.ts";
import { type StreamBatch, StreamReader } from "../log/stream-reader.ts";
import type { Stream } from "../log/stream.ts";
import { InvalidError } from "../errors.ts";
import { encodeText, type StoredMessage } from "../message.ts";
import { compileExpression, type Expression } from "../rules/expression.ts";
import { isWithin, type Reach } from "../rules/store/roles.ts";

/** Which messages a client wants, and how it wants them shown. */
export class Selection {
  readonly key: string | null;
  readonly form: BodyForm;
  readonly #where: Expression | null;
  readonly #keyBytes: Uint8Array | null;
  /** What the caller may read at all. */
  #reach: Reach;

  /** @throws InvalidError `where` does not compile (line and column), or `as` is unknown. */
  constructor(
    wanted: {
      readonly key: string | null;
      readonly where: string | null;
      readonly as: string | null;
    },
    reach: NonNullable<Reach>,
  ) {
    const { key, where, as } = wanted;
    if (as !== null && as !== "json") {
      throw new InvalidError('as: expected "json"', [
        { pointer: "/as", detail: 'expected "json"' },
      ]);
    }
    this.key = key;
    this.#reach = reach;
    this.form = as === "json" ? "json" : "bytes";
    this.#where = where === null ? null : compileWhere(where);
    this.#keyBytes = key === null ? null : encodeText(key);
  }

  /** The one key that is wanted, as bytes; null: any. */
  get keyBytes(): Uint8Array | null {
    return this.#keyBytes;
  }

  /** Whether anything may be left out. */
  get isPartial(): boolean {
    return this.#where !== null || this.#keyBytes !== null || this.#reach !== "all";
  }

  /** From here on the caller may read this much, which may be nothing. */
  restrict(reach: Reach): void {
    this.#reach = reach;
  }

  /** Whether the client gets this message; a `where` that fails says no. */
  takes(message: StoredMessage): boolean {
    if (this.#keyBytes !== null) {
      const { key } = message;
      if (key === null || Buffer.compare(key, this.#keyBytes) !== 0) return false;
    }
    if (this.#reach !== "all" && !isWithin(this.#reach, message)) return false;
    return this.#where === null || this.#where.test(message) === "yes";
  }
}

function compileWhere(source: string): Expression {
  try {
    return compileExpression(source);
  } catch (error) {
    if (!(error instanceof InvalidError)) throw error;
    const errors = error.errors.map((detail) => ({
      ...detail,
      pointer: `/where${detail.pointer}`,
    }));
    throw new InvalidError(`where: ${error.message}`, errors, { cause: error });
  }
}

/** How a range is stepped through. */
export interface StepOptions {
  readonly messagesMax: number;
  readonly bytesMax: number;
  /** Wait at the stream's end; a range with an end never waits. */
  readonly wait: boolean;
  readonly signal: AbortSignal;
}

/** A part of a stream. One caller at a time. */
export interface Range {
  /** The next messages of one partition; null at the end, or when aborted. */
  next(options: StepOptions): Promise<StreamBatch | null>;
  readonly cursor: Cursor;
  readonly atEnd: boolean;
}

/** What a range covers; messages of other keys than the selection's may be left out. */
export interface RangeBounds {
  readonly only: number | null;
  readonly end: Cursor | null;
  readonly selection?: Selection;
}

/** The range from a cursor on; `end` bounds it, null leaves it open. */
export function openRange(stream: Stream, from: Cursor, bounds: RangeBounds): Range {
  const { only, end, selection } = bounds;
  const key = selection?.keyBytes ?? null;
  if (end === null) return new StreamReader(stream, from, { only, key });
  return new BoundedRange(stream, from, { only, end, key });
}

interface Part {
  readonly index: number;
  readonly reader: StreamReader;
  readonly end: number;
}

/** Partition by partition as far as an end that does not move. */
class BoundedRange implements Range {
  readonly #from: Cursor;
  readonly #parts: readonly Part[];

  constructor(
    stream: Stream,
    from: Cursor,
    range: { only: number | null; end: Cursor; key: Uint8Array | null },
  ) {
    this.#from = from;
    const { key } = range;
    const indexes = range.only === null ? [...stream.partitions.keys()] : [range.only];
    this.#parts = indexes.map((index) => {
      const here = stream.partitions[index]?.offsetEnd ?? 0;
      const end = Math.min(range.end[index]?.offset ?? here, here);
      return { index, reader: new StreamReader(stream, from, { only: index, key }), end };
    });
  }

  get cursor(): Cursor {
    const places = [...this.#from];
    for (const part of this.#parts) {
      const place = part.reader.cursor[part.index];
      if (place === undefined) continue;
      const { epoch } = place;
      const began = this.#from[part.index]?.offset ?? 0;
      places[part.index] = { epoch, offset: Math.max(began, Math.min(place.offset, part.end)) };
    }
    return places;
  }

  get atEnd(): boolean {
    return this.#parts.every((part) => leftIn(part) <= 0);
  }

  async next(options: StepOptions): Promise<StreamBatch | null> {
    const part = this.#parts.find((each) => leftIn(each) > 0);
    if (part === undefined) return null;
    const messagesMax = Math.min(options.messagesMax, leftIn(part));
    const batch = await part.reader.next({ ...options, messagesMax, wait: false });
    if (batch === null) return null;
    // Offsets may have holes: as many messages as there are offsets can reach past the end.
    return { ...batch, messages: batch.messages.filter(({ offset }) => offset < part.end) };
  }
}

function leftIn({ reader, index, end }: Part): number {
  return end - (reader.cursor[index]?.offset ?? end);
}
