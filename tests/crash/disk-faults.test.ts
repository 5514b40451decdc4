/**
 * A disk that fails under the real process: a sync that reports an error ends it with code 70 and
 * acks nothing; a full disk refuses intake, lets deliveries go on, and is taken up again when
 * there is space.
 */
import { describe, expect, test } from "bun:test";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { freePort, type TemporaryFolder, temporaryFolder, waitFor } from "../temporary.ts";
import { canTrace, noTrace, succeeds, trace } from "./tracing.ts";

const canMount = await mountsWork();
/** A failed sync is final, whatever it says: of a file, and of a folder. */
const FINAL: [string, string][] = [
  ["fdatasync", "EIO"],
  ["fdatasync", "ENOSPC"],
  ["fsync", "EIO"],
  ["fsync", "ENOSPC"],
];

/** From the first message whose sync fails to the end of the process. */
const ENDED_MS_MAX = 1000;

const hooks = { hooks: { in: { stream: "s" } } };

async function mountsWork(): Promise<boolean> {
  await using folder = await temporaryFolder("mount");
  if (!(await succeeds(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder.path])))
    return false;
  return await succeeds(["umount", folder.path]);
}

/** A data folder of which one folder, by default the streams, is on a small disk of its own. */
async function smallDisk(bytes: string, name = "streams"): Promise<TemporaryFolder> {
  const folder = await temporaryFolder("small");
  const streams = join(folder.path, name);
  await mkdir(streams);
  await succeeds(["mount", "-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", streams]);
  return {
    path: folder.path,
    async [Symbol.asyncDispose]() {
      await succeeds(["umount", "-l", streams]);
      await folder[Symbol.asyncDispose]();
    },
  };
}

function post(gateway: TestGateway, body: string): Promise<Response> {
  return fetch(`${gateway.url}/hooks/in`, { method: "POST", body });
}

describe.skipIf(!canTrace)(`under strace${noTrace}`, () => {
  test("a failed sync acks nothing, and the process ends with code 70", async () => {
    await using gateway = await TestGateway.start();
    await gateway.apply(hooks);
    expect((await post(gateway, "before")).status).toBe(202);
    const inject = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"];
    const tracer = await trace(gateway.pid, [...inject, "-o", "/dev/null"]);
    const startedMs = performance.now();
    const answers = await Promise.allSettled(["a", "b", "c"].map((body) => post(gateway, body)));
    for (const answer of answers) {
      if (answer.status === "fulfilled") expect(answer.value.status).toBe(503);
    }
    const { code, output } = await gateway.ended();
    expect(performance.now() - startedMs).toBeLessThan(ENDED_MS_MAX);
    expect(code).toBe(70);
    expect(output).toContain("nothing unsynced was acked");
    tracer.kill();
    await tracer.exited;
    await gateway.start();
    const kept = (await gateway.read("s")).map(({ body }) => body);
    expect(kept[0]).toBe("before");
    expect((await post(gateway, "after")).status).toBe(202);
  }, 60_000);

  test.each(FINAL)(
    "a failed %s with %s ends it with code 70 and loses nothing",
    async (call, code) => {
      await using gateway = await TestGateway.start();
      await gateway.apply(hooks);
      const acked = await posted(gateway, ["a", "b", "c"]);
      const tracer = await failing(gateway, call, code);
      // A stream's first message makes its folder and its file, with syncs of both kinds.
      const first = await Promise.allSettled([
        gateway.fetch("/streams/new/messages", { method: "POST", body: "x" }),
      ]);
      for (const answer of first) {
        if (answer.status === "fulfilled") expect(answer.value.status).toBe(503);
      }
      expect((await gateway.ended()).code).toBe(70);
      tracer.kill();
      await tracer.exited;
      await gateway.start();
      expect((await gateway.read("s")).map(({ body }) => body)).toEqual(acked);
      expect((await post(gateway, "after")).status).toBe(202);
    },
    60_000,
  );

  test.each(["EIO", "ENOSPC", "EDQUOT"])(
    "a write that fails with %s is answered 503, and the next is taken",
    async (code) => {
      await using gateway = await TestGateway.start();
      await gateway.apply(hooks);
      const acked = await posted(gateway, ["a", "b", "c"]);
      const tracer = await failing(gateway, "pwrite64", code);
      const refused = await post(gateway, "refused");
      expect(refused.status).toBe(503);
      expect(await refused.json()).toMatchObject({ code: "storage-unavailable" });
      expect(refused.headers.get("retry-after")).not.toBeNull();
      expect((await gateway.read("s")).map(({ body }) => body)).toEqual(acked);
      tracer.kill("SIGINT");
      await tracer.exited;
      await waitFor("intake is taken up again", async () => (await post(gateway, "after")).ok);
      await gateway.kill();
      await gateway.start();
      expect((await gateway.read("s")).map(({ body }) => body)).toEqual([...acked, "after"]);
    },
    60_000,
  );
});

