/**
 * A real HTTP server over a real log in a temporary folder. Definitions and tokens are planned and
 * parsed by the real parts and kept in memory, so that a test needs no database.
 */
import { bridgeModules } from "../../bridges/registry.ts";
import { type Clock, systemClock } from "../../src/clock.ts";
import { type HttpServer, startHttp } from "../../src/http/app.ts";
import type { GatewayFace, HookFace, HttpConfig } from "../../src/http/services.ts";
import { type Disk, realDisk } from "../../src/log/disk.ts";
import { StorageError } from "../../src/errors.ts";
import { type FileLog, openFileLog } from "../../src/log/files.ts";
import { Streams } from "../../src/log/stream.ts";
import { type Accepted, noDefinitions } from "../../src/rules/store/accepted.ts";
import { planChanges } from "../../src/rules/store/change.ts";
import type { Change, ChangeContext, Kind } from "../../src/rules/document.ts";
import type { Operations } from "../../src/routing/operations.ts";
import { compileExpression } from "../../src/rules/expression.ts";
import { parseDefinition } from "../../src/rules/parse.ts";
import { Keyring, newSecretKey } from "../../src/rules/store/secrets.ts";
import { stoppedSource } from "../../src/routing/status.ts";
import { emptyState, type StoredRevision } from "../../src/rules/store/state.ts";
import { type NewToken, Tokens } from "../../src/rules/store/tokens.ts";
import { Telemetry } from "../../src/telemetry.ts";
import { freePort, temporaryFolder } from "../temporary.ts";
import { idleOperations } from "./idle-operations.ts";

export const ADMIN_TOKEN = "admin-token-of-the-tests";

/** What a test may set. */
export interface TestOptions {
  readonly clock?: Clock;
  readonly config?: Partial<HttpConfig>;
  readonly ready?: boolean;
  readonly disk?: Disk;
}

/** What the server answered. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly json: Record<string, unknown>;
}

/** A server of one test: `await using server = await testServer()`. */
export class TestServer implements AsyncDisposable {
  readonly gateway: TestFace;
  readonly log: FileLog;
  readonly tokens: Tokens;
  readonly telemetry: Telemetry;
  readonly logLines: string[];
  readonly #http: HttpServer;
  readonly #stack: AsyncDisposableStack;
  #stopped: Promise<void> | null = null;

  constructor(parts: {
    gateway: TestFace;
    log: FileLog;
    tokens: Tokens;
    telemetry: Telemetry;
    logLines: string[];
    http: HttpServer;
    stack: AsyncDisposableStack;
  }) {
    this.gateway = parts.gateway;
    this.log = parts.log;
    this.tokens = parts.tokens;
    this.telemetry = parts.telemetry;
    this.logLines = parts.logLines;
    this.#http = parts.http;
    this.#stack = parts.stack;
  }

  get url(): string {
    return this.#http.url;
  }

