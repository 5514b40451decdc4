/**
 * A disk that fails under the real process: a sync that reports an error ends it with code 70 and
 * acks nothing; a full disk refuses intake, lets deliveries go on, and is taken up again when
 * there is space. The order write < sync < answer is shown from a trace of its system calls.
 */
import { describe, expect, test } from "bun:test";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { type TemporaryFolder, temporaryFolder, waitFor } from "../temporary.ts";

const canTrace = Bun.which("strace") !== null && (await run(["strace", "-o", "/dev/null", "true"]));
const canMount = await mountsWork();
const hooks = { hooks: { in: { stream: "s" } } };

async function run(command: readonly string[]): Promise<boolean> {
  const child = Bun.spawn([...command], { stdout: "ignore", stderr: "ignore" });
  return (await child.exited) === 0;
}

async function mountsWork(): Promise<boolean> {
  await using folder = await temporaryFolder("mount");
  if (!(await run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder.path]))) return false;
  return await run(["umount", folder.path]);
}

/** A data folder whose streams are on a small disk of their own. */
async function smallDisk(bytes: string): Promise<TemporaryFolder> {
  const folder = await temporaryFolder("small");
  const streams = join(folder.path, "streams");
  await mkdir(streams);
  await run(["mount", "-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", streams]);
  return {
    path: folder.path,
    async [Symbol.asyncDispose]() {
      await run(["umount", "-l", streams]);
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** Traces a running process; resolves once the tracer is attached. */
async function trace(pid: number, options: readonly string[]): Promise<Bun.Subprocess> {
  const tracer = Bun.spawn(["strace", "-f", "-p", String(pid), ...options], {
    stdout: "ignore",
    stderr: "pipe",
  });
  const reader = tracer.stderr.getReader();
  let said = "";
  await waitFor("strace is attached", async () => {
    const { value, done } = await reader.read();
    said += new TextDecoder().decode(value ?? new Uint8Array());
    if (done) throw new Error(`strace ended: ${said}`);
    return said.includes("attached");
  });
  reader.releaseLock();
  return tracer;
}

function post(gateway: TestGateway, body: string): Promise<Response> {
  return fetch(`${gateway.url}/hooks/in`, { method: "POST", body });
}

describe.skipIf(!canTrace)(`under strace${canTrace ? "" : " (strace is not there)"}`, () => {
  test("a failed sync acks nothing, and the process ends with code 70", async () => {
    await using gateway = await TestGateway.start();
    await gateway.apply(hooks);
    expect((await post(gateway, "before")).status).toBe(202);
    const inject = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"];
    const tracer = await trace(gateway.pid, [...inject, "-o", "/dev/null"]);
    const answers = await Promise.allSettled(["a", "b", "c"].map((body) => post(gateway, body)));
    for (const answer of answers) {
      if (answer.status === "fulfilled") expect(answer.value.status).toBe(503);
    }
    const { code, output } = await gateway.ended();
    expect(code).toBe(70);
    expect(output).toContain("nothing unsynced was acked");
    tracer.kill();
    await tracer.exited;
    await gateway.start();
    const kept = (await gateway.read("s")).map(({ body }) => body);
    expect(kept[0]).toBe("before");
    expect((await post(gateway, "after")).status).toBe(202);
  }, 60_000);

  test("each answer is written after the sync of its message, which is after its write", async () => {
    await using folder = await temporaryFolder("trace");
    await using gateway = await TestGateway.start();
    await gateway.apply(hooks);
    const output = join(folder.path, "calls");
    const calls = "trace=pwrite64,write,writev,fdatasync,sendto,sendmsg";
    const tracer = await trace(gateway.pid, ["-e", calls, "-s", "400", "-o", output]);
    const bodies = Array.from({ length: 200 }, (_, index) => `traced-${index}-end`);
    for (const body of bodies) expect((await post(gateway, body)).status).toBe(202);
    tracer.kill("SIGINT");
    await tracer.exited;
    const lines = (await readFile(output, "utf8")).split("\n");
    let synced = -1;
    let checked = 0;
    for (const body of bodies) {
      const written = lines.findIndex((line) => line.includes(body) && /p?write/.test(line));
      const sync = lines.findIndex((line, at) => at > written && isSynced(line));
      const answer = lines.findIndex((line, at) => at > written && line.includes("202 Accepted"));
      expect(written).toBeGreaterThan(synced);
      expect(sync).toBeGreaterThan(written);
      expect(answer).toBeGreaterThan(sync);
      synced = sync;
      checked++;
    }
    expect(checked).toBe(bodies.length);
  }, 60_000);
});

/** The end of a sync that succeeded. */
function isSynced(line: string): boolean {
  return /fdatasync.*= 0$/.test(line);
}

const noMounts = canMount ? "" : " (this machine allows no mounts)";

describe.skipIf(!canMount)(`on a disk of 8 MiB${noMounts}`, () => {
  test("a full disk refuses intake, loses nothing acked, and is taken up again", async () => {
    await using disk = await smallDisk("8m");
    await using gateway = await TestGateway.start({ ISTHMUS_DATA: disk.path });
    await gateway.apply({
      ...hooks,
      rules: { copy: { from: "s", where: "false", to: { stream: "t" } } },
    });
    const body = "x".repeat(100_000);
    const statuses: number[] = [];
    while (statuses.at(-1) !== 503 && statuses.length < 200) {
      const answer = await post(gateway, body);
      statuses.push(answer.status);
      if (answer.status === 503) {
        expect(answer.headers.get("retry-after")).not.toBeNull();
        expect(await answer.json()).toMatchObject({ code: "storage-unavailable" });
      }
    }
    const acked = statuses.filter((status) => status === 202).length;
    expect(statuses.at(-1)).toBe(503);
    expect(new Set(statuses)).toEqual(new Set([202, 503]));
    expect((await gateway.read("s")).length).toBe(acked);
    expect((await fetch(`${gateway.url}/health/live`)).status).toBe(200);
    await run(["mount", "-o", "remount,size=64m", join(disk.path, "streams")]);
    await waitFor("intake is taken up again", async () => (await post(gateway, body)).ok);
    await gateway.drained();
    await gateway.kill();
    await gateway.start();
    expect((await gateway.read("s")).length).toBe(acked + 1);
  }, 120_000);
});
