/** Calls of lanes: which messages of which lanes go out together. */
import type { Outcome } from "../bridge.ts";
import type { Hold } from "./lanes.ts";
import type { Work } from "./work.ts";

/** The messages of one key, oldest first. */
export interface Lane {
  readonly name: string;
  readonly queue: Work[];
  state: "ready" | "flying" | "resting";
  /** Since when it is ready, by a clock that never goes back. Milliseconds. */
  readyMs: number;
  /** What it would be held for while it rests. */
  hold: Hold | null;
}

/** The first messages of a lane, in one call. */
export interface Flight {
  readonly lane: Lane;
  readonly works: readonly Work[];
}

/** A message that was not sent, and why. */
export interface Failed {
  readonly work: Work;
  readonly outcome: Exclude<Outcome, { readonly sent: unknown }>;
}

/** What a call is to the gate of its target: a batch is one, whatever is in it. */
export function unitsOf(flights: readonly Flight[]): number {
  if (isBatch(flights)) return 1;
  return flights.reduce((count, { works }) => count + works.length, 0);
}

/** As much of a call as the gate lets through. */
export function fitting(flights: readonly Flight[], units: number): readonly Flight[] {
  if (isBatch(flights)) return flights;
  let room = units;
  const found: Flight[] = [];
  for (const { lane, works } of flights) {
    if (room <= 0) break;
    found.push({ lane, works: works.slice(0, room) });
    room -= works.length;
  }
  return found;
}

function isBatch(flights: readonly Flight[]): boolean {
  return flights[0]?.works[0]?.revision.target.document.batch !== undefined;
}
