/**
 * A route through several lives of a process: targets that refuse, hang up, are busy for long and
 * lie; power cuts; rules that change meanwhile. In the end every message was delivered or stands in
 * the dead letters, equal keys came in their order, and the ledger is exact to the message.
 * ISTHMUS_TEST_SEED repeats a run, ISTHMUS_TEST_FULL=1 makes it long.
 */
import { expect, test } from "bun:test";
import type { Outcome, Outgoing } from "../../src/bridge.ts";
import { nextTurn } from "../../src/clock.ts";
import { DisconnectedError } from "../../src/errors.ts";
import { decodeText, encodeText } from "../../src/message.ts";
import type { JsonObject } from "../../src/rules/document.ts";
import { message, openLog, readAll } from "../log/support.ts";
import { SimulatedClock } from "../sim/clock.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { Random } from "../sim/random.ts";
import { waitFor } from "../temporary.ts";
import { type Revisions, type Rig, rig, Target } from "./support.ts";

const isFull = process.env["ISTHMUS_TEST_FULL"] === "1";
const given = process.env["ISTHMUS_TEST_SEED"];
const firstSeed = given === undefined ? Date.now() % 1_000_000_000 : Number(given);
const seeds = given !== undefined ? 1 : isFull ? 5000 : 100;
const KEYS = ["a", "b", "c", "d", "e", "f"];

type Order = "partition" | "key" | "none";

/** All that was put in, and all that came out, over all lives. */
class Story {
  readonly random: Random;
  readonly order: Order;
  readonly failure: "prefix" | "independent";
  readonly revisions: Revisions = new Map();
  disk = new MemoryDisk();
  /** Bodies that are surely in the stream, in their order. */
  readonly put: string[] = [];
  /** First arrivals at the target, and by which revision each was sent. */
  readonly arrived = new Map<string, Set<number>>();
  isHealed = false;
  #count = 0;

  constructor(random: Random) {
    this.random = random;
    this.order = random.pick(["partition", "key", "key", "none"] as const);
    this.failure = random.pick(["prefix", "independent"] as const);
  }

  /** One life of the process, ended by a power cut or a kill. */
  async live(): Promise<void> {
    const life = await this.open();
    await this.change(life.run);
    const steps = 3 + this.random.below(8);
    for (let step = 0; step < steps; step++) {
      const kind = this.random.next();
      if (kind < 0.6) await this.append(life.run);
      else if (kind < 0.75) await this.change(life.run);
      else if (kind < 0.85) await life.run.routes.find("r", "t", 0)?.release(null);
      for (let turn = this.random.below(40); turn > 0; turn--) await nextTurn();
    }
    life.end();
    this.disk = this.random.chance(0.5) ? this.disk.kill() : this.disk.crash(this.random);
    await life.close();
  }

