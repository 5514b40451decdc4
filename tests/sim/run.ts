/** Many stories at once, each worker a process of its own, so that one that hangs is found too. */
import { availableParallelism } from "node:os";
import { join } from "node:path";

/** What is run. */
export interface SimRun {
  readonly firstSeed: number;
  readonly seeds: number;
  /** No story is begun later than that. */
  readonly msMax: number;
  readonly workers?: number;
  readonly onProgress?: (so: SimTotals) => void;
}

/** What became of it. */
export interface SimTotals {
  stories: number;
  lives: number;
  messages: number;
  /** A sentence for each story that failed, with the line that replays it. */
  readonly failed: string[];
}

/** A line of a worker. */
export type WorkerLine =
  | { readonly stories: number; readonly lives: number; readonly messages: number }
  | { readonly seed: number; readonly failure: string };

/** The line that runs one story again, and shows all that happens in it. */
export function replayLine(seed: number): string {
  return `bun tests/sim/main.ts --seed ${seed}`;
}

/** Runs stories in parallel; resolves when all are done, or the time is over. */
export async function runSeeds(run: SimRun): Promise<SimTotals> {
  const totals: SimTotals = { stories: 0, lives: 0, messages: 0, failed: [] };
  const workers = run.workers ?? availableParallelism();
  const each = Array.from({ length: workers }, (_, index) => runWorker(run, index, workers));
  await Promise.all(each.map((lines) => take(lines, totals, run)));
  return totals;
}

async function take(
  lines: AsyncIterable<WorkerLine>,
  totals: SimTotals,
  { onProgress }: SimRun,
): Promise<void> {
  for await (const line of lines) {
    if ("failure" in line) {
      totals.failed.push(`${line.failure}\n    replay: ${replayLine(line.seed)}`);
    } else {
      totals.stories += line.stories;
      totals.lives += line.lives;
      totals.messages += line.messages;
    }
    onProgress?.(totals);
  }
}

async function* runWorker(
  { firstSeed, seeds, msMax }: SimRun,
  index: number,
  step: number,
): AsyncGenerator<WorkerLine> {
  const startedMs = performance.now();
  const end = firstSeed + seeds;
  let seed: number | null = firstSeed + index;
  while (seed !== null && seed < end) {
    const msLeft = msMax - (performance.now() - startedMs);
    seed = yield* runProcess([seed, end, step, msLeft]);
  }
}

/** One process of a worker; the seed at which the next one goes on, or null. */
async function* runProcess(
  numbers: readonly [number, number, number, number],
): AsyncGenerator<WorkerLine, number | null> {
  const words = numbers.map(String);
  const worker = Bun.spawn([process.execPath, join(import.meta.dir, "worker.ts"), ...words], {
    stdout: "pipe",
    stderr: "pipe",
  });
  const errors = new Response(worker.stderr).text();
  let rest = "";
  const decoder = new TextDecoder();
  let [seed] = numbers;
  let isMore = false;
  for await (const chunk of worker.stdout) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line.startsWith("seed ")) seed = Number(line.slice(5));
      else if (line === "more") isMore = true;
      else yield JSON.parse(line) as WorkerLine;
    }
  }
  const code = await worker.exited;
  if (code !== 0) {
    const how = worker.signalCode ?? `code ${code}`;
    yield { seed, failure: `at or after seed ${seed} a worker died (${how}): ${await errors}` };
  }
  return isMore ? seed : null;
}
