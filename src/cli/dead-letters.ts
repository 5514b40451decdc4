/**
 * `isthmus dead-letters …`: list, show, retry and drop what a rule's targets did not take. Retry
 * and drop want to be told which; drop asks once more.
 */
import type { Command } from "commander";
import { connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError, printable, UsageError } from "./failure.ts";
import { timeText } from "./message.ts";
import { Output } from "./output.ts";
import { countOf } from "./read.ts";
import { followJob, type JobJson, printSurvey } from "./replay.ts";
import type { Survey } from "../routing/jobs.ts";
import { yamlText } from "./yaml-text.ts";

interface PickFlags extends ConnectionFlags {
  readonly target?: string;
  readonly where?: string;
  readonly reason?: string;
  readonly from?: string;
  readonly to?: string;
  readonly all?: boolean;
  readonly dryRun?: boolean;
}

interface ListFlags extends PickFlags {
  readonly state?: string;
  readonly max?: number;
}

interface RetryFlags extends PickFlags {
  readonly set?: string;
  readonly again?: boolean;
  readonly rate?: string;
  readonly detach?: boolean;
}

interface DropFlags extends PickFlags {
  readonly yes?: boolean;
}

interface LetterJson {
  readonly partition: number;
  readonly offset: number;
  readonly state: string;
  readonly key: string | null;
  readonly target: string | null;
  readonly attempts: number;
  readonly reason: string;
  readonly deadAtMs: number;
}

export function registerDeadLetters(program: Command): void {
  const letters = program
    .command("dead-letters")
    .summary("list, show, retry and drop what was given up")
    .description("Work on the dead letters of a rule: list, show, retry, drop.")
    .addHelpText("after", "\nExample:\n  isthmus dead-letters list big-orders");
  const list = letters
    .command("list")
    .summary("list dead letters")
    .description(
      "List dead letters, oldest first; those that were sent again or dropped are left out.",
    )
    .argument("<rule>", "the rule, or source")
    .option("--state <state>", "pending (default), redriven, dropped or all")
    .option("--max <n>", "no more than so many (default 100)", countOf("--max", 1))
    .addHelpText("after", '\nExample:\n  isthmus dead-letters list big-orders --reason "422"');
  withConnection(withFilter(list)).action(listLetters);
  const show = letters
    .command("show")
    .summary("show one dead letter")
    .description("Show one dead letter: the message as it was, why it was given up, and by what.")
    .argument("<rule>", "the rule, or source")
    .argument("<place>", "PARTITION/OFFSET, or OFFSET in partition 0")
    .addHelpText("after", "\nExample:\n  isthmus dead-letters show big-orders 0/17");
  withConnection(show).action(showLetter);
  registerChanges(letters);
}

function registerChanges(letters: Command): void {
  const retry = letters
    .command("retry")
    .summary("send dead letters again, to the routes that failed")
    .description(
      "Send dead letters again as the rule stands now: one, those that fit a filter, or --all. Each " +
        "goes only to the target that failed, once, marked with the header isthmus-redriven.",
    )
    .argument("<rule>", "the rule")
    .argument("[place]", "one of them: PARTITION/OFFSET")
    .option("--all", "all of them")
    .option("--set <json>", 'a change to make first, such as \'{"body":"${body.fixed}"}\'')
    .option("--again", "also those that were sent again or dropped before")
    .option("--rate <rate>", "no faster than this, such as 100/s")
    .option("--dry-run", "only say what would be sent")
    .option("--detach", "do not wait for the end")
    .addHelpText(
      "after",
      `
Examples:
  isthmus dead-letters retry big-orders 0/17
  isthmus dead-letters retry big-orders --reason timeout --dry-run
  isthmus dead-letters retry big-orders --all --rate 50/s`,
    );
  withConnection(withFilter(retry)).action(retryLetters);
  const drop = letters
    .command("drop")
    .summary("drop dead letters")
    .description(
      "Drop dead letters: they are not listed or sent again any more. Their bytes stay in the " +
        "stream RULE.dead until its retention takes them.",
    )
    .argument("<rule>", "the rule, or source")
    .argument("[place]", "one of them: PARTITION/OFFSET")
    .option("--all", "all of them")
    .option("--dry-run", "only count them")
    .option("--yes", "without being asked")
    .addHelpText("after", "\nExample:\n  isthmus dead-letters drop big-orders 0/17");
  withConnection(withFilter(drop)).action(dropLetters);
}

function withFilter(command: Command): Command {
  return command
    .option("--target <name>", "of this target")
    .option("--where <cel>", 'that fit; the reason is header("isthmus-reason")')
    .option("--reason <text>", "with this text in the reason")
    .option("--from <place>", "given up from then on: a time, `1h ago`")
    .option("--to <place>", "given up before");
}

function pathOf(rule: string): string {
  return `/api/dead-letters/${encodeURIComponent(rule)}`;
}

