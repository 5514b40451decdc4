/**
 * All routes of a process: made, swapped and stopped so that what runs is what the rules say.
 * A route is known by rule, stream, partition and target name, never by its place in a list.
 */
import type { BridgeModule } from "../bridge.ts";
import { assert } from "../assert.ts";
import type { Clock } from "../clock.ts";
import type { Offset, Partition, States } from "../log/log.ts";
import type { Streams } from "../log/stream.ts";
import type { StoredMessage } from "../message.ts";
import type { Definition, RuleDocument, TargetDocument } from "../rules/document.ts";
import { type CompiledRule, compileRule } from "../rules/transform.ts";
import type { BridgeConnection } from "./connection.ts";
import { type DeadLetterCause, deadLetter, deadLetterStream } from "./deadletter.ts";
import { type GateOf, Gates } from "./gates.ts";
import type { JourneyLog } from "./journey-log.ts";
import type { Trail } from "./hops.ts";
import type { PlannedRule } from "./plan.ts";
import { Progress, startOffset } from "./progress.ts";
import { Route } from "./route.ts";
import { routeKey, waitStream } from "./route-names.ts";
import type { RouteEvents, RunningRevision } from "./route-parts.ts";
import type { RouteStatus } from "./status.ts";
import { bridgeOf, Targets } from "./targets.ts";

/** What routes work with. */
export interface RoutesParts {
  readonly streams: Streams;
  readonly states: States;
  readonly modules: ReadonlyMap<string, BridgeModule>;
  readonly connection: (bridge: string) => BridgeConnection | undefined;
  /** At which revision a bridge stands; absent: it never changes. */
  readonly bridgeRevision?: (bridge: string) => number;
  /** An older revision of a rule, for messages that still belong to it. */
  readonly revision: (rule: string, revision: number) => Definition<RuleDocument> | null;
  /** Where what becomes of messages is noted; absent: nowhere. */
  readonly journey?: JourneyLog;
  /** What looks after loops of a target's messages; absent: nothing does. */
  readonly trail?: (target: TargetDocument) => Trail;
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

/** A route that runs, and which one it is. */
export interface RunningRoute {
  readonly route: Route;
  readonly rule: string;
  readonly target: string;
  readonly stream: string;
  readonly partition: number;
}

interface Running extends RunningRoute {
  planned: Planned;
  /** The stream of its messages that wait. */
  readonly waiting: string;
  /** In the dedupe keys of what it appends to streams. */
  readonly run: string;
  bridge: string | null;
  isEnabled: boolean;
}

/** The routes that run. One caller at a time changes them. */
export class Routes {
  readonly #parts: RoutesParts;
  readonly #running = new Map<string, Running>();
  readonly #targets: Targets;
  readonly #gates: Gates;
  readonly #compiled = new WeakMap<Definition<RuleDocument>, CompiledRule>();
  /** The rule whose cursors are being moved. */
  #moving: string | null = null;

