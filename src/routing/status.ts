/** What runs, told to people and programs: the shapes that the API, metrics and readiness show. */

/** How a bridge stands. `idle`: nothing uses it, so it is not connected. */
export interface BridgeStatus {
  readonly state: "connected" | "connecting" | "down" | "idle";
  /** The last failure in plain words; kept while down. */
  readonly error: string | null;
  readonly sinceMs: number;
}

/** How a source stands, and what it has taken in since the start of the process. */
export interface SourceStatus {
  readonly state: "running" | "waiting" | "stopped";
  readonly stream: string;
  readonly error: string | null;
  readonly messages: number;
}

/** Counts of one route, kept through restarts. */
export interface RouteCounts {
  /** Everything the route has decided on: the sum of the other four. */
  readonly taken: number;
  readonly delivered: number;
  /** `where` said no. */
  readonly filtered: number;
  /** `where` could not be evaluated; these did not match. */
  readonly failed: number;
  readonly deadLettered: number;
}

/** How a route (one rule, one target, one partition) stands. */
export interface RouteStatus {
  readonly rule: string;
  readonly target: string;
  readonly stream: string;
  readonly partition: number;
  readonly state: "running" | "retrying" | "blocked" | "disabled";
  readonly revision: number;
  /** The next offset that it has not finished, and the partition's end. */
  readonly offset: number;
  readonly end: number;
  /** The age of the oldest message that it has not finished; 0 when there is none. */
  readonly lagMs: number;
  /** Attempts at the message at `offset`, and what the last one said. */
  readonly attempts: number;
  readonly error: string | null;
  readonly counts: RouteCounts;
}

/** Whether traffic may come, and every reason why not. */
export interface Readiness {
  readonly ready: boolean;
  readonly reasons: readonly { readonly code: string; readonly detail: string }[];
}