async function listLetters(rule: string, flags: ListFlags): Promise<void> {
  const { target, where, reason, from, to, state, max = 100 } = flags;
  const client = await connect(flags);
  const items: LetterJson[] = [];
  let after: string | undefined;
  do {
    const query = {
      target,
      where,
      reason,
      from,
      to,
      state,
      after,
      max: String(max - items.length),
    };
    const { json } = await client.call({ path: pathOf(rule), query });
    const page = json as { readonly items: readonly LetterJson[]; readonly next: string | null };
    items.push(...page.items);
    after = page.next ?? undefined;
  } while (after !== undefined && items.length < max);
  const output = new Output(flags);
  if (output.json) return await output.value(items);
  if (items.length === 0) return await output.note(`${rule} has no such dead letters`);
  await output.table(
    [
      { title: "PLACE" },
      { title: "STATE" },
      { title: "KEY" },
      { title: "TARGET" },
      { title: "ATTEMPTS", right: true },
      { title: "GIVEN UP" },
      { title: "REASON" },
    ],
    items.map((item) => [
      `${item.partition}/${item.offset}`,
      item.state,
      item.key ?? "-",
      item.target ?? "-",
      String(item.attempts),
      timeText(item.deadAtMs),
      item.reason,
    ]),
  );
  if (after !== undefined) await output.note("there are more: raise --max to see them");
}

async function showLetter(rule: string, place: string, flags: ConnectionFlags): Promise<void> {
  if (!/^(\d+\/)?\d+$/.test(place)) {
    throw new UsageError(`"${place}" is not PARTITION/OFFSET, such as 0/17`);
  }
  const full = place.includes("/") ? place : `0/${place}`;
  const client = await connect(flags);
  const { json } = await client.call({ path: `${pathOf(rule)}/${full}` });
  const output = new Output(flags);
  if (output.json) await output.value(json);
  else await output.text(await yamlText(json));
}

/** Which letters are meant, as the API wants it. @throws UsageError nothing is said. */
function picked(place: string | undefined, flags: PickFlags): Record<string, unknown> {
  const { target, where, reason, from, to, all, dryRun } = flags;
  const filter = { target, where, reason, from, to };
  const isNamed = Object.values(filter).some((value) => value !== undefined);
  if (place === undefined && !isNamed && all !== true) {
    throw new UsageError("which ones? give PARTITION/OFFSET, a filter, or --all");
  }
  if (place !== undefined && (isNamed || all === true)) {
    throw new UsageError("give either PARTITION/OFFSET or a filter");
  }
  return { place, ...filter, all, dryRun };
}

async function retryLetters(
  rule: string,
  place: string | undefined,
  flags: RetryFlags,
): Promise<void> {
  const { again, rate } = flags;
  const set = flags.set === undefined ? undefined : setOf(flags.set);
  const body = JSON.stringify({ ...picked(place, flags), set, again, rate });
  const client = await connect(flags);
  const { json } = await client.call({
    method: "POST",
    path: `${pathOf(rule)}/retry`,
    headers: { "content-type": "application/json" },
    body,
  });
  const output = new Output(flags);
  if (flags.dryRun === true) return await printSurvey(output, json as Survey);
  await followJob(client, json as JobJson, { output, detach: flags.detach === true });
}

function setOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new UsageError(`--set is not JSON: ${(cause as Error).message}`);
  }
}

async function dropLetters(
  rule: string,
  place: string | undefined,
  flags: DropFlags,
): Promise<void> {
  const wanted = picked(place, flags);
  const client = await connect(flags);
  const output = new Output(flags);
  const drop = async (dryRun: boolean): Promise<unknown> => {
    const { json } = await client.call({
      method: "POST",
      path: `${pathOf(rule)}/drop`,
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...wanted, dryRun }),
    });
    return json;
  };
  if (flags.yes !== true) {
    const { dropped } = (await drop(true)) as { readonly dropped: number };
    if (flags.dryRun === true) {
      if (output.json) return await output.value({ name: rule, dryRun: true, dropped });
      return await output.line(`would drop ${dropped} dead letters of ${rule}`);
    }
    await confirm(output, rule, dropped);
  }
  const json = await drop(flags.dryRun === true);
  if (output.json) return await output.value(json);
  const { dropped } = json as { readonly dropped: number };
  await output.line(`dropped  ${dropped} dead letters of ${rule}`);
}

/** Whoever drops types the rule's name. @throws CliError they did not, or can't be asked */
async function confirm(output: Output, rule: string, count: number): Promise<void> {
  if (!output.asks) {
    throw new UsageError(`this would drop ${count} dead letters of ${printable(rule)}: give --yes`);
  }
  const { text, isCancel } = await import("@clack/prompts");
  const name = printable(rule);
  const message = `This drops ${count} dead letters of ${name}. Type ${name} to go on:`;
  const answer = await text({ message });
  if (isCancel(answer) || answer !== rule) throw new CliError("nothing was dropped");
}
