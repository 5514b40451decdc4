/**
 * Webhooks, in two tables. What a verified Stripe webhook costs the gateway's processor beside an
 * unverified one of the same bytes, both on disk, in turns; and what the latency of 2,000 valid
 * ones a second becomes while slow senders, bombs and malformed requests come in beside them.
 * Gives the rows of both; asserts nothing.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { median, type Row } from "./table.ts";
import { SECRET, sendAll, sendAt, stripeEvents } from "./webhook-load.ts";

const CPU_ROUNDS = 9;
const CPU_REQUESTS = 10_000;
const CPU_CONNECTIONS = 64;
const HELD_ROUNDS = 3;
const HELD_SECONDS = 8;
const HELD_PER_SECOND = 2000;
const HELD_CONNECTIONS = 256;
/** Attackers need so long until all their connections are open. */
const ATTACK_WARM_MS = 2000;

const verify = { scheme: "stripe", secret: "${env:STRIPE_SECRET}" };
const HOOKS = {
  open: { stream: "open" },
  stripe: { stream: "stripe", verify },
  nodedupe: { stream: "nodedupe", verify, dedupe: false },
  named: { stream: "named", dedupe: "body.id" },
  bombed: { stream: "bombed", inflate: true },
};
const COMPARED = ["open", "stripe", "nodedupe", "named"] as const;
const WORDS = {
  open: "unverified",
  stripe: "stripe",
  nodedupe: "stripe, dedupe: false",
  named: "unverified, dedupe: body.id",
};

/** Runs both, prints their tables, and gives the rows. */
export async function benchWebhooks(): Promise<readonly Row[]> {
  const environment = { STRIPE_SECRET: SECRET, ISTHMUS_LOG_LEVEL: "error" };
  await using gateway = await TestGateway.start(environment);
  await gateway.apply({ hooks: HOOKS });
  const port = Number(new URL(gateway.url).port);
  return [await compareCost(gateway.pid, port), await compareHeld(port)];
}

async function compareCost(pid: number, port: number): Promise<Row> {
  console.log(
    `processor time of the gateway a webhook, ${CPU_ROUNDS} rounds of ${CPU_REQUESTS} in turns\n`,
  );
  const costs = new Map<string, number[]>(COMPARED.map((hook) => [hook, []]));
  for (let round = -1; round < CPU_ROUNDS; round++) {
    const order = round % 2 === 0 ? COMPARED : COMPARED.toReversed();
    for (const hook of order) {
      const requests = stripeEvents(hook, CPU_REQUESTS, `${round}${hook}`);
      const before = await cpuSeconds(pid);
      await sendAll(port, requests, CPU_CONNECTIONS);
      const us = (((await cpuSeconds(pid)) - before) / CPU_REQUESTS) * 1e6;
      // The first round warms the code up.
      if (round >= 0) costs.get(hook)?.push(us);
    }
  }
  const base = costs.get("open") ?? [];
  const ratios = new Map<string, number>();
  for (const hook of COMPARED) {
    const own = costs.get(hook) ?? [];
    const ratio = median(own.map((us, index) => us / (base[index] ?? us)));
    ratios.set(hook, ratio);
    const us = median(own).toFixed(1).padStart(8);
    console.log(`${WORDS[hook].padEnd(28)} ${us} us   ${ratio.toFixed(2)} of unverified`);
  }
  console.log("");
  return {
    what: "CPU of a verified Stripe webhook / of an unverified one",
    value: ratios.get("stripe") ?? null,
    bound: 1.5,
    isAtMost: true,
    detail: `${CPU_REQUESTS} a round, ${CPU_CONNECTIONS} connections, both on disk`,
  };
}

interface Held {
  readonly p50: number;
  readonly p99: number;
}

async function compareHeld(port: number): Promise<Row> {
  console.log(`${HELD_PER_SECOND}/s held, ${HELD_ROUNDS} rounds of ${HELD_SECONDS} s in turns\n`);
  await held(port, "warm");
  const rounds: { readonly quiet: Held; readonly attacked: Held }[] = [];
  for (let round = 0; round < HELD_ROUNDS; round++) {
    const quiet = await held(port, `q${round}`);
    rounds.push({ quiet, attacked: await underAttack(port, () => held(port, `a${round}`)) });
  }
  for (const name of ["quiet", "attacked"] as const) {
    const p50 = median(rounds.map((round) => round[name].p50)).toFixed(2);
    const p99 = median(rounds.map((round) => round[name].p99)).toFixed(2);
    console.log(`${name.padEnd(12)} p50 ${p50.padStart(7)} ms   p99 ${p99.padStart(7)} ms`);
  }
  const ratio = median(rounds.map(({ quiet, attacked }) => attacked.p99 / quiet.p99));
  console.log(`p99 attacked / quiet: ${ratio.toFixed(2)}\n`);
  return {
    what: "p99 of valid webhooks under attack / quiet",
    value: ratio,
    bound: 3,
    isAtMost: true,
    detail: `${HELD_PER_SECOND}/s held, from when each was due`,
  };
}

async function held(port: number, run: string): Promise<Held> {
  const requests = stripeEvents("stripe", HELD_PER_SECOND * HELD_SECONDS, run);
  const options = { perSecond: HELD_PER_SECOND, connections: HELD_CONNECTIONS };
  const timesMs = (await sendAt(port, requests, options)).toSorted((a, b) => a - b);
  const at = (share: number): number => timesMs[Math.floor(timesMs.length * share)] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99) };
}

async function underAttack<T>(port: number, work: () => Promise<T>): Promise<T> {
  const script = join(import.meta.dir, "webhook-attack.ts");
  const attack = Bun.spawn([process.execPath, script, String(port), "stripe", "bombed"], {
    stdout: "ignore",
    stderr: "inherit",
  });
  try {
    await Bun.sleep(ATTACK_WARM_MS);
    const result = await work();
    if (attack.exitCode !== null) throw new Error("the attack ended before the load");
    return result;
  } finally {
    attack.kill();
    await attack.exited;
  }
}

/** Processor time that a process has used, seconds (Linux). */
async function cpuSeconds(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
