/**
 * What operators see: one logger and one registry of metrics. What happens for each message is a
 * plain number here and becomes a metric only when somebody asks; times are taken once for each
 * commit group. Labels are names from definitions, never ids, addresses or anything a sender chose.
 */
import pino, { type Logger } from "pino";
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import type { FullCounts } from "./log/retention.ts";
import { LossTally } from "./routing/losses.ts";
import { BRIDGE_GAUGES, type BridgeStatuses, SOURCE_GAUGES } from "./routing/bridge-metrics.ts";
import type { AskedMetric } from "./routing/operation-metrics.ts";
import {
  ROUTE_COUNTERS,
  ROUTE_GAUGES,
  type RouteTally,
  worstLags,
} from "./routing/route-metrics.ts";
import type { RouteStatus } from "./routing/status.ts";

/** How telemetry is set up. */
export interface TelemetryOptions {
  /** The least level that is written. */
  readonly level: "debug" | "info" | "warn" | "error" | "silent";
  /** Where log lines go; standard output when absent. */
  readonly write?: (line: string) => void;
  /** Metrics of the process itself (memory, CPU, event loop). */
  readonly process?: boolean;
}

/** What one way in has answered, by status or outcome. */
export class IntakeCounts {
  readonly codes = new Map<string, number>();
  /** The usual answer, counted without a look-up. */
  accepted = 0;

  /** Counts another answer than the usual one. */
  count(code: string): void {
    this.codes.set(code, (this.codes.get(code) ?? 0) + 1);
  }
}

/** What the metrics ask for when they are read. */
export interface MetricSources {
  readonly routes: () => readonly RouteStatus[];
  readonly definitionsVersion: () => number;
  readonly logBytes: () => number;
  /** What was refused or lost of streams that are kept until they are routed. */
  readonly fullCounts?: () => readonly FullCounts[];
  /** The log's known damages; none when it is absent. */
  readonly damages?: () => readonly {
    readonly from: number;
    readonly to: number;
    readonly acceptedAtMs: number | null;
  }[];
}

/** Upper bounds of the buckets for a sync and an ack. Seconds. */
const DISK_BUCKETS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 5];

/** The telemetry of one process. */
export class Telemetry {
  readonly logger: Logger;
  readonly registry = new Registry();
  readonly #intakes = new Map<string, IntakeCounts>();
  readonly #routes = new Map<string, { rule: string; target: string; tally: RouteTally }>();
  readonly #failedExpressions = new Map<string, { kind: string; name: string; count: number }>();
  readonly #syncSeconds: Histogram;
  readonly #ackSeconds: Histogram;
  readonly #appended: { messages: number; bytes: number } = { messages: 0, bytes: 0 };
  #sources: MetricSources | null = null;
  #lastAcked: Promise<void> | null = null;
  #storageFailure: string | null = null;
  /** Open sockets, and messages sent over them. */
  socketClients = 0;
  socketMessages = 0;
  /** Open event streams, and messages sent over them. */
  eventClients = 0;
  eventMessages = 0;
  readonly #previews = { runs: 0, messages: 0 };

