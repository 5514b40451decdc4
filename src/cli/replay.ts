/**
 * `isthmus replay`: sends a window of a stream again to a rule's targets, as a job of the gateway
 * that goes on without the command; lists and cancels jobs.
 */
import type { Command } from "commander";
import type { JobCounts, JobRecord, JobWanted } from "../routing/job.ts";
import type { Survey } from "../routing/jobs.ts";
import { type Client, connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError } from "./failure.ts";
import { timeText } from "./message.ts";
import { Output } from "./output.ts";
import { ProgressBar } from "./progress.ts";

/** How often a job's progress is asked for. Milliseconds. */
const ASK_EVERY_MS = 300;

interface Flags extends ConnectionFlags {
  readonly rule?: string;
  readonly target?: string;
  readonly from?: string;
  readonly to?: string;
  readonly where?: string;
  readonly rate?: string;
  readonly dryRun?: boolean;
  readonly detach?: boolean;
}

/** A job as the API shows it. */
export type JobJson = Omit<JobRecord, "spans" | "wanted"> & JobWanted & { readonly left: number };

export function registerReplay(program: Command): void {
  const replay = program
    .command("replay")
    .summary("send recorded messages again to a rule's targets")
    .description(
      "Send a window of a stream (again) to a rule's targets. The rule's `where` and `set` apply, " +
        "its cursor does not move; what goes out is marked with the header isthmus-replayed. The " +
        "gateway goes on when this command ends, and after a restart.",
    )
    .argument("<stream>", "the stream to read")
    .requiredOption("--rule <name>", "the rule to send by")
    .requiredOption("--from <place>", "where to begin, as in `isthmus read`")
    .option("--target <name>", "only this target")
    .option("--to <place>", "where to end (default: the stream's end as it is now)")
    .option("--where <cel>", "only messages that fit")
    .option("--rate <rate>", "no faster than this, such as 100/s")
    .option("--dry-run", "only say what would be sent")
    .option("--detach", "do not wait for the end")
    .addHelpText(
      "after",
      `
Examples:
  isthmus replay orders --rule big-orders --from "2h ago" --to "1h ago" --dry-run
  isthmus replay orders --rule big-orders --from earliest --rate 100/s
  isthmus replays list`,
    );
  withConnection(replay).action(beginReplay);
  const jobs = program
    .command("replays")
    .summary("list or cancel jobs that send again")
    .description("The jobs that send again: replays, and retries of dead letters.")
    .addHelpText("after", "\nExample:\n  isthmus replays list");
  const list = jobs
    .command("list")
    .summary("list jobs, newest first")
    .description("List the jobs that send again, newest first, and how far each has come.")
    .addHelpText("after", "\nExample:\n  isthmus replays list --json");
  withConnection(list).action(listJobs);
  const cancel = jobs
    .command("cancel")
    .summary("end a job")
    .description("End a job. What it has handed to routes goes out all the same.")
    .argument("<id>", "the job")
    .addHelpText("after", "\nExample:\n  isthmus replays cancel mibq3k7x0a2f");
  withConnection(cancel).action(cancelJob);
}

async function beginReplay(stream: string, flags: Flags): Promise<void> {
  const { rule, target, from, to, where, rate, dryRun = false } = flags;
  const client = await connect(flags);
  const { json } = await client.call({
    method: "POST",
    path: "/api/replays",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ stream, rule, target, from, to, where, rate, dryRun }),
  });
  const output = new Output(flags);
  if (dryRun) return await printSurvey(output, json as Survey);
  await followJob(client, json as JobJson, { output, detach: flags.detach === true });
}

/** Prints what a job would do. */
export async function printSurvey(output: Output, survey: Survey): Promise<void> {
  if (output.json) return await output.value(survey);
  await output.line(`would send ${countsText(survey.counts)}`);
  for (const { place, id, target, refused } of survey.samples) {
    const to = target === null ? "" : ` → ${target}`;
    await output.line(`  ${place} ${id}${to}${refused === null ? "" : ` is refused: ${refused}`}`);
  }
  if (!survey.complete) await output.note("there are more messages than one look goes over");
  await output.note("nothing was sent: this was a dry run");
}

/** Shows a job's progress to its end. @throws CliError it failed or was cancelled. */
export async function followJob(
  client: Client,
  begun: JobJson,
  how: { readonly output: Output; readonly detach: boolean },
): Promise<void> {
  const { output } = how;
  let job = begun;
  const bar = new ProgressBar(output);
  while (job.state === "running" && !how.detach) {
    await bar.update(job.counts.read, job.counts.read + job.left);
    await Bun.sleep(ASK_EVERY_MS);
    const { json } = await client.call({ path: `/api/replays/${encodeURIComponent(job.id)}` });
    job = json as JobJson;
  }
  await bar.end();
  if (output.json) await output.value(job);
  else if (job.state === "running") await output.line(`begun  ${job.id}`);
  else await output.line(`${job.state}  ${job.id}  sent ${countsText(job.counts)}`);
  if (job.state === "failed") throw new CliError(`${job.id} failed: ${job.error ?? ""}`);
  if (job.state === "cancelled") throw new CliError(`${job.id} was cancelled`);
}

function countsText({ sent, read, skipped, filtered, failed }: JobCounts): string {
  const rest = [
    skipped > 0 ? `${skipped} not asked for` : "",
    filtered > 0 ? `${filtered} that the rule does not take` : "",
    failed > 0 ? `${failed} that can't be made` : "",
  ].filter((part) => part !== "");
  return `${sent} of ${read} messages${rest.length === 0 ? "" : `; ${rest.join(", ")}`}`;
}

async function listJobs(flags: ConnectionFlags): Promise<void> {
  const output = new Output(flags);
  const client = await connect(flags);
  const items = (await client.list("/api/replays")) as readonly JobJson[];
  if (output.json) return await output.value(items);
  if (items.length === 0) return await output.note("there are no jobs");
  await output.table(
    [
      { title: "ID" },
      { title: "KIND" },
      { title: "STREAM" },
      { title: "RULE" },
      { title: "STATE" },
      { title: "SENT", right: true },
      { title: "LEFT", right: true },
      { title: "BEGUN" },
      { title: "DETAIL" },
    ],
    items.map((job) => [
      job.id,
      job.kind,
      job.stream,
      job.rule,
      job.state,
      String(job.counts.sent),
      String(job.left),
      timeText(job.createdAtMs),
      job.error ?? "",
    ]),
  );
}

async function cancelJob(id: string, flags: ConnectionFlags): Promise<void> {
  const client = await connect(flags);
  const path = `/api/replays/${encodeURIComponent(id)}`;
  const { json } = await client.call({ method: "DELETE", path });
  const output = new Output(flags);
  const job = json as JobJson;
  if (output.json) await output.value(job);
  else await output.line(`${job.state}  ${id}  sent ${countsText(job.counts)}`);
}
