/** What the routing tests share: a target with a will of its own, and routes over a real log. */
import type { BridgeModule, Outcome, Outgoing, Sink } from "../../src/bridge.ts";
import { type Clock, systemClock } from "../../src/clock.ts";
import { DisconnectedError, InvalidError } from "../../src/errors.ts";
import type { FileLog } from "../../src/log/files.ts";
import { Streams } from "../../src/log/stream.ts";
import { decodeText } from "../../src/message.ts";
import { BridgeConnection } from "../../src/routing/connection.ts";
import type { JourneyLog } from "../../src/routing/journey-log.ts";
import type { RouteEvents } from "../../src/routing/route-parts.ts";
import { Routes } from "../../src/routing/routes.ts";
import type { Definition, JsonObject, RuleDocument } from "../../src/rules/document.ts";
import { parseDefinition } from "../../src/rules/parse.ts";

/** A target in memory: what it is told to do, it does; what it took, it keeps. */
export class Target {
  readonly taken: Outgoing[] = [];
  /** Answers for a message; null takes it. */
  answer: (outgoing: Outgoing) => Outcome | null = () => null;
  isDown = false;
  isMissing = false;
  opened = 0;
  /** Opening it waits for this; closing it, too. */
  opening: Promise<void> = Promise.resolve();
  closing: Promise<void> = Promise.resolve();
  /** Calls of `send` wait for it. */
  hold: Promise<void> = Promise.resolve();
  /** How long a call takes. */
  delay: (outgoing: readonly Outgoing[]) => Promise<void> = () => Promise.resolve();
  sizes: number[] = [];
  /** Calls of `send` that have not been answered, and the most there ever were. */
  underWay = 0;
  underWayMost = 0;

  get texts(): string[] {
    return this.taken.map(({ message }) => decodeText(message.body ?? new Uint8Array()));
  }

  sink(failure: "prefix" | "independent"): Promise<Sink> {
    if (this.isDown) return Promise.reject(new DisconnectedError("the target is down"));
    if (this.isMissing) return Promise.reject(new InvalidError("there is no such place"));
    this.opened++;
    return this.opening.then(() => ({
      send: (outgoing: readonly Outgoing[]) => this.#send(outgoing, failure),
      [Symbol.asyncDispose]: () => this.closing,
    }));
  }

  async #send(
    outgoing: readonly Outgoing[],
    failure: "prefix" | "independent",
  ): Promise<readonly Outcome[]> {
    this.underWay++;
    this.underWayMost = Math.max(this.underWayMost, this.underWay);
    await this.hold;
    await this.delay(outgoing);
    this.underWay--;
    if (this.isDown) throw new DisconnectedError("the target is down");
    this.sizes.push(outgoing.length);
    let isOpen = true;
    return outgoing.map((each) => {
      // Behind a failure nothing of the call is taken.
      const outcome = isOpen ? this.answer(each) : ({ unknown: true } as const);
      isOpen &&= outcome === null || failure === "independent";
      if (outcome !== null) return outcome;
      this.taken.push(each);
      return { sent: null };
    });
  }
}

/** A kind of bridge whose places are the target. */
export function targetModule(target: Target, failure: "prefix" | "independent"): BridgeModule {
  return {
    kind: "test",
    capabilities: {
      order: "address",
      replay: false,
      headers: "bytes",
      key: true,
      tombstones: true,
      redeliverOnNack: false,
      sharedGroups: false,
      failure,
      source: false,
      sink: true,
    },
    addressSpecials: {},
    parseConfig: () => ({}),
    parseAddress: (fields) => ({ text: JSON.stringify(fields), fields }),
    connect: () =>
      Promise.resolve({
        source: () => Promise.reject(new InvalidError("it has no source")),
        sink: () => target.sink(failure),
        closed: Promise.withResolvers<Error | null>().promise,
        [Symbol.asyncDispose]: () => Promise.resolve(),
      }),
  };
}

export interface Rig {
  readonly target: Target;
  readonly streams: Streams;
  readonly routes: Routes;
  readonly gaps: { from: number; to: number; reason: string }[];
  readonly warnings: string[];
  /** Makes this the only rule, at the next revision. */
  rule(document: JsonObject): Promise<void>;
  stop(): Promise<void>;
}

/** Routes of one rule `r` from the stream `in` over a log. */
export function rig(
  log: FileLog,
  options: {
    target?: Target;
    failure?: "prefix" | "independent";
    revisions?: Revisions;
    clock?: Clock;
    random?: () => number;
    /** A kind of bridge instead of the target in memory, and its configuration. */
    bridge?: { readonly module: BridgeModule; readonly config: unknown };
    /** Takes notes of what becomes of messages; over the same `streams`. */
    journey?: JourneyLog;
    streams?: Streams;
    /** Whether the bridge is there, when it is asked for. */
    hasBridge?: () => boolean;
  } = {},
): Rig {
  const target = options.target ?? new Target();
  const module = options.bridge?.module ?? targetModule(target, options.failure ?? "prefix");
  const { kind } = module;
  const modules = new Map([[kind, module]]);
  const streams = options.streams ?? new Streams(log);
  const revisions = options.revisions ?? new Map();
  const gaps: Rig["gaps"] = [];
  const warnings: string[] = [];
  const clock = options.clock ?? systemClock;
  const events: RouteEvents = {
    onFinished: () => undefined,
    onRetry: () => undefined,
    onLost: () => undefined,
    onGap: ({ from, to, reason }) => gaps.push({ from, to, reason }),
    warn: (sentence) => warnings.push(sentence),
  };
  const bridge = new BridgeConnection({
    name: "b",
    module,
    config: options.bridge?.config ?? {},
    resolve: (text) => Promise.resolve(text),
    clock,
    random: () => 0,
    onChange: () => undefined,
  });
  const routes = new Routes({
    streams,
    states: log.states,
    modules,
    connection: () => ((options.hasBridge?.() ?? true) ? bridge : undefined),
    revision: (_, revision) => revisions.get(revision) ?? null,
    ...(options.journey === undefined ? {} : { journey: options.journey }),
    clock,
    random: options.random ?? (() => 0),
    events: () => events,
  });
  return {
    target,
    streams,
    routes,
    gaps,
    warnings,
    async rule(document) {
      const parsed = parseDefinition("rules", "r", document, {
        modules,
        bridges: new Map([["b", { kind }]]),
      });
      const revision = revisions.size + 1;
      const definition = { kind: "rules", name: "r", revision, project: null, document, parsed };
      revisions.set(revision, definition as Definition<RuleDocument>);
      await routes.reconcile([
        { name: "r", stream: "in", definition: definition as Definition<RuleDocument> },
      ]);
    },
    async stop() {
      await routes.stopAll();
      await bridge[Symbol.asyncDispose]();
    },
  };
}

export type Revisions = Map<number, Definition<RuleDocument>>;
