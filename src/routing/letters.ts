/**
 * The dead letters of one rule, as an operator works on them: what each says, what became of it,
 * and the message as it was before it was given up. Letters are never changed; that one was sent
 * again or dropped stands in state records of its own, two bits a letter.
 */
import { GapError, InvalidError, StorageError } from "../errors.ts";
import { lettersPerRecord, routeBatchBytes } from "../limits.ts";
import type { Batch, Offset, Partition, States } from "../log/log.ts";
import type { Stream } from "../log/stream.ts";
import {
  decodeText,
  encodeText,
  type Header,
  type Message,
  type Origin,
  type StoredMessage,
} from "../message.ts";
import { readable } from "../rules/readable.ts";
import { DEAD_LETTER_HEADERS } from "./deadletter.ts";

/** What became of a dead letter. */
export type LetterState = "pending" | "redriven" | "dropped";

/** What a dead letter says of itself. */
export interface Letter {
  readonly rule: string | null;
  /** Null: a source's, which no route has failed at. */
  readonly target: string | null;
  readonly revision: number | null;
  readonly attempts: number;
  readonly reason: string;
  /** Where the message stood: `stream/partition/offset`. */
  readonly position: string | null;
  /** As it was before it was given up, its own headers and body. */
  readonly message: StoredMessage;
}

const NAMES: ReadonlySet<string> = new Set(Object.values(DEAD_LETTER_HEADERS));
const POSITION = /^(.+)\/(\d{1,9})\/(\d{1,15})$/;

/** Reads a dead letter. */
export function letterOf(stored: StoredMessage): Letter {
  const said = new Map<string, string>();
  const own = ownHeaders(stored.headers, said);
  const names = DEAD_LETTER_HEADERS;
  const position = said.get(names.position) ?? null;
  const place = POSITION.exec(position ?? "");
  const timestampMs = Number(said.get(names.timestamp) ?? stored.timestampMs);
  const { id, key, properties, body } = stored;
  const before = said.get(names.origin);
  const origin = before === undefined ? null : (JSON.parse(before) as Origin);
  const revision = said.get(names.revision);
  return {
    rule: said.get(names.rule) ?? null,
    target: said.get(names.target) ?? null,
    revision: revision === undefined ? null : Number(revision),
    attempts: Number(said.get(names.attempts) ?? 0),
    reason: said.get(names.reason) ?? "",
    position,
    message: placed(
      { id, key, properties, headers: own, body, timestampMs, origin },
      {
        stream: place?.[1] ?? stored.stream,
        partition: Number(place?.[2] ?? stored.partition),
        offset: Number(place?.[3] ?? stored.offset),
        appendedAtMs: timestampMs,
      },
    ),
  };
}

/** A message as if it were read from a place. */
export function placed(
  message: Message,
  place: Pick<StoredMessage, "stream" | "partition" | "offset" | "appendedAtMs">,
): StoredMessage {
  const { stream, partition, offset, appendedAtMs } = place;
  return Object.assign(readable(message), { stream, partition, offset, appendedAtMs });
}

/** The message's own headers: ours are the last ones, each name once. */
function ownHeaders(headers: readonly Header[], said: Map<string, string>): readonly Header[] {
  let end = headers.length;
  for (; end > 0; end--) {
    const header = headers[end - 1];
    if (header === undefined || !NAMES.has(header.name) || said.has(header.name)) break;
    said.set(header.name, decodeText(header.value ?? new Uint8Array()));
  }
  return headers.slice(0, end);
}

interface SavedMarks {
  readonly epoch: string;
  readonly redriven: string;
  readonly dropped: string;
}

interface Marks {
  readonly redriven: Uint8Array;
  readonly dropped: Uint8Array;
}

/** Which letters of a stream were sent again or dropped. */
export class LetterMarks {
  readonly #states: States;
  readonly #stream: Stream;
  readonly #known = new Map<string, Marks>();

  constructor(states: States, stream: Stream) {
    this.#states = states;
    this.#stream = stream;
  }

  /** What became of a letter. @throws StorageError the records can't be read now. */
  async stateOf(place: { readonly partition: number; readonly offset: Offset }) {
    const marks = await this.#load(this.#keyOf(place), place.partition);
    const bit = place.offset % lettersPerRecord;
    if (hasBit(marks.dropped, bit)) return "dropped" satisfies LetterState;
    return hasBit(marks.redriven, bit) ? "redriven" : "pending";
  }

