/** `isthmus log …` on a data folder: numbers, damage found, exit codes. */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { temporaryFolder } from "../temporary.ts";
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
  const numbers = await run(["log", "stat", ...data, "--json"], { folder });
  const { partitions } = JSON.parse(numbers.stdout) as { partitions: { stream: string }[] };
  expect(partitions.find(({ stream }) => stream === "orders")).toMatchObject({
    partition: 0,
    segments: 1,
    offsetStart: 0,
    offsetEnd: 3,
    problems: [],
  });
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