  constructor(options: TelemetryOptions) {
    const { write } = options;
    const settings = {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
    };
    this.logger = write === undefined ? pino(settings) : pino(settings, { write });
    const registers = [this.registry];
    this.#syncSeconds = new Histogram({
      name: "isthmus_log_sync_seconds",
      help: "Time of one sync of the log, for each commit group",
      buckets: DISK_BUCKETS,
      registers,
    });
    this.#ackSeconds = new Histogram({
      name: "isthmus_ack_seconds",
      help: "Time from the first append of a commit group over HTTP to its being on disk",
      buckets: DISK_BUCKETS,
      registers,
    });
    this.#registerIntake();
    this.#registerLog();
    this.#registerRoutes();
    this.#registerPreviews();
    if (options.process === true) collectDefaultMetrics({ register: this.registry });
  }

  /** Says where the gauges of what runs come from. Once, when the gateway has been made. */
  attach(sources: MetricSources): void {
    this.#sources = sources;
  }

  /** Says where the gauges of bridges and sources come from. Once, when the gateway is made. */
  attachBridges({ bridges, sources }: BridgeStatuses): void {
    for (const [name, help, value] of BRIDGE_GAUGES) {
      const read = (add: Add): void => {
        for (const [bridge, status] of bridges()) add({ bridge }, value(status));
      };
      this.#gauge(name, help, read, ["bridge"]);
    }
    for (const [name, help, value] of SOURCE_GAUGES) {
      const read = (add: Add): void => {
        for (const [source, status] of sources()) add({ source }, value(status));
      };
      this.#gauge(name, help, read, ["source"]);
    }
  }

  /** Adds a metric; each name once. */
  register({ type, name, help, labels, read }: AskedMetric): void {
    if (type === "counter") this.#counter(name, help, read, [...labels]);
    else this.#gauge(name, help, read, [...labels]);
  }

  /** Says where the gauges of all hooks together come from. Once, when HTTP starts. */
  attachHooks({ underWay, bodyBytes }: Record<"underWay" | "bodyBytes", () => number>): void {
    this.#gauge("isthmus_hooks_under_way", "Webhooks that are being taken in", (add) =>
      add({}, underWay()),
    );
    this.#gauge("isthmus_hooks_body_bytes", "Bodies of webhooks in memory", (add) =>
      add({}, bodyBytes()),
    );
  }

  /** The counts of one way in, such as `hook/orders` or `publish`. Keep the result. */
  intake(source: string): IntakeCounts {
    let counts = this.#intakes.get(source);
    if (counts === undefined) {
      counts = new IntakeCounts();
      this.#intakes.set(source, counts);
    }
    return counts;
  }

  /** The counts of one rule's target, all partitions together. Keep the result. */
  route(rule: string, target: string): RouteTally {
    const key = `${rule}\n${target}`;
    const known = this.#routes.get(key);
    if (known !== undefined) return known.tally;
    const finished = { delivered: 0, filtered: 0, failed: 0, deadLettered: 0, expired: 0 };
    const tally: RouteTally = { finished, retries: 0, gaps: 0, losses: new LossTally() };
    this.#routes.set(key, { rule, target, tally });
    return tally;
  }

  /** Counts a `key`, `dedupe` or `where` that failed on a message. */
  expressionFailed(kind: "hook" | "source", name: string): void {
    const key = `${kind}\n${name}`;
    const entry = this.#failedExpressions.get(key) ?? { kind, name, count: 0 };
    entry.count++;
    this.#failedExpressions.set(key, entry);
  }

  /** Notes a commit of the log. */
  committed(commit: {
    readonly syncMs: number;
    readonly messages: number;
    readonly bytes: number;
  }): void {
    this.#syncSeconds.observe(commit.syncMs / 1000);
    this.#storageFailure = null;
    this.#appended.messages += commit.messages;
    this.#appended.bytes += commit.bytes;
  }

  /** Notes that a preview of a rule came to its result. */
  previewed(messages: number): void {
    this.#previews.runs++;
    this.#previews.messages += messages;
  }

  /** Logs that the log could not be used: once for each failure, until a commit works again. */
  storageFailed(sentence: string): void {
    if (this.#storageFailure === sentence) return;
    this.#storageFailure = sentence;
    this.logger.error(sentence);
  }

  /** Whether this is the first one seen of its commit group: only that one's time is taken. */
  isFirstOfGroup(durable: Promise<void>): boolean {
    if (this.#lastAcked === durable) return false;
    this.#lastAcked = durable;
    return true;
  }

  /** Notes how long an append waited for the disk. */
  acked(waitedMs: number): void {
    this.#ackSeconds.observe(waitedMs / 1000);
  }

  /** All metrics in the text format of Prometheus. */
  async metrics(): Promise<{ readonly text: string; readonly contentType: string }> {
    return { text: await this.registry.metrics(), contentType: this.registry.contentType };
  }

  /** A counter whose values are asked for when the metrics are read. */
  #counter(name: string, help: string, read: (add: Add) => void, labelNames: string[] = []): void {
    const metric: Counter = new Counter({
      name,
      help,
      labelNames,
      registers: [],
      collect: () => {
        metric.reset();
        read((labels, value) => metric.inc(labels, value));
      },
    });
    this.registry.registerMetric(metric);
  }

  /** A gauge of the same kind; values of equal labels add up. */
  #gauge(name: string, help: string, read: (add: Add) => void, labelNames: string[] = []): void {
    const metric: Gauge = new Gauge({
      name,
      help,
      labelNames,
      registers: [],
      collect: () => {
        metric.reset();
        read((labels, value) => metric.inc(labels, value));
      },
    });
    this.registry.registerMetric(metric);
  }

  #registerIntake(): void {
    const read = (add: Add): void => {
      for (const [source, { accepted, codes }] of this.#intakes) {
        add({ source, code: "accepted" }, accepted);
        for (const [code, count] of codes) add({ source, code }, count);
      }
    };
    const help = "Messages taken in, and calls refused, by way in and answer";
    this.#counter("isthmus_ingest_total", help, read, ["source", "code"]);
    this.#counter(
      "isthmus_expression_failures_total",
      "Expressions of hooks and sources that failed on a message",
      (add) => {
        for (const { kind, name, count } of this.#failedExpressions.values()) {
          add({ kind, name }, count);
        }
      },
      ["kind", "name"],
    );
  }

  #registerPreviews(): void {
    const previews = this.#previews;
    this.#counter("isthmus_previews_total", "Previews of rules that came to a result", (add) =>
      add({}, previews.runs),
    );
    this.#counter(
      "isthmus_preview_messages_total",
      "Recorded messages that previews of rules looked at",
      (add) => add({}, previews.messages),
    );
  }

  #registerLog(): void {
    const appended = this.#appended;
    this.#counter(
      "isthmus_log_appended_messages_total",
      "Messages made durable, the gateway's own included",
      (add) => add({}, appended.messages),
    );
    this.#counter("isthmus_log_appended_bytes_total", "Bytes made durable", (add) =>
      add({}, appended.bytes),
    );
    this.#gauge("isthmus_log_bytes", "Bytes that the log holds on disk", (add) =>
      add({}, this.#sources?.logBytes() ?? 0),
    );
    this.#gauge(
      "isthmus_log_damaged_messages",
      "Messages that were on disk and can't be read, pending or accepted by an operator",
      (add) => {
        add({ state: "pending" }, 0);
        for (const { from, to, acceptedAtMs } of this.#sources?.damages?.() ?? []) {
          add({ state: acceptedAtMs === null ? "pending" : "accepted" }, to - from);
        }
      },
      ["state"],
    );
    const full = (): readonly FullCounts[] => this.#sources?.fullCounts?.() ?? [];
    this.#counter(
      "isthmus_stream_refused_total",
      "Appends refused because a stream is full of what a rule has yet to pass",
      (add) => {
        for (const { stream, refusedCalls } of full()) add({ stream }, refusedCalls);
      },
      ["stream"],
    );
    this.#counter(
      "isthmus_stream_dropped_messages_total",
      "Messages deleted from a full stream before every rule had passed them",
      (add) => {
        for (const { stream, droppedMessages } of full()) add({ stream }, droppedMessages);
      },
      ["stream"],
    );
    this.#gauge("isthmus_rules_version", "Version of the definitions in effect", (add) =>
      add({}, this.#sources?.definitionsVersion() ?? 0),
    );
  }

  #registerRoutes(): void {
    const labelNames = ["rule", "target"];
    const statuses = (): readonly RouteStatus[] => this.#sources?.routes() ?? [];
    this.#gauge(
      "isthmus_route_lag_messages",
      "Messages that a route has not finished, all partitions",
      (add) => {
        for (const { rule, target, lagMessages } of statuses()) add({ rule, target }, lagMessages);
      },
      labelNames,
    );
    this.#gauge(
      "isthmus_route_lag_seconds",
      "Age of the oldest message that a route has not finished, worst partition",
      (add) => {
        for (const [labels, lagMs] of worstLags(statuses())) add(labels, lagMs / 1000);
      },
      labelNames,
    );
    for (const [name, help, value] of ROUTE_GAUGES) {
      const read = (add: Add): void => {
        for (const status of statuses()) {
          add({ rule: status.rule, target: status.target }, value(status));
        }
      };
      this.#gauge(name, help, read, labelNames);
    }
    this.#counter(
      "isthmus_route_messages_total",
      "Messages that a route has decided on, by outcome",
      (add) => {
        for (const { rule, target, tally } of this.#routes.values()) {
          for (const [outcome, count] of Object.entries(tally.finished)) {
            add({ rule, target, outcome }, count);
          }
        }
      },
      [...labelNames, "outcome"],
    );
    this.#counter(
      "isthmus_route_losses_total",
      "Messages sent without something of them that the target's protocol has no place for",
      (add) => {
        for (const { rule, target, tally } of this.#routes.values()) {
          for (const [field, count] of Object.entries(tally.losses.counts)) {
            add({ rule, target, field }, count);
          }
        }
      },
      [...labelNames, "field"],
    );
    for (const [name, help, count] of ROUTE_COUNTERS) {
      const read = (add: Add): void => {
        for (const { rule, target, tally } of this.#routes.values()) {
          add({ rule, target }, count(tally));
        }
      };
      this.#counter(name, help, read, labelNames);
    }
  }
}

type Add = (labels: Record<string, string>, value: number) => void;
