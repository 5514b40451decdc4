/** `isthmus log …` on a data folder: numbers, damage found, exit codes. */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { freePort, temporaryFolder } from "../temporary.ts";
import { progressOf } from "../../src/cli/log-progress.ts";
import { syncTimes } from "../../src/cli/log-stat.ts";
import { run } from "./run.ts";

async function publish(gateway: TestGateway, body: string): Promise<void> {
  await gateway.json("/streams/orders/messages", { method: "POST", body });
}

test("a log is described and verified beside the running gateway, and damage is found", async () => {
  await using gateway = await TestGateway.start();
  for (const body of ["first message", "second message", "third message"]) {
    await publish(gateway, body);
  }
  const folder = gateway.dataFolder;
  const data = ["--data", folder];
  const healthy = await run(["log", "verify", ...data], { folder });
  expect(healthy).toMatchObject({ exitCode: 0, stdout: "" });
  expect(healthy.stderr).toMatch(/checked [\d.]+ MiB in \d+ partitions?/);
  // Whose address nobody listens at.
  const nowhere = ["--server", `http://127.0.0.1:${await freePort()}`];
  const numbers = await run(["log", "stat", ...data, "--json", ...nowhere], { folder });
  const { partitions, sync } = JSON.parse(numbers.stdout) as {
    partitions: { stream: string }[];
    sync: unknown;
  };
  expect(partitions.find(({ stream }) => stream === "orders")).toMatchObject({
    partition: 0,
    segments: 1,
    offsetStart: 0,
    offsetEnd: 3,
    damagedHeaders: 0,
  });
  expect(sync).toBeNull();
  const asked = ["log", "stat", ...data, "--server", gateway.url, "--token", gateway.token];
  const withTimes = await run(asked, { folder });
  expect(withTimes.exitCode).toBe(0);
  expect(withTimes.stdout).toContain("orders/0");
  expect(withTimes.stderr).toMatch(/sync p50 [\d.]+ ms, p99 [\d.]+ ms over \d+ syncs/);
  await gateway.end();
  const own = join(folder, "streams", "orders", "0");
  const name = readdirSync(own).find((each) => each.endsWith(".log")) ?? "";
  const bytes = readFileSync(join(own, name));
  const at = bytes.indexOf("second message");
  bytes.writeUInt8((bytes[at] ?? 0) ^ 4, at);
  writeFileSync(join(own, name), bytes);
  const damaged = await run(["log", "verify", ...data], { folder });
  expect(damaged.exitCode).toBe(1);
  expect(damaged.stdout).toContain("corrupt orders/0");
  expect(damaged.stdout).toContain("messages 1 to 1");
  expect(damaged.stderr).toContain("isthmus: 1 damaged place");
}, 60_000);

test("a folder without a log is one line and exit code 1", async () => {
  await using folder = await temporaryFolder("cli");
  const ran = await run(["log", "stat"], { folder: folder.path });
  expect(ran.exitCode).toBe(1);
  expect(ran.stderr).toContain("there is no log in");
});

test("progress off a terminal is a plain line every few seconds, and none with JSON", () => {
  const MIB = 1024 * 1024;
  const lines: string[] = [];
  let nowMs = 0;
  const place = {
    isTerminal: false,
    nowMs: () => nowMs,
    write: (text: string): void => void lines.push(text),
  };
  const progress = progressOf("checked", { json: false }, 100 * MIB, place);
  for (const atMs of [1000, 4900, 5000, 6000, 10_000]) {
    nowMs = atMs;
    progress.onFile(10 * MIB, 0);
  }
  expect(lines).toEqual([
    "checked 30 of 100 MiB (30 %), 6 MiB/s\n",
    "checked 50 of 100 MiB (50 %), 5 MiB/s\n",
  ]);
  const silent = progressOf("checked", { json: true }, null, place);
  nowMs = 60_000;
  silent.onFile(MIB, 0);
  expect(lines.length).toBe(2);
});

test("percentiles of syncs are taken from the buckets of the metrics", () => {
  const metric = (le: string, count: number): string =>
    `isthmus_log_sync_seconds_bucket{le="${le}"} ${count}`;
  const text = [metric("0.001", 0), metric("0.002", 90), metric("0.01", 100), metric("+Inf", 100)];
  expect(syncTimes(text.join("\n"))).toMatchObject({ count: 100 });
  expect(syncTimes(text.join("\n"))?.p50Ms).toBeCloseTo(1 + 50 / 90);
  expect(syncTimes(text.join("\n"))?.p99Ms).toBeCloseTo(2 + (8 * 9) / 10);
  expect(syncTimes(metric("+Inf", 0))).toBeNull();
});
