/**
 * Routes through the log beside careful scripts without one: broker → log → broker, everything on
 * disk in between, against the same clients with nothing in between. Also what arrived (losses,
 * duplicates and order breaks are faults) and how much memory the gateway took.
 * ISTHMUS_BENCH_MESSAGES (200000), ISTHMUS_BENCH_ROUNDS (3) and ISTHMUS_BENCH_ROUTES (such as
 * `kafka-kafka`) make it smaller.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { waitFor } from "../temporary.ts";
import { benchAddedLatency } from "./bridges-latency.ts";
import { type End, type EndKind, endOf, faultsOf, TOPIC_PARTITIONS } from "./bridges-ends.ts";
import { inTurns, type Row, short } from "./table.ts";

const MESSAGES = Number(process.env["ISTHMUS_BENCH_MESSAGES"] ?? 200_000);
const ROUNDS = Number(process.env["ISTHMUS_BENCH_ROUNDS"] ?? 3);
const ROUTES = process.env["ISTHMUS_BENCH_ROUTES"]?.split(",");
const RSS_MIB_MAX = 250;
const MIB = 1024 * 1024;

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
];

/** What the gateway did wrong and took, over all rounds of a route. */
interface Seen {
  faults: number;
  rssBytes: number;
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
  const [source, target] = [await endOf(from), await endOf(to)];
  const seen: Seen = { faults: 0, rssBytes: 0 };
  // A topic is read by many groups; a queue is empty once it has been read.
  const shared = from === "kafka" ? await filled(source) : null;
  const measured = await inTurns(
    ROUNDS,
    async () => gatewayRate(source, target, { shared, seen }),
    async () => bareRate(source, target, shared),
  );
  const name = `${from} → log → ${to}`;
  const rssMib = seen.rssBytes / MIB;
  return [
    {
      what: `${name} / script without a log`,
      value: measured.ratio,
      bound,
      detail: `${short(measured.first)}/s, ${short(measured.second)}/s`,
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
      value: rssMib,
      bound: RSS_MIB_MAX,
      isAtMost: true,
      detail: "resident, embedded database included",
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

async function gatewayRate(
  source: End,
  target: End,
  { shared, seen }: { shared: string | null; seen: Seen },
): Promise<number> {
  const from = shared ?? (await filled(source));
  const to = await emptied(target);
  // What a queue holds has no key: one partition keeps its order, the script's too.
  const partition = source.kind === "amqp" && target.kind === "kafka" ? { partition: 0 } : {};
  const address = { ...target.address(to), ...partition };
  await using gateway = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
  await gateway.apply({
    bridges: {
      from: { kind: source.kind, url: withScheme(source) },
      to: { kind: target.kind, url: withScheme(target) },
    },
    streams: { s: { partitions: source.kind === "kafka" ? TOPIC_PARTITIONS : 1 } },
    sources: {
      s: { from: { bridge: "from", ...source.address(from) }, stream: "s", start: "earliest" },
    },
    rules: { r: { from: "s", start: "earliest", to: { bridge: "to", ...address } } },
  });
  const rate = await arrivals(target, to);
  seen.rssBytes = Math.max(seen.rssBytes, peakRssBytes(gateway.pid));
  await gateway.drained();
  const { lost, duplicates, outOfOrder } = faultsOf(await target.read(to, MESSAGES), MESSAGES);
  if (lost + duplicates + outOfOrder > 0) {
    console.error(`lost ${lost}, twice ${duplicates}, out of order ${outOfOrder}`);
  }
  seen.faults += lost + duplicates + outOfOrder;
  return rate;
}

function withScheme({ kind, url }: End): string {
  return kind === "kafka" ? url.replace(/^kafka:\/\//, "") : url;
}

async function bareRate(source: End, target: End, shared: string | null): Promise<number> {
  const from = shared ?? (await filled(source));
  const to = await emptied(target);
  const script = join(import.meta.dir, "bridges-bare.ts");
  const ends = [source.kind, source.url, from, target.kind, target.url, to];
  const child = Bun.spawn([process.execPath, script, ...ends], { stderr: "inherit" });
  try {
    return await arrivals(target, to);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}

/** Messages a second from the first arrival to the last: connecting and joining not counted. */
async function arrivals(target: End, place: string): Promise<number> {
  let first: { readonly count: number; readonly atMs: number } | null = null;
  let count = 0;
  await waitFor(
    "all has arrived",
    async () => {
      count = await target.count(place);
      if (count > 0) first ??= { count, atMs: performance.now() };
      return count >= MESSAGES;
    },
    { timeoutMs: 300_000 },
  );
  const { count: before, atMs } = first ?? { count: 0, atMs: Number.NaN };
  return (count - before) / ((performance.now() - atMs) / 1000);
}

function peakRssBytes(pid: number): number {
  const match = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(match?.[1] ?? Number.NaN) * 1024;
}
