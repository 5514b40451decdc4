/**
 * The gateway: what is wanted (definitions) and what runs (bridges, sources, routes, hooks), and
 * the one place where the first becomes the second. A change is validated and stored first, then
 * applied here, then answered.
 */
import { backoffMs } from "./backoff.ts";
import type { BridgeModule } from "./bridge.ts";
import type { Clock } from "./clock.ts";
import { errorText, LimitError } from "./errors.ts";
import {
  boundariesMax,
  reconnectDelayMaxMs,
  reconnectDelayMinMs,
  ruleChangeRetryMs,
} from "./limits.ts";
import { damageText } from "./log/damage.ts";
import type { FileLog } from "./log/files.ts";
import type { States } from "./log/log.ts";
import { type FullCounts, Retention } from "./log/retention.ts";
import type { Stream, Streams } from "./log/stream.ts";
import { BridgeConnection } from "./routing/connection.ts";
import { JourneyLog } from "./routing/journey-log.ts";
import { Hops } from "./routing/hops.ts";
import { Operations } from "./routing/operations.ts";
import { type Plan, type PlannedSource, planOf } from "./routing/plan.ts";
import type { RouteEvents } from "./routing/route-parts.ts";
import { Routes } from "./routing/routes.ts";
import type { SourceRunner } from "./routing/source-runner.ts";
import { makeSource } from "./routing/source-start.ts";
import {
  type BridgeStatus,
  type Readiness,
  readinessOf,
  type RouteStatus,
  type SourceStatus,
  stoppedSource,
} from "./routing/status.ts";
import type {
  Change,
  ChangeContext,
  Definition,
  Definitions,
  Kind,
  RuleDocument,
} from "./rules/document.ts";
import type { StoredRevision } from "./rules/store/state.ts";
import type { Nodes } from "./rules/store/nodes.ts";
import type { Changed, Store } from "./rules/store/store.ts";
import { compileHooks, type RunningHook } from "./running-hooks.ts";

/** What the gateway tells, for counters and the operator's log. */
export interface GatewayEvents {
  readonly route: (rule: string, target: string) => RouteEvents;
  readonly onTaken: (source: string, messages: number) => void;
  readonly onExpressionFailed: (kind: "hook" | "source", name: string) => void;
  readonly info: (sentence: string) => void;
  readonly warn: (sentence: string) => void;
}

/** What a gateway is made from. All of it is owned by the caller. */
export interface GatewayParts {
  readonly log: FileLog;
  readonly streams: Streams;
  readonly store: Store;
  /** The gateways on the same database; null: this one is alone. */
  readonly nodes: Nodes | null;
  readonly modules: ReadonlyMap<string, BridgeModule>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly events: GatewayEvents;
}

interface RunningSource {
  readonly planned: PlannedSource;
  /** An empty stream is made anew when its count of partitions changes. */
  readonly stream: Stream;
  readonly runner: SourceRunner;
}

interface RunningBridge {
  /** A changed secret is another revision of an equal document. */
  readonly revision: number;
  readonly connection: BridgeConnection;
}

const NO_BRIDGE: BridgeStatus = { state: "idle", error: null, sinceMs: 0 };

/** A running gateway. Start it once, stop it once. */
export class Gateway {
  readonly streams: Streams;
  readonly states: States;
  /** What operators do to routes. */
  readonly operations: Operations;
  readonly #parts: GatewayParts;
  readonly #routes: Routes;
  readonly #hops: Hops;
  readonly #retention: Retention;
  readonly #stop = new AbortController();
  readonly #bridges = new Map<string, RunningBridge>();
  readonly #sources = new Map<string, RunningSource>();
  #hooks: ReadonlyMap<string, RunningHook> = new Map();
  #applied: Definitions | null = null;
  #changing: Promise<unknown> = Promise.resolve();
  #retaining: Promise<void> = Promise.resolve();
  #fault: string | null = null;
  /** Whether what runs is what is wanted: while it is not, nobody knows what rules have passed. */
  #isSettled = false;
  #retrying: Promise<void> | null = null;

