/**
 * Durable ingest beside its upper bound: POSTs of 1 KiB to a hook, answered once they are on disk,
 * against a bare Bun.serve that reads the same body and answers; in turns, in the same minute.
 * Prints req/s, p50, p99 and CPU for each, and gives their ratios as rows.
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { freePort, waitFor } from "../temporary.ts";
import { median, type Row } from "./table.ts";

const SECONDS = 4;
const ROUNDS = 5;
/** What is asked for at so many connections: rate, and processor time, as shares of bare's. */
const BOUNDS = [
  { connections: 64, rate: 0.45, cpu: 2 },
  { connections: 256, rate: 0.65, cpu: 1.5 },
];

/** One run of wrk against a server. */
export interface Run {
  readonly rate: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Processor time of the server, microseconds a request. */
  readonly cpuUs: number;
}

export interface Server {
  readonly name: string;
  readonly url: string;
  readonly pid: number;
}

/** Runs the comparison and prints its tables. */
export async function benchIngest(): Promise<Row[]> {
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
    const rows: Row[] = [];
    for (const bounds of BOUNDS) rows.push(...(await compare(servers, bounds, script)));
    return rows;
  } finally {
    bare.kill();
    await bare.exited;
    await rm(folder, { recursive: true });
  }
}

async function compare(
  servers: readonly Server[],
  bounds: (typeof BOUNDS)[number],
  script: string,
): Promise<Row[]> {
  const { connections } = bounds;
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
  printRuns(runs, connections);
  const own = runs.get(servers[1]?.name ?? "") ?? [];
  const share = (pick: (run: Run) => number): number =>
    median(own.map((run, index) => pick(run) / pick(base[index] ?? run)));
  const detail = `${connections} connections, table above`;
  const hook = `durable hook / bare, ${connections} connections`;
  return [
    { what: hook, value: share(({ rate }) => rate), bound: bounds.rate, detail },
    {
      what: `CPU of it per request / bare's, ${connections} connections`,
      value: share(({ cpuUs }) => cpuUs),
      bound: bounds.cpu,
      isAtMost: true,
      detail,
    },
  ];
}

function printRuns(runs: ReadonlyMap<string, readonly Run[]>, connections: number): void {
  console.log(`${connections} connections        req/s   p50 ms   p99 ms   CPU us`);
  for (const [name, own] of runs) {
    const of = (pick: (run: Run) => number, digits: number, width: number): string =>
      median(own.map(pick)).toFixed(digits).padStart(width);
    const cells = [
      name.padEnd(16),
      of(({ rate }) => rate, 0, 12),
      of(({ p50Ms }) => p50Ms, 2, 8),
      of(({ p99Ms }) => p99Ms, 2, 8),
      of(({ cpuUs }) => cpuUs, 1, 8),
    ];
    console.log(cells.join(" "));
  }
  console.log("");
}

/** Drives one server with wrk for a while. @throws Error an answer was not a success. */
export async function load(
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
