/**
 * All routes of a process: made, swapped and stopped so that what runs is what the rules say.
 * A route is known by rule, stream, partition and target name, never by its place in a list.
 */
import type { BridgeModule, Capabilities, Sink } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import { DisconnectedError } from "../errors.ts";
import { connectTimeoutMs } from "../limits.ts";
import type { Offset, Partition, States } from "../log/log.ts";
import type { Streams } from "../log/stream.ts";
import type { StoredMessage } from "../message.ts";
import type { Definition, RuleDocument, Start, TargetDocument } from "../rules/document.ts";
import { type CompiledRule, compileRule } from "../rules/transform.ts";
import type { BridgeConnection } from "./connection.ts";
import { type DeadLetterCause, deadLetter, deadLetterStream } from "./deadletter.ts";
import type { PlannedRule } from "./plan.ts";
import { Progress } from "./progress.ts";
import { Route } from "./route.ts";
import type { RouteEvents, RunningRevision } from "./route-parts.ts";
import type { RouteStatus } from "./status.ts";
import { StreamSink } from "./stream-sink.ts";
import { within } from "./within.ts";

/** What routes work with. */
export interface RoutesParts {
  readonly streams: Streams;
  readonly states: States;
  readonly modules: ReadonlyMap<string, BridgeModule>;
  readonly connection: (bridge: string) => BridgeConnection | undefined;
  /** An older revision of a rule, for messages that still belong to it. */
  readonly revision: (rule: string, revision: number) => Definition<RuleDocument> | null;
  readonly clock: Clock;
  readonly random: () => number;
  readonly events: (rule: string, target: string) => RouteEvents;
}

interface Planned {
  readonly key: string;
  readonly rule: PlannedRule;
  readonly target: TargetDocument;
  readonly partition: Partition;
}

interface Running {
  readonly route: Route;
  readonly rule: string;
  readonly stream: string;
  readonly partition: number;
  /** In the dedupe keys of what it appends to streams. */
  readonly life: string;
  bridge: string | null;
  isEnabled: boolean;
}

/** The name of a route's state record. */
export function routeKey(rule: string, target: string, partition: Partition): string {
  return `route/${rule}/${partition.id.stream}/${partition.id.index}/${target}`;
}

/** The routes that run. One caller at a time changes them. */
export class Routes {
  readonly #parts: RoutesParts;
  readonly #running = new Map<string, Running>();
  readonly #compiled = new WeakMap<Definition<RuleDocument>, CompiledRule>();

  constructor(parts: RoutesParts) {
    this.#parts = parts;
  }

