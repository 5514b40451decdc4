/**
 * Many clients over a proxy that cuts, tears, stalls and half-opens by chance, while the server is
 * killed with -9 five times and a process of phones again and again: each client ends with every
 * message once, in order, and each publish is one message. A sample of 100 clients for 20 s by
 * default; 1,000 clients for a minute with ISTHMUS_TEST_FULL=1, and for ten with
 * ISTHMUS_TEST_STORM_S=600. ISTHMUS_TEST_SEED replays the faults of a run.
 */
import { expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { proxyTo } from "../client/support.ts";
import type { LinkFault, TcpProxy } from "../proxy.ts";
import { Random } from "../sim/random.ts";
import { temporaryFolder, waitFor } from "../temporary.ts";
import { TestGateway } from "./gateway.ts";
import type {
  ReaderReport,
  SettledPublish,
  StormOrder,
  StormSettings,
} from "./storm-clients-child.ts";

const isFull = process.env["ISTHMUS_TEST_FULL"] === "1";
const seed = Number(process.env["ISTHMUS_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const stormMs = Number(process.env["ISTHMUS_TEST_STORM_S"] ?? (isFull ? 60 : 20)) * 1000;
const clientCount = isFull ? 1000 : 100;
const processCount = isFull ? 4 : 2;
const publishesPerS = isFull ? 10 : 40;
const settleMsMax = isFull ? 600_000 : 90_000;
const serverKills = 5;
const phoneKills = 4;
const phones = ["p0", "p1", "p2", "p3", "p4"];
const partitionCount = 4;
const faults: readonly LinkFault[] = ["cut", "tear", "stall", "half-open"];
/** Of each connection, on average. */
const faultsPerS = 0.05;
const stepMs = 50;
/** Less than a client needs to give a connection up, and more. */
const stallMsMax = isFull ? 16_000 : 4000;
const tuning = isFull
  ? { minMs: 100, maxMs: 3000, pingMs: 5000, deadMs: 10_000, restartMs: 1000 }
  : { minMs: 20, maxMs: 500, pingMs: 500, deadMs: 2000, restartMs: 100 };

/** A process with many clients, and its answers. */
class Crowd implements AsyncDisposable {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: AsyncIterator<string>;

  constructor(settings: StormSettings) {
    this.#child = Bun.spawn([process.execPath, `${import.meta.dir}/storm-clients-child.ts`], {
      env: { ...process.env, STORM: JSON.stringify(settings) },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    });
    const input = Readable.fromWeb(this.#child.stdout as never);
    this.#lines = createInterface({ input })[Symbol.asyncIterator]();
  }

  async ask<T>(order: StormOrder): Promise<readonly T[]> {
    await this.#child.stdin.write(`${JSON.stringify(order)}\n`);
    await this.#child.stdin.flush();
    const { value } = await this.#lines.next();
    const answer = JSON.parse(String(value)) as readonly T[] | { readonly error: string };
    if ("error" in answer) throw new Error(answer.error);
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }
}

/** The process of phones, which starts anew after each kill. */
class Phones implements AsyncDisposable {
  readonly #environment: Record<string, string>;
  readonly #file: string;
  #child: Bun.Subprocess<"ignore", "inherit", "inherit">;

  constructor(settings: { url: string; token: string; file: string }) {
    this.#file = settings.file;
    this.#environment = { PHONES: JSON.stringify({ ...settings, names: phones }) };
    this.#child = this.#start();
  }

  async restart(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    this.#child = this.#start();
  }

  /** The offsets that a phone was given, each once, by partition. */
  async seen(phone: string): Promise<readonly ReadonlySet<number>[]> {
    const seen = Array.from({ length: partitionCount }, () => new Set<number>());
    const text = await readFile(this.#file, "utf8").catch(() => "");
    for (const line of text.split("\n")) {
      const [name, partition, offset] = line.split(" ");
      if (name === phone) seen[Number(partition)]?.add(Number(offset));
    }
    return seen;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }

  #start(): Bun.Subprocess<"ignore", "inherit", "inherit"> {
    return Bun.spawn([process.execPath, `${import.meta.dir}/storm-phones-child.ts`], {
      env: { ...process.env, ...this.#environment },
      stdin: "ignore",
      stdout: "inherit",
      stderr: "inherit",
    });
  }
}

/** Breaks connections by chance until it is told to stop; then stalled ones go on. */
async function breakLinks(proxy: TcpProxy, random: Random, isOver: () => boolean): Promise<void> {
  let stalledMs = 0;
  while (!isOver()) {
    await Bun.sleep(stepMs);
    const share = (proxy.connections * faultsPerS * stepMs) / 1000;
    const count = Math.floor(share) + (random.chance(share % 1) ? 1 : 0);
    for (let done = 0; done < count; done++) proxy.breakOne(random.pick(faults), random.next());
    stalledMs += stepMs;
    if (stalledMs < stallMsMax) continue;
    stalledMs = random.next() * stallMsMax;
    proxy.resume();
  }
  proxy.resume();
}

/** At times that the seed tells, in each of so many equal parts of the storm once. */
async function again(times: number, random: Random, run: () => Promise<void>): Promise<void> {
  const partMs = stormMs / times;
  const startMs = performance.now();
  for (let index = 0; index < times; index++) {
    const atMs = (index + 0.2 + 0.6 * random.next()) * partMs;
    await Bun.sleep(Math.max(0, startMs + atMs - performance.now()));
    await run();
  }
  await Bun.sleep(Math.max(0, startMs + stormMs - performance.now()));
}

/** Every settled publish is one message of the log, and each key has its sequence. */
async function checkLog(gateway: TestGateway, settled: readonly SettledPublish[]) {
  const log = await gateway.read("orders");
  const places = new Map(log.map((each) => [each.id, `${each.partition}/${each.offset}`]));
  expect(places.size).toBe(log.length);
  expect(log.length).toBe(settled.length);
  const wrong = settled.filter(
    ({ id, partition, offset }) => places.get(id) !== `${partition}/${offset}`,
  );
  expect(wrong).toEqual([]);
  const counts = new Map<string, number>();
  for (const { key, body } of log) {
    const count = counts.get(String(key)) ?? 0;
    if (body !== String(count)) throw new Error(`${String(key)}: ${String(body)} after ${count}`);
    counts.set(String(key), count + 1);
  }
  return Array.from({ length: partitionCount }, (_, partition) => {
    const own = log.filter((each) => each.partition === partition);
    const hasher = new Bun.CryptoHasher("sha256");
    for (const { id, body } of own) hasher.update(`${id} ${String(body)}\n`);
    return { end: own.length, digest: hasher.digest("hex") };
  });
}

test(
  `${clientCount} clients get every message once through ${serverKills} kills (seed ${seed})`,
  async () => {
    console.log(`storm: seed ${seed}; replay with ISTHMUS_TEST_SEED=${seed}`);
    await using stack = new AsyncDisposableStack();
    const gateway = stack.use(await TestGateway.start());
    await gateway.apply({ streams: { orders: { partitions: partitionCount } } });
    const { proxy, url } = await proxyTo(gateway.url);
    stack.use(proxy);
    const count = clientCount / processCount;
    const crowds = Array.from({ length: processCount }, (_, index) =>
      stack.use(
        new Crowd({
          url,
          token: gateway.token,
          first: index * count,
          count,
          publishesPerS: publishesPerS / processCount,
          seed: seed + index,
          tuning,
        }),
      ),
    );
    const folder = stack.use(await temporaryFolder("storm"));
    const file = `${folder.path}/phones`;
    const calls = stack.use(new Phones({ url, token: gateway.token, file }));
    await waitFor("the clients are there", () => proxy.connections >= clientCount);
    let isOver = false;
    const breaking = breakLinks(proxy, new Random(seed), () => isOver);
    const killing = again(phoneKills, new Random(seed + 1), () => calls.restart());
    await again(serverKills, new Random(seed + 2), async () => {
      await gateway.kill();
      await gateway.start();
    });
    await killing;
    isOver = true;
    await breaking;
    const settle: StormOrder = { do: "settle", timeoutMs: settleMsMax };
    const settled = (
      await Promise.all(crowds.map((crowd) => crowd.ask<SettledPublish>(settle)))
    ).flat();
    const log = await checkLog(gateway, settled);
    const ends = log.map(({ end }) => end);
    const read: StormOrder = { do: "ends", ends, timeoutMs: settleMsMax };
    const reports = await Promise.all(crowds.map((crowd) => crowd.ask<ReaderReport>(read)));
    const digests = log.map(({ digest }) => digest);
    const wrong = reports
      .flat()
      .filter(
        (report) => !Bun.deepEquals(report, { who: report.who, fault: null, read: ends, digests }),
      );
    expect(wrong).toEqual([]);
    expect(reports.flat().length).toBe(clientCount);
    for (const phone of phones) {
      await waitFor(`${phone} has every message`, async () => {
        return (await calls.seen(phone)).every((each, index) => each.size === ends[index]);
      });
    }
    console.log(`storm: ${settled.length} messages to each, over ${proxy.accepted} connections`);
  },
  stormMs + 2 * settleMsMax + 60_000,
);
