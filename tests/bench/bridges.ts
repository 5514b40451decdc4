/**
 * Routes through the log beside careful scripts without one: broker → log → broker, everything on
 * disk in between, against the same clients with nothing in between. Also what arrived (losses,
 * duplicates and order breaks are faults), what a message costs of the CPU, and how much memory the
 * gateway took. ISTHMUS_BENCH_MESSAGES (200000), ISTHMUS_BENCH_ROUNDS (3) and ISTHMUS_BENCH_ROUTES
 * (such as `kafka-kafka`) make it smaller; ISTHMUS_BENCH_PROFILE is a folder for CPU profiles.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { temporaryFolder, waitFor } from "../temporary.ts";
import { benchAddedLatency } from "./bridges-latency.ts";
import { type End, type EndKind, endOf, faultsOf, TOPIC_PARTITIONS } from "./bridges-ends.ts";
import { inTurns, median, type Row, short } from "./table.ts";

const MESSAGES = Number(process.env["ISTHMUS_BENCH_MESSAGES"] ?? 200_000);
const ROUNDS = Number(process.env["ISTHMUS_BENCH_ROUNDS"] ?? 3);
const ROUTES = process.env["ISTHMUS_BENCH_ROUTES"]?.split(",");
const PROFILE = process.env["ISTHMUS_BENCH_PROFILE"];
const RSS_MIB_MAX = 250;
const MIB = 1024 * 1024;
/** Linux counts CPU time in hundredths of a second. */
const TICKS_PER_S = 100;

interface Route {
  readonly from: EndKind;
  readonly to: EndKind;
  readonly bound: number;
}

const routes: readonly Route[] = [
  { from: "kafka", to: "kafka", bound: 1.4 },
  { from: "kafka", to: "amqp", bound: 1 },
  { from: "amqp", to: "kafka", bound: 1 },
  { from: "amqp", to: "amqp", bound: 1 },
  { from: "mqtt", to: "kafka", bound: 0.75 },
];

/** What the gateway did wrong and took, over all rounds of a route. */
class Seen {
  faults = 0;
  rssBytes = 0;
  /** Microseconds of CPU a message, of each round. */
  readonly gatewayUs: number[] = [];
  readonly scriptUs: number[] = [];
}

/** Measures the rows of bridges. */
export async function benchBridges(): Promise<Row[]> {
  const rows: Row[] = [];
  const isWanted = (name: string): boolean => ROUTES === undefined || ROUTES.includes(name);
  for (const route of routes) {
    if (isWanted(`${route.from}-${route.to}`)) rows.push(...(await benchRoute(route)));
  }
  if (isWanted("latency")) rows.push(await benchAddedLatency());
  return rows;
}

async function benchRoute({ from, to, bound }: Route): Promise<Row[]> {
  await using source = await endOf(from);
  await using target = await endOf(to);
  const seen = new Seen();
  // A topic of Kafka is read by many groups; a queue is empty once it has been read.
  const shared = from === "kafka" ? await filled(source) : null;
  const measured = await inTurns(
    ROUNDS,
    async () => gatewayRate(source, target, { shared, seen }),
    async () => bareRate(source, target, { shared, seen }),
  );
  const name = `${from} → log → ${to}`;
  const cpu = `${median(seen.gatewayUs).toFixed(0)} µs, ${median(seen.scriptUs).toFixed(0)} µs CPU`;
  return [
    {
      what: `${name} / script without a log`,
      value: measured.ratio,
      bound,
      detail: `${short(measured.first)}/s, ${short(measured.second)}/s; ${cpu}`,
    },
    {
      what: `${name}: lost, twice or out of order`,
      value: seen.faults,
      bound: 0,
      isAtMost: true,
      detail: `${ROUNDS} rounds of ${short(MESSAGES)}`,
    },
    {
      what: `${name}: most memory, MiB`,
      value: seen.rssBytes / MIB,
      bound: RSS_MIB_MAX,
      isAtMost: true,
      detail: "resident, from its start to its end, the embedded database asleep",
    },
  ];
}

async function filled(end: End): Promise<string> {
  const place = `bench-in-${crypto.randomUUID()}`;
  await end.make(place);
  await end.fill(place, MESSAGES);
  return place;
}

async function emptied(end: End): Promise<string> {
  const place = `bench-out-${crypto.randomUUID()}`;
  await end.make(place);
  return place;
}

/** What a side is measured with. */
interface Measuring {
  readonly shared: string | null;
  readonly seen: Seen;
}

