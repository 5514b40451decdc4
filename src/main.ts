/**
 * The composition root: lock → log → store → gateway → http, stopped in reverse order. The only
 * file of `src` that knows the bridges.
 */
import { hostname } from "node:os";
import { join } from "node:path";
import { bridgeModules } from "../bridges/registry.ts";
import manifest from "../package.json" with { type: "json" };
import type { BridgeModule } from "./bridge.ts";
import { systemClock } from "./clock.ts";
import type { Config } from "./config.ts";
import { InvalidError, type StorageError } from "./errors.ts";
import { Gateway, type GatewayEvents } from "./gateway.ts";
import { type HttpServer, startHttp } from "./http/app.ts";
import { realDisk } from "./log/disk.ts";
import { type FileLog, openFileLog } from "./log/files.ts";
import { lockFolder } from "./log/lock.ts";
import type { States } from "./log/log.ts";
import { refuseHalfRestored } from "./log/restore.ts";
import { Streams } from "./log/stream.ts";
import { refuseCycles } from "./rules/cycles.ts";
import { type AskedMetric, operationMetrics } from "./routing/operation-metrics.ts";
import { targetMetrics } from "./routing/target-metrics.ts";
import type { Definitions } from "./rules/document.ts";
import { parseDefinition, parseDefinitions } from "./rules/parse.ts";
import { Nodes } from "./rules/store/nodes.ts";
import { openStore, type Store } from "./rules/store/store.ts";
import { parseFile } from "./rules/yaml.ts";
import type { BridgeStatuses } from "./routing/bridge-metrics.ts";
import { Telemetry } from "./telemetry.ts";

/** A gateway that serves. */
export interface RunningGateway {
  readonly url: string;
  readonly adminUrl: string;
  /** Resolves with the failure when the disk could not sync: end the process with code 70. */
  readonly failed: Promise<StorageError>;
  /** Takes nothing more, finishes what is under way, saves, closes. Call once. */
  stop(): Promise<void>;
}

/** The exit code after a failed sync, or data that can't be served (EX_SOFTWARE). */
export const EXIT_STORAGE = 70;

/**
 * Starts all parts. @throws FencedError the data folder is in use. @throws InvalidError a setting
 * or the definitions file is wrong. @throws CorruptionError, StorageError the log can't be served.
 */