  get adminUrl(): string {
    return this.#http.adminUrl;
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** A call with the admin token; `token: null` sends none. */
  async call(
    method: string,
    path: string,
    options: {
      body?: string | Uint8Array;
      headers?: Record<string, string>;
      token?: string | null;
      base?: string;
    } = {},
  ): Promise<Answer> {
    const headers = new Headers(options.headers);
    const token = options.token === undefined ? ADMIN_TOKEN : options.token;
    if (token !== null) headers.set("authorization", `Bearer ${token}`);
    const body = options.body === undefined ? {} : { body: options.body };
    const response = await fetch(`${options.base ?? this.url}${path}`, {
      method,
      headers,
      ...body,
    });
    const text = await response.text();
    const isJson = /[/+]json/.test(response.headers.get("content-type") ?? "");
    const json = (isJson && text !== "" ? JSON.parse(text) : {}) as Record<string, unknown>;
    return { status: response.status, headers: response.headers, text, json };
  }

  /** Appends one message and gives its receipt. */
  async publish(
    stream: string,
    body: string,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    return await this.call("POST", `/streams/${stream}/messages`, { body, headers });
  }

  /** Makes a token. */
  async token(wanted: NewToken): Promise<string> {
    const made = await this.tokens.create(wanted, { by: "tests" });
    return made.token;
  }

  /** Stops the HTTP server; the log stays open. */
  stop(): Promise<void> {
    this.#stopped ??= this.#http.stop();
    return this.#stopped;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await this.#stack.disposeAsync();
  }
}

/** Starts a server on an empty folder. */
export async function testServer(options: TestOptions = {}): Promise<TestServer> {
  const stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryFolder("http"));
  const { clock = systemClock } = options;
  const logLines: string[] = [];
  const telemetry = new Telemetry({ level: "info", write: (line) => logLines.push(line) });
  const log = stack.use(
    await openFileLog({
      folder: `${folder.path}/streams`,
      disk: options.disk ?? realDisk,
      clock,
      random: (count) => crypto.getRandomValues(new Uint8Array(count)),
      onFatal: (error) => logLines.push(error.message),
      onCommit: (commit) => telemetry.committed(commit),
      warn: (line) => logLines.push(line),
    }),
  );
  const definitions = new MemoryDefinitions(clock);
  const gateway = new TestFace(log, definitions, options.ready ?? true);
  const config: HttpConfig = {
    host: "127.0.0.1",
    port: await freePort(),
    adminHost: null,
    adminPort: null,
    publicUrl: null,
    trustProxies: [],
    origins: [],
    clientLimits: "",
    hookLimits: { rate: null, concurrency: 10_000, memoryBytes: 256 * 1024 * 1024 },
    tlsCert: null,
    tlsKey: null,
    ...options.config,
  };
  const http = await startHttp({
    gateway,
    tokens: definitions.tokens,
    config,
    clock,
    telemetry,
    resolve: (text) => Promise.resolve(text),
    fetch,
    random: Math.random,
    ids: () => Bun.randomUUIDv7(),
    version: "0.0.0-test",
  });
  return new TestServer({
    gateway,
    log,
    tokens: definitions.tokens,
    telemetry,
    logLines,
    http,
    stack,
  });
}