async function gatewayRate(source: End, target: End, { shared, seen }: Measuring): Promise<number> {
  const from = shared ?? (await filled(source));
  const to = await emptied(target);
  await using folder = await temporaryFolder("bench");
  await using gateway = await startedOn(source, target, { from, to, folder: folder.path });
  const { rate, cpuUs } = await arrivals(target, to, gateway.pid);
  seen.gatewayUs.push(cpuUs);
  seen.rssBytes = Math.max(seen.rssBytes, peakRssBytes(gateway.pid));
  await gateway.drained();
  if (PROFILE !== undefined) await gateway.end();
  const { lost, duplicates, outOfOrder } = faultsOf(await target.read(to, MESSAGES), MESSAGES);
  if (lost + duplicates + outOfOrder > 0) {
    console.error(`lost ${lost}, twice ${duplicates}, out of order ${outOfOrder}`);
  }
  seen.faults += lost + duplicates + outOfOrder;
  return rate;
}

/**
 * A gateway that begins to run the route. Its definitions were applied in a life before, in which
 * the brokers' places were not known: so the embedded database sleeps from the start.
 */
async function startedOn(
  source: End,
  target: End,
  { from, to, folder }: { readonly from: string; readonly to: string; readonly folder: string },
): Promise<TestGateway> {
  // What a queue holds has no key: one partition keeps its order, the script's too.
  const partition = source.kind !== "kafka" && target.kind === "kafka" ? { partition: 0 } : {};
  const address = { ...target.address(to), ...partition };
  const gateway = await TestGateway.start({
    ISTHMUS_LOG_LEVEL: "error",
    ...(PROFILE === undefined ? {} : { BUN_OPTIONS: `--cpu-prof --cpu-prof-dir=${PROFILE}` }),
  });
  const files = { from: join(folder, "from"), to: join(folder, "to") };
  await Promise.all(Object.values(files).map((file) => Bun.write(file, "127.0.0.1:1")));
  await gateway.apply({
    bridges: {
      from: { kind: source.kind, url: `\${file:${files.from}}` },
      to: { kind: target.kind, url: `\${file:${files.to}}` },
    },
    streams: { s: { partitions: source.kind === "kafka" ? TOPIC_PARTITIONS : 1 } },
    sources: {
      s: { from: { bridge: "from", ...source.address(from) }, stream: "s", start: "earliest" },
    },
    rules: { r: { from: "s", start: "earliest", to: { bridge: "to", ...address } } },
  });
  await gateway.end();
  await Bun.write(files.from, withScheme(source));
  await Bun.write(files.to, withScheme(target));
  await gateway.start();
  return gateway;
}

function withScheme({ kind, url }: End): string {
  return kind === "kafka" ? url.replace(/^kafka:\/\//, "") : url;
}

async function bareRate(source: End, target: End, { shared, seen }: Measuring): Promise<number> {
  const from = shared ?? (await filled(source));
  const to = await emptied(target);
  const script = join(import.meta.dir, "bridges-bare.ts");
  const ends = [source.kind, source.url, from, target.kind, target.url, to];
  const child = Bun.spawn([process.execPath, script, ...ends], { stderr: "inherit" });
  try {
    const { rate, cpuUs } = await arrivals(target, to, child.pid);
    seen.scriptUs.push(cpuUs);
    return rate;
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}

/**
 * Messages a second from the first arrival to the last, connecting and joining not counted, and
 * what each took of the CPU in the process that moved it.
 */
async function arrivals(
  target: End,
  place: string,
  pid: number,
): Promise<{ readonly rate: number; readonly cpuUs: number }> {
  let first: { readonly count: number; readonly atMs: number; readonly cpuS: number } | null = null;
  let count = 0;
  await waitFor(
    "all has arrived",
    async () => {
      count = await target.count(place);
      if (count > 0) first ??= { count, atMs: performance.now(), cpuS: cpuSeconds(pid) };
      return count >= MESSAGES;
    },
    { timeoutMs: 300_000 },
  );
  const { count: before, atMs, cpuS } = first ?? { count: 0, atMs: Number.NaN, cpuS: Number.NaN };
  const arrived = count - before;
  return {
    rate: arrived / ((performance.now() - atMs) / 1000),
    cpuUs: ((cpuSeconds(pid) - cpuS) * 1e6) / arrived,
  };
}

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S;
}

function peakRssBytes(pid: number): number {
  const match = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(match?.[1] ?? Number.NaN) * 1024;
}