export async function startGateway(config: Config): Promise<RunningGateway> {
  const telemetry = new Telemetry({
    level: config.logLevel,
    process: true,
    write: (line) => {
      process.stderr.write(line);
    },
  });
  const events = eventsOf(telemetry);
  const { promise: failed, resolve: fail } = Promise.withResolvers<StorageError>();
  const stack = new AsyncDisposableStack();
  try {
    await realDisk.makeFolder(config.dataFolder);
    stack.use(await lockFolder(config.dataFolder, systemClock));
    await refuseHalfRestored(realDisk, config.dataFolder);
    const log = stack.use(await openLog(config, { telemetry, events, fail }));
    const streams = new Streams(log);
    const changes: { gateway: Gateway | null } = { gateway: null };
    const store = stack.use(await openDefinitions(config, { ...events, streams, changes }));
    const nodes = openNodes(config, { states: log.states, changes, warn: events.warn });
    if (nodes !== null) stack.use(nodes);
    const gateway = new Gateway({
      log,
      streams,
      store,
      nodes,
      modules: bridgeModules,
      clock: systemClock,
      random: Math.random,
      events,
    });
    stack.defer(() => gateway.stop());
    telemetry.attach({
      routes: () => gateway.routes(),
      definitionsVersion: () => gateway.definitions().version,
      logBytes: () => log.byteLength,
      damages: () => log.damages(),
      fullCounts: () => gateway.fullCounts(),
    });
    telemetry.attachBridges(bridgeStatuses(gateway));
    for (const metric of routingMetrics(gateway)) telemetry.register(metric);
    await gateway.start();
    changes.gateway = gateway;
    // What another process stored while this one started was told to nobody.
    await gateway.refresh();
    await applyFile(config, gateway);
    const http: HttpServer = await startHttp({
      config,
      gateway,
      tokens: store.tokens,
      clock: systemClock,
      telemetry,
      resolve: (text) => store.resolveText(text),
      fetch,
      random: Math.random,
      ids: () => Bun.randomUUIDv7(),
      version: manifest.version,
    });
    stack.defer(() => http.stop());
    const running = stack.move();
    const stop = (): Promise<void> => running.disposeAsync();
    return { url: http.url, adminUrl: http.adminUrl, failed, stop };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

/** The bridges' modules by kind and alias, for commands that work without a gateway. */
export function knownModules(): ReadonlyMap<string, BridgeModule> {
  return bridgeModules;
}

/** What the gateway tells, as counts and lines. */
function bridgeStatuses(gateway: Gateway): BridgeStatuses {
  return {
    bridges: () =>
      [...gateway.definitions().bridges.keys()].map(
        (name) => [name, gateway.bridgeStatus(name)] as const,
      ),
    sources: () => gateway.sourceNames().map((name) => [name, gateway.sourceStatus(name)] as const),
  };
}

function eventsOf(telemetry: Telemetry): GatewayEvents {
  const { logger } = telemetry;
  return {
    route: (rule, target) => {
      const tally = telemetry.route(rule, target);
      return {
        onFinished: (how) => {
          tally.finished[how]++;
        },
        onRetry: () => {
          tally.retries++;
        },
        onLost: (losses) => tally.losses.add(losses),
        onGap: ({ from, to, reason }) => {
          tally.gaps++;
          logger.warn(`rule ${rule} passed a gap: offsets ${from} to ${to - 1} (${reason})`);
        },
        warn: (sentence) => logger.warn(sentence),
      };
    },
    onTaken: (source, messages) => {
      telemetry.intake(`source/${source}`).accepted += messages;
    },
    onExpressionFailed: (kind, name) => telemetry.expressionFailed(kind, name),
    info: (sentence) => logger.info(sentence),
    warn: (sentence) => logger.warn(sentence),
  };
}

function openLog(
  config: Config,
  told: { telemetry: Telemetry; events: GatewayEvents; fail: (error: StorageError) => void },
): Promise<FileLog> {
  return openFileLog({
    folder: join(config.dataFolder, "streams"),
    disk: realDisk,
    clock: systemClock,
    random: (count) => crypto.getRandomValues(new Uint8Array(count)),
    onFatal: told.fail,
    onCommit: (commit) => told.telemetry.committed(commit),
    acceptCorruption: config.acceptCorruption,
    warn: told.events.warn,
  });
}

function openDefinitions(
  config: Config,
  parts: {
    readonly warn: (sentence: string) => void;
    readonly streams: Streams;
    readonly changes: { readonly gateway: Gateway | null };
  },
): Promise<Store> {
  const { warn, streams, changes } = parts;
  return openStore({
    dataFolder: config.dataFolder,
    databaseUrl: config.databaseUrl,
    secretKey: config.secretKey,
    adminToken: config.adminToken,
    parse: (kind, name, document, bridges) =>
      parseDefinition(kind, name, document, {
        modules: bridgeModules,
        bridges,
        nowMs: systemClock.nowMs(),
      }),
    validate: (next, before) => {
      refuseRepartition(next, streams);
      refuseCycles(next, before, bridgeModules);
    },
    changed: () => {
      changes.gateway?.refresh().catch((error: unknown) => warn(String(error)));
    },
    warn,
    env: (name) => config.environment[name],
    clock: systemClock,
  });
}

/** This gateway among those on its database; null: the database is its own. */
function openNodes(
  config: Config,
  parts: {
    readonly states: States;
    readonly changes: { readonly gateway: Gateway | null };
    readonly warn: (line: string) => void;
  },
): Nodes | null {
  if (config.databaseUrl === null) return null;
  const { states, changes, warn } = parts;
  return new Nodes({
    url: config.databaseUrl,
    self: {
      id: crypto.randomUUID(),
      name: `${hostname()}:${config.port}`,
      url: config.publicUrl,
      version: manifest.version,
      startedAtMs: systemClock.nowMs(),
    },
    state: () => ({
      ready: changes.gateway?.readiness().ready ?? false,
      definitionsVersion: changes.gateway?.definitions().version ?? 0,
    }),
    states,
    clock: systemClock,
    warn,
  });
}

/** The partitions of a stream are fixed once it holds a message: keys would change their place. */
function refuseRepartition(next: Definitions, streams: Streams): void {
  for (const { name, parsed } of next.streams.values()) {
    const held = streams.find(name);
    if (held === undefined || held.isEmpty) continue;
    const count = held.partitions.length;
    if (count === parsed.partitions) continue;
    const detail = `it holds messages in ${count} partitions, which is fixed; keep ${count}`;
    throw new InvalidError(
      `stream ${name}: ${detail}`,
      [{ pointer: `/streams/${name}/partitions`, detail }],
      { code: "definition-invalid" },
    );
  }
}

/** Applies the definitions file of the settings, as `isthmus apply` would. */
async function applyFile(config: Config, gateway: Gateway): Promise<void> {
  const path = config.definitionsPath;
  if (path === null) return;
  const file = Bun.file(path);
  if (!(await file.exists())) throw new InvalidError(`ISTHMUS_CONFIG: there is no file ${path}`);
  const parsed = parseFile(await file.text(), path);
  try {
    const { project, documents } = parseDefinitions(parsed.value);
    await gateway.change(documents, { by: "settings", project });
  } catch (error) {
    throw error instanceof InvalidError ? parsed.explain(error) : error;
  }
}

/** The metrics whose values the gateway is asked for. */
function routingMetrics(gateway: Gateway): readonly AskedMetric[] {
  const routes = (): ReturnType<Gateway["routes"]> => gateway.routes();
  return [...operationMetrics(gateway.operations, routes), ...targetMetrics(routes)];
}
