/**
 * Every call of the disk that fails in every way, in a whole gateway; and that the simulation sees
 * it when a promise is broken. ISTHMUS_TEST_SEED repeats a run, ISTHMUS_TEST_FULL=1 makes it long.
 */
import { expect, test } from "bun:test";
import { errorText } from "../../src/errors.ts";
import type { Sabotage } from "./process.ts";
import { FAULTS, runStory, type StoryFault } from "./story.ts";

const isFull = process.env["ISTHMUS_TEST_FULL"] === "1";
const given = process.env["ISTHMUS_TEST_SEED"];
const firstSeed = given === undefined ? Date.now() % 1_000_000_000 : Number(given);
const rounds = isFull ? 40 : 1;
/** Some calls are rare: one of so many stories makes each of them. */
const roundsMax = 60;

/** How many stories may pass before a broken promise is seen. */
const SEEN_WITHIN: Record<Sabotage, number> = {
  "append is called durable before it is": 200,
  "a dead letter is called durable before it is": 3000,
  "a waiting message is called durable before it is": 1000,
  "progress is saved before the target has confirmed": 200,
  "no file is synced": 200,
  "no folder is synced": 200,
  "dedupe keys are forgotten": 200,
  "keys do not keep their order": 200,
};

for (const [sabotage, most] of Object.entries(SEEN_WITHIN)) {
  test(`it is seen when ${sabotage}`, async () => {
    let failure: string | null = null;
    for (let seed = 1; seed <= most && failure === null; seed++) {
      failure = await brokenBy(sabotage as Sabotage, seed);
    }
    expect(failure).toMatch(/^seed \d+: /);
    console.log(`simulation: ${sabotage}: ${failure ?? ""}`);
  }, 60_000);
}

/** What the story of a seed says of a broken promise; null when it did not show. */
async function brokenBy(sabotage: Sabotage, seed: number): Promise<string | null> {
  try {
    await runStory(seed, { sabotage });
    return null;
  } catch (error) {
    return `seed ${seed}: ${errorText(error)}`;
  }
}

for (const { call, code } of FAULTS) {
  test(`each ${call} that fails with ${code} leaves every promise kept`, async () => {
    let reached = 0;
    for (let round = 0; round < rounds || (reached === 0 && round < roundsMax); round++) {
      const seed = firstSeed + round;
      for (const life of [0, 1] as const) {
        for (let after = 1; await survives(seed, { call, code, after, life }); after++) reached++;
      }
    }
    expect(reached).toBeGreaterThan(0);
  }, 1_700_000);
}

/** Whether the call was made at all. */
async function survives(seed: number, fault: StoryFault): Promise<boolean> {
  try {
    return (await runStory(seed, { fault })).wasReached;
  } catch (error) {
    const { call, after, code, life } = fault;
    const replay = `ISTHMUS_TEST_SEED=${seed} (${call} ${after} of life ${life}, ${code})`;
    throw new Error(`${replay}: ${errorText(error)}`, { cause: error });
  }
}
