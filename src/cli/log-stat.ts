/**
 * `isthmus log stat`: the log in numbers from its files, and how long syncs take from the metrics
 * of the gateway that runs on them. Without one it says so: no file keeps those times.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { readConfig } from "../config.ts";
import { realDisk } from "../log/disk.ts";
import { type PartitionSummary, summarizePartition } from "../log/stat.ts";
import { listPartitions } from "../log/verify.ts";
import { type ConnectionFlags, findConnection } from "./connection.ts";
import { CliError } from "./failure.ts";
import { Output } from "./output.ts";

/** The command's flags. */
export interface StatFlags extends ConnectionFlags {
  readonly data?: string;
}

/** Times of syncs since the gateway's start. Milliseconds; each is a bucket's interpolation. */
export interface SyncTimes {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const MIB = 1024 * 1024;
/** How long a gateway has to answer. Milliseconds. */
const METRICS_MS = 3000;
const METRIC = "isthmus_log_sync_seconds";

/** Runs the command. @throws CliError there is no log. */
export async function stat(flags: StatFlags): Promise<void> {
  const output = new Output(flags);
  const { dataFolder } = await readConfig({
    flags: flags.data === undefined ? {} : { data: flags.data },
  });
  const folder = join(dataFolder, "streams");
  const partitions: PartitionSummary[] = [];
  for (const id of await listPartitions(realDisk, folder)) {
    partitions.push(await summarizePartition(realDisk, folder, id));
  }
  if (partitions.length === 0) throw new CliError(`there is no log in ${dataFolder}`);
  const { sync, note } = await askForSyncs(flags, dataFolder);
  if (output.json) {
    await output.value({ partitions, sync, note });
    return;
  }
  await printTable(output, partitions);
  for (const { stream, partition, damagedHeaders } of partitions) {
    if (damagedHeaders === 0) continue;
    const what = `${damagedHeaders} segments with a damaged header; look with isthmus log verify`;
    await output.note(`${stream}/${partition}: ${what}`);
  }
  await output.note(note);
}

async function printTable(output: Output, partitions: readonly PartitionSummary[]): Promise<void> {
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
    partitions.map((each) => [
      `${each.stream}/${each.partition}`,
      String(each.segments),
      (each.bytes / MIB).toFixed(1),
      String(each.offsetStart),
      String(each.offsetEnd),
      time(each.oldestMs),
      time(each.newestMs),
    ]),
  );
}

/** The times of the gateway that runs on the folder, or why they are not known. */
async function askForSyncs(
  flags: StatFlags,
  dataFolder: string,
): Promise<{ readonly sync: SyncTimes | null; readonly note: string }> {
  const token = flags.token ?? (flags.data === undefined ? undefined : await tokenIn(dataFolder));
  const connection = await findConnection(token === undefined ? flags : { ...flags, token });
  const url = connection.adminUrl;
  const unknown = (why: string) => ({ sync: null, note: `sync times are not known: ${why}` });
  let response: Response;
  let text: string;
  try {
    response = await fetch(`${url}/metrics`, {
      headers: connection.token === null ? {} : { authorization: `Bearer ${connection.token}` },
      redirect: "manual",
      signal: AbortSignal.timeout(METRICS_MS),
    });
    text = await response.text();
  } catch {
    // The numbers of the files are the answer; a gateway need not run.
    return unknown(`no gateway answers at ${url}`);
  }
  if (!response.ok) return unknown(`${url}/metrics answered ${response.status}`);
  const sync = syncTimes(text);
  if (sync === null) return unknown(`the gateway at ${url} has not synced anything yet`);
  const times = `p50 ${shown(sync.p50Ms)} ms, p99 ${shown(sync.p99Ms)} ms`;
  return { sync, note: `sync ${times} over ${sync.count} syncs since the start of ${url}` };
}

/** The token that fits to the folder; undefined when it keeps none. */
async function tokenIn(dataFolder: string): Promise<string | undefined> {
  try {
    const token = (await readFile(join(dataFolder, "admin-token"), "utf8")).trim();
    return token === "" ? undefined : token;
  } catch (error) {
    // Made by the settings, or for other eyes: then the settings' own token is tried.
    if (["ENOENT", "EACCES"].includes(String((error as { code?: unknown }).code))) return undefined;
    throw error;
  }
}

function shown(ms: number): string {
  return ms < 10 ? ms.toFixed(2) : ms.toFixed(0);
}

/** Percentiles from the text of the metrics; null when nothing was synced. */
export function syncTimes(metrics: string): SyncTimes | null {
  const buckets: { readonly le: number; readonly count: number }[] = [];
  for (const [, le = "", count = ""] of metrics.matchAll(
    new RegExp(`^${METRIC}_bucket\\{[^}]*le="([^"]+)"[^}]*\\} (\\d+)`, "gm"),
  )) {
    buckets.push({
      le: le === "+Inf" ? Number.POSITIVE_INFINITY : Number(le),
      count: Number(count),
    });
  }
  const count = buckets.at(-1)?.count ?? 0;
  if (count === 0) return null;
  const quantileMs = (share: number): number => {
    const wanted = share * count;
    const index = buckets.findIndex((each) => each.count >= wanted);
    const below = buckets[index - 1] ?? { le: 0, count: 0 };
    const within = buckets[index] ?? below;
    // Over the last bound nothing more is known than that bound.
    if (!Number.isFinite(within.le)) return below.le * 1000;
    const part = (wanted - below.count) / Math.max(1, within.count - below.count);
    return (below.le + (within.le - below.le) * part) * 1000;
  };
  return { count, p50Ms: quantileMs(0.5), p99Ms: quantileMs(0.99) };
}