  statuses(): readonly RouteStatus[] {
    return [...this.#running.values()].map(({ route, bridge }) => {
      const { status } = route;
      const isWaiting = status.state === "running" && status.offset < status.end;
      const target = bridge === null ? undefined : this.#parts.connection(bridge)?.status;
      if (!isWaiting || target?.state !== "down") return status;
      return { ...status, state: "retrying", error: `bridge ${bridge} is down: ${target.error}` };
    });
  }

  /** The lowest offset that some enabled rule has not passed; the end when there is none. */
  passed(stream: string, partition: number): Offset {
    let lowest = Number.POSITIVE_INFINITY;
    for (const each of this.#running.values()) {
      if (each.stream !== stream || each.partition !== partition || !each.isEnabled) continue;
      lowest = Math.min(lowest, each.route.next);
    }
    return lowest;
  }

  /** Stops the routes that send through a bridge, keeping their progress. */
  async stopUsing(bridges: ReadonlySet<string>): Promise<void> {
    await this.#stopWhere(({ bridge }) => bridge !== null && bridges.has(bridge));
  }

  /** Stops all, keeping their progress. */
  async stopAll(): Promise<void> {
    await this.#stopWhere(() => true);
  }

  /**
   * Makes what runs what is planned. When it resolves, every message appended from then on is
   * handled by the rules' newest revisions, and that is on disk.
   */
  async reconcile(rules: readonly PlannedRule[]): Promise<void> {
    const planned = new Map(this.#plan(rules).map((each) => [each.key, each] as const));
    const gone = [...this.#running.keys()].filter((key) => !planned.has(key));
    await this.#stopWhere((_, key) => !planned.has(key));
    if (gone.length > 0) await this.#parts.states.save(gone.map((key) => [key, null] as const));
    // All boundaries of a change are set in one turn, before anything is awaited.
    const swaps = [...planned.values()].map((each) => this.#swap(each));
    await Promise.all(swaps);
    // All or none: what is known as running has been started.
    const missing = [...planned.values()].filter(({ key }) => !this.#running.has(key));
    const made = await Promise.all(
      missing.map(async (each) => [each.key, await this.#make(each)] as const),
    );
    for (const [key, running] of made) {
      this.#running.set(key, running);
      running.route.start();
    }
  }

  #plan(rules: readonly PlannedRule[]): Planned[] {
    return rules.flatMap((rule) =>
      this.#parts.streams.stream(rule.stream).partitions.flatMap((partition) =>
        rule.definition.parsed.to.map((target) => ({
          key: routeKey(rule.name, target.name, partition),
          rule,
          target,
          partition,
        })),
      ),
    );
  }

  async #swap({ key, rule, target }: Planned): Promise<void> {
    const running = this.#running.get(key);
    if (running === undefined) return;
    const revision = this.#revisionOf(rule.definition, target.name, `${key}/${running.life}`);
    if (revision === null) return;
    running.isEnabled = revision.enabled;
    running.bridge = bridgeOf(target);
    await running.route.swap(revision);
  }

  async #make({ key, rule, target, partition }: Planned): Promise<Running> {
    const { states, clock, random, events } = this.#parts;
    const { name, definition } = rule;
    const { progress, isSaved } = await this.#progress(key, definition, partition);
    if (progress.lostCount > 0) {
      const place = `${partition.id.stream}/${partition.id.index}`;
      const came = `the route had come to ${progress.next + progress.lostCount}`;
      events(name, target.name).warn(
        `rule ${name}: ${place} ends at ${progress.next}, ${came}; it goes on at the end`,
      );
    }
    const newest = definition.revision;
    const isOutdated = progress.revision !== newest;
    if (isOutdated) {
      progress.swap(partition.offsetEnd, newest, this.#disabledOf(definition, progress));
    }
    const revisions = progress.boundaries
      .map(({ revision }) => this.#known(definition, revision))
      .map((each) => this.#revisionOf(each, target.name, `${key}/${progress.life}`))
      .filter((each) => each !== null);
    if (isOutdated || !isSaved) await states.save([[key, progress.encode()]]);
    const route = new Route({
      ruleName: name,
      targetName: target.name,
      partition,
      stateKey: key,
      progress,
      revisions,
      states,
      bury: (message, cause, dedupeKey) => this.#bury(message, cause, dedupeKey),
      clock,
      random,
      events: events(name, target.name),
    });
    return {
      route,
      rule: name,
      stream: partition.id.stream,
      partition: partition.id.index,
      life: progress.life,
      bridge: bridgeOf(target),
      isEnabled: definition.parsed.enabled,
    };
  }

  /** Older revisions that were disabled: what waited under them belongs to the newest. */
  #disabledOf(definition: Definition<RuleDocument>, progress: Progress): Set<number> {
    const revisions = progress.boundaries.map(({ revision }) => this.#known(definition, revision));
    const disabled = revisions.filter(({ parsed }) => !parsed.enabled);
    return new Set(disabled.map(({ revision }) => revision));
  }

  /** A revision that is not kept any more is stood in for by the newest one, under its number. */
  #known(definition: Definition<RuleDocument>, revision: number): Definition<RuleDocument> {
    if (revision === definition.revision) return definition;
    const older = this.#parts.revision(definition.name, revision);
    return older ?? { ...definition, revision };
  }

  async #progress(
    key: string,
    definition: Definition<RuleDocument>,
    partition: Partition,
  ): Promise<{ readonly progress: Progress; readonly isSaved: boolean }> {
    const saved = await this.#parts.states.load(key);
    const known = saved === null ? null : Progress.decode(saved, partition);
    if (known !== null) return { progress: known, isSaved: known.lostCount === 0 };
    const next = await startOffset(partition, definition.parsed.start);
    const boundaries = [{ offset: 0, revision: definition.revision }];
    return { progress: new Progress(partition.epoch, next, boundaries), isSaved: false };
  }

  /**
   * A revision of one route; null when that revision did not have the target. `life` names the
   * route in dedupe keys.
   */
  #revisionOf(
    definition: Definition<RuleDocument>,
    targetName: string,
    life: string,
  ): RunningRevision | null {
    const rule = this.#compile(definition);
    const target = rule.targets.find(({ name }) => name === targetName);
    if (target === undefined) return null;
    return {
      revision: definition.revision,
      enabled: definition.parsed.enabled,
      rule,
      target,
      failure: this.#failureOf(target.document),
      blocks: definition.parsed.onFailure === "block",
      openSink: (signal) => this.#openSink(target.document, life, signal),
    };
  }

  /** A revision is compiled once: its targets share what `set` makes of a message. */
  #compile(definition: Definition<RuleDocument>): CompiledRule {
    let rule = this.#compiled.get(definition);
    if (rule === undefined) {
      rule = compileRule(definition.name, definition.parsed, this.#parts.modules);
      this.#compiled.set(definition, rule);
    }
    return rule;
  }

  #failureOf({ to }: TargetDocument): Capabilities["failure"] {
    if ("stream" in to) return "prefix";
    return this.#parts.modules.get(to.kind)?.capabilities.failure ?? "independent";
  }

  async #openSink({ to }: TargetDocument, life: string, signal: AbortSignal): Promise<Sink | null> {
    const { streams, random, connection, clock } = this.#parts;
    if ("stream" in to) return new StreamSink(streams, life, random);
    const bridge = await connection(to.bridge)?.acquire(signal);
    if (signal.aborted) return null;
    // Messages of an older revision may outlive its bridge: they wait as in any outage.
    if (bridge === null || bridge === undefined) {
      throw new DisconnectedError(`there is no bridge ${to.bridge}`);
    }
    const opening = bridge.sink({ text: to.text, fields: to.fields });
    return within(opening, { clock, ms: connectTimeoutMs, signal });
  }

  async #bury(message: StoredMessage, cause: DeadLetterCause, dedupeKey: string): Promise<void> {
    const stream = this.#parts.streams.stream(deadLetterStream(cause.rule));
    const letter = deadLetter(message, cause, this.#parts.clock);
    await stream.appendOne(letter, { dedupeKey }).durable;
  }

  async #stopWhere(matches: (running: Running, key: string) => boolean): Promise<void> {
    const chosen = [...this.#running].filter(([key, running]) => matches(running, key));
    await Promise.all(chosen.map(([, { route }]) => route.stop()));
    for (const [key] of chosen) this.#running.delete(key);
  }
}

function bridgeOf({ to }: TargetDocument): string | null {
  return "stream" in to ? null : to.bridge;
}

async function startOffset(partition: Partition, start: Start): Promise<Offset> {
  if (start === "latest") return partition.offsetEnd;
  if (start === "earliest") return partition.offsetStart;
  return partition.offsetAt(start.timestampMs);
}
