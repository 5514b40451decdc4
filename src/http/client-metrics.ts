/** The metrics of clients: sockets, their subscriptions, and event streams. */
import type { AskedMetric } from "../routing/operation-metrics.ts";
import type { Telemetry } from "../telemetry.ts";
import { CLOSE } from "./frames.ts";

/** How one socket stands, as it is counted. */
export interface SocketStanding {
  /** Its client has not read what was sent to it. */
  readonly isBlocked: boolean;
  readonly subscriptions: Iterable<{ readonly name: string | null; readonly lag: number }>;
}

/** What has happened to sockets since the start. */
export class SocketTally {
  opened = 0;
  /** Upgrades that were refused: too many sockets of all, or of one address. */
  readonly refused = { full: 0, address: 0 };
  readonly #closed = new Map<string, number>();

  /** Counts a close by its code; clients may choose thousands of them, which count as `other`. */
  close(code: number): void {
    const known = CODES.has(code) ? String(code) : "other";
    this.#closed.set(known, (this.#closed.get(known) ?? 0) + 1);
  }

  get closed(): Iterable<readonly [string, number]> {
    return this.#closed;
  }
}

/** Normal, going away, gone without a word, a wrong frame, too large; and our own. */
const CODES: ReadonlySet<number> = new Set([
  1000,
  1001,
  1002,
  1005,
  1006,
  1007,
  1009,
  ...Object.values(CLOSE),
]);

/** The metrics; `sockets` are looked at when the metrics are read. */
export function clientMetrics(
  telemetry: Telemetry,
  tally: SocketTally,
  sockets: () => Iterable<SocketStanding>,
): readonly AskedMetric[] {
  const plain = (
    type: AskedMetric["type"],
    name: string,
    help: string,
    value: () => number,
  ): AskedMetric => ({ type, name, help, labels: [], read: (add) => add({}, value()) });
  return [
    plain("gauge", "isthmus_ws_clients", "Open sockets", () => telemetry.socketClients),
    plain("counter", "isthmus_ws_opened_total", "Sockets opened", () => tally.opened),
    {
      type: "counter",
      name: "isthmus_ws_closed_total",
      help: "Sockets that have closed, by code",
      labels: ["code"],
      read: (add) => {
        for (const [code, count] of tally.closed) add({ code }, count);
      },
    },
    {
      type: "counter",
      name: "isthmus_ws_refused_total",
      help: "Sockets not opened: too many in all, or of one address",
      labels: ["reason"],
      read: (add) => {
        for (const [reason, count] of Object.entries(tally.refused)) add({ reason }, count);
      },
    },
    plain("counter", "isthmus_ws_messages_total", "Messages sent over sockets", () => {
      return telemetry.socketMessages;
    }),
    {
      type: "gauge",
      name: "isthmus_ws_subscriptions",
      help: "Subscriptions of open sockets, with and without a durable name",
      labels: ["named"],
      read: (add) => {
        for (const named of ["true", "false"]) add({ named }, 0);
        for (const { subscriptions } of sockets()) {
          for (const { name } of subscriptions) add({ named: String(name !== null) }, 1);
        }
      },
    },
    plain("gauge", "isthmus_ws_blocked", "Sockets whose clients have not read what was sent", () =>
      [...sockets()].reduce((sum, { isBlocked }) => sum + Number(isBlocked), 0),
    ),
    plain("gauge", "isthmus_ws_lag_messages", "Messages that the last subscription is behind", () =>
      worstLag(sockets()),
    ),
    plain("gauge", "isthmus_sse_clients", "Open event streams", () => telemetry.eventClients),
    plain("counter", "isthmus_sse_messages_total", "Messages sent as events", () => {
      return telemetry.eventMessages;
    }),
  ];
}

function worstLag(sockets: Iterable<SocketStanding>): number {
  let worst = 0;
  for (const { subscriptions } of sockets) {
    for (const { lag } of subscriptions) worst = Math.max(worst, lag);
  }
  return worst;
}
