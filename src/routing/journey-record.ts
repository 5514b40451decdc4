/**
 * The records of `$journey`. What is confirmed in a row is one item: offsets that follow each
 * other, at one time, at the same place or at places that count up.
 *
 *     { r rule, t target, v revision, e event, g again, b time, m items }
 *     item of `sent`:  [offset, ms after b, place, more offsets, 1: the place counts up]
 *     of the others:   [offset, ms after b, detail, attempts, next try in ms]
 */
import type { Offset } from "../log/log.ts";

/** `dead`: it stands in the dead letters. */
export type JourneyEvent = "sent" | "failed" | "dead" | "expired";

/** What a note says of one message on one route. */
export interface JourneyNote {
  readonly rule: string;
  readonly target: string;
  readonly revision: number;
  readonly atMs: number;
  readonly event: JourneyEvent;
  /** Where it is in the target or in the dead letters; of a failure the reason. */
  readonly detail: string | null;
  /** Refusals so far; of failures only. */
  readonly attempts: number;
  /** When it was to be tried again after a failure, from then on; null: not by itself. */
  readonly delayMs: number | null;
  /** By what an operator sent it again. */
  readonly again: string | null;
}

/** One item of a record, as its header says. */
export type SavedItem = [
  offset: Offset,
  ms: number,
  detail?: string | null,
  count?: number,
  last?: number | null,
];

/** A record of notes. */
export interface SavedNotes {
  readonly r: string;
  readonly t: string;
  readonly v: number;
  readonly e: JourneyEvent;
  readonly g?: string;
  readonly b: number;
  readonly m: readonly SavedItem[];
}

const COUNTED = /^(.*\D)(\d{1,15})$/;

/** Confirmations in a row, which become one item. */
export class SentRun {
  readonly item: SavedItem;
  readonly #place: string | null;
  #prefix: string | null = null;
  #number = 0;
  #step: 0 | 1 | null = null;
  #more = 0;

  constructor(offset: Offset, ms: number, place: string | null) {
    this.item = place === null ? [offset, ms] : [offset, ms, place];
    this.#place = place;
  }

  /** Takes the next one in; false: it begins a run of its own. */
  take(offset: Offset, ms: number, place: string | null): boolean {
    const { item } = this;
    if (offset !== item[0] + this.#more + 1 || ms !== item[1]) return false;
    this.#step ??= this.#stepTo(place);
    const isNext =
      this.#step === 1
        ? place === `${this.#prefix}${this.#number + this.#more + 1}`
        : place === this.#place;
    if (!isNext) return false;
    this.#more++;
    item[2] = this.#place;
    item[3] = this.#more;
    if (this.#step === 1) item[4] = 1;
    return true;
  }

  /** The second one says whether places count up. */
  #stepTo(place: string | null): 0 | 1 {
    const match = place === this.#place ? null : COUNTED.exec(this.#place ?? "");
    if (match === null) return 0;
    this.#prefix = match[1] ?? "";
    this.#number = Number(match[2]);
    return 1;
  }
}

/** What a record says of one message. */
export function notesIn(text: string, offset: Offset): readonly JourneyNote[] {
  const { r: rule, t: target, v: revision, e: event, g, b, m } = JSON.parse(text) as SavedNotes;
  const how = { rule, target, revision, event, again: g ?? null };
  const notes: JourneyNote[] = [];
  for (const [first, ms, detail = null, count = 0, last = null] of m) {
    const at = { ...how, atMs: b + ms };
    if (event !== "sent") {
      if (first === offset) notes.push({ ...at, detail, attempts: count, delayMs: last });
    } else if (offset >= first && offset <= first + count) {
      const place = last === 1 ? countedUp(detail ?? "", offset - first) : detail;
      notes.push({ ...at, detail: place, attempts: 0, delayMs: null });
    }
  }
  return notes;
}

function countedUp(place: string, by: number): string {
  const match = COUNTED.exec(place);
  return match === null ? place : `${match[1]}${Number(match[2]) + by}`;
}
