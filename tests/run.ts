/**
 * `npm test`: format, lint and types, then the tests, with brokers that start meanwhile. Prints
 * what failed, what was skipped, and one last line `N passed, N failed`; ends with 0 only when
 * nothing failed. Flags: `--check` (no suites that need brokers), `--full` (whole suites, not
 * samples); words beside them choose the test files whose path holds one of them.
 */
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { guardFolder } from "./brokers/guard.ts";
import { getBrokers, type SharedBrokers } from "./runner/brokers.ts";
import { type FileOptions, runSuite, runTool, seconds } from "./runner/files.ts";
import { addResults, type Result, resultText, singleResult } from "./runner/report.ts";
import { findSuites } from "./runner/suites.ts";

const flags = { check: "--check", full: "--full" };

/** What a shell calls a program that a signal has ended: 128 and the signal's number. */
const signalCodes = [
  ["SIGHUP", 129],
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const;

/** After an interrupt, for brokers that are just starting; the guard ends what is left then. */
const stopMsMax = 5_000;

const staticSteps: readonly { readonly title: string; readonly command: readonly string[] }[] = [
  { title: "format", command: ["biome", "format"] },
  { title: "lint", command: ["oxlint", "--type-aware", "--deny-warnings"] },
  { title: "typecheck", command: ["tsc", "-p", "tsconfig.json"] },
];

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Runs a step and prints its title, its result and its time, after whatever it printed. */
async function step(
  title: string,
  signal: AbortSignal,
  run: () => Promise<Result>,
): Promise<Result> {
  const startMs = performance.now();
  const result = await run();
  if (signal.aborted) return result;
  const time = seconds(performance.now() - startMs);
  print(`${title.padEnd(12)} ${resultText(result)} (${time})`);
  return result;
}

async function runAll(args: readonly string[], options: FileOptions): Promise<Result> {
  const patterns = args.filter((arg) => !arg.startsWith("--"));
  const unitOnly = args.includes(flags.check);
  const suites = findSuites({ patterns, unitOnly, full: args.includes(flags.full) });
  const starting = suites.length > 0 ? getBrokers({ databaseOnly: unitOnly, print }) : null;
  const results: Result[] = [];
  for (const { title, command } of patterns.length > 0 ? [] : staticSteps) {
    if (!options.signal.aborted)
      results.push(await step(title, options.signal, () => runTool(command, options)));
  }
  const brokers = starting === null ? null : await untilUp(starting, results);
  const env = { ...options.env, ...brokers?.env };
  for (const suite of suites) {
    if (options.signal.aborted) break;
    results.push(
      await step(suite.title, options.signal, () => runSuite(suite, { ...options, env })),
    );
  }
  await brokers?.stop();
  if (suites.length === 0 && patterns.length > 0) {
    print(`no test file's path holds ${patterns.join(" or ")}`);
    results.push(singleResult(false));
  }
  return addResults(results);
}

async function untilUp(
  starting: Promise<SharedBrokers>,
  results: Result[],
): Promise<SharedBrokers> {
  const startMs = performance.now();
  const brokers = await starting;
  for (const line of brokers.lines) print(`  ${line}`);
  const failed = brokers.result.failed > 0 ? `${brokers.result.failed} failed, ` : "";
  print(`${"brokers".padEnd(12)} ${failed}waited ${seconds(performance.now() - startMs)} for them`);
  results.push(brokers.result);
  return brokers;
}

async function main(args: readonly string[]): Promise<number> {
  const unknown = args.find((arg) => arg.startsWith("--") && !Object.values(flags).includes(arg));
  if (unknown !== undefined) {
    print(`unknown flag ${unknown}: there are ${Object.values(flags).join(", ")}`);
    return 2;
  }
  const startMs = performance.now();
  const folder = await mkdtemp(join(tmpdir(), "isthmus-run-"));
  guardFolder(folder);
  await chmod(folder, 0o711);
  // What tests and brokers leave behind goes with this folder.
  process.env["TMPDIR"] = folder;
  process.env["ISTHMUS_TEST_INSTALL"] ??= "1";
  if (args.includes(flags.full)) process.env["ISTHMUS_TEST_FULL"] = "1";

  // It is meant for this process; test files end what they start as they do when run alone.
  delete process.env["BUN_FEATURE_FLAG_NO_ORPHANS"];

  const abort = new AbortController();
  const options = { env: {}, folder, print, signal: abort.signal };
  const running = runAll(args, options);
  onInterrupt(async (code) => {
    print("interrupted");
    abort.abort();
    await Promise.race([running, Bun.sleep(stopMsMax)]);
    await rm(folder, { recursive: true, force: true });
    process.exit(code);
  });
  const total = await running;
  // The one that interrupts has the last word then.
  if (abort.signal.aborted) return await Promise.withResolvers<number>().promise;
  await rm(folder, { recursive: true, force: true });
  for (const name of total.skipped) print(`skipped: ${name}`);
  print(`took ${seconds(performance.now() - startMs)}`);
  print(resultText(total));
  return total.failed === 0 ? 0 : 1;
}

/** The first signal stops the run in good order; a second one ends it at once. */
function onInterrupt(stop: (code: number) => Promise<never>): void {
  let stopping: Promise<never> | null = null;
  for (const [signal, code] of signalCodes) {
    process.on(signal, () => {
      if (stopping !== null) process.exit(code);
      stopping = stop(code);
    });
  }
}

process.exit(await main(process.argv.slice(2)));
