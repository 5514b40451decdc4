/**
 * `isthmus log repair|backup|restore`: mends a data folder's log, copies it while a gateway may
 * run, and makes a data folder from such a copy. Repair and restore hold the folder's lock.
 */
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { systemClock } from "../clock.ts";
import { readConfig } from "../config.ts";
import { CorruptionError } from "../errors.ts";
import { backupLog } from "../log/backup.ts";
import { Damages, setListAside } from "../log/damage.ts";
import { realDisk } from "../log/disk.ts";
import { openFileLog } from "../log/files.ts";
import { lockFolder } from "../log/lock.ts";
import { planRepair, repairPartition } from "../log/repair.ts";
import { restoreLog } from "../log/restore.ts";
import { listPartitions, type PartitionReport, verifyPartition } from "../log/verify.ts";
import { systemFiles } from "../rules/store/files.ts";
import { CliError } from "./failure.ts";
import { damageSentence, progressOf } from "./log-progress.ts";
import { Output } from "./output.ts";

interface Flags {
  readonly data?: string;
  readonly json?: boolean;
  readonly yes?: boolean;
}

const DATA = "data folder (ISTHMUS_DATA, default ./data)";
const random = (count: number): Uint8Array => crypto.getRandomValues(new Uint8Array(count));

/** Adds the three commands to `isthmus log`. */
export function registerLogChanges(log: Command): void {
  log
    .command("repair")
    .summary("make damaged files whole without what is lost")
    .description(
      "Say what a repair would do, or do it with --yes: damaged segments are made anew from their " +
        "whole batches. The originals are kept in DATA/damaged. Refused while a gateway runs.",
    )
    .option("--yes", "do it")
    .option("--data <folder>", DATA)
    .option("--json", "print JSON")
    .action(repair);
  log
    .command("backup")
    .summary("copy the log of a running gateway")
    .description(
      "Copy log, definitions and keys into a folder; a gateway may run. Called again it copies " +
        "only what is missing or has grown. Keep the folder secret: it holds the keys.",
    )
    .argument("<folder>", "where to: an empty folder, or an earlier backup of the same log")
    .option("--data <folder>", DATA)
    .option("--json", "print JSON")
    .action(backup);
  log
    .command("restore")
    .summary("make a data folder from a backup")
    .description(
      "Make an empty data folder what the backup was, every digest checked. Streams get new " +
        "epochs: clients' cursors from before meet a gap.",
    )
    .argument("<folder>", "the backup")
    .option("--data <folder>", DATA)
    .option("--json", "print JSON")
    .action(restore);
}

async function dataFolderOf(flags: Flags): Promise<string> {
  const { dataFolder } = await readConfig({
    flags: flags.data === undefined ? {} : { data: flags.data },
  });
  return dataFolder;
}

async function repair(flags: Flags): Promise<void> {
  const output = new Output(flags);
  const dataFolder = await dataFolderOf(flags);
  const folder = join(dataFolder, "streams");
  const partitions = await listPartitions(realDisk, folder);
  if (partitions.length === 0) throw new CliError(`there is no log in ${dataFolder}`);
  using _lock = await lockFolder(dataFolder, systemClock);
  const damages = await openDamages(folder, flags, output);
  const reports: PartitionReport[] = [];
  const events = {
    onBytes: () => undefined,
    isRepaired: (range: Parameters<Damages["isRepaired"]>[0]) => damages.isRepaired(range),
  };
  for (const id of partitions) {
    const report = await verifyPartition(realDisk, folder, id, events);
    const steps = planRepair(report);
    const told = output.json ? [] : steps.flatMap(({ problems }) => problems);
    for (const each of told) await output.line(damageSentence(report, each));
    if (steps.length > 0) reports.push(report);
    if (steps.length === 0 || flags.yes !== true) continue;
    const epoch = (): string => Buffer.from(random(8)).toString("hex");
    const nowMs = systemClock.nowMs();
    await repairPartition(report, steps, { disk: realDisk, folder, damages, nowMs, epoch });
  }
  if (output.json) await output.value({ done: flags.yes === true, partitions: reports });
  else await output.note(repairSentence(reports.length, flags.yes === true));
}

function repairSentence(count: number, isDone: boolean): string {
  if (count === 0) return "nothing to repair";
  const what = `${count} ${count === 1 ? "partition" : "partitions"}`;
  if (isDone) return `repaired ${what}; the originals are in DATA/damaged`;
  return `would repair ${what}, giving up what is lost; do it with --yes`;
}

/** A list that can't be read is set aside with --yes: what it told is found anew. */
async function openDamages(folder: string, flags: Flags, output: Output): Promise<Damages> {
  try {
    return await Damages.open(realDisk, folder);
  } catch (error) {
    if (!(error instanceof CorruptionError) || flags.yes !== true) throw error;
    const name = await setListAside(realDisk, folder);
    await output.note(`the list of known damages was set aside as ${name}`);
    return await Damages.open(realDisk, folder);
  }
}

async function backup(target: string, flags: Flags): Promise<void> {
  const output = new Output(flags);
  const dataFolder = await dataFolderOf(flags);
  if ((await listPartitions(realDisk, join(dataFolder, "streams"))).length === 0) {
    throw new CliError(`there is no log in ${dataFolder}`);
  }
  const progress = progressOf("copied", output);
  const manifest = await backupLog({
    disk: realDisk,
    files: systemFiles,
    dataFolder,
    target: resolve(target),
    nowMs: () => systemClock.nowMs(),
    onFile: progress.onFile,
  });
  const numbers = progress.end();
  if (output.json) await output.value({ files: manifest.files.length, ...numbers });
  else await output.note(`${numbers.text}; ${manifest.files.length} files in ${resolve(target)}`);
}

async function restore(source: string, flags: Flags): Promise<void> {
  const output = new Output(flags);
  const dataFolder = await dataFolderOf(flags);
  await realDisk.makeFolder(dataFolder);
  using _lock = await lockFolder(dataFolder, systemClock);
  const progress = progressOf("restored", output);
  const warnings: string[] = [];
  const manifest = await restoreLog({
    disk: realDisk,
    files: systemFiles,
    source: resolve(source),
    dataFolder,
    random,
    onFile: progress.onFile,
    open: () =>
      openFileLog({
        folder: join(dataFolder, "streams"),
        disk: realDisk,
        clock: systemClock,
        random,
        onFatal: () => undefined,
        onCommit: () => undefined,
        warn: (sentence) => warnings.push(sentence),
      }),
  });
  for (const sentence of warnings) await output.note(sentence);
  const numbers = progress.end();
  if (output.json) await output.value({ files: manifest.files.length, ...numbers });
  else await output.note(`${numbers.text}; ${manifest.files.length} files in ${dataFolder}`);
}