  async open() {
    const clock = new SimulatedClock();
    const { log } = await openLog(this.disk, "/data/streams", { clock });
    const target = new Target();
    let isOver = false;
    target.answer = (outgoing) => (isOver ? { unknown: true } : this.#answer(outgoing));
    const { failure, revisions } = this;
    const run = rig(log, { target, failure, revisions, clock, random: () => this.random.next() });
    return {
      run,
      log,
      end: () => {
        isOver = true;
        target.isDown = true;
      },
      close: async () => {
        await run.stop();
        await log[Symbol.asyncDispose]();
      },
    };
  }

  async append(run: Rig): Promise<void> {
    const names = Array.from({ length: 1 + this.random.below(6) }, () => {
      const key = this.random.chance(0.15) ? "-" : this.random.pick(KEYS);
      return `${key}${String(this.#count++).padStart(4, "0")}`;
    });
    const sent = names.map((name) => {
      const key = name.startsWith("-") ? null : encodeText(name.slice(0, 1));
      return message(name, { key, body: encodeText(name) });
    });
    await run.streams.stream("in").append(sent).durable;
    this.put.push(...names);
  }

  async change(run: Rig): Promise<void> {
    await run.rule({
      from: "in",
      start: "earliest",
      order: this.order,
      set: { headers: { revision: String(this.revisions.size + 1) } },
      to: { name: "t", bridge: "b", place: "x", ...this.#load() },
      retry: { attempts: 1 + this.random.below(4), delayMin: "1ms", delayMax: "20s" },
      onFailure: this.random.pick(["dead-letter", "park", "block"]),
    });
  }

  /** Half of the rules say how much goes out at once. */
  #load(): JsonObject {
    const { random } = this;
    return {
      ...(random.chance(0.2) ? { limit: random.pick(["2/50ms", "10/s", "1/ms"]) } : {}),
      ...(random.chance(0.2) ? { concurrency: 1 + random.below(4) } : {}),
      ...(random.chance(0.3)
        ? { batch: { messages: 1 + random.below(8), wait: random.pick(["0ms", "20ms", "1m"]) } }
        : {}),
    };
  }

  #answer(outgoing: Outgoing): Outcome | null {
    const { random } = this;
    const kind = this.isHealed ? 1 : random.next();
    if (kind < 0.03) throw new DisconnectedError("it hung up");
    if (kind < 0.1) return { refused: "no" };
    if (kind < 0.13) return { refused: "never", final: true };
    if (kind < 0.2) return { busyMs: random.pick([1, 6000, 60_000]) };
    if (kind < 0.25) {
      if (random.chance(0.5)) this.#arrive(outgoing);
      return { unknown: true };
    }
    this.#arrive(outgoing);
    return null;
  }

  #arrive({ message: { body, headers } }: Outgoing): void {
    const text = decodeText(body ?? new Uint8Array());
    const header = headers.find(({ name }) => name === "revision");
    const revision = Number(decodeText(header?.value ?? new Uint8Array()));
    this.arrived.set(text, (this.arrived.get(text) ?? new Set()).add(revision));
  }
}

/** What must be true in the end. */
async function check(story: Story): Promise<void> {
  story.isHealed = true;
  const { run, log, close } = await story.open();
  await story.change(run);
  const status = () => run.routes.statuses()[0];
  await waitFor("everything is decided", async () => {
    await run.routes.find("r", "t", 0)?.release(null);
    const counts = status()?.counts;
    return status()?.offset === status()?.end && counts?.waiting === 0 && counts.parked === 0;
  });
  const dead = await readAll(log.partition({ stream: "r.dead", index: 0 }));
  const buried = dead.map(({ body }) => decodeText(body ?? new Uint8Array()));
  const stored = await readAll(log.partition({ stream: "in", index: 0 }));
  const all = stored.map(({ body }) => decodeText(body ?? new Uint8Array()));
  expect(new Set(buried).size).toBe(buried.length);
  for (const name of story.put) expect(all).toContain(name);
  for (const name of all) expect(story.arrived.has(name) || buried.includes(name), name).toBe(true);
  for (const [name, revisions] of story.arrived) expect([...revisions], name).toHaveLength(1);
  expect(status()).toMatchObject({ balanced: true, lagMessages: 0 });
  const { taken = 0, delivered = 0, deadLettered = 0 } = status()?.counts ?? {};
  expect(taken).toBe(all.length);
  expect(delivered + deadLettered).toBe(all.length);
  // A letter that was buried right before a crash may be delivered by the next life.
  expect(deadLettered).toBeLessThanOrEqual(buried.length);
  const both = buried.filter((name) => story.arrived.has(name));
  expect(deadLettered).toBeGreaterThanOrEqual(buried.length - both.length);
  if (story.order !== "none") {
    const inOrder = [...story.arrived.keys()].filter((name) => !buried.includes(name));
    for (const key of KEYS) {
      const own = inOrder.filter((name) => name.startsWith(key));
      expect(own).toEqual(own.toSorted());
    }
  }
  await close();
}

test(`${seeds} stories of a route end well`, async () => {
  for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
    const story = new Story(new Random(seed));
    try {
      await story.disk.makeFolder("/data");
      for (let lives = 1 + story.random.below(4); lives > 0; lives--) await story.live();
      await check(story);
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw new Error(`ISTHMUS_TEST_SEED=${seed}: ${text}`, { cause: error });
    }
  }
}, 600_000);
