/**
 * The whole gateway in simulation: many stories, each of one seed, in parallel. ISTHMUS_TEST_SEED
 * repeats a run, ISTHMUS_TEST_FULL=1 makes it long; `bun tests/sim/main.ts --seeds N` runs as many
 * as one likes.
 */
import { expect, test } from "bun:test";
import { runSeeds } from "./run.ts";
import { runStory } from "./story.ts";

const isFull = process.env["ISTHMUS_TEST_FULL"] === "1";
const given = process.env["ISTHMUS_TEST_SEED"];
const firstSeed = given === undefined ? Date.now() % 1_000_000_000 : Number(given);
const seeds = given !== undefined ? 1 : isFull ? 60_000 : 10_000;
/** On a machine that is slow or busy fewer stories are run, and the number says so. */
const msMax = isFull ? 1_500_000 : 120_000;

test(`stories from seed ${firstSeed} on end well`, async () => {
  const { stories, lives, messages, failed } = await runSeeds({ firstSeed, seeds, msMax });
  console.log(`simulation: ${stories} stories, ${lives} lives, ${messages} messages`);
  expect(failed).toEqual([]);
  expect(stories).toBeGreaterThan(0);
}, 1_700_000);

test("equal seeds make equal stories, event by event", async () => {
  const hashes: string[] = [];
  for (let seed = 1; seed <= 20; seed++) hashes.push((await runStory(seed)).hash);
  for (let seed = 20; seed >= 1; seed--) {
    expect((await runStory(seed)).hash).toBe(hashes[seed - 1] ?? "");
  }
  expect(new Set(hashes).size).toBe(20);
}, 60_000);
