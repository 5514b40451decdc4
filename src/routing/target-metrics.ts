/** The metrics of targets: whether they are asked, and how much passes their gates. */
import type { AskedMetric } from "./operation-metrics.ts";
import type { RouteStatus } from "./status.ts";

const LABELS = ["rule", "target"] as const;
const STATES = ["closed", "open", "probing", "disabled"] as const;

/** The metrics of all targets. */
export function targetMetrics(routes: () => readonly RouteStatus[]): readonly AskedMetric[] {
  const each = (
    read: (add: Parameters<AskedMetric["read"]>[0], status: RouteStatus) => void,
  ): AskedMetric["read"] => {
    return (add) => {
      for (const status of ofTargets(routes())) read(add, status);
    };
  };
  return [
    {
      type: "gauge",
      name: "isthmus_target_circuit",
      help: "1 for how a target stands: asked (closed), left alone (open), probing, or disabled",
      labels: [...LABELS, "state"],
      read: each((add, { rule, target, circuit }) => {
        for (const state of STATES) add({ rule, target, state }, circuit.state === state ? 1 : 0);
      }),
    },
    {
      type: "gauge",
      name: "isthmus_target_under_way",
      help: "Messages, or batches, sent to a target and not answered",
      labels: LABELS,
      read: each((add, { rule, target, circuit }) => add({ rule, target }, circuit.underWay)),
    },
    {
      type: "counter",
      name: "isthmus_target_openings_total",
      help: "Times that a target was left alone because it was down",
      labels: LABELS,
      read: each((add, { rule, target, circuit }) => add({ rule, target }, circuit.openings)),
    },
    {
      type: "counter",
      name: "isthmus_target_waits_total",
      help: "Times that a send waited for its target's limit, concurrency or recovery",
      labels: LABELS,
      read: each((add, { rule, target, circuit }) => add({ rule, target }, circuit.waits)),
    },
  ];
}

/** One status of each target: all its partitions share a gate. */
function ofTargets(routes: readonly RouteStatus[]): Iterable<RouteStatus> {
  return new Map(routes.map((each) => [`${each.rule}\n${each.target}`, each] as const)).values();
}
