/**
 * The records of a route's stream of waiting messages. A message stands there as it was, and what
 * the route has to know of it beside that takes the place of its origin, which is kept within:
 *
 *     { bridge: "$wait", address: JSON { o offset, a appended at, r revision, l lane, f life,
 *       g origin, s schedule, n again, p [stream, partition] } }
 *
 * A note has no key and no such origin; its body is JSON: { f, o, s } a new schedule for the
 * message at offset `o`, or { f, d: [places of messages that are finished] }.
 */
import type { Offset } from "../log/log.ts";
import {
  decodeText,
  encodeText,
  type Header,
  type Message,
  type Origin,
  type Properties,
  type StoredMessage,
} from "../message.ts";
import type { Hold } from "./lanes.ts";
import type { Work } from "./work.ts";

const WAIT_ORIGIN = "$wait";
const NOTE_ID = "note";

/** What a route has to know of a message that waits. */
export interface WaitMeta {
  readonly offset: Offset;
  readonly appendedAtMs: number;
  readonly revision: number;
  readonly lane: string;
  readonly life: string;
  readonly origin: Origin | null;
  /** Of the first message of a lane; null: it only stands behind another one. */
  readonly schedule: Hold | null;
  /** By what an operator sends it again (`redrive …`, `replay …`); null: the route took it. */
  readonly again: string | null;
  /** Where it stood, when that is not the partition that the route reads. */
  readonly place: { readonly stream: string; readonly partition: number } | null;
}

/** What stands beside the messages. */
export type WaitNote =
  | { readonly life: string; readonly offset: Offset; readonly schedule: Hold }
  | { readonly life: string; readonly finished: readonly Offset[] };

interface SavedHold {
  /** Due; null: parked. */
  readonly d: number | null;
  readonly w: string;
  /** Attempts, failures, since. */
  readonly t?: readonly [number, number, number];
}

interface SavedMeta {
  readonly o: number;
  readonly a: number;
  readonly r: number;
  readonly l: string;
  readonly f: string;
  readonly g?: Origin;
  readonly s?: SavedHold;
  readonly n?: string;
  readonly p?: readonly [string, number];
}

interface SavedNote {
  readonly f: string;
  readonly o?: number;
  readonly s?: SavedHold;
  readonly d?: readonly number[];
}

/** The record of a message that begins to wait. */
export function waitingRecord(work: Work, life: string, schedule: Hold | null): Message {
  const { message } = work;
  const saved: SavedMeta = {
    o: message.offset,
    a: message.appendedAtMs,
    r: work.revision.revision,
    l: work.lane,
    f: life,
    ...(message.origin === null ? {} : { g: message.origin }),
    ...(schedule === null ? {} : { s: saveHold(schedule) }),
  };
  const { id, key, properties, headers, body, timestampMs } = message;
  const origin: Origin = {
    bridge: WAIT_ORIGIN,
    address: JSON.stringify(saved),
    partition: message.partition,
    offset: String(message.offset),
    hops: [],
  };
  return { id, key, properties, headers, body, timestampMs, origin };
}

/** The record of a message that is sent again; it is due at once. */
export function againRecord(
  message: StoredMessage,
  how: { readonly revision: number; readonly lane: string; readonly life: string },
  again: string,
): Message {
  const { id, key, properties, headers, body, timestampMs, stream, partition, offset } = message;
  const saved: SavedMeta = {
    o: offset,
    a: message.appendedAtMs,
    r: how.revision,
    l: how.lane,
    f: how.life,
    ...(message.origin === null ? {} : { g: message.origin }),
    s: { d: 0, w: again },
    n: again,
    p: [stream, partition],
  };
  const address = JSON.stringify(saved);
  const origin = { bridge: WAIT_ORIGIN, address, partition, offset: String(offset), hops: [] };
  return { id, key, properties, headers, body, timestampMs, origin };
}

/** The record of a note. */
export function noteRecord(note: WaitNote, timestampMs: number): Message {
  const saved: SavedNote =
    "finished" in note
      ? { f: note.life, d: note.finished }
      : { f: note.life, o: note.offset, s: saveHold(note.schedule) };
  return {
    id: NOTE_ID,
    key: null,
    properties: {},
    headers: [],
    body: encodeText(JSON.stringify(saved)),
    timestampMs,
    origin: null,
  };
}

/** What stands in a record. */
export function readWaitRecord(record: StoredMessage): WaitMeta | WaitNote {
  const { origin } = record;
  if (origin?.bridge !== WAIT_ORIGIN) return readNote(record);
  const saved = JSON.parse(origin.address) as SavedMeta;
  return {
    offset: saved.o,
    appendedAtMs: saved.a,
    revision: saved.r,
    lane: saved.l,
    life: saved.f,
    origin: saved.g ?? null,
    schedule: saved.s === undefined ? null : loadHold(saved.s),
    again: saved.n ?? null,
    place: saved.p === undefined ? null : { stream: saved.p[0], partition: saved.p[1] },
  };
}

function readNote(record: StoredMessage): WaitNote {
  const saved = JSON.parse(decodeText(record.body ?? new Uint8Array())) as SavedNote;
  if (saved.s === undefined) return { life: saved.f, finished: saved.d ?? [] };
  return { life: saved.f, offset: saved.o ?? 0, schedule: loadHold(saved.s) };
}

function saveHold({ dueMs, trouble, reason }: Hold): SavedHold {
  if (trouble === null) return { d: dueMs, w: reason };
  return { d: dueMs, w: reason, t: [trouble.attempts, trouble.failures, trouble.sinceMs] };
}

function loadHold({ d, w, t }: SavedHold): Hold {
  if (t === undefined) return { dueMs: d, reason: w, trouble: null };
  const [attempts, failures, sinceMs] = t;
  return { dueMs: d, reason: w, trouble: { attempts, failures, sinceMs } };
}

/** A message that waits, as it was read from its own stream the first time. */
export class WaitingMessage implements StoredMessage {
  readonly stream: string;
  readonly partition: number;
  readonly offset: number;
  readonly appendedAtMs: number;
  readonly origin: Origin | null;
  readonly #record: StoredMessage;

  constructor(record: StoredMessage, meta: WaitMeta, id: { stream: string; index: number }) {
    this.#record = record;
    this.stream = meta.place?.stream ?? id.stream;
    this.partition = meta.place?.partition ?? id.index;
    this.offset = meta.offset;
    this.appendedAtMs = meta.appendedAtMs;
    this.origin = meta.origin;
  }

  get id(): string {
    return this.#record.id;
  }

  get key(): Uint8Array | null {
    return this.#record.key;
  }

  get properties(): Properties {
    return this.#record.properties;
  }

  get headers(): readonly Header[] {
    return this.#record.headers;
  }

  get body(): Uint8Array | null {
    return this.#record.body;
  }

  get timestampMs(): number {
    return this.#record.timestampMs;
  }

  get text(): string | null {
    return this.#record.text;
  }

  get json(): unknown {
    return this.#record.json;
  }
}
