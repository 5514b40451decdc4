/**
 * Damage as an operator meets it: the real gateway starts, serves what is whole, is not ready and
 * says why, until that damage is accepted; the commands that change files keep off a folder in use.
 */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { freePort, temporaryFolder, waitFor } from "../temporary.ts";
import { run, type Running, start } from "./run.ts";

/** Flips a bit of a text in the newest file of a stream's first partition. */
function spoil(dataFolder: string, stream: string, text: string): void {
  const own = join(dataFolder, "streams", stream, "0");
  const name = readdirSync(own).findLast((each) => each.endsWith(".log")) ?? "";
  const bytes = readFileSync(join(own, name));
  const at = bytes.indexOf(text);
  bytes.writeUInt8((bytes[at] ?? 0) ^ 4, at);
  writeFileSync(join(own, name), bytes);
}

interface Served extends AsyncDisposable {
  readonly running: Running;
  readonly url: string;
  /** The status of readiness once it answers, and what it says. */
  ready(): Promise<{ readonly status: number; readonly text: string }>;
}

/** Serves a folder whether it becomes ready or not. */
async function serve(dataFolder: string, flags: readonly string[] = []): Promise<Served> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const env = {
    ISTHMUS_DATA: dataFolder,
    ISTHMUS_PORT: String(port),
    ISTHMUS_ADMIN_TOKEN: "t0ken",
  };
  const running = start(["serve", ...flags], { folder: dataFolder, env });
  const ask = async () => {
    try {
      const answer = await fetch(`${url}/health/ready`);
      return { status: answer.status, text: await answer.text() };
    } catch {
      // Not listening yet.
      return null;
    }
  };
  return {
    running,
    url,
    ready: () => waitFor("it answers", ask),
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  };
}

async function stop({ running }: Served): Promise<void> {
  running.kill("SIGTERM");
  await running.ended;
}

test("damage makes it unready over restarts, until exactly that is accepted", async () => {
  await using gateway = await TestGateway.start({ ISTHMUS_ADMIN_TOKEN: "t0ken" });
  const data = gateway.dataFolder;
  for (const body of ["first message", "second message", "third message", "fourth message"]) {
    const headers = { authorization: "Bearer t0ken" };
    const init = { method: "POST", body, headers };
    expect((await gateway.fetch("/streams/orders/messages", init)).status).toBe(202);
  }
  await gateway.end();
  spoil(data, "orders", "second message");

  for (let life = 0; life < 2; life++) {
    await using served = await serve(data);
    const { status, text } = await served.ready();
    expect(status).toBe(503);
    expect(text).toContain("orders/0");
    expect(text).toContain("messages 1 to 1 are damaged");
    const read = await fetch(`${served.url}/streams/orders/messages?from=2`, {
      headers: { authorization: "Bearer t0ken" },
    });
    const { messages } = (await read.json()) as { messages: { body: string }[] };
    expect(messages.map(({ body }) => body)).toEqual(["third message", "fourth message"]);
    await stop(served);
  }

  await using accepted = await serve(data, ["--accept-corruption"]);
  expect((await accepted.ready()).status).toBe(200);
  await stop(accepted);
  await using later = await serve(data);
  expect((await later.ready()).status).toBe(200);
  await stop(later);

  spoil(data, "orders", "fourth message");
  await using again = await serve(data);
  const found = await again.ready();
  expect(found.status).toBe(503);
  expect(found.text).toContain("messages 3 to 3 are damaged");
  expect(found.text).not.toContain("messages 1 to 1");
  await stop(again);

  const repaired = await run(["log", "repair", "--yes", "--data", data], { folder: data });
  expect(repaired.exitCode).toBe(0);
  expect((await run(["log", "verify", "--data", data], { folder: data })).exitCode).toBe(0);
  await using whole = await serve(data);
  expect((await whole.ready()).status).toBe(200);
  await stop(whole);
}, 120_000);

test("a damaged header is told, loses nothing, and is accepted like any damage", async () => {
  await using gateway = await TestGateway.start();
  for (const body of ["first message", "second message"]) {
    await gateway.fetch("/streams/orders/messages", { method: "POST", body });
  }
  await gateway.end();
  const data = gateway.dataFolder;
  spoil(data, "orders", "ISTHMLOG");
  await using damaged = await serve(data);
  const told = await damaged.ready();
  expect(told.status).toBe(503);
  expect(told.text).toContain("the header of segment 0 was damaged");
  expect(told.text).toContain("00000000000000000000.log, byte 0, 64 bytes");
  await stop(damaged);
  await using accepted = await serve(data, ["--accept-corruption"]);
  expect((await accepted.ready()).status).toBe(200);
  await stop(accepted);
  expect((await run(["log", "verify", "--data", data], { folder: data })).exitCode).toBe(0);
  await gateway.start();
  const held = await gateway.read("orders");
  expect(held.map(({ body }) => body)).toEqual(["first message", "second message"]);
}, 60_000);

test("a damaged header is made anew by a repair before the start as well", async () => {
  await using gateway = await TestGateway.start();
  for (const body of ["first message", "second message"]) {
    await gateway.fetch("/streams/orders/messages", { method: "POST", body });
  }
  await gateway.end();
  const data = gateway.dataFolder;
  spoil(data, "orders", "ISTHMLOG");
  const told = await run(["log", "repair", "--data", data], { folder: data });
  expect(told.stderr).toContain("would repair 1 partition");
  const done = await run(["log", "repair", "--yes", "--data", data], { folder: data });
  expect(done.exitCode).toBe(0);
  await gateway.start();
  const held = await gateway.read("orders");
  expect(held.map(({ body }) => body)).toEqual(["first message", "second message"]);
}, 60_000);

test("repair and restore are refused while a gateway runs on the folder", async () => {
  await using place = await temporaryFolder("locked");
  await using gateway = await TestGateway.start();
  await gateway.fetch("/streams/orders/messages", { method: "POST", body: "kept" });
  const data = ["--data", gateway.dataFolder];
  const folder = place.path;
  const copy = join(folder, "copy");
  expect((await run(["log", "backup", copy, ...data], { folder })).exitCode).toBe(0);
  for (const command of [["repair"], ["repair", "--yes"], ["restore", copy]]) {
    const ran = await run(["log", ...command, ...data], { folder });
    expect(ran.exitCode).toBe(1);
    expect(ran.stderr).toContain(String(gateway.pid));
    expect(ran.stderr.trim().split("\n").length).toBe(1);
  }
  expect((await gateway.read("orders")).map(({ body }) => body)).toEqual(["kept"]);
}, 60_000);
