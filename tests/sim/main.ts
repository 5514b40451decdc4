/**
 * The simulation as a command: `--seeds N [--first S] [--workers W]` runs the stories of N seeds
 * and shows how far it is; `--seed S` runs one story and prints all that happens in it. Ends with 1
 * when a promise was broken.
 */
import { parseArgs } from "node:util";
import { errorText } from "../../src/errors.ts";
import { runSeeds, type SimTotals } from "./run.ts";
import { runStory } from "./story.ts";

function print(text: string): void {
  process.stdout.write(text);
}

async function one(seed: number): Promise<boolean> {
  try {
    const { hash, lives, messages } = await runStory(seed, {
      onLine: (line) => print(`${line}\n`),
    });
    print(`seed ${seed}: well, ${lives} lives, ${messages} messages, trace ${hash}\n`);
    return true;
  } catch (error) {
    print(`seed ${seed}: ${errorText(error)}\n`);
    return false;
  }
}

async function many(firstSeed: number, seeds: number, workers: number | null): Promise<boolean> {
  const startedMs = performance.now();
  let shown = 0;
  const told = ({ stories, failed }: SimTotals): void => {
    for (const each of failed.slice(shown)) print(`\r${each}\n`);
    shown = failed.length;
    const perSecond = (stories * 1000) / (performance.now() - startedMs);
    const leftS = Math.ceil((seeds - stories) / Math.max(perSecond, 0.01));
    print(`\r${stories} of ${seeds} stories, ${perSecond.toFixed(0)}/s, ${leftS} s left   `);
  };
  const totals = await runSeeds({
    firstSeed,
    seeds,
    msMax: Number.MAX_SAFE_INTEGER,
    ...(workers === null ? {} : { workers }),
    onProgress: told,
  });
  const { stories, lives, messages, failed } = totals;
  const well = `${stories} stories well (${lives} lives, ${messages} messages)`;
  print(`\r${well}, ${failed.length} failed, from seed ${firstSeed} on\n`);
  return failed.length === 0;
}

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    seeds: { type: "string", default: "10000" },
    first: { type: "string", default: String(Date.now() % 1_000_000_000) },
    workers: { type: "string" },
  },
});
const workers = values.workers === undefined ? null : Number(values.workers);
const isWell =
  values.seed === undefined
    ? await many(Number(values.first), Number(values.seeds), workers)
    : await one(Number(values.seed));
process.exit(isWell ? 0 : 1);
