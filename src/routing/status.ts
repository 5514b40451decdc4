/** What runs, told to people and programs: the shapes that the API, metrics and readiness show. */
import type { GateStatus } from "./gate.ts";
import type { RouteParts } from "./route-parts.ts";

/** How a bridge stands. `idle`: nothing uses it, so it is not connected. */
export interface BridgeStatus {
  readonly state: "connected" | "connecting" | "down" | "idle";
  /** The last failure in plain words; kept while down. */
  readonly error: string | null;
  readonly sinceMs: number;
}

/** How a source stands, and what it has taken in since the start of the process. */
export interface SourceStatus {
  /** `standby`: another gateway on the same definitions runs it, alone. */
  readonly state: "running" | "waiting" | "standby" | "stopped";
  readonly stream: string;
  readonly error: string | null;
  readonly messages: number;
  /** Times that messages went from the broker before they were read, and the last of them. */
  readonly gaps: number;
  readonly lastGap: string | null;
}

/** A source that does not run. */
export const stoppedSource: SourceStatus = {
  state: "stopped",
  stream: "",
  error: null,
  messages: 0,
  gaps: 0,
  lastGap: null,
};

/**
 * The ledger of one route, exact through restarts and crashes:
 * `taken = delivered + filtered + deadLettered + expired + waiting + parked`.
 */
export interface RouteCounts {
  readonly taken: number;
  readonly delivered: number;
  /** `where` said no, or could not be evaluated. */
  readonly filtered: number;
  /** Those of `filtered` where it could not be evaluated. */
  readonly failed: number;
  readonly deadLettered: number;
  /** Their time had passed before they could be sent. */
  readonly expired: number;
  /** Standing in the route's stream of waiting messages, to be tried again by themselves. */
  readonly waiting: number;
  /** Standing there until an operator releases their key. */
  readonly parked: number;
}

/** How a route (one rule, one target, one partition) stands. */
export interface RouteStatus {
  readonly rule: string;
  readonly target: string;
  readonly stream: string;
  readonly partition: number;
  readonly state: "running" | "retrying" | "blocked" | "paused" | "disabled";
  readonly revision: number;
  /** The next offset that it has not finished, and the partition's end. */
  readonly offset: number;
  readonly end: number;
  /** Messages that are not finished, waiting and parked ones included. */
  readonly lagMessages: number;
  /** The age of the message at `offset`; 0 when there is none. */
  readonly lagMs: number;
  /** The age of the oldest message not sent, waiting and parked ones included; 0: none. */
  readonly oldestMs: number;
  /** Keys whose messages wait for a time, and keys that wait for an operator. */
  readonly waitingKeys: number;
  readonly parkedKeys: number;
  /** Whether the ledger's sum is right; false is a bug of ours, or damage to the log. */
  readonly balanced: boolean;
  /** Attempts at the message at `offset`, and what the last one said. */
  readonly attempts: number;
  readonly error: string | null;
  readonly counts: RouteCounts;
  /** How the target stands, for all partitions together. */
  readonly circuit: GateStatus;
  /** What sent messages have lost, field → how often, since the process started. */
  readonly losses: Readonly<Record<string, number>>;
}

/** Whether traffic may come, and every reason why not. */
export interface Readiness {
  readonly ready: boolean;
  readonly reasons: readonly { readonly code: string; readonly detail: string }[];
  /** What an operator should look at while traffic goes on. */
  readonly warnings: readonly { readonly code: string; readonly detail: string }[];
}

/** A key of a route that waits for an operator. */
export interface ParkedKey {
  /** What `release` is given. */
  readonly lane: string;
  readonly messages: number;
  readonly sinceMs: number;
  readonly reason: string;
}

/** What a route's delivery tells of itself. */
export interface RouteState
  extends Pick<RouteStatus, "error" | "waitingKeys" | "parkedKeys" | "balanced" | "losses">,
    Pick<RouteCounts, "waiting" | "parked"> {
  readonly state: "running" | "retrying" | "blocked";
  /** When the oldest of the waiting messages was appended; 0: none waits. */
  readonly oldestWaitingMs: number;
}

/** How a route stands. */
export function statusOf(
  parts: Pick<RouteParts, "progress" | "partition" | "ruleName" | "targetName" | "clock" | "gate">,
  route: RouteState & { readonly isDisabled: boolean },
): RouteStatus {
  const { progress, partition, ruleName, targetName, clock } = parts;
  const circuit = parts.gate.status;
  const { window } = progress;
  const { error, waiting, parked, waitingKeys, parkedKeys, balanced, losses } = route;
  const nowMs = clock.nowMs();
  const ageMs = (sinceMs: number): number => (sinceMs > 0 ? Math.max(0, nowMs - sinceMs) : 0);
  const lagMs = progress.next < partition.offsetEnd ? ageMs(window.oldestMs) : 0;
  return {
    rule: ruleName,
    target: targetName,
    stream: partition.id.stream,
    partition: partition.id.index,
    state: stateOf(route, circuit, progress),
    revision: progress.revision,
    offset: progress.next,
    end: partition.offsetEnd,
    lagMessages: partition.offsetEnd - progress.next - window.doneCount + waiting + parked,
    lagMs,
    oldestMs: Math.max(lagMs, ageMs(route.oldestWaitingMs)),
    waitingKeys,
    parkedKeys,
    balanced,
    attempts: progress.trouble(progress.next)?.attempts ?? 0,
    error: circuitError(circuit) ?? error,
    counts: { ...progress.counts, waiting, parked },
    circuit,
    losses,
  };
}

function stateOf(
  { state, isDisabled }: Pick<RouteState, "state"> & { readonly isDisabled: boolean },
  circuit: GateStatus,
  { isPaused }: { readonly isPaused: boolean },
): RouteStatus["state"] {
  if (isDisabled || circuit.state === "disabled") return "disabled";
  if (isPaused) return "paused";
  return state === "running" && circuit.state !== "closed" ? "retrying" : state;
}

/** What a target that is not asked has said. */
function circuitError({ state, reason }: GateStatus): string | null {
  if (state === "closed" || reason === null) return null;
  return state === "disabled" ? reason : `the target is left alone for a while: ${reason}`;
}

/** A warning for each route whose ledger does not balance. */
export function readinessOf(of: {
  readonly isStopping: boolean;
  readonly isStarting: boolean;
  /** Why the definitions are not in effect. */
  readonly fault: string | null;
  readonly damages: readonly string[];
  /** Why definitions can't be changed. */
  readonly database: string | null;
  readonly routes: readonly RouteStatus[];
}): Readiness {
  const reasons = [
    ...(of.isStopping ? [{ code: "stopping", detail: "it is stopping" }] : []),
    ...(of.isStarting ? [{ code: "starting", detail: "it is starting" }] : []),
    ...(of.fault === null ? [] : [{ code: "definitions", detail: of.fault }]),
    ...of.damages.map((detail) => ({ code: "corrupt", detail })),
    ...(of.database === null ? [] : [{ code: "database-unavailable", detail: of.database }]),
  ];
  return { ready: reasons.length === 0, reasons, warnings: ledgerWarnings(of.routes) };
}

export function ledgerWarnings(routes: readonly RouteStatus[]): Readiness["warnings"] {
  return routes
    .filter(({ balanced }) => !balanced)
    .map(({ rule, target, stream, partition }) => ({
      code: "ledger",
      detail: `rule ${rule}, target ${target}, ${stream}/${partition}: the ledger does not balance`,
    }));
}
