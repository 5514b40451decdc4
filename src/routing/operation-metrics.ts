/** The metrics of jobs that send again, of journeys, and of how old the oldest unsent message is. */
import type { Operations } from "./operations.ts";
import type { RouteStatus } from "./status.ts";

/** One metric, whose values are asked for when the metrics are read; equal labels add up. */
export interface AskedMetric {
  readonly type: "counter" | "gauge";
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
  readonly read: (add: (labels: Record<string, string>, value: number) => void) => void;
}

const STATES = ["running", "done", "failed", "cancelled"] as const;
const KINDS = ["replay", "redrive"] as const;

/** The metrics of one gateway. */
export function operationMetrics(
  { jobs, journeys }: Operations,
  routes: () => readonly RouteStatus[],
): readonly AskedMetric[] {
  return [
    {
      type: "gauge",
      name: "isthmus_jobs",
      help: "Jobs that send again and are kept, by kind and state",
      labels: ["kind", "state"],
      read: (add) => {
        for (const kind of KINDS) for (const state of STATES) add({ kind, state }, 0);
        for (const { wanted, state } of jobs.list()) add({ kind: wanted.kind, state }, 1);
      },
    },
    {
      type: "gauge",
      name: "isthmus_job_messages",
      help: "Messages of the jobs that are kept, by kind and what became of them",
      labels: ["kind", "outcome"],
      read: (add) => {
        for (const { wanted, counts } of jobs.list()) {
          for (const outcome of ["sent", "skipped", "filtered", "failed"] as const) {
            add({ kind: wanted.kind, outcome }, counts[outcome]);
          }
        }
      },
    },
    {
      type: "counter",
      name: "isthmus_journey_dropped_total",
      help: "Notes of deliveries that could not be kept",
      labels: [],
      read: (add) => add({}, journeys.dropped),
    },
    {
      type: "gauge",
      name: "isthmus_route_oldest_seconds",
      help: "Age of the oldest message not sent, waiting and parked ones included",
      labels: ["rule", "target"],
      read: (add) => {
        const worst = Map.groupBy(routes(), ({ rule, target }) => `${rule}\n${target}`);
        for (const own of worst.values()) {
          const [first] = own;
          if (first === undefined) continue;
          const { rule, target } = first;
          add({ rule, target }, Math.max(...own.map(({ oldestMs }) => oldestMs)) / 1000);
        }
      },
    },
  ];
}