  /** The records that say what became of letters: save them, together with what else changes. */
  async mark(
    places: readonly { readonly partition: number; readonly offset: Offset }[],
    state: Exclude<LetterState, "pending">,
  ): Promise<readonly (readonly [string, Uint8Array])[]> {
    const touched = new Map<string, readonly [string, Marks]>();
    for (const place of places) {
      const key = this.#keyOf(place);
      const marks = await this.#load(key, place.partition);
      const bits = marks[state];
      const bit = place.offset % lettersPerRecord;
      bits[bit >> 3] = (bits[bit >> 3] ?? 0) | (1 << (bit & 7));
      touched.set(key, [this.#epoch(place.partition), marks]);
    }
    return [...touched].map(([key, [epoch, marks]]) => [key, encodeMarks(epoch, marks)]);
  }

  #keyOf({ partition, offset }: { partition: number; offset: Offset }): string {
    const { name } = this.#stream;
    return `letters/${name}/${partition}/${Math.floor(offset / lettersPerRecord)}`;
  }

  #epoch(partition: number): string {
    return this.#stream.partitions[partition]?.epoch ?? "";
  }

  async #load(key: string, partition: number): Promise<Marks> {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const bytes = await this.#states.load(key);
    const loaded = this.#known.get(key);
    if (loaded !== undefined) return loaded;
    const marks = decodeMarks(bytes, this.#epoch(partition));
    this.#known.set(key, marks);
    return marks;
  }
}

function decodeMarks(bytes: Uint8Array | null, epoch: string): Marks {
  const empty = (): Uint8Array => new Uint8Array(lettersPerRecord / 8);
  const saved = bytes === null ? null : (JSON.parse(decodeText(bytes)) as SavedMarks);
  // Offsets of another life of the stream are other letters.
  if (saved?.epoch !== epoch) return { redriven: empty(), dropped: empty() };
  const bits = (text: string): Uint8Array => {
    const all = empty();
    all.set(Buffer.from(text, "base64").subarray(0, all.length));
    return all;
  };
  return { redriven: bits(saved.redriven), dropped: bits(saved.dropped) };
}

function encodeMarks(epoch: string, marks: Marks): Uint8Array {
  const text = (bits: Uint8Array): string => Buffer.from(bits).toString("base64");
  const saved: SavedMarks = { epoch, redriven: text(marks.redriven), dropped: text(marks.dropped) };
  return encodeText(JSON.stringify(saved));
}

function hasBit(bits: Uint8Array, bit: number): boolean {
  return ((bits[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0;
}

/** Part of a stream, by partition: from here, up to there (exclusive). */
export interface Span {
  readonly epoch: string;
  next: Offset;
  readonly end: Offset;
}

/** For reads that nobody aborts: they never wait, for they end below the partition's end. */
const NEVER = new AbortController().signal;

/**
 * The next messages of a span, which moves on; none: it is at its end. Messages that are gone are
 * passed over. @throws StorageError the log can't be read now.
 */
export async function readSpan(
  stream: Stream,
  spans: readonly Span[],
  messagesMax: number,
): Promise<readonly StoredMessage[]> {
  for (const [index, span] of spans.entries()) {
    const partition = stream.partitions[index];
    while (partition !== undefined && partition.epoch === span.epoch && span.next < span.end) {
      const { messages, next } = await readOver(partition, span.next, messagesMax);
      const within = messages.filter(({ offset }) => offset < span.end);
      span.next = Math.min(next, span.end);
      if (within.length > 0) return within;
    }
  }
  return [];
}

async function readOver(partition: Partition, from: Offset, messagesMax: number): Promise<Batch> {
  try {
    const limits = { messagesMax, bytesMax: routeBatchBytes, signal: NEVER };
    const batch = await partition.read(from, limits);
    if (batch === null) throw new StorageError("the log is closed");
    return batch;
  } catch (error) {
    if (!(error instanceof GapError)) throw error;
    return { messages: [], next: error.to };
  }
}

/** One letter's place, `PARTITION/OFFSET` or an offset of partition 0. @throws InvalidError */
export function placeOf(text: string): { readonly partition: number; readonly offset: Offset } {
  const match = /^(?:(\d{1,9})\/)?(\d{1,15})$/.exec(text);
  const detail = `${JSON.stringify(text.slice(0, 60))} is not PARTITION/OFFSET, such as 0/17`;
  if (match === null) throw new InvalidError(detail, [{ pointer: "/place", detail }]);
  return { partition: Number(match[1] ?? 0), offset: Number(match[2]) };
}
