/** Who of several gateways runs a source: on a real Postgres, without the gateways. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { systemClock } from "../../../src/clock.ts";
import type { States } from "../../../src/log/log.ts";
import { Nodes, type NodesOptions } from "../../../src/rules/store/nodes.ts";
import { missingBroker } from "../../brokers/broker.ts";
import { TcpProxy } from "../../proxy.ts";
import { temporaryFolder, waitFor } from "../../temporary.ts";
import { connection, opened, ownDatabase, testKey } from "./opened.ts";

function memory(): States {
  const held = new Map<string, Uint8Array>();
  return {
    load: (key) => Promise.resolve(held.get(key) ?? null),
    keys: (prefix) => [...held.keys()].filter((key) => key.startsWith(prefix)),
    save: (entries) => {
      for (const [key, value] of entries) {
        if (value === null) held.delete(key);
        else held.set(key, value);
      }
      return Promise.resolve();
    },
  };
}

function nodeOf(url: string, more: Partial<NodesOptions> = {}): Nodes {
  const self = { id: randomUUID(), name: "n", url: null, version: "1", startedAtMs: 1 };
  return new Nodes({
    url,
    self,
    state: () => ({ ready: true, definitionsVersion: 1 }),
    states: memory(),
    clock: systemClock,
    warn: () => undefined,
    ...more,
  });
}

/** A database with the tables. */
async function database(): Promise<string> {
  const url = await ownDatabase();
  await using folder = await temporaryFolder("nodes");
  await using _store = await opened(folder.path, { databaseUrl: url, secretKey: testKey });
  return url;
}

const never = new AbortController().signal;

function placeOf(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url);
  return { host: hostname, port: Number(port) };
}

/** The database's URL by way of a proxy. */
function by(url: string, { host, port }: { host: string; port: number }): string {
  const through = new URL(url);
  through.hostname = host;
  through.port = String(port);
  return through.href;
}

describe.skipIf(missingBroker("postgres") !== null)("a source of several gateways", () => {
  test("is one's until it is given back, then another's", async () => {
    const url = await database();
    await using a = nodeOf(url);
    await using b = nodeOf(url);
    const first = await a.take("s", never);
    expect(first?.lost.aborted).toBe(false);
    let isTaken = false;
    const second = b.take("s", never).then((turn) => {
      isTaken = true;
      return turn;
    });
    await waitFor("b knows who has it", () => b.holder("s") === "gateway n runs it");
    expect(await b.take("other", never)).not.toBeNull();
    expect([isTaken, a.held(), b.held()]).toEqual([false, ["s"], ["other"]]);
    const stopped = new AbortController();
    const again = a.take("s", stopped.signal);
    stopped.abort();
    // Its last turn still runs: it is not taken twice.
    expect(await again).toBeNull();
    first?.release();
    expect((await second)?.lost.aborted).toBe(false);
  });

  test("stays where it is when a session is cut, and goes when its gateway does not come back", async () => {
    const url = await database();
    await using proxy = await TcpProxy.open({ upstream: placeOf(url) });
    await using a = nodeOf(by(url, proxy));
    const turn = await a.take("s", never);
    await using b = nodeOf(url);
    const other = b.take("s", never);
    await using direct = connection(url);
    const locks = async () =>
      await direct.sql`select pid from pg_locks where locktype = 'advisory' and granted
        and database = (select oid from pg_database where datname = current_database())`;
    const before = (await locks())[0]?.["pid"] as number;
    await direct.sql`select pg_terminate_backend(pid) from pg_stat_activity
      where application_name = 'isthmus locks' and datname = current_database()`;
    await waitFor("a has it again", async () => {
      const pid = (await locks())[0]?.["pid"] as number | undefined;
      return pid !== undefined && pid !== before;
    });
    expect([turn?.lost.aborted, a.held(), b.held()]).toEqual([false, ["s"], []]);
    // Cut off, it goes on, for it can't know whether the others are; when it is back, it learns.
    await proxy.down();
    expect((await other)?.lost.aborted).toBe(false);
    expect(turn?.lost.aborted).toBe(false);
    await proxy.up();
    await waitFor("a has learnt that it lost it", () => turn?.lost.aborted === true);
    expect([a.held(), b.held()]).toEqual([[], ["s"]]);
  }, 30_000);

  test("does not hold up the stop of its gateway when the database stands still", async () => {
    const url = await database();
    await using proxy = await TcpProxy.open({ upstream: placeOf(url) });
    const a = nodeOf(by(url, proxy));
    const turn = await a.take("s", never);
    proxy.blackhole(true);
    const begunMs = performance.now();
    turn?.release();
    await a[Symbol.asyncDispose]();
    expect(performance.now() - begunMs).toBeLessThan(5_000);
  });

  test("is what it was when a gateway starts while the database is away", async () => {
    const states = memory();
    const url = "postgres://nobody@127.0.0.1:1/nothing";
    await states.save([["$turn/mine", new Uint8Array([1])]]);
    await using a = nodeOf(url, { states });
    const stopped = new AbortController();
    const theirs = a.take("theirs", stopped.signal);
    expect((await a.take("mine", never))?.lost.aborted).toBe(false);
    expect(a.holder("theirs")).toMatch(/^it is not known which gateway runs it: .*ECONNREFUSED/);
    stopped.abort();
    expect(await theirs).toBeNull();
  });
});
