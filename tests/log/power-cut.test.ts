/**
 * The log on a disk that fails, is killed and loses power, again and again: nothing acked is lost,
 * nothing is invented, keys and states keep their promise. ISTHMUS_TEST_SEED repeats a run,
 * ISTHMUS_TEST_FULL=1 makes it long.
 */
import { expect, test } from "bun:test";
import { nextTurn } from "../../src/clock.ts";
import { GatewayError } from "../../src/errors.ts";
import { type Fault, MemoryDisk } from "../sim/disk.ts";
import { Random } from "../sim/random.ts";
import { Lives } from "./lives.ts";
import { ids, message, openLog, readAll } from "./support.ts";

const isFull = process.env["ISTHMUS_TEST_FULL"] === "1";
const given = process.env["ISTHMUS_TEST_SEED"];
const firstSeed = given === undefined ? Date.now() % 1_000_000_000 : Number(given);
const seeds = isFull ? 20_000 : 1500;

const FAULTS: readonly Pick<Fault, "call" | "code">[] = [
  { call: "write", code: "EIO" },
  { call: "write", code: "ENOSPC" },
  { call: "sync", code: "EIO" },
  { call: "sync", code: "ENOSPC" },
  { call: "open", code: "EMFILE" },
  { call: "open", code: "EIO" },
  { call: "open", code: "ENOSPC" },
  { call: "rename", code: "EIO" },
  { call: "rename", code: "ENOSPC" },
  { call: "truncate", code: "EIO" },
  { call: "remove", code: "EIO" },
];

/** Runs with the seed in the message of whatever fails. */
async function seeded(seed: number, what: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    const repeat = `ISTHMUS_TEST_SEED=${seed}${what}`;
    throw new Error(`${repeat}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}

/** A disk with the data folder, whose own name is not the log's to keep. */
async function dataFolder(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  await disk.makeFolder("/data");
  return disk;
}

/** What the end of a process leaves on its disk. */
function after(disk: MemoryDisk, random: Random): MemoryDisk {
  return random.chance(0.3) ? disk.kill() : disk.crash(random);
}

/** Opens the log; some starts are cut off by a failing disk and begun anew. */
async function start(lives: Lives, random: Random) {
  for (let attempt = 0; attempt < 3 && random.chance(0.5); attempt++) {
    const { call, code } = random.pick(FAULTS);
    lives.disk.failAfter({ call, code, after: 1 + random.below(8) });
    try {
      await lives.open();
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error;
    }
    lives.disk = after(lives.disk, random);
  }
  return lives.open();
}

test(`lives that end at any moment, from seed ${firstSeed} on`, async () => {
  for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
    await seeded(seed, "", async () => {
      const random = new Random(seed);
      const lives = new Lives(await dataFolder(), random);
      for (let life = 0; life < 5; life++) {
        const log = await start(lives, random);
        await lives.check(log);
        if (random.chance(0.5)) {
          lives.disk.failAfter({ ...random.pick(FAULTS), after: 1 + random.below(20) });
        }
        await lives.live(log, 2 + random.below(12));
        lives.disk = after(lives.disk, random);
      }
      await lives.check(await lives.open());
    });
  }
}, 600_000);

/** One session whose `k`-th call of a kind fails, then a power cut, then starts that fail too. */
async function failing(fault: Fault, seed: number): Promise<boolean> {
  const random = new Random(seed);
  const lives = new Lives(await dataFolder(), random);
  await lives.scripted(await lives.open());
  lives.disk.failAfter(fault);
  const log = await lives.open().catch(() => null);
  if (log !== null) await lives.scripted(log);
  const wasReached = lives.disk.mend() === 0;
  lives.disk = after(lives.disk, random);
  const left = lives.disk;
  for (let call = 1; call < 60; call += isFull ? 1 : 1 + random.below(6)) {
    const fork = lives.fork(left.kill());
    fork.disk.failAfter({ call: "any", after: call, code: "EIO" });
    await fork.open().catch(() => null);
    const wasCut = fork.disk.mend() === 0;
    fork.disk = after(fork.disk, random);
    await fork.check(await fork.open());
    if (!wasCut) break;
  }
  return wasReached;
}

for (const { call, code } of FAULTS) {
  test(`each ${call} that fails with ${code}, and then each call of the start behind it`, async () => {
    let reached = 0;
    for (let k = 1; ; k += isFull ? 1 : 1 + (firstSeed % 3)) {
      let wasReached = false;
      await seeded(firstSeed, ` (${call} ${k}, ${code})`, async () => {
        wasReached = await failing({ call, code, after: k }, firstSeed + k);
      });
      if (!wasReached) break;
      reached++;
    }
    expect(reached).toBeGreaterThan(call === "truncate" ? 0 : 1);
  }, 600_000);
}

test("two partitions of a new stream that begin at once both outlive a power cut", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const disk = await dataFolder();
    const { log } = await openLog(disk);
    // The name of the stream's folder takes its time to reach the disk.
    const slow = Promise.withResolvers<void>();
    disk.before = (call, path) =>
      call === "sync" && path === "/data/streams" ? slow.promise : null;
    const acked: number[] = [];
    const appends = [0, 1].map(async (index) => {
      await log.partition({ stream: "new", index }, 2).append([message(`m${index}`)]).durable;
      acked.push(index);
    });
    for (let turn = 0; turn < 20; turn++) await nextTurn();
    const left = disk.crash(new Random(seed));
    const found = (await openLog(left)).log;
    for (const index of acked) {
      const held = await readAll(found.partition({ stream: "new", index }));
      expect(ids(held)).toEqual([`m${index}`]);
    }
    slow.resolve();
    await Promise.all(appends);
  }
});
