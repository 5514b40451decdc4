/** The metrics of routes: which there are, what they are called, and where their values stand. */
import type { LossTally } from "./losses.ts";
import type { Finish } from "./progress.ts";
import type { RouteStatus } from "./status.ts";

/** What one rule's target has done. */
export interface RouteTally {
  readonly finished: Record<Finish, number>;
  retries: number;
  gaps: number;
  readonly losses: LossTally;
}

/** Name, help, and the value of one route on one partition. */
export const ROUTE_GAUGES: readonly (readonly [string, string, (status: RouteStatus) => number])[] =
  [
    [
      "isthmus_route_waiting_messages",
      "Messages put aside to be tried again at their time",
      ({ counts }) => counts.waiting,
    ],
    [
      "isthmus_route_parked_messages",
      "Messages put aside until an operator releases their key",
      ({ counts }) => counts.parked,
    ],
    ["isthmus_route_waiting_keys", "Keys with messages waiting", (status) => status.waitingKeys],
    ["isthmus_route_parked_keys", "Keys with messages parked", (status) => status.parkedKeys],
    [
      "isthmus_route_taken_messages",
      "Messages taken since the route was made",
      ({ counts }) => counts.taken,
    ],
    [
      "isthmus_route_unbalanced",
      "Partitions of a route whose ledger does not balance: 0 is right",
      ({ balanced }) => (balanced ? 0 : 1),
    ],
  ];

/** Name, help, and the value of one target. */
export const ROUTE_COUNTERS: readonly (readonly [string, string, (tally: RouteTally) => number])[] =
  [
    ["isthmus_route_retries_total", "Times that a route tried again", (tally) => tally.retries],
    ["isthmus_route_gaps_total", "Gaps that a route met in its stream", (tally) => tally.gaps],
    [
      "isthmus_dlq_total",
      "Messages put in dead-letter streams",
      (tally) => tally.finished.deadLettered,
    ],
  ];

type RouteLabels = { readonly rule: string; readonly target: string };

/** For each target how far its worst partition lags. Milliseconds. */
export function worstLags(routes: readonly RouteStatus[]): Iterable<[RouteLabels, number]> {
  const worst = new Map<string, [RouteLabels, number]>();
  for (const { rule, target, lagMs } of routes) {
    const key = `${rule}\n${target}`;
    const known = worst.get(key);
    if (known === undefined || known[1] < lagMs) worst.set(key, [{ rule, target }, lagMs]);
  }
  return worst.values();
}