/** Makes each call of a kind fail from now on. */
function failing(gateway: TestGateway, call: string, code: string): Promise<Bun.Subprocess> {
  const inject = ["-e", `trace=${call}`, "-e", `inject=${call}:error=${code}`];
  return trace(gateway.pid, [...inject, "-o", "/dev/null"]);
}

/** Posts bodies one after another; those that were acked, which is all of them. */
async function posted(gateway: TestGateway, bodies: readonly string[]): Promise<string[]> {
  for (const body of bodies) expect((await post(gateway, body)).status).toBe(202);
  return [...bodies];
}

const noMounts = canMount ? "" : " (this machine allows no mounts)";

describe.skipIf(!canMount)(`on a disk of 8 MiB${noMounts}`, () => {
  test("a full disk refuses intake, goes on delivering, loses nothing acked, and is taken up again", async () => {
    await using disk = await smallDisk("8m");
    await using gateway = await TestGateway.start({ ISTHMUS_DATA: disk.path });
    const delivered = new Set<string>();
    let isUp = false;
    using crm = Bun.serve({
      hostname: "127.0.0.1",
      port: await freePort(),
      fetch: (request) => {
        if (isUp) delivered.add(request.headers.get("webhook-id") ?? "");
        return new Response("", { status: isUp ? 200 : 503 });
      },
    });
    const url = `http://127.0.0.1:${crm.port}/`;
    await gateway.apply({
      ...hooks,
      bridges: { crm: { kind: "http", url, allowPrivate: ["127.0.0.0/8"] } },
      rules: {
        tell: {
          from: "s",
          to: { bridge: "crm" },
          retry: { delayMin: "5ms", delayMax: "50ms" },
        },
      },
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
    isUp = true;
    await waitFor("all that was acked is delivered", () => delivered.size === acked);
    expect((await post(gateway, body)).status).toBe(503);
    await succeeds(["mount", "-o", "remount,size=64m", join(disk.path, "streams")]);
    await waitFor("intake is taken up again", async () => (await post(gateway, body)).ok);
    await gateway.drained();
    await gateway.kill();
    await gateway.start();
    expect((await gateway.read("s")).length).toBe(acked + 1);
  }, 120_000);

  test("a disk without room for the embedded database refuses the first change, says why, and takes it later", async () => {
    await using disk = await smallDisk("8m", "data");
    const data = join(disk.path, "data");
    await using gateway = await TestGateway.start({ ISTHMUS_DATA: data });
    const change = (): Promise<Response> =>
      gateway.fetch("/api/hooks/in", { method: "PUT", body: JSON.stringify({ stream: "s" }) });
    const refused = await change();
    expect(refused.status).toBe(503);
    expect(refused.headers.get("retry-after")).not.toBeNull();
    const problem: unknown = await refused.json();
    expect(problem).toMatchObject({ code: "database-unavailable" });
    expect(JSON.stringify(problem)).toContain("ENOSPC");
    expect((await readdir(data)).filter((name) => name.startsWith("pglite"))).toEqual([]);
    const publish = (): Promise<Response> =>
      gateway.fetch("/streams/s/messages", { method: "POST", body: "taken all the same" });
    expect((await publish()).status).toBe(202);
    await succeeds(["mount", "-o", "remount,size=200m", data]);
    await waitFor("the change is taken", async () => (await change()).ok);
    expect((await post(gateway, "after")).status).toBe(202);
    expect((await gateway.read("s")).length).toBe(2);
  }, 120_000);
});
