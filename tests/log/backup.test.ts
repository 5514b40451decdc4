/** A backup of a running gateway, killed and gone on with, restored and served again. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run, start } from "../cli/run.ts";
import { type MessageJson, TestGateway } from "../e2e/gateway.ts";
import { temporaryFolder, waitFor } from "../temporary.ts";

/** What was sent of a message, and has to come back. */
interface Sent {
  readonly body: string;
  readonly key: string;
  readonly seq: unknown;
}

function sentOf({ body, key, headers }: MessageJson): Sent {
  const seq = headers.find(([name]) => name === "x-seq")?.[1];
  return { body: body ?? "", key: key ?? "", seq };
}

function byBody(a: Sent, b: Sent): number {
  return a.body < b.body ? -1 : 1;
}

/** Publishes one message after another until told to stop. */
async function write(
  gateway: TestGateway,
  { acked, signal }: { readonly acked: Sent[]; readonly signal: AbortSignal },
): Promise<void> {
  for (let seq = 0; !signal.aborted; seq++) {
    const sent = {
      body: `message ${seq} ${"x".repeat(500)}`,
      key: `k${seq % 7}`,
      seq: String(seq),
    };
    const headers = { "isthmus-key": sent.key, "isthmus-header-x-seq": sent.seq };
    const init = { method: "POST", body: sent.body, headers };
    const answer = await gateway.fetch("/streams/s/messages", init);
    if (answer.status === 202) acked.push(sent);
  }
}

test("what was acked before a backup that is killed and called again is there once restored", async () => {
  await using place = await temporaryFolder("backup");
  const folder = place.path;
  await using gateway = await TestGateway.start({ ISTHMUS_SECRET_KEY: "k".repeat(43) });
  await gateway.apply({
    hooks: { in: { stream: "s" } },
    rules: { copy: { from: "s", to: { stream: "t" } } },
  });
  const acked: Sent[] = [];
  const stop = new AbortController();
  const writing = write(gateway, { acked, signal: stop.signal });
  await waitFor("there is something to copy", () => acked.length >= 1000, { timeoutMs: 60_000 });
  const target = join(folder, "copy");
  const backup = ["log", "backup", target, "--data", gateway.dataFolder];
  await using killed = start(backup, { folder });
  await waitFor("something was copied", () => existsSync(join(target, "streams", "s", "0")));
  killed.kill("SIGKILL");
  await killed.ended;
  const before = [...acked];
  const whole = await run(backup, { folder });
  expect(whole).toMatchObject({ exitCode: 0, stdout: "" });
  stop.abort();
  await writing;
  await gateway.kill();

  const data = join(folder, "restored");
  const restored = await run(["log", "restore", target, "--data", data], { folder });
  expect(restored).toMatchObject({ exitCode: 0 });
  const again = await run(["log", "restore", target, "--data", data], { folder });
  expect(again.exitCode).toBe(2);
  expect(again.stderr).toContain("is not empty");
  expect((await run(["log", "verify", "--data", data], { folder })).exitCode).toBe(0);
  const epochOf = async (from: string): Promise<string> => {
    const bytes = await readFile(join(from, "streams/s/0/00000000000000000000.log"));
    return bytes.toString("latin1", 24, 40);
  };
  expect(await epochOf(data)).not.toBe(await epochOf(gateway.dataFolder));

  // A second backup into it would mix two logs: the restored one is not the one that it is of.
  const mixed = await run(["log", "backup", target, "--data", data], { folder });
  expect(mixed.exitCode).toBe(2);
  expect(mixed.stderr).toContain("holds the backup of another log");

  const spoiled = (await readFile(join(target, "definitions.json"), "utf8")).replace("{", "[");
  await writeFile(join(target, "definitions.json"), spoiled);
  const elsewhere = join(folder, "elsewhere");
  const refused = await run(["log", "restore", target, "--data", elsewhere], { folder });
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toContain("not what was backed up");

  await using second = await TestGateway.start({
    ISTHMUS_DATA: data,
    ISTHMUS_SECRET_KEY: "k".repeat(43),
  });
  await second.drained();
  const held = await second.read("s");
  expect(held.slice(0, before.length).map(sentOf)).toEqual(before);
  const bodies = held.map(({ body }) => body ?? "");
  expect(new Set(bodies).size).toBe(bodies.length);
  const copies = await second.read("t");
  expect(copies.map(sentOf).toSorted(byBody)).toEqual(held.map(sentOf).toSorted(byBody));
  // What is taken at offsets that the backup's copies came from is routed, not taken for a copy.
  const later = Array.from({ length: 20 }, (_, index) => `later ${index}`);
  for (const body of later) {
    const answer = await fetch(`${second.url}/hooks/in`, { method: "POST", body });
    expect(answer.status).toBe(202);
  }
  await second.drained();
  const routed = (await second.read("t")).map(({ body }) => body ?? "");
  expect(later.filter((body) => !routed.includes(body))).toEqual([]);
}, 120_000);