  constructor(parts: GatewayParts) {
    const { log, streams, modules, clock, random, events, store } = parts;
    this.#parts = parts;
    this.streams = streams;
    this.states = log.states;
    this.#hops = new Hops({ ...parts, states: log.states, definitions: () => store.current() });
    this.#routes = new Routes({
      trail: (target) => this.#hops.trail(target),
      streams,
      states: log.states,
      modules,
      connection: (name) => this.#bridges.get(name)?.connection,
      bridgeRevision: (name) => this.#bridges.get(name)?.revision ?? 0,
      revision: (rule, revision) =>
        store.revision("rules", rule, revision) as Definition<RuleDocument> | null,
      journey: new JourneyLog(streams, clock, events.warn),
      clock,
      random,
      events: events.route,
    });
    this.operations = new Operations({
      ...parts,
      states: log.states,
      routes: this.#routes,
      exclusively: (work) => this.#serialize(work),
    });
    this.#retention = new Retention(() => log.all(), clock, events.warn);
  }

  /** Applies the stored definitions and begins. */
  async start(): Promise<void> {
    await this.#hops.open();
    await this.refresh();
    await this.operations.jobs.start();
    this.#retaining = this.#retention.run(this.#stop.signal);
  }

  /** Stops sources, then routes, then bridges; progress is saved. Intake must have ended. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.operations.jobs.stop();
    await this.#serialize(async () => {
      await Promise.all([...this.#sources.values()].map(({ runner }) => runner.stop()));
      await this.#routes.stopAll();
      await this.#closeBridges([...this.#bridges.keys()]);
    });
    await this.#retaining;
    await this.#retrying;
  }

  hook(name: string): RunningHook | undefined {
    return this.#hooks.get(name);
  }

  definitions(): Definitions {
    return this.#parts.store.current();
  }

  /**
   * Validates, stores and applies changes, all or none; resolves once they are in effect in this
   * process. @throws InvalidError, ConflictError, LimitError, DatabaseError: nothing has changed.
   */
  change(changes: readonly Change[], context: ChangeContext): Promise<Changed> {
    return this.#serialize(async () => {
      this.#refuseFull(changes, context);
      const result = await this.#parts.store.change(changes, context);
      await this.#apply();
      return await this.operations.changed(result, context);
    });
  }

  /** Before anything is stored: what could not take effect now would be stored for nothing. */
  #refuseFull(changes: readonly Change[], context: ChangeContext): void {
    const full = this.#routes.fullRules();
    if (!changes.some(({ kind, name }) => kind === "rules" && full.has(name))) return;
    const { results } = this.#parts.store.preview(changes, context);
    const late = results.find(
      ({ kind, name, outcome }) => kind === "rules" && outcome === "changed" && full.has(name),
    );
    if (late === undefined) return;
    throw new LimitError(
      "rate-limited",
      `rule ${late.name} has ${boundariesMax} changes that its targets have not come to yet: its messages have to go out first, or be skipped`,
      ruleChangeRetryMs,
    );
  }

  /** What `change` would answer; changes nothing. Throws as it does. */
  preview(changes: readonly Change[], context: ChangeContext): Changed {
    return this.#parts.store.preview(changes, context);
  }

  /** What ever stood under a name, newest first. @throws DatabaseError the database is away. */
  revisions(kind: Kind, name: string): Promise<readonly StoredRevision[]> {
    return this.#parts.store.revisions(kind, name);
  }

  /** The bridges' modules by kind. */
  get modules(): ReadonlyMap<string, BridgeModule> {
    return this.#parts.modules;
  }

  /** Applies what another process has stored. */
  refresh(): Promise<void> {
    return this.#serialize(() => this.#apply());
  }

  bridgeStatus(name: string): BridgeStatus {
    return this.#bridges.get(name)?.connection.status ?? NO_BRIDGE;
  }

  sourceStatus(name: string): SourceStatus {
    return this.#sources.get(name)?.runner.status ?? stoppedSource;
  }

  /** Names of the sources that run, those that rules imply included. */
  sourceNames(): readonly string[] {
    return [...this.#sources.keys()].toSorted();
  }

  /** The gateways on the same database; null: this one is alone. */
  get nodes(): Nodes | null {
    return this.#parts.nodes;
  }

  /** What was refused or lost of streams that were full. */
  fullCounts(): readonly FullCounts[] {
    return this.#retention.counts();
  }

  routes(): readonly RouteStatus[] {
    return this.#routes.statuses();
  }

  /** Whether traffic may come, with every reason why not. A bridge that is down is none. */
  readiness(): Readiness {
    const { log, store } = this.#parts;
    return readinessOf({
      isStopping: this.#stop.signal.aborted,
      isStarting: this.#applied === null,
      fault: this.#fault,
      damages: log.corruptions().map(damageText),
      database: store.health().reason,
      routes: this.routes(),
    });
  }

  #serialize<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#changing.then(work, work);
    this.#changing = done;
    return done;
  }

  async #apply(): Promise<void> {
    const definitions = this.#parts.store.current();
    if (this.#stop.signal.aborted || this.#applied?.version === definitions.version) return;
    const plan = planOf(definitions);
    this.#hooks = compileHooks(definitions, this.#hooks, this.#parts);
    this.#isSettled = false;
    try {
      this.#defineStreams(definitions);
      await this.#run(definitions, plan);
      this.#applied = definitions;
      this.#isSettled = true;
      this.#fault = null;
    } catch (error) {
      // Stored but not in effect: said so by readiness, and tried again soon.
      this.#fault = `version ${definitions.version} is not in effect: ${errorText(error)}`;
      this.#retrying ??= this.#retry();
      throw error;
    }
  }

  /** Applies again what could not be applied: what was stopped for it must not stay stopped. */
  async #retry(): Promise<void> {
    const { clock, random, events } = this.#parts;
    const { signal } = this.#stop;
    const bounds = { delayMinMs: reconnectDelayMinMs, delayMaxMs: reconnectDelayMaxMs };
    for (let failures = 1; !this.#isSettled && !signal.aborted; failures++) {
      await clock.sleep(backoffMs(failures, bounds, random), signal);
      try {
        await this.refresh();
      } catch (error) {
        events.warn(`definitions are not in effect yet: ${errorText(error)}`);
      }
    }
    this.#retrying = null;
  }

  #defineStreams(definitions: Definitions): void {
    const policies = new Map([...definitions.streams].map(([name, { parsed }]) => [name, parsed]));
    for (const [name, { partitions, indexKey }] of policies) {
      if (this.streams.define(name, partitions, indexKey)) continue;
      const held = this.streams.stream(name).partitions.length;
      this.#parts.events.warn(
        `stream ${name} holds messages in ${held} partitions: ${partitions} can't take effect`,
      );
    }
    this.#retention.define(
      new Map([...policies].map(([name, { retention }]) => [name, retention])),
      {
        passed: (stream, partition) =>
          this.#isSettled ? this.#routes.passed(stream, partition) : 0,
        slowest: (stream, partition) => this.#routes.slowest(stream, partition),
      },
    );
    for (const stream of this.streams.names()) this.#guard(this.streams.stream(stream));
  }

  #guard(stream: Stream): void {
    const { log } = this.#parts;
    const { name } = stream;
    stream.guard = this.#retention.guards(name)
      ? (index) => this.#retention.admit(log.partition({ stream: name, index }))
      : null;
  }

  async #run(definitions: Definitions, plan: Plan): Promise<void> {
    const outdated = new Set<string>();
    for (const [name, { revision }] of this.#bridges) {
      if (definitions.bridges.get(name)?.revision !== revision) outdated.add(name);
    }
    await this.#stopSources(plan, outdated);
    await this.#routes.stopUsing(outdated);
    await this.#closeBridges([...outdated]);
    for (const { name, revision, parsed } of definitions.bridges.values()) {
      if (this.#bridges.has(name)) continue;
      const connection = this.#connect(name, parsed.kind, parsed.config);
      this.#bridges.set(name, { revision, connection });
    }
    await this.#routes.reconcile(plan.rules);
    for (const planned of plan.sources.values()) {
      if (!this.#sources.has(planned.name)) this.#startSource(planned);
    }
  }

  async #stopSources(plan: Plan, outdated: ReadonlySet<string>): Promise<void> {
    const gone = [...this.#sources].filter(([name, { planned, stream }]) => {
      const wanted = plan.sources.get(name);
      if (this.streams.find(stream.name) !== stream) return true;
      return wanted?.identity !== planned.identity || outdated.has(planned.document.from.bridge);
    });
    await Promise.all(gone.map(([, { runner }]) => runner.stop()));
    for (const [name] of gone) this.#sources.delete(name);
  }

  async #closeBridges(names: readonly string[]): Promise<void> {
    await Promise.all(
      names.map(async (name) => {
        await this.#bridges.get(name)?.connection[Symbol.asyncDispose]();
        this.#bridges.delete(name);
      }),
    );
  }

  #connect(name: string, kind: string, config: unknown): BridgeConnection {
    const { modules, store, clock, random, events } = this.#parts;
    const module = modules.get(kind);
    if (module === undefined) throw new RangeError(`no module for bridges of kind ${kind}`);
    return new BridgeConnection({
      name,
      module,
      config,
      resolve: (text) => store.resolveText(text),
      clock,
      random,
      onChange: ({ state, error }) => {
        if (state === "down") events.warn(`bridge ${name} is down: ${error ?? "no reason given"}`);
        else events.info(`bridge ${name} is ${state}`);
      },
    });
  }

  #startSource(planned: PlannedSource): void {
    const { bridge } = planned.document.from;
    const connection = this.#bridges.get(bridge)?.connection;
    if (connection === undefined) throw new RangeError(`no bridge ${bridge}`);
    const made = makeSource(planned, connection, { ...this.#parts, states: this.states });
    this.#sources.set(planned.name, { planned, ...made });
    made.runner.start();
  }
}
