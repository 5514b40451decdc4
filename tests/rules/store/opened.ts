/** Stores for tests: the real parser, a bridge kind that connects nowhere, real databases. */
import { randomUUID } from "node:crypto";
import postgres from "postgres";
import type { BridgeModule } from "../../../src/bridge.ts";
import { systemClock } from "../../../src/clock.ts";
import type { Definitions, JsonObject } from "../../../src/rules/document.ts";
import { type Files, systemFiles } from "../../../src/rules/store/files.ts";
import { parseDefinition } from "../../../src/rules/parse.ts";
import { openStore, type Store, type StoreOptions } from "../../../src/rules/store/store.ts";
import { broker } from "../../brokers/broker.ts";

/** A kind of bridge with addresses of one field, named after the kind. */
function moduleOf(kind: string, field: string): BridgeModule {
  return {
    kind,
    capabilities: {
      order: "partition",
      replay: true,
      headers: "bytes",
      key: true,
      tombstones: true,
      redeliverOnNack: true,
      sharedGroups: true,
      failure: "independent",
      source: true,
      sink: true,
    },
    parseConfig: (input) => input,
    parseAddress: (input) => ({ text: `${field} ${String(input[field])}`, fields: input }),
    addressSpecials: {},
    connect: async () => {
      throw new Error("no test of the store connects");
    },
  };
}

const modules = new Map([
  ["one", moduleOf("one", "queue")],
  ["two", moduleOf("two", "topic")],
]);

/** 43 characters, as the one that is made at a first start. */
export const testKey = "test-key-".repeat(5).slice(0, 43);

/** A store and what it said. */
export interface Opened extends AsyncDisposable {
  readonly store: Store;
  readonly warnings: string[];
  /** What `changed` was called with. */
  readonly followed: Definitions[];
}

/** Opens a store in a folder, embedded unless there is a `databaseUrl`. */
export async function opened(
  dataFolder: string,
  options: Partial<StoreOptions> = {},
): Promise<Opened> {
  const warnings: string[] = [];
  const followed: Definitions[] = [];
  const store = await openStore({
    dataFolder,
    databaseUrl: null,
    secretKey: options.databaseUrl === undefined ? null : testKey,
    adminToken: null,
    parse: (kind, name, document, bridges) => {
      return parseDefinition(kind, name, document, { modules, bridges });
    },
    changed: (definitions) => followed.push(definitions),
    warn: (line) => warnings.push(line),
    env: () => undefined,
    clock: systemClock,
    ...options,
  });
  return {
    store,
    warnings,
    followed,
    [Symbol.asyncDispose]: async () => await store[Symbol.asyncDispose](),
  };
}

/** A database of its own in the Postgres that tests share. */
export async function ownDatabase(serverUrl?: string): Promise<string> {
  const url = new URL(serverUrl ?? (await broker("postgres")).url);
  const name = `store_${randomUUID().replaceAll("-", "")}`;
  await using client = connection(url.href);
  await client.sql.unsafe(`create database ${name}`);
  url.pathname = `/${name}`;
  return url.href;
}

/** A plain connection, to look at what is really there. */
export function connection(url: string): { sql: postgres.Sql } & AsyncDisposable {
  const sql = postgres(url, { max: 1, fetch_types: false, onnotice: () => undefined });
  return { sql, [Symbol.asyncDispose]: async () => await sql.end({ timeout: 1 }) };
}

/** The disk, with something done before or after the snapshot is replaced. */
export function filesWith(hooks: {
  readonly before?: () => void | Promise<void>;
  readonly after?: () => void | Promise<void>;
}): Files {
  return {
    ...systemFiles,
    replace: async (path, text) => {
      const isSnapshot = path.endsWith("/definitions.json");
      if (isSnapshot) await hooks.before?.();
      await systemFiles.replace(path, text);
      if (isSnapshot) await hooks.after?.();
    },
  };
}

/** Who changes things in tests. */
export const by = { by: "test" } as const;

export const bridge: JsonObject = { kind: "one", url: "one://127.0.0.1:1" };
export const rule: JsonObject = { from: "orders", to: [{ bridge: "near", queue: "q" }] };
