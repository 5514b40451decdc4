/**
 * Runs test files, each in a process of its own: one that crashes, hangs or leaves something open
 * takes no other with it. What a file prints is shown only when it fails, save for lines that
 * begin with `»`: seeds, shares of a sample, how to replay.
 */
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { ManagedProcess } from "../brokers/process.ts";
import { addResults, fileResult, type Result, resultText, singleResult } from "./report.ts";
import { rootFolder, type Suite } from "./suites.ts";

/** The time of one test that does not name its own. */
const testMsMax = 30_000;
const linesShownMax = 400;
const notePrefix = "»";

/** Where a program's output and a report's lines go. */
export type Print = (line: string) => void;

/** What files are run with. */
export interface FileOptions {
  readonly env: Readonly<Record<string, string>>;
  /** Reports are left here. */
  readonly folder: string;
  readonly print: Print;
  readonly signal: AbortSignal;
}

/** Runs the files of a suite, as many at once as it says; after an abort no other is begun. */
export async function runSuite(suite: Suite, options: FileOptions): Promise<Result> {
  const waiting = [...suite.files];
  const results: Result[] = [];
  const worker = async (): Promise<void> => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      if (options.signal.aborted) return;
      results.push(await runFile(suite, file, options));
    }
  };
  await Promise.all(Array.from({ length: suite.parallel }, worker));
  return addResults(results);
}

async function runFile(suite: Suite, file: string, options: FileOptions): Promise<Result> {
  const report = join(options.folder, `${randomUUID()}.xml`);
  const startMs = performance.now();
  const flags = [
    "--only-failures",
    "--reporter=junit",
    `--reporter-outfile=${report}`,
    `--timeout=${testMsMax}`,
  ];
  const running = new ManagedProcess({
    name: file,
    command: [process.execPath, "test", `./${file}`, ...flags],
    cwd: rootFolder,
    env: options.env,
    linesKeptMax: linesShownMax,
  });
  const late = await endOrKill(running, suite.fileMsMax, options.signal);
  const { ok, sentence } = await running.ended;
  const xml = existsSync(report) ? readFileSync(report, "utf8") : null;
  const result = late ? singleResult(false) : fileResult({ file, ok, xml });
  const time = seconds(performance.now() - startMs);
  if (result.failed > 0) options.print(failureText({ file, late, sentence, xml, running }));
  for (const line of running.lines) if (line.startsWith(notePrefix)) options.print(`  ${line}`);
  if (suite.linePerFile) options.print(`  ${file}: ${resultText(result)} (${time})`);
  return result;
}

function failureText(failure: {
  file: string;
  late: boolean;
  sentence: string;
  xml: string | null;
  running: ManagedProcess;
}): string {
  const reasons = [
    failure.late ? "it took too long and was ended" : null,
    failure.xml === null ? `it left no report: ${failure.sentence}` : null,
  ].filter((reason) => reason !== null);
  const title = [failure.file, ...reasons].join("; ");
  return `\n--- ${title}\n${failure.running.lines.join("\n")}\n---`;
}

/** True when the program took too long; it and all that it started have ended then. */
async function endOrKill(
  running: ManagedProcess,
  msMax: number,
  signal: AbortSignal,
): Promise<boolean> {
  const onAbort = (): void => running.signalAll("SIGKILL");
  signal.addEventListener("abort", onAbort, { once: true });
  await running.endedWithin(msMax);
  signal.removeEventListener("abort", onAbort);
  const late = running.running;
  await running.kill();
  return late;
}

/** Runs one of the tools in node_modules; its output is shown when it fails. */
export async function runTool(command: readonly string[], options: FileOptions): Promise<Result> {
  const [tool = "", ...args] = command;
  const running = new ManagedProcess({
    name: tool,
    command: [process.execPath, resolve(rootFolder, "node_modules/.bin", tool), ...args],
    cwd: rootFolder,
    env: options.env,
    linesKeptMax: linesShownMax,
  });
  const late = await endOrKill(running, toolMsMax, options.signal);
  const { ok, sentence } = await running.ended;
  if (!ok) {
    options.print(running.lines.join("\n"));
    options.print(late ? `${tool} took too long and was ended` : sentence);
  }
  return singleResult(ok);
}

const toolMsMax = 300_000;

/** A duration for people. */
export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
