/**
 * A worker of the simulation: `worker.ts FIRST END STEP MS` runs the stories of every STEPth seed
 * and writes what became of them, a line of JSON at a time; `seed N` says how far it has come, and
 * `more` at its end that another worker has to go on there.
 */
import { errorText } from "../../src/errors.ts";
import type { WorkerLine } from "./run.ts";
import { runStory } from "./story.ts";

/** Stories between two lines. */
const REPORT_EVERY = 50;
/** A killed life never ends, so it is kept in memory, some 0.5 MB a story: then a new process. */
const STORIES_MAX = 1000;
/** After so many failures the rest tells nothing new. */
const FAILURES_MAX = 10;

async function work(first: number, end: number, step: number, msMax: number): Promise<void> {
  const startedMs = performance.now();
  let failures = 0;
  let run = 0;
  let sum = { stories: 0, lives: 0, messages: 0 };
  let seed = first;
  for (; seed < end && failures < FAILURES_MAX && run < STORIES_MAX; seed += step) {
    if (performance.now() - startedMs > msMax) break;
    run++;
    try {
      const { lives, messages } = await runStory(seed);
      sum = {
        stories: sum.stories + 1,
        lives: sum.lives + lives,
        messages: sum.messages + messages,
      };
    } catch (error) {
      failures++;
      tell({ seed, failure: `seed ${seed}: ${errorText(error)}` });
    }
    if (sum.stories < REPORT_EVERY) continue;
    tell(sum);
    process.stdout.write(`seed ${seed + step}\n`);
    sum = { stories: 0, lives: 0, messages: 0 };
  }
  tell(sum);
  if (run === STORIES_MAX && failures < FAILURES_MAX) process.stdout.write(`seed ${seed}\nmore\n`);
}

function tell(line: WorkerLine): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

const [first = 0, end = 0, step = 1, msMax = 0] = process.argv.slice(2).map(Number);
await work(first, end, step, msMax);