/** Definitions and tokens by the real planner and parser, in memory. */
class MemoryDefinitions {
  readonly tokens: Tokens;
  readonly #clock: Clock;
  readonly #keyring = new Keyring(newSecretKey());
  readonly revisions: StoredRevision[] = [];
  current: Accepted = { state: emptyState(this.#keyring.proof), definitions: noDefinitions };

  constructor(clock: Clock) {
    this.#clock = clock;
    this.tokens = new Tokens({
      clock,
      adminToken: ADMIN_TOKEN,
      commit: async (plan) => {
        const planned = plan(this.current);
        this.adopt(planned.next);
        return planned.result;
      },
    });
  }

  adopt(next: Accepted): void {
    this.current = next;
    this.tokens.adopt(next.state);
  }

  plan(changes: readonly Change[], context: ChangeContext) {
    return planChanges(this.current, changes, context, {
      parse: (kind, name, document, bridges) =>
        parseDefinition(kind, name, document, { modules: bridgeModules, bridges }),
      keyring: this.#keyring,
      nowMs: this.#clock.nowMs(),
      validate: () => undefined,
    });
  }
}

/** The gateway's face over the log: hooks and streams take effect, nothing else runs. */
export class TestFace implements GatewayFace {
  readonly nodes = null;
  readonly modules = bridgeModules;
  readonly operations: Operations;
  readonly streams: Streams;
  readonly states: FileLog["states"];
  readonly #definitions: MemoryDefinitions;
  readonly #hooks = new Map<string, HookFace>();
  isReady: boolean;

  constructor(log: FileLog, definitions: MemoryDefinitions, isReady: boolean) {
    this.streams = new Streams(log);
    this.states = log.states;
    this.#definitions = definitions;
    this.isReady = isReady;
    this.operations = idleOperations(this.streams, this.states);
  }

  hook(name: string): HookFace | undefined {
    return this.#hooks.get(name);
  }

  definitions() {
    return this.#definitions.current.definitions;
  }

  change(changes: readonly Change[], context: ChangeContext) {
    try {
      const plan = this.#definitions.plan(changes, context);
      this.#definitions.adopt(plan.next);
      this.#definitions.revisions.push(...(plan.write?.revisions ?? []));
      this.#apply();
      return Promise.resolve({ definitions: this.definitions(), results: plan.result });
    } catch (error) {
      return Promise.reject(error);
    }
  }

  preview(changes: readonly Change[], context: ChangeContext) {
    const plan = this.#definitions.plan(changes, context);
    return { definitions: plan.next.definitions, results: plan.result };
  }

  revisions(kind: Kind, name: string) {
    return Promise.resolve(
      this.#definitions.revisions
        .filter((each) => each.kind === kind && each.name === name)
        .toReversed(),
    );
  }

  bridgeStatus() {
    return { state: "idle", error: null, sinceMs: 0 } as const;
  }

  sourceStatus() {
    return stoppedSource;
  }

  sourceNames(): readonly string[] {
    return [];
  }

  routes() {
    return [];
  }

  readiness() {
    const reasons = this.isReady ? [] : [{ code: "starting", detail: "it is starting" }];
    return { ready: this.isReady, reasons, warnings: [] };
  }

  #apply(): void {
    const { hooks, streams } = this.definitions();
    for (const [name, { parsed }] of streams)
      this.streams.define(name, parsed.partitions, parsed.indexKey);
    this.#hooks.clear();
    for (const [name, { parsed }] of hooks) {
      const key = parsed.key === null ? null : compileExpression(parsed.key);
      const { dedupe } = parsed;
      const isDeduped = dedupe !== null && dedupe !== false;
      this.#hooks.set(name, {
        name,
        document: parsed,
        key,
        dedupe: isDeduped ? compileExpression(dedupe) : null,
      });
    }
  }
}

/** The real clock, moved on by a test. */
export class ShiftedClock implements Clock {
  shiftMs = 0;
  nowMs(): number {
    return systemClock.nowMs() + this.shiftMs;
  }
  monotonicMs(): number {
    return systemClock.monotonicMs() + this.shiftMs;
  }
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return systemClock.sleep(ms, signal);
  }
}

/** Appends so many messages `{"n","pad"}` to a stream. */
export async function fill(
  server: TestServer,
  count: number,
  stream = "s",
  size = 0,
): Promise<void> {
  const pad = "x".repeat(size);
  const body = Array.from({ length: count }, (_, n) => JSON.stringify({ body: { n, pad } })).join(
    "\n",
  );
  const headers = { "content-type": "application/x-ndjson" };
  const answer = await server.call("POST", `/streams/${stream}/messages`, { body, headers });
  if (answer.status !== 202) throw new Error(answer.text);
}

/** The machine's disk, with writes that can be made to fail as on a full disk. */
export class FillableDisk implements Disk {
  isFull = false;
  readonly rename = (from: string, to: string) => realDisk.rename(from, to);
  readonly remove = (path: string) => realDisk.remove(path);
  readonly list = (folder: string) => realDisk.list(folder);
  readonly makeFolder = (folder: string) => realDisk.makeFolder(folder);
  readonly syncFolder = (folder: string) => realDisk.syncFolder(folder);

  async open(path: string, mode: "read" | "write" | "create") {
    const file = await realDisk.open(path, mode);
    return {
      write: (bytes: Uint8Array, position: number) => {
        if (this.isFull) {
          const cause = Object.assign(new Error("no space"), { code: "ENOSPC" });
          throw new StorageError(`can't write ${path}`, { cause });
        }
        file.write(bytes, position);
      },
      read: (into: Uint8Array, position: number) => file.read(into, position),
      sync: () => file.sync(),
      truncate: (bytes: number) => file.truncate(bytes),
      size: () => file.size(),
      close: () => file.close(),
    };
  }
}
