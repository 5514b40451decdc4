/**
 * The embedded database beside its snapshot: which is newer, what is broken, what a crash leaves.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { cp, exists, mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { CorruptionError, InvalidError, StorageError } from "../../../src/errors.ts";
import { temporaryFolder, waitFor } from "../../temporary.ts";
import { bridge, by, filesWith, opened } from "./opened.ts";

// Each start of the embedded database takes about a second, and some tests need several.
setDefaultTimeout(30_000);

const stream = (name: string) => ({ kind: "streams", name, document: {} }) as const;

/** Makes one change and closes the store. */
async function changed(folder: string, name: string): Promise<string[]> {
  await using at = await opened(folder);
  await at.store.change([stream(name)], by);
  return at.warnings;
}

async function names(folder: string): Promise<string[]> {
  await using at = await opened(folder);
  return [...at.store.current().streams.keys()];
}

describe("the embedded store", () => {
  test("opens no database at a start, nor for what changes nothing", async () => {
    await using folder = await temporaryFolder("store");
    await using at = await opened(folder.path);
    expect(at.store.health()).toEqual({ ok: true, reason: null });
    await expect(
      at.store.change([{ ...stream("a"), document: { partitions: -1 } }], by),
    ).rejects.toBeInstanceOf(InvalidError);
    expect(await exists(`${folder.path}/pglite`)).toBe(false);
    await at.store.change([stream("a")], by);
    expect(await exists(`${folder.path}/pglite`)).toBe(true);
  });

  test("closes its database when idle and opens it again", async () => {
    await using folder = await temporaryFolder("store");
    await using at = await opened(folder.path, { idleMs: 20 });
    const running = `${folder.path}/pglite/postmaster.pid`;
    for (const name of ["a", "b"]) {
      await at.store.change([stream(name)], by);
      await waitFor("the database is closed", async () => !(await exists(running)));
    }
    expect(await at.store.revisions("streams", "b")).toHaveLength(1);
    expect(at.warnings).toEqual([]);
  });

  test("keeps its files to its owner", async () => {
    await using folder = await temporaryFolder("store");
    await changed(folder.path, "a");
    for (const file of ["definitions.json", "secret-key", "admin-token"]) {
      expect((await stat(`${folder.path}/${file}`)).mode & 0o777).toBe(0o600);
    }
    expect((await stat(`${folder.path}/pglite`)).mode & 0o777).toBe(0o700);
  });

  test("fills a lost database from the snapshot, and says so", async () => {
    await using folder = await temporaryFolder("store");
    await changed(folder.path, "a");
    await rm(`${folder.path}/pglite`, { recursive: true });
    expect(await changed(folder.path, "b")).toEqual([expect.stringContaining("filled")]);
    await rm(`${folder.path}/definitions.json`);
    expect(await names(folder.path)).toEqual(["a", "b"]);
  });

  test("fills a database that is behind, keeps its history, and says so", async () => {
    await using folder = await temporaryFolder("store");
    await changed(folder.path, "a");
    await cp(`${folder.path}/pglite`, `${folder.path}/older`, { recursive: true });
    await changed(folder.path, "b");
    await rm(`${folder.path}/pglite`, { recursive: true });
    await rename(`${folder.path}/older`, `${folder.path}/pglite`);
    expect(await changed(folder.path, "c")).toEqual([
      expect.stringMatching(/version 1 and the snapshot at 2.*filled/),
    ]);
    await using at = await opened(folder.path);
    expect([...at.store.current().streams.keys()]).toEqual(["a", "b", "c"]);
    for (const name of ["a", "b", "c"]) {
      expect(await at.store.revisions("streams", name)).toHaveLength(1);
    }
    expect(at.warnings).toEqual([]);
  });

  test("fills a database of another history, whose versions are greater, too", async () => {
    await using folder = await temporaryFolder("store");
    await using other = await temporaryFolder("store");
    await changed(folder.path, "a");
    for (const name of ["x", "y", "a"]) await changed(other.path, name);
    await rm(`${folder.path}/pglite`, { recursive: true });
    await rename(`${other.path}/pglite`, `${folder.path}/pglite`);
    await changed(folder.path, "b");
    await rm(`${folder.path}/definitions.json`);
    expect(await names(folder.path)).toEqual(["a", "b"]);
  });

  test("takes the database's set when the snapshot was put back to an older one", async () => {
    await using folder = await temporaryFolder("store");
    await changed(folder.path, "a");
    const older = await readFile(`${folder.path}/definitions.json`);
    await changed(folder.path, "b");
    await writeFile(`${folder.path}/definitions.json`, older);
    expect(await names(folder.path)).toEqual(["a"]);
    expect(await changed(folder.path, "c")).toEqual([expect.stringContaining("newer")]);
    expect(await names(folder.path)).toEqual(["a", "b", "c"]);
  });

  test("sets a database that doesn't open aside and goes on from the snapshot", async () => {
    await using folder = await temporaryFolder("store");
    await changed(folder.path, "a");
    await rm(`${folder.path}/pglite/global`, { recursive: true });
    const warnings = await changed(folder.path, "b");
    expect(warnings[0]).toContain("set aside as");
    expect(await exists(`${folder.path}/pglite.broken/base`)).toBe(true);
    expect(await names(folder.path)).toEqual(["a", "b"]);
  });

  test("refuses a broken snapshot unless the database holds as much", async () => {
    await using folder = await temporaryFolder("store");
    const path = `${folder.path}/definitions.json`;
    await changed(folder.path, "a");
    const good = await readFile(path, "utf8");
    for (const broken of [good.replace('"a"', '"b"'), good.slice(0, -9), `${good} `]) {
      await writeFile(path, broken);
      const { store, warnings } = await opened(folder.path);
      expect([...store.current().streams.keys()]).toEqual(["a"]);
      expect(warnings).toEqual([expect.stringContaining("set aside as")]);
      await store[Symbol.asyncDispose]();
      expect(await names(folder.path)).toEqual(["a"]);
      expect(await readFile(`${path}.broken`, "utf8")).toBe(broken);
    }
    // Of these nobody can tell, or it is known, that the database holds less.
    for (const broken of ["", "{}", `x${good}`, good.replace('"version":1', '"version":2')]) {
      await writeFile(path, broken);
      const failure = await opened(folder.path).catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(CorruptionError);
      expect((failure as CorruptionError).path).toBe(path);
      expect(await readFile(path, "utf8")).toBe(broken);
    }
  });

  test("refuses a broken snapshot when there is no database", async () => {
    await using folder = await temporaryFolder("store");
    await mkdir(`${folder.path}/data`);
    await writeFile(`${folder.path}/data/definitions.json`, "{");
    await expect(opened(`${folder.path}/data`)).rejects.toBeInstanceOf(CorruptionError);
  });

  test("finds every single flipped bit of a snapshot", async () => {
    await using folder = await temporaryFolder("store");
    const path = `${folder.path}/definitions.json`;
    await changed(folder.path, "a");
    await rm(`${folder.path}/pglite`, { recursive: true });
    const good = await readFile(path);
    for (let bit = 0; bit < good.length * 8; bit += 7) {
      const flipped = Buffer.from(good);
      flipped.writeUInt8(flipped.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      await writeFile(path, flipped);
      await expect(opened(folder.path)).rejects.toBeInstanceOf(CorruptionError);
    }
  });

  test("answers with an error and changes nothing when the snapshot can't be written", async () => {
    await using folder = await temporaryFolder("store");
    let isFull = false;
    const files = filesWith({
      before: () => {
        if (isFull) throw new StorageError("no space left");
      },
    });
    await using at = await opened(folder.path, { files });
    await at.store.change([stream("a")], by);
    isFull = true;
    await expect(at.store.change([stream("b")], by)).rejects.toBeInstanceOf(StorageError);
    expect([...at.store.current().streams.keys()]).toEqual(["a"]);
    expect(at.store.health()).toEqual({ ok: false, reason: "no space left" });
    isFull = false;
    await at.store.change([stream("c")], by);
    expect(at.store.health().ok).toBe(true);
    expect(await at.store.revisions("streams", "b")).toEqual([]);
    expect(at.store.current().version).toBe(2);
    expect(at.warnings).toEqual([]);
  });

  for (const moment of ["before", "after"] as const) {
    test(`is whole when killed just ${moment} the snapshot of a change`, async () => {
      await using folder = await temporaryFolder("store");
      await changed(folder.path, "a");
      const child = Bun.spawn({
        cmd: [process.execPath, `${import.meta.dir}/crash-child.ts`, folder.path, moment, "b"],
        stderr: "inherit",
      });
      await child.exited;
      expect(child.signalCode).toBe("SIGKILL");
      const expected = moment === "before" ? ["a"] : ["a", "b"];
      expect(await names(folder.path)).toEqual(expected);
      await changed(folder.path, "c");
      await rm(`${folder.path}/definitions.json`);
      expect(await names(folder.path)).toEqual([...expected, "c"]);
    });
  }

  test("starts from a snapshot while a definition stands", async () => {
    await using folder = await temporaryFolder("store");
    await using first = await opened(folder.path);
    await first.store.change([{ kind: "bridges", name: "near", document: bridge }], by);
    const definitions = first.store.current();
    await first.store[Symbol.asyncDispose]();
    await rm(`${folder.path}/pglite`, { recursive: true });
    await using second = await opened(folder.path);
    expect(second.store.current()).toEqual(definitions);
    expect(await exists(`${folder.path}/pglite`)).toBe(false);
  });
});
