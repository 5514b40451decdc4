/**
 * One life of a gateway in a simulation: the real log, routes, source runner and connections, put
 * together as the gateway does it, over a simulated disk, clock and broker. `Sabotage` breaks one
 * promise of it, to see that the simulation finds out.
 */
import type { Disk } from "../../src/log/disk.ts";
import type { BridgeModule } from "../../src/bridge.ts";
import { type FileLog, openFileLog } from "../../src/log/files.ts";
import type { Appended, Log, Partition } from "../../src/log/log.ts";
import { type Stream, Streams } from "../../src/log/stream.ts";
import { BridgeConnection } from "../../src/routing/connection.ts";
import type { RouteEvents } from "../../src/routing/route-parts.ts";
import { Routes } from "../../src/routing/routes.ts";
import { SourceRunner } from "../../src/routing/source-runner.ts";
import type { Definition, JsonObject, RuleDocument } from "../../src/rules/document.ts";
import { parseDefinition } from "../../src/rules/parse.ts";
import type { SimBroker } from "./broker.ts";
import type { Life } from "./life.ts";

/** One broken promise. */
export type Sabotage =
  | "append is called durable before it is"
  | "a dead letter is called durable before it is"
  | "a waiting message is called durable before it is"
  | "progress is saved before the target has confirmed"
  | "no file is synced"
  | "no folder is synced"
  | "dedupe keys are forgotten"
  | "keys do not keep their order";

/** What the lives of one story have in common. */
export interface Setup {
  readonly broker: SimBroker;
  readonly failure: "prefix" | "independent";
  readonly order: "partition" | "key" | "none";
  readonly partitions: number;
  /** Whether the source names a dedupe key. */
  readonly hasDedupe: boolean;
  /** Whether a second rule copies the stream into another one. */
  readonly hasCopy: boolean;
  readonly segmentBytes: number;
  /** Zeros written ahead at a time, from the first group on. */
  readonly fillAheadBytes: number;
  readonly revisions: Map<string, Definition<RuleDocument>>;
  readonly sabotage: Sabotage | null;
}

/** A gateway that runs. */
export interface SimProcess {
  readonly log: FileLog;
  readonly streams: Streams;
  readonly routes: Routes;
  /** Another revision of all rules. */
  change(document: JsonObject): Promise<void>;
  startSource(): void;
  stop(): Promise<void>;
}

export const IN = "in";
export const COPY = "copy";
export const RULE = "r";
export const TARGET = "t";
const COPIER = "c";

/** The streams of the messages that the sabotage calls durable too early. */
const EARLY: Partial<Record<Sabotage, (stream: string) => boolean>> = {
  "append is called durable before it is": (stream) => stream === IN,
  "a dead letter is called durable before it is": (stream) => stream.endsWith(".dead"),
  "a waiting message is called durable before it is": (stream) => stream.startsWith("$wait."),
};

/** Opens the log as a new process would. @throws GatewayError the disk does not let it. */
export function openLog(life: Life, setup: Setup): Promise<FileLog> {
  return openFileLog({
    folder: "/data/streams",
    disk: sabotagedDisk(life.disk, setup.sabotage),
    clock: life.clock,
    random: (count) => life.random.bytes(count),
    onFatal: (error) => life.end(`it ended itself: ${error.message}`),
    onCommit: () => undefined,
    warn: () => undefined,
    segmentBytes: setup.segmentBytes,
    stateLogBytes: 2500,
    fillAhead: { groups: 0, groupBytesMax: 400, bytes: setup.fillAheadBytes },
  });
}

/** Starts all but the source. */
export function startProcess(life: Life, setup: Setup, log: FileLog): SimProcess {
  const { broker, failure, partitions, sabotage } = setup;
  const isLying = sabotage === "progress is saved before the target has confirmed";
  const module = broker.module(life, failure, isLying);
  const modules = new Map([[module.kind, module]]);
  const isEarly = EARLY[sabotage ?? "no file is synced"] ?? (() => false);
  const streams = new Streams(sabotagedLog(log, isEarly, sabotage));
  streams.define(IN, partitions);
  const out = connection(life, module);
  const source = connection(life, module);
  const routes = new Routes({
    streams,
    states: log.states,
    modules,
    connection: () => out,
    revision: (rule, revision) => setup.revisions.get(`${rule}/${revision}`) ?? null,
    clock: life.clock,
    random: () => life.random.next(),
    events: () => routeEvents(life),
  });
  const runner = sourceRunner(life, setup, { source, stream: streams.stream(IN), streams });
  return {
    log,
    streams,
    routes,
    change: (document) => change({ routes, setup, modules }, document),
    startSource: () => runner.start(),
    async stop() {
      await runner.stop();
      await routes.stopAll();
      await out[Symbol.asyncDispose]();
      await source[Symbol.asyncDispose]();
      await log[Symbol.asyncDispose]();
    },
  };
}

function routeEvents(life: Life): RouteEvents {
  return {
    onFinished: () => undefined,
    onRetry: () => undefined,
    onLost: () => undefined,
    onGap: ({ from, to, reason }) => {
      life.violations.push(`a route met a gap: ${from} to ${to} (${reason})`);
    },
    warn: () => undefined,
  };
}

