/** A Postgres that gateways share: following one another, outages, other histories, other keys. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { exists, readFile, rm, writeFile } from "node:fs/promises";
import { type Clock, systemClock } from "../../../src/clock.ts";
import { CorruptionError, DatabaseError, InvalidError, StorageError } from "../../../src/errors.ts";
import { missingBroker, privateBroker } from "../../brokers/broker.ts";
import { TcpProxy } from "../../proxy.ts";
import { temporaryFolder, waitFor } from "../../temporary.ts";
import { by, connection, filesWith, type Opened, opened, ownDatabase } from "./opened.ts";

setDefaultTimeout(30_000);

const stream = (name: string) => ({ kind: "streams", name, document: {} }) as const;

const streamsOf = (at: Opened): string[] => [...at.store.current().streams.keys()].toSorted();

interface Place extends AsyncDisposableStack {
  readonly databaseUrl: string;
  /** A gateway with a data folder of its own; the same name has the same folder. */
  gateway(name: string, options?: Parameters<typeof opened>[1]): Promise<Opened>;
  folderOf(name: string): string;
}

async function place(url?: string): Promise<Place> {
  const stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryFolder("store"));
  const databaseUrl = url ?? (await ownDatabase());
  const folderOf = (name: string): string => `${folder.path}/${name}`;
  return Object.assign(stack, {
    databaseUrl,
    folderOf,
    gateway: async (name: string, options = {}) => {
      return stack.use(await opened(folderOf(name), { databaseUrl, ...options }));
    },
  });
}

