/** The metrics of bridges and sources: their names, and where their values stand. */
import type { BridgeStatus, SourceStatus } from "./status.ts";

/** Every bridge and every source that is defined, by name. */
export interface BridgeStatuses {
  readonly bridges: () => Iterable<readonly [string, BridgeStatus]>;
  readonly sources: () => Iterable<readonly [string, SourceStatus]>;
}

/** Name, help, and the value of one bridge. */
export const BRIDGE_GAUGES: readonly (readonly [
  string,
  string,
  (status: BridgeStatus) => number,
])[] = [
  [
    "isthmus_bridge_down",
    "1 while a bridge that is needed is not connected",
    ({ state }) => (state === "down" || state === "connecting" ? 1 : 0),
  ],
];

/** Name, help, and the value of one source. */
export const SOURCE_GAUGES: readonly (readonly [
  string,
  string,
  (status: SourceStatus) => number,
])[] = [
  [
    "isthmus_source_running",
    "1 while a source takes messages in",
    ({ state }) => (state === "running" ? 1 : 0),
  ],
  [
    "isthmus_source_standby",
    "1 while another gateway on the same database runs a source that one alone may run",
    ({ state }) => (state === "standby" ? 1 : 0),
  ],
  [
    "isthmus_source_gaps_total",
    "Times that messages went from a broker before they were read",
    ({ gaps }) => gaps,
  ],
];
