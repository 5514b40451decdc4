/**
 * `isthmus log …`: which commands there are, and `log verify`, which looks at every byte without a
 * gateway, or beside a running one. Numbers are in `log-stat.ts`, what changes files in
 * `log-change.ts`.
 */
import { join } from "node:path";
import type { Command } from "commander";
import { readConfig } from "../config.ts";
import { type DamagedRange, Damages } from "../log/damage.ts";
import { realDisk } from "../log/disk.ts";
import { listPartitions, type PartitionReport, verifyPartition } from "../log/verify.ts";
import { withConnection } from "./connection.ts";
import { CliError } from "./failure.ts";
import { registerLogChanges } from "./log-change.ts";
import { damageSentence, progressOf } from "./log-progress.ts";
import { stat } from "./log-stat.ts";
import { Output } from "./output.ts";

const MIB = 1024 * 1024;
interface Flags {
  readonly data?: string;
  readonly json?: boolean;
}

export function registerLog(program: Command): void {
  const log = program.command("log").summary("look at the log's files");
  log
    .description("Look at the log's files in the data folder, mend them, copy them.")
    .addHelpText("after", "\nExample:\n  isthmus log verify --data /var/lib/isthmus");
  log
    .command("verify")
    .summary("check every byte")
    .description("Check every checksum, offset and record. Exit code 1 when something is damaged.")
    .option("--data <folder>", "data folder (ISTHMUS_DATA, default ./data)")
    .option("--json", "print JSON")
    .addHelpText("after", "\nExample:\n  isthmus log verify --data /var/lib/isthmus")
    .action(verify);
  const described = log
    .command("stat")
    .summary("streams, partitions, segments, bytes, times")
    .description(
      "Print what each partition holds: segments, bytes, offsets, oldest and newest. Reads headers " +
        "and the newest segments only. How long syncs take is asked of the gateway, if one runs.",
    )
    .option("--data <folder>", "data folder (ISTHMUS_DATA, default ./data)");
  withConnection(described)
    .addHelpText("after", "\nExample:\n  isthmus log stat --json")
    .action(stat);
  registerLogChanges(log);
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
    for (const { report, each } of problems) await output.line(damageSentence(report, each));
    const rate = (bytes / MIB / Math.max(seconds, 0.001)).toFixed(0);
    const size = (bytes / MIB).toFixed(1);
    await output.note(`checked ${size} MiB in ${reports.length} partitions, ${rate} MiB/s`);
  }
  if (damaged.length > 0) {
    throw new CliError(`${damaged.length} damaged ${damaged.length === 1 ? "place" : "places"}`);
  }
}

/** Reads every partition of the folder. @throws CliError there is no log. */
async function look(flags: Flags): Promise<PartitionReport[]> {
  const chosen = flags.data === undefined ? {} : { data: flags.data };
  const { dataFolder } = await readConfig({ flags: chosen });
  const folder = join(dataFolder, "streams");
  const partitions = await listPartitions(realDisk, folder);
  if (partitions.length === 0) throw new CliError(`there is no log in ${dataFolder}`);
  const progress = progressOf("checked", new Output(flags), await sizeOf(folder));
  const damages = await Damages.open(realDisk, folder);
  const events = {
    onBytes: (count: number): void => progress.onFile(count, 0),
    isRepaired: (range: DamagedRange): boolean => damages.isRepaired(range),
  };
  const reports: PartitionReport[] = [];
  for (const id of partitions) {
    reports.push(await verifyPartition(realDisk, folder, id, events));
  }
  progress.end();
  return reports;
}

/** Bytes of all segments, for the bar. */
async function sizeOf(folder: string): Promise<number> {
  let bytes = 0;
  for await (const path of new Bun.Glob("**/*.log").scan({ cwd: folder })) {
    bytes += Bun.file(join(folder, path)).size;
  }
  return bytes;
}