describe.skipIf(missingBroker("postgres") !== null)("stores on one Postgres", () => {
  test("follow one another's changes, each with its own snapshot", async () => {
    await using at = await place();
    const one = await at.gateway("one");
    const two = await at.gateway("two");
    const { definitions } = await one.store.change([stream("a")], by);
    await waitFor("the other has it", () => streamsOf(two).length === 1);
    expect(two.store.current()).toEqual(definitions);
    expect(two.followed).toEqual([definitions]);
    expect(one.followed).toEqual([]);
    const { token } = await two.store.tokens.create({ name: "t", role: "viewer" }, by);
    const principal = await waitFor("the token is known", () =>
      one.store.tokens.authenticate(token),
    );
    await two.store.tokens.revoke("t", by);
    await waitFor("the token is refused", async () => {
      return (await one.store.tokens.authenticate(token)) === null;
    });
    expect(one.store.tokens.isStanding(principal)).toBe(false);
    const snapshots = await Promise.all(
      ["one", "two"].map((name) => readFile(`${at.folderOf(name)}/definitions.json`, "utf8")),
    );
    expect(snapshots[0]?.split("\n")[0]).toContain('"version":3');
    expect(snapshots[1]?.split("\n")[0]).toContain('"version":3');
  });

  test("plan on what the database holds, however far behind they are", async () => {
    await using at = await place();
    const one = await at.gateway("one");
    const two = await at.gateway("two");
    await Promise.all([
      ...["a", "b", "c"].map(async (name) => await one.store.change([stream(name)], by)),
      ...["d", "e", "f"].map(async (name) => await two.store.change([stream(name)], by)),
    ]);
    await waitFor("both have all", () => streamsOf(one).length + streamsOf(two).length === 12);
    expect(one.store.current()).toEqual(two.store.current());
    expect(one.store.current().version).toBe(6);
    const created = { ...stream("a"), ifRevision: 0 };
    await expect(two.store.change([created], by)).rejects.toThrow("stands at revision 1");
  });

  test("go on with what they have while it is away, and follow it when it is back", async () => {
    const broker = await privateBroker("postgres");
    try {
      await using at = await place(await ownDatabase(broker.url));
      const one = await at.gateway("one");
      await one.store.change([stream("a")], by);
      const { token } = await one.store.tokens.create({ name: "t", role: "viewer" }, by);
      await broker.kill();
      await expect(one.store.change([stream("b")], by)).rejects.toBeInstanceOf(DatabaseError);
      expect(streamsOf(one)).toEqual(["a"]);
      expect(one.store.health().ok).toBe(false);
      expect(await one.store.tokens.authenticate(token)).not.toBeNull();
      const restarted = await at.gateway("one-again", {}).catch((error: unknown) => error);
      expect(restarted).toBeInstanceOf(DatabaseError);
      await one.store[Symbol.asyncDispose]();
      const again = await at.gateway("one");
      expect(streamsOf(again)).toEqual(["a"]);
      expect(again.store.health().ok).toBe(false);
      expect(again.warnings[0]).toContain("going on with the definitions of the snapshot");
      expect(await again.store.tokens.authenticate(token)).not.toBeNull();
      await broker.restart();
      await waitFor("it is well again", () => again.store.health().ok);
      const { results } = await again.store.change([stream("b")], by);
      expect(results[0]?.outcome).toBe("created");
    } finally {
      await broker.stop();
    }
  });

  test("recover from connections that are cut, also in the midst of a change", async () => {
    const real = new URL(await ownDatabase());
    await using proxy = await TcpProxy.open({
      upstream: { host: real.hostname, port: Number(real.port) },
    });
    const shown = new URL(real);
    shown.port = String(proxy.port);
    await using at = await place(shown.href);
    const one = await at.gateway("one");
    await one.store.change([stream("a")], by);
    const wanted = new Set(["a"]);
    for (let bytes = 200; bytes < 2_200; bytes += 400) {
      proxy.cutAfter(bytes);
      const name = `cut-${bytes}`;
      wanted.add(name);
      await waitFor("the change is made", async () => {
        const change = one.store.change([stream(name)], by);
        return await change.then(
          () => true,
          (error: unknown) => {
            expect(error).toBeInstanceOf(DatabaseError);
            return false;
          },
        );
      });
    }
    expect(streamsOf(one)).toEqual([...wanted].toSorted());
    await using direct = connection(real.href);
    const [row] = await direct.sql`select version from isthmus.meta`;
    expect(Number(row?.["version"])).toBe(one.store.current().version);
  });

  test("give an answer when the database gives none, and recover", async () => {
    const broker = await privateBroker("postgres");
    try {
      await using at = await place(await ownDatabase(broker.url));
      const clock: Clock = {
        ...systemClock,
        sleep: async (ms, signal) => await systemClock.sleep(Math.min(ms, 500), signal),
      };
      const one = await at.gateway("one", { clock });
      await one.store.change([stream("a")], by);
      await using direct = connection(at.databaseUrl);
      // Whoever holds the row keeps every change waiting, as an operator's open transaction does.
      const { promise, resolve } = Promise.withResolvers<void>();
      const holding = direct.sql.begin(async (sql) => {
        await sql`select * from isthmus.meta for update`;
        await promise;
      });
      await waitFor("the row is held", async () => {
        await using other = connection(at.databaseUrl);
        const rows = await other.sql`select * from isthmus.meta for update skip locked`;
        return rows.length === 0;
      });
      await expect(one.store.change([stream("b")], by)).rejects.toThrow("has not answered");
      resolve();
      await holding;
      await one.store.change([stream("c")], by);
      expect(streamsOf(one)).toContain("c");
      // Who only looks at the history learns that the database is away, and so does readiness.
      await broker.pause();
      expect(one.store.health().ok).toBe(true);
      await expect(one.store.revisions("streams", "a")).rejects.toThrow("has not answered");
      expect(one.store.health().ok).toBe(false);
      await broker.resume();
    } finally {
      await broker.stop();
    }
  });

  test("take the newer of snapshot and database, whichever it is", async () => {
    await using at = await place();
    const one = await at.gateway("one");
    await one.store.change([stream("a")], by);
    await one.store[Symbol.asyncDispose]();
    const two = await at.gateway("two");
    await two.store.change([stream("b")], by);
    expect(streamsOf(await at.gateway("one"))).toEqual(["a", "b"]);
  });

  test("refuse changes on a database that lost what they run, and run on", async () => {
    await using at = await place();
    const one = await at.gateway("one");
    await one.store.change([stream("a")], by);
    await using older = connection(at.databaseUrl);
    await one.store.change([stream("b")], by);
    await one.store[Symbol.asyncDispose]();
    // As after a failover to a replica that was behind.
    await older.sql.unsafe(`
      delete from isthmus.meta;
      insert into isthmus.meta select 1, 1, id, null from isthmus.changes where version = 1;
      truncate isthmus.revisions;
      delete from isthmus.definitions where name = 'b';
      alter table isthmus.changes disable trigger all;
      delete from isthmus.changes where version = 2`);
    const again = await at.gateway("one");
    expect(streamsOf(again)).toEqual(["a", "b"]);
    expect(again.store.health()).toMatchObject({
      ok: false,
      reason: expect.stringContaining("never held version 2"),
    });
    await expect(again.store.change([stream("c")], by)).rejects.toThrow("never held version 2");
    await again.store[Symbol.asyncDispose]();
    await rm(`${at.folderOf("one")}/definitions.json`);
    expect(streamsOf(await at.gateway("one"))).toEqual(["a"]);
  });

  test("fill a database that is empty, with embedded definitions too", async () => {
    await using at = await place();
    const embedded = await opened(at.folderOf("one"));
    await embedded.store.change([stream("a")], by);
    const { token } = await embedded.store.tokens.create({ name: "t", role: "admin" }, by);
    await embedded.store[Symbol.asyncDispose]();
    const secretKey = await readFile(`${at.folderOf("one")}/secret-key`, "utf8");
    const one = await at.gateway("one", { secretKey });
    expect(one.warnings).toEqual([expect.stringContaining("the database is empty")]);
    const two = await at.gateway("two", { secretKey });
    expect(streamsOf(two)).toEqual(["a"]);
    expect((await two.store.tokens.authenticate(token))?.role).toBe("admin");
  });

  test("need the secret key, and the same one", async () => {
    await using at = await place();
    await expect(at.gateway("one", { secretKey: null })).rejects.toThrow("is required");
    const one = await at.gateway("one");
    await one.store.change([stream("a")], by);
    const wrong = { secretKey: "another-key-".repeat(4) };
    for (const name of ["one", "two"]) {
      const failure = await at.gateway(name, wrong).catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(InvalidError);
      expect((failure as Error).message).toMatch(/^ISTHMUS_SECRET_KEY is not the key[^\n]*$/);
    }
    expect(await exists(`${at.folderOf("two")}/definitions.json`)).toBe(false);
  });

  test("refuse a schema of tomorrow at the start", async () => {
    await using at = await place();
    const one = await at.gateway("one");
    await one.store[Symbol.asyncDispose]();
    await using direct = connection(at.databaseUrl);
    await direct.sql`insert into isthmus.migrations values ('of tomorrow', ${2 ** 50})`;
    const failure = await at.gateway("one").catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(InvalidError);
    expect(String(failure)).toContain("newer than this program");
  });

  test("replace a broken snapshot by what the database holds, if that is as much", async () => {
    await using at = await place();
    const one = await at.gateway("one");
    await one.store.change([stream("a")], by);
    await one.store[Symbol.asyncDispose]();
    const path = `${at.folderOf("one")}/definitions.json`;
    const good = await readFile(path, "utf8");
    await writeFile(path, good.slice(0, -5));
    const again = await at.gateway("one");
    expect(streamsOf(again)).toEqual(["a"]);
    expect(again.warnings).toEqual([expect.stringContaining("set aside as")]);
    await again.store[Symbol.asyncDispose]();
    await writeFile(path, good.replace('"version":1', '"version":2'));
    await expect(at.gateway("one")).rejects.toBeInstanceOf(CorruptionError);
  });

  test("are whole when killed between the transaction and the snapshot", async () => {
    await using at = await place();
    const folder = at.folderOf("one");
    const child = Bun.spawn({
      cmd: [
        process.execPath,
        `${import.meta.dir}/crash-child.ts`,
        folder,
        "before",
        "b",
        at.databaseUrl,
      ],
      stderr: "inherit",
    });
    await child.exited;
    expect(child.signalCode).toBe("SIGKILL");
    expect(await readFile(`${folder}/definitions.json`, "utf8")).toContain('"version":0');
    const one = await at.gateway("one");
    expect(streamsOf(one)).toEqual(["b"]);
    expect(await readFile(`${folder}/definitions.json`, "utf8")).toContain('"version":1');
  });

  test("catch up when a snapshot could not be written after the transaction", async () => {
    await using at = await place();
    let isFull = false;
    const files = filesWith({
      before: () => {
        if (isFull) throw new StorageError("no space left");
      },
    });
    const one = await at.gateway("one", { files });
    isFull = true;
    await expect(one.store.change([stream("a")], by)).rejects.toBeInstanceOf(StorageError);
    expect(streamsOf(one)).toEqual([]);
    isFull = false;
    await waitFor("it has caught up", () => streamsOf(one).length === 1);
    expect(one.followed).toHaveLength(1);
    expect(one.store.health().ok).toBe(true);
  });

  test("never tell the database's password", async () => {
    const url = new URL(await ownDatabase());
    url.username = "nobody";
    url.password = "canary-p%40ss";
    url.port = "1";
    await using at = await place(url.href);
    const failure = await at.gateway("one").catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(DatabaseError);
    expect(Bun.inspect(failure)).not.toContain("canary");
    for (const databaseUrl of ["canary", "mysql://u:canary@h/d", "postgres://u:canary@[h/d"]) {
      const refused = await at.gateway("one", { databaseUrl }).catch((error: unknown) => error);
      expect(refused).toBeInstanceOf(InvalidError);
      expect(Bun.inspect(refused)).not.toContain("canary");
    }
  });
});
