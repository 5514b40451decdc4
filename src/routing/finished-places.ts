/**
 * Which places of a route's stream of waiting messages are finished, between the first one that is
 * needed and the end: a few stand in the state record, the rest in notes of the stream itself.
 */
import { waitFinishesMax, waitFinishesNoted } from "../limits.ts";
import type { Offset } from "../log/log.ts";
import type { WaitMark } from "./progress.ts";

/** The finished places of one stream of waiting messages. */
export class FinishedPlaces {
  /** That no note names yet, in the order in which they finished. */
  #places: Offset[];
  #noted: Offset;
  #end: Offset;
  #isNoting = false;

  constructor(end: Offset, before: { readonly places: readonly Offset[]; readonly noted: Offset }) {
    this.#places = [...before.places];
    this.#noted = before.noted;
    this.#end = end;
  }

  /** Behind everything that is known of the stream. */
  get end(): Offset {
    return this.#end;
  }

  /** Whether there is room for as many more as are in memory to be sent. */
  get hasRoom(): boolean {
    return this.#places.length < waitFinishesMax;
  }

  add(place: Offset): void {
    this.#places.push(place);
  }

  /** Something stands at a place. */
  see(place: Offset): void {
    this.#end = Math.max(this.#end, place + 1);
  }

  /** The places that a note is due for; null: none is due, or one is on its way. */
  toNote(next: Offset): readonly Offset[] | null {
    if (this.#isNoting || this.#places.length < waitFinishesNoted) return null;
    this.#places = this.#places.filter((place) => place >= next);
    if (this.#places.length < waitFinishesNoted) return null;
    this.#isNoting = true;
    return [...this.#places];
  }

  /** The note of these stands durably at a place. */
  wereNoted(places: readonly Offset[], at: Offset): void {
    const named = new Set(places);
    this.see(at);
    this.#isNoting = false;
    this.#noted = at + 1;
    this.#places = this.#places.filter((place) => !named.has(place));
  }

  /** What the state record says; null while the stream is empty. */
  mark(next: Offset, epoch: string): WaitMark | null {
    if (this.#end === 0) return null;
    this.#places = this.#places.filter((place) => place >= next);
    const finished = this.#places.map((place) => place - next);
    const noted = Math.max(this.#noted, next);
    return { epoch, next, noted, end: this.#end, finished };
  }
}
