/**
 * Durable ingest beside its upper bound: POSTs of 1 KiB to a hook, answered once they are on disk,
 * against a bare Bun.serve that reads the same body and answers; in turns, in the same minute.
 * Prints req/s, p50, p99 and CPU for each, and their ratios. Asserts nothing.
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { freePort, waitFor } from "../temporary.ts";

const SECONDS = 4;
const ROUNDS = 5;
const CONNECTIONS = [64, 256];

interface Run {
  readonly rate: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Processor time of the server, microseconds a request. */
  readonly cpuUs: number;
}

interface Server {
  readonly name: string;
  readonly url: string;
  readonly pid: number;
}

/** Runs the comparison and prints its table. */
export async function benchIngest(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "isthmus-bench-"));
  const script = join(folder, "post.lua");
  const body = JSON.stringify({ id: 1, region: "eu", filler: "x".repeat(985) });
  await writeFile(script, `wrk.method = "POST"\nwrk.body = [[${body}]]\n`);
  await using gateway = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
  await gateway.apply({ hooks: { orders: { stream: "orders" } } });
  const port = await freePort();
  const bare = Bun.spawn([process.execPath, join(import.meta.dir, "bare.ts"), String(port)]);
  try {
    const servers: readonly Server[] = [
      { name: "bare Bun.serve", url: `http://127.0.0.1:${port}/`, pid: bare.pid },
      { name: "durable hook", url: `${gateway.url}/hooks/orders`, pid: gateway.pid },
    ];
    await waitFor("the bare server answers", () => isUp(servers[0]?.url ?? ""));
    console.log(
      `durable ingest, ${body.length} bytes, ${ROUNDS} rounds of ${SECONDS} s in turns\n`,
    );
    for (const connections of CONNECTIONS) await compare(servers, connections, script);
  } finally {
    bare.kill();
    await bare.exited;
    await rm(folder, { recursive: true });
  }
}

async function compare(
  servers: readonly Server[],
  connections: number,
  script: string,
): Promise<void> {
  const runs = new Map<string, Run[]>(servers.map(({ name }) => [name, []]));
  for (const server of servers) await load(server, { connections, script, seconds: 1 });
  for (let round = 0; round < ROUNDS; round++) {
    const order = round % 2 === 0 ? servers : servers.toReversed();
    for (const server of order) {
      const run = await load(server, { connections, script, seconds: SECONDS });
      runs.get(server.name)?.push(run);
    }
  }
  const base = runs.get(servers[0]?.name ?? "") ?? [];
  console.log(
    `${connections} connections        req/s   p50 ms   p99 ms   CPU us   of bare   CPU of bare`,
  );
  for (const { name } of servers) {
    const own = runs.get(name) ?? [];
    const of = (pick: (run: Run) => number): number => median(own.map(pick));
    const ratio = (pick: (run: Run) => number): number =>
      median(own.map((run, index) => pick(run) / pick(base[index] ?? run)));
    const cells = [
      name.padEnd(16),
      Math.round(of(({ rate }) => rate))
        .toString()
        .padStart(12),
      of(({ p50Ms }) => p50Ms)
        .toFixed(2)
        .padStart(8),
      of(({ p99Ms }) => p99Ms)
        .toFixed(2)
        .padStart(8),
      of(({ cpuUs }) => cpuUs)
        .toFixed(1)
        .padStart(8),
      ratio(({ rate }) => rate)
        .toFixed(2)
        .padStart(9),
      ratio(({ cpuUs }) => cpuUs)
        .toFixed(2)
        .padStart(13),
    ];
    console.log(cells.join(" "));
  }
  console.log("");
}

async function load(
  server: Server,
  options: { connections: number; script: string; seconds: number },
): Promise<Run> {
  const before = await cpuSeconds(server.pid);
  const { connections, script, seconds } = options;
  const wrk = Bun.spawn(
    ["wrk", "-t1", `-c${connections}`, `-d${seconds}s`, "--latency", "-s", script, server.url],
    { stdout: "pipe", stderr: "inherit" },
  );
  const output = await new Response(wrk.stdout).text();
  if ((await wrk.exited) !== 0) throw new Error(`wrk failed: ${output}`);
  if (/Non-2xx/.test(output)) throw new Error(`not every answer was a success:\n${output}`);
  const used = (await cpuSeconds(server.pid)) - before;
  const requests = Number(/(\d+) requests in/.exec(output)?.[1]);
  return {
    rate: Number(/Requests\/sec:\s+([\d.]+)/.exec(output)?.[1]),
    p50Ms: milliseconds(/50%\s+([\d.]+)(us|ms|s)/.exec(output)),
    p99Ms: milliseconds(/99%\s+([\d.]+)(us|ms|s)/.exec(output)),
    cpuUs: (used / requests) * 1e6,
  };
}

function milliseconds(match: RegExpExecArray | null): number {
  const factor = { us: 0.001, ms: 1, s: 1000 }[match?.[2] ?? "ms"] ?? 1;
  return Number(match?.[1]) * factor;
}

/** Processor time that a process has used, seconds (Linux). */
async function cpuSeconds(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function isUp(url: string): Promise<boolean> {
  try {
    return (await fetch(url, { method: "POST", body: "x" })).ok;
  } catch {
    return false;
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
