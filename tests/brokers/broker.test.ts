/** What tests rely on when they mistreat a broker, shown on the quickest of them. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { connect } from "node:net";
import { freePort, temporaryFolder, waitFor } from "../temporary.ts";
import { missingBroker, privateBroker } from "./broker.ts";
import { LocalBroker } from "./local.ts";
import { isThere, ManagedProcess } from "./process.ts";

function canConnect(url: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ host: "127.0.0.1", port: Number(new URL(url).port) });
  const end = (answer: boolean): void => {
    socket.destroy();
    resolve(answer);
  };
  socket.once("connect", () => end(true));
  socket.once("error", () => end(false));
  return promise;
}

const missing = missingBroker("postgres");

describe.skipIf(missing !== null)(
  `a private broker${missing === null ? "" : ` (${missing})`}`,
  () => {
    test("is gone when killed, and comes back at the same place with its data", async () => {
      const broker = await privateBroker("postgres");
      const before = new Bun.SQL(broker.url, { max: 1 });
      await before`create table kept (id int)`;
      await before.close();
      await broker.kill();
      expect(await canConnect(broker.url)).toBe(false);
      await broker.restart();
      const after = new Bun.SQL(broker.url, { max: 1 });
      expect(await after`select count(*)::int as count from kept`).toEqual([{ count: 0 }]);
      await after.close();
      await broker.stop();
      expect(await canConnect(broker.url)).toBe(false);
    });

    test("answers nothing while paused, and goes on where it was", async () => {
      const broker = await privateBroker("postgres");
      const sql = new Bun.SQL(broker.url, { max: 1 });
      await sql`select 1`;
      await broker.pause();
      let answered = false;
      const answer = sql`select 2 as two`.then((rows) => {
        answered = true;
        return [...rows];
      });
      await Bun.sleep(200);
      expect(answered).toBe(false);
      await broker.resume();
      expect(await answer).toEqual([{ two: 2 }]);
      await sql.close();
      await broker.stop();
    });
  },
);

test("a broker that dies at its start is noticed at once, with its last words", async () => {
  await using folder = await temporaryFolder();
  const port = await freePort();
  const broker = new LocalBroker({
    name: "Dying",
    url: `tcp://127.0.0.1:${port}`,
    folder: folder.path,
    endSignal: "SIGKILL",
    steps: [
      {
        process: {
          name: "Dying",
          command: ["sh", "-c", "echo the port is taken; exit 3"],
          cwd: "/",
        },
        ready: { port, request: Uint8Array.of(0), judge: () => true },
      },
    ],
  });
  const failure = await broker.start().then(
    () => "started",
    (error: unknown) => String(error),
  );
  expect(failure).toContain("Dying ended with exit code 3");
  expect(failure).toContain("the port is taken");
});

test("killing a program takes what it has started with it, in sessions of their own too", async () => {
  const running = new ManagedProcess({
    name: "parent",
    command: ["sh", "-c", "sh -c 'echo $$; sleep 60; :' & wait"],
    cwd: "/",
  });
  const pid = Number(await waitFor("the child told its pid", () => running.lines[0] ?? null));
  await running.kill();
  expect(isThere(pid)).toBe(false);
});

test("what a run has started ends with it, even when it is killed", async () => {
  await using folder = await temporaryFolder();
  const script = `
    const { ManagedProcess } = await import(${JSON.stringify(`${import.meta.dir}/process.ts`)});
    const { guardFolder } = await import(${JSON.stringify(`${import.meta.dir}/guard.ts`)});
    guardFolder(${JSON.stringify(folder.path)});
    const running = new ManagedProcess({ name: "sleep", command: ["sh", "-c", "echo $$; exec sleep 60"], cwd: "/" });
    while (running.lines.length === 0) await Bun.sleep(10);
    console.log(running.lines[0]);
    await running.ended;`;
  const run = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });
  const { value } = await run.stdout.getReader().read();
  const pid = Number(new TextDecoder().decode(value).trim());
  expect(pid).toBeGreaterThan(1);
  run.kill("SIGKILL");
  await waitFor("the guard has removed the folder", () => !existsSync(folder.path));
  expect(isThere(pid)).toBe(false);
});