  constructor(parts: RoutesParts) {
    this.#parts = parts;
    this.#targets = new Targets(parts);
    this.#gates = new Gates({
      ...parts,
      warn: (rule, target) => parts.events(rule, target).warn,
    });
  }

  /** The notes of what became of messages; null: none are taken. */
  get journey(): JourneyLog | null {
    return this.#parts.journey ?? null;
  }

  /** A rule as it stood at a revision; null: that is not kept any more. */
  revision(rule: string, revision: number): Definition<RuleDocument> | null {
    return this.#parts.revision(rule, revision);
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

  /** The lowest offset that some enabled rule has not passed; infinity when there is none. */
  passed(stream: string, partition: number): Offset {
    return this.slowest(stream, partition)?.next ?? Number.POSITIVE_INFINITY;
  }

  /** The enabled rule that is furthest behind; a paused one holds as well. Null: there is none. */
  slowest(stream: string, partition: number): { rule: string; next: Offset } | null {
    // Of a route that is being moved nobody knows what it needs.
    if (this.#moving !== null) return { rule: this.#moving, next: 0 };
    let slowest: { rule: string; next: Offset } | null = null;
    for (const each of this.#running.values()) {
      const isReader = each.stream === stream && each.partition === partition && each.isEnabled;
      const isOwn = each.waiting === stream;
      if (!isReader && !isOwn) continue;
      const next = isOwn ? each.route.nextWaiting : each.route.next;
      if (slowest === null || next < slowest.next) slowest = { rule: each.rule, next };
    }
    return slowest;
  }

  /** The route of a rule's target on one partition of its stream. */
  find(rule: string, target: string, partition: number): Route | null {
    return this.of(rule, target).find((each) => each.partition === partition)?.route ?? null;
  }

  /** The routes that read a partition. */
  reading(stream: string, partition: number): readonly RunningRoute[] {
    const all = [...this.#running.values()];
    return all.filter((each) => each.stream === stream && each.partition === partition);
  }

  /** The routes of a rule, or of one of its targets. */
  of(rule: string, target: string | null): readonly RunningRoute[] {
    const named = [...this.#running.values()].filter((each) => each.rule === rule);
    return named.filter((each) => target === null || each.target === target);
  }

  /**
   * Moves the cursors of routes, all or none: each is stopped, and runs on from its new place when
   * this resolves. @throws StorageError they run
   * on; whether a crash keeps the move is open.
   */
  async seek(moves: ReadonlyMap<RunningRoute, Offset>): Promise<void> {
    const chosen = [...this.#running].filter(([, running]) => moves.has(running));
    this.#moving = chosen[0]?.[1].rule ?? null;
    await this.#stopWhere((running) => moves.has(running));
    try {
      const records: [string, Uint8Array][] = [];
      for (const [key, running] of chosen) {
        const { rule, partition } = running.planned;
        const { progress } = await this.#progress(key, rule.definition, partition);
        progress.seek(moves.get(running) ?? progress.next);
        records.push([key, progress.encode()]);
      }
      await this.#parts.states.save(records);
    } finally {
      for (const [key, { planned }] of chosen) {
        const running = await this.#make(planned);
        this.#running.set(key, running);
        running.route.start();
      }
      this.#moving = null;
    }
  }

  /** Rules that can't change now: some route of theirs has not come to too many changes yet. */
  fullRules(): ReadonlySet<string> {
    const full = [...this.#running.values()].filter(({ route }) => !route.canSwap);
    return new Set(full.map(({ rule }) => rule));
  }

  /** Stops the routes that send through a bridge, keeping their progress. */
  async stopUsing(bridges: ReadonlySet<string>): Promise<void> {
    await this.#stopWhere(({ bridge }) => bridge !== null && bridges.has(bridge));
  }

  /** Stops all, keeping their progress. */
  async stopAll(): Promise<void> {
    await this.#stopWhere(() => true);
    await this.#gates.close();
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
    await this.#gates.define(this.#gateOf(rules));
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

  #gateOf(rules: readonly PlannedRule[]): GateOf[] {
    return rules.flatMap(({ name, definition: { parsed, revision } }) =>
      parsed.to.map((target) => {
        const bridge = bridgeOf(target);
        const asked = bridge === null ? 0 : (this.#parts.bridgeRevision?.(bridge) ?? 0);
        return {
          rule: name,
          target: target.name,
          load: target,
          asked: { rule: revision, bridge: asked },
        };
      }),
    );
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

  async #swap(planned: Planned): Promise<void> {
    const { key, rule, target } = planned;
    const running = this.#running.get(key);
    if (running === undefined) return;
    const revision = this.#revisionOf(rule.definition, target.name, `${key}/${running.run}`);
    if (revision === null) return;
    running.isEnabled = revision.enabled;
    running.bridge = bridgeOf(target);
    running.planned = planned;
    await running.route.swap(revision);
  }

  async #make(planned: Planned): Promise<Running> {
    const { key, rule, target, partition } = planned;
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
    const run = `${key}/${progress.run}`;
    const waiting = waitStream(name, key);
    const journey = this.journey?.of({ rule: name, target: target.name, partition }) ?? null;
    if (isOutdated || !isSaved) {
      const begin = isSaved ? progress.boundaries.at(-1)?.offset : progress.next;
      journey?.begins(begin ?? progress.next, newest);
      const record = progress.encode();
      await journey?.flush();
      await states.save([[key, record]]);
    }
    const route = new Route({
      ruleName: name,
      targetName: target.name,
      partition,
      stateKey: key,
      progress,
      waiting: this.#waitingPartition(waiting),
      revision: (revision) => this.#revisionOf(this.#known(definition, revision), target.name, run),
      states,
      gate: this.#gates.of(name, target.name),
      journey,
      bury: (message, cause, dedupeKey) => this.#bury(message, cause, dedupeKey),
      clock,
      random,
      events: events(name, target.name),
    });
    return {
      route,
      rule: name,
      target: target.name,
      stream: partition.id.stream,
      partition: partition.id.index,
      waiting,
      run: progress.run,
      planned,
      bridge: bridgeOf(target),
      isEnabled: definition.parsed.enabled,
    };
  }

  #waitingPartition(name: string): Partition {
    const [only] = this.#parts.streams.stream(name).partitions;
    assert(only !== undefined, "a stream has a partition");
    return only;
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
   * A revision of one route; null when that revision did not have the target. `run` names the
   * route in dedupe keys.
   */
  #revisionOf(
    definition: Definition<RuleDocument>,
    targetName: string,
    run: string,
  ): RunningRevision | null {
    const rule = this.#compile(definition);
    const target = rule.targets.find(({ name }) => name === targetName);
    if (target === undefined) return null;
    return {
      revision: definition.revision,
      enabled: definition.parsed.enabled,
      rule,
      target,
      failure: this.#targets.failureOf(target.document),
      order: definition.parsed.order,
      onFailure: definition.parsed.onFailure,
      trail: this.#parts.trail?.(target.document) ?? null,
      lossesOf: ({ message }) => this.#targets.lossesOf(target.document, message),
      openSink: (signal) => this.#targets.open(target.document, run, signal),
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

  async #bury(message: StoredMessage, cause: DeadLetterCause, dedupeKey: string): Promise<string> {
    const stream = this.#parts.streams.stream(deadLetterStream(cause.rule));
    const letter = deadLetter(message, cause, this.#parts.clock);
    const { durable, receipt } = stream.appendOne(letter, { dedupeKey });
    await durable;
    return `${receipt.stream}/${receipt.partition}/${receipt.offset}`;
  }

  async #stopWhere(matches: (running: Running, key: string) => boolean): Promise<void> {
    const chosen = [...this.#running].filter(([key, running]) => matches(running, key));
    await Promise.all(chosen.map(([, { route }]) => route.stop()));
    for (const [key] of chosen) this.#running.delete(key);
  }
}