function connection(life: Life, module: BridgeModule): BridgeConnection {
  return new BridgeConnection({
    name: "b",
    module,
    config: {},
    resolve: (text) => Promise.resolve(text),
    clock: life.clock,
    random: () => life.random.next(),
    onChange: () => undefined,
  });
}

function sourceRunner(
  life: Life,
  { hasDedupe }: Setup,
  { source, stream, streams }: { source: BridgeConnection; stream: Stream; streams: Streams },
): SourceRunner {
  const from = { bridge: "b", kind: "test", fields: {}, text: "queue" };
  const document = { from, stream: IN, key: null, dedupe: null, start: "earliest" } as const;
  return new SourceRunner(
    { document, connection: source, turns: null },
    {
      name: "source",
      identity: "source",
      stream,
      dead: streams.stream("source.dead"),
      prepare: (message) => ({ message, dedupeKey: hasDedupe ? `source/${message.id}` : null }),
      onTaken: () => undefined,
      warn: () => undefined,
      clock: life.clock,
      random: () => life.random.next(),
    },
  );
}

/** Parsing costs as much as the rest of a life, and stories have few different rules. */
const parsedRules = new Map<string, RuleDocument>();

function parsedOnce(
  name: string,
  document: JsonObject,
  parse: (document: JsonObject) => unknown,
): RuleDocument {
  const text = `${name} ${JSON.stringify(document)}`;
  const known = parsedRules.get(text) ?? (parse(document) as RuleDocument);
  parsedRules.set(text, known);
  return known;
}

async function change(
  { routes, setup, modules }: { routes: Routes; setup: Setup; modules: Map<string, BridgeModule> },
  document: JsonObject,
): Promise<void> {
  const { revisions, hasCopy, sabotage } = setup;
  const broken = sabotage === "keys do not keep their order" ? { order: "none" } : {};
  const bridges = new Map([["b", { kind: "test" }]]);
  const define = (name: string, own: JsonObject): Definition<RuleDocument> => {
    const parsed = parsedOnce(name, own, (document) =>
      parseDefinition("rules", name, document, { modules, bridges }),
    );
    const revision = revisions.size + 1;
    const made = { kind: "rules", name, revision, project: null, document: own, parsed };
    revisions.set(`${name}/${revision}`, made as Definition<RuleDocument>);
    return made as Definition<RuleDocument>;
  };
  const to = { name: TARGET, bridge: "b", place: "x" };
  const rules = [define(RULE, { ...document, from: IN, start: "earliest", ...broken, to })];
  const copy = { from: IN, start: "earliest", to: { name: TARGET, stream: COPY } };
  if (hasCopy) rules.push(define(COPIER, copy));
  await routes.reconcile(rules.map((each) => ({ name: each.name, stream: IN, definition: each })));
}

function sabotagedDisk(disk: Disk, sabotage: Sabotage | null): Disk {
  if (sabotage === "no folder is synced") {
    return {
      open: (path, mode) => disk.open(path, mode),
      rename: (from, to) => disk.rename(from, to),
      remove: (path) => disk.remove(path),
      list: (folder) => disk.list(folder),
      makeFolder: (folder) => disk.makeFolder(folder),
      syncFolder: () => Promise.resolve(),
    };
  }
  if (sabotage !== "no file is synced") return disk;
  return {
    open: async (path, mode) => {
      const file = await disk.open(path, mode);
      return {
        write: (bytes, position) => file.write(bytes, position),
        read: (into, position) => file.read(into, position),
        sync: () => Promise.resolve(),
        truncate: (bytes) => file.truncate(bytes),
        size: () => file.size(),
        close: () => file.close(),
      };
    },
    rename: (from, to) => disk.rename(from, to),
    remove: (path) => disk.remove(path),
    list: (folder) => disk.list(folder),
    makeFolder: (folder) => disk.makeFolder(folder),
    syncFolder: (folder) => disk.syncFolder(folder),
  };
}

function sabotagedLog(
  log: FileLog,
  isEarly: (stream: string) => boolean,
  sabotage: Sabotage | null,
): Log {
  const forgets = sabotage === "dedupe keys are forgotten";
  return {
    streams: () => log.streams(),
    keepIndex: (stream, isWanted) => log.keepIndex(stream, isWanted),
    states: log.states,
    [Symbol.asyncDispose]: () => log[Symbol.asyncDispose](),
    partition: (id, count) => {
      const own = log.partition(id, count);
      if (isEarly(id.stream)) return wrapped(own, early);
      return forgets ? wrapped(own, null) : own;
    },
  };
}

/** `after` changes what an append gives; null: its dedupe keys are left out. */
function wrapped(own: Partition, after: ((appended: Appended) => Appended) | null): Partition {
  const append: Partition["append"] = (messages, options) =>
    after === null ? own.append(messages) : after(own.append(messages, options));
  return new Proxy(own, {
    get: (_, name) => {
      if (name === "append") return append;
      const value: unknown = Reflect.get(own, name, own);
      return typeof value === "function" ? value.bind(own) : value;
    },
  });
}

function early(appended: Appended): Appended {
  appended.durable.catch(() => undefined);
  return { durable: Promise.resolve(), receipt: (index) => appended.receipt(index) };
}
