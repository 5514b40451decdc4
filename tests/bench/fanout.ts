/**
 * Sockets of the whole gateway beside what bare Bun does with the same clients in the same minute:
 * live fan-out, catching up, and what held, stuck and idle sockets cost in memory.
 */
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { freePort, waitFor } from "../temporary.ts";
import { Clients, hello, portOf, publish } from "./fanout-clients-process.ts";
import { benchSlow } from "./fanout-slow.ts";
import { inTurns, type Row, short } from "./table.ts";

const ROUNDS = 3;
const SOCKETS = 1000;
const BURST = 500;
const MISSED = 1000;
/** So many that the heap, which grows and shrinks by 15 MB, does not decide. */
const STUCK = 500;
const FRAME_BYTES = 560;

class Bare implements AsyncDisposable {
  readonly port: number;
  readonly #child: Bun.Subprocess;

  get pid(): number {
    return this.#child.pid;
  }

  private constructor(port: number) {
    this.port = port;
    const script = join(import.meta.dir, "fanout-bare.ts");
    this.#child = Bun.spawn([process.execPath, script, String(port)], {
      stdio: ["ignore", "inherit", "inherit"],
    });
  }

  static async start(): Promise<Bare> {
    const bare = new Bare(await freePort());
    await waitFor("the bare server answers", async () => {
      return (await fetch(bare.burst(0)).catch(() => null)) !== null;
    });
    return bare;
  }

  burst(count: number): string {
    return `http://127.0.0.1:${this.port}/?count=${count}&bytes=${FRAME_BYTES}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
  }
}

/** Deliveries a second of what `send` sets off. */
async function rate(
  clients: Clients,
  frames: number,
  send: () => Promise<unknown>,
): Promise<number> {
  const startMs = performance.now();
  const all = clients.ask({ op: "await", frames });
  await send();
  await all;
  return (frames / (performance.now() - startMs)) * 1000;
}

/** Measures the rows of the sockets. */
export async function benchFanout(): Promise<Row[]> {
  return [await live(), await catchUp(), await benchSlow(), ...(await memory())];
}

async function live(): Promise<Row> {
  await using gateway = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
  await using bare = await Bare.start();
  await using own = new Clients();
  await using theirs = new Clients();
  const port = portOf(gateway);
  await own.open({ port, count: SOCKETS, hello: hello(gateway, "live", "latest"), readyFrames: 2 });
  await theirs.open({ port: bare.port, count: SOCKETS, hello: [], readyFrames: 1 });
  await own.ask({ op: "await", frames: SOCKETS * 2 });
  await theirs.ask({ op: "await", frames: SOCKETS });
  const frames = SOCKETS * BURST;
  const found = await inTurns(
    ROUNDS,
    () => rate(own, frames, () => publish(gateway, "live", BURST)),
    () => rate(theirs, frames, () => fetch(bare.burst(BURST))),
  );
  return {
    what: `fan-out to ${SOCKETS} sockets, deliveries/s / bare publish`,
    value: found.ratio,
    bound: 0.7,
    detail: `${short(found.first)}/s, ${short(found.second)}/s, frames of ${FRAME_BYTES} B`,
  };
}

async function catchUp(): Promise<Row> {
  await using gateway = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
  await using bare = await Bare.start();
  await publish(gateway, "missed", MISSED);
  const time = async (port: number, greeting: object[], first: number): Promise<number> => {
    await using clients = new Clients();
    const startMs = performance.now();
    const opened = clients.open({ port, count: SOCKETS, hello: greeting, readyFrames: 1 });
    await opened;
    await clients.ask({ op: "await", frames: SOCKETS * (MISSED + first) });
    return performance.now() - startMs;
  };
  const found = await inTurns(
    ROUNDS,
    () => time(portOf(gateway), hello(gateway, "missed", "earliest"), 2),
    () => time(bare.port, [{ count: MISSED, bytes: FRAME_BYTES }], 1),
  );
  return {
    what: `${SOCKETS} clients that missed ${MISSED} messages / corked sends`,
    value: found.ratio,
    bound: 1.5,
    isAtMost: true,
    detail: `${found.first.toFixed(0)} ms, ${found.second.toFixed(0)} ms, connecting included`,
  };
}

/** Resident memory of the gateway once it has stopped sending, MB. */
async function rss(gateway: TestGateway): Promise<number> {
  let sent = "";
  const hasStopped = async (): Promise<boolean> => {
    const before = sent;
    await Bun.sleep(1000);
    sent = /^isthmus_ws_messages_total\S* (\S+)$/m.exec(await metrics(gateway))?.[1] ?? "0";
    return sent === before;
  };
  await waitFor("the gateway has stopped sending", hasStopped, { timeoutMs: 100_000 });
  return await residentMb(gateway.pid);
}

async function residentMb(pid: number): Promise<number> {
  const status = await Bun.file(`/proc/${pid}/status`).text();
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? Number.NaN) / 1024;
}

async function metrics(gateway: TestGateway): Promise<string> {
  return await (await gateway.fetch("/metrics")).text();
}

async function memory(): Promise<Row[]> {
  const held = await heldSockets({ first: 1, count: 5000, isStuck: false });
  const idle = await heldSockets({ first: 1, count: 10_000, isStuck: false });
  const bare = await bareSockets(10_000);
  // What the first ones cost is mostly the heap that the work itself needs.
  const stuck = await heldSockets({ first: STUCK, count: STUCK, isStuck: true });
  const each = (found: { before: number; after: number }, count: number): number =>
    ((found.after - found.before) / count) * 1024;
  const grown = (found: { before: number; after: number }): string =>
    `${found.before.toFixed(0)} MB before, ${found.after.toFixed(0)} MB after`;
  const atMost = { isAtMost: true };
  return [
    {
      what: "RSS with 5,000 sockets, MB",
      value: held.after,
      bound: 120,
      ...atMost,
      detail: grown(held),
    },
    {
      what: "an idle socket of 10,000, KB",
      value: each(idle, 10_000),
      bound: 20,
      ...atMost,
      detail: `${grown(idle)}; bare Bun's own ${each(bare, 10_000).toFixed(1)}`,
    },
    {
      what: "a stuck socket with 20 MB to come, KB",
      value: each(stuck, STUCK),
      bound: 64,
      ...atMost,
      detail: grown(stuck),
    },
  ];
}

/** What so many sockets cost that Bun holds, and nothing of ours. */
async function bareSockets(count: number): Promise<{ before: number; after: number }> {
  await using bare = await Bare.start();
  await using clients = new Clients();
  const all = { port: bare.port, hello: [], readyFrames: 1 };
  await clients.open({ ...all, count: 1 });
  const before = await residentMb(bare.pid);
  await clients.open({ ...all, count });
  await Bun.sleep(1000);
  return { before, after: await residentMb(bare.pid) };
}

/** What so many sockets beyond the first ones cost. */
async function heldSockets({
  first,
  count,
  isStuck,
}: {
  readonly first: number;
  readonly count: number;
  readonly isStuck: boolean;
}): Promise<{ before: number; after: number }> {
  await using gateway = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
  await using clients = new Clients();
  for (let round = 0; isStuck && round < 5; round++) await publish(gateway, "held", 10_000);
  const greeting = hello(gateway, "held", isStuck ? "earliest" : "latest");
  const all = { port: portOf(gateway), hello: greeting, readyFrames: 2, isStuck };
  await clients.open({ ...all, count: first });
  const before = await rss(gateway);
  await clients.open({ ...all, count });
  return { before, after: await rss(gateway) };
}
