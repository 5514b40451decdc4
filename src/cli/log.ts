/**
 * `isthmus log verify` and `log stat`: look at a data folder's log without a gateway, or beside a
 * running one. Both only read.
 */
import { join } from "node:path";
import type { Command } from "commander";
import { readConfig } from "../config.ts";
import { realDisk } from "../log/disk.ts";
import {
  listPartitions,
  type PartitionReport,
  type Problem,
  verifyPartition,
} from "../log/verify.ts";
import { CliError, UnavailableError } from "./failure.ts";
import { Output } from "./output.ts";

const MIB = 1024 * 1024;
const notBuilt = ["repair", "backup", "restore"];

interface Flags {
  readonly data?: string;
  readonly json?: boolean;
}

export function registerLog(program: Command): void {
  const log = program.command("log").summary("look at the log's files");
  log
    .description("Look at the log's files in the data folder. Reads only; a gateway may run.")
    .addHelpText("after", "\nExample:\n  isthmus log verify --data /var/lib/isthmus");
  log
    .command("verify")
    .summary("check every byte")
    .description("Check every checksum, offset and record. Exit code 1 when something is damaged.")
    .option("--data <folder>", "data folder (ISTHMUS_DATA, default ./data)")
    .option("--json", "print JSON")
    .addHelpText("after", "\nExample:\n  isthmus log verify --data /var/lib/isthmus")
    .action(verify);
  log
    .command("stat")
    .summary("streams, partitions, segments, bytes, times")
    .description("Print what each partition holds: segments, bytes, offsets, oldest and newest.")
    .option("--data <folder>", "data folder (ISTHMUS_DATA, default ./data)")
    .option("--json", "print JSON")
    .addHelpText("after", "\nExample:\n  isthmus log stat --json")
    .action(stat);
  for (const name of notBuilt) {
    log
      .command(name, { hidden: true })
      .argument("[words...]")
      .allowUnknownOption()
      .action(() => {
        throw new UnavailableError(`log ${name}`);
      });
  }
}

async function verify(flags: Flags): Promise<void> {
  const output = new Output(flags);
  const startedMs = performance.now();
  const reports = await look(flags);
  const seconds = (performance.now() - startedMs) / 1000;
  const bytes = reports.reduce((sum, report) => sum + report.bytes, 0);
  const problems = reports.flatMap((report) => report.problems.map((each) => ({ report, each })));
  const damaged = problems.filter(({ each }) => each.kind === "corrupt");
  if (output.json) {
    await output.value({ bytes, seconds, partitions: reports });
  } else {
    for (const { report, each } of problems) await output.line(sentence(report, each));
    const rate = (bytes / MIB / Math.max(seconds, 0.001)).toFixed(0);
    const size = (bytes / MIB).toFixed(1);
    await output.note(`checked ${size} MiB in ${reports.length} partitions, ${rate} MiB/s`);
  }
  if (damaged.length > 0) {
    throw new CliError(`${damaged.length} damaged ${damaged.length === 1 ? "place" : "places"}`);
  }
}

async function stat(flags: Flags): Promise<void> {
  const output = new Output(flags);
  const reports = await look(flags);
  if (output.json) {
    await output.value({ partitions: reports });
    return;
  }
  const time = (ms: number | null): string => (ms === null ? "" : new Date(ms).toISOString());
  await output.table(
    [
      { title: "STREAM" },
      { title: "SEGMENTS", right: true },
      { title: "MIB", right: true },
      { title: "FIRST", right: true },
      { title: "NEXT", right: true },
      { title: "OLDEST" },
      { title: "NEWEST" },
    ],
    reports.map((report) => [
      `${report.stream}/${report.partition}`,
      String(report.segments),
      (report.bytes / MIB).toFixed(1),
      String(report.offsetStart),
      String(report.offsetEnd),
      time(report.oldestMs),
      time(report.newestMs),
    ]),
  );
}

/** Reads every partition of the folder. @throws CliError there is no log. */
async function look(flags: Flags): Promise<PartitionReport[]> {
  const chosen = flags.data === undefined ? {} : { data: flags.data };
  const { dataFolder } = await readConfig({ flags: chosen });
  const folder = join(dataFolder, "streams");
  const partitions = await listPartitions(realDisk, folder);
  if (partitions.length === 0) throw new CliError(`there is no log in ${dataFolder}`);
  const isShown = process.stderr.isTTY === true && flags.json !== true;
  let bytes = 0;
  const events = {
    onBytes: (count: number): void => {
      bytes += count;
      if (isShown) process.stderr.write(`\r${(bytes / MIB).toFixed(0)} MiB `);
    },
  };
  const reports: PartitionReport[] = [];
  for (const id of partitions) {
    reports.push(await verifyPartition(realDisk, folder, id, events));
  }
  if (isShown) process.stderr.write("\r");
  return reports;
}

function sentence(report: PartitionReport, problem: Problem): string {
  const { kind, path, byte, from, to, detail } = problem;
  const lost = to === null ? `from ${from} on` : `${from} to ${to - 1}`;
  const what = kind === "torn" ? "nothing that was acked" : `messages ${lost}`;
  return `${kind} ${report.stream}/${report.partition}: ${path}, byte ${byte}: ${detail}; lost: ${what}`;
}
