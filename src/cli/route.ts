/**
 * `isthmus route …`: pause and resume routes, move their cursors, release parked keys. A route is
 * named RULE for all of the rule's targets, RULE/TARGET for one.
 */
import type { Command } from "commander";
import type { SeekStep } from "../routing/operations.ts";
import { connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { timeText } from "./message.ts";
import { Output } from "./output.ts";

interface SeekFlags extends ConnectionFlags {
  readonly to: string;
  readonly yes?: boolean;
}

interface ReleaseFlags extends ConnectionFlags {
  readonly key?: string;
  readonly lane?: string;
}

interface Parked {
  readonly target: string;
  readonly partition: number;
  readonly lane: string;
  readonly messages: number;
  readonly sinceMs: number;
  readonly reason: string;
}

const NAMES = "RULE, or RULE/TARGET for one of its targets";

export function registerRoute(program: Command): void {
  const route = program
    .command("route")
    .summary("pause, resume and move routes, release parked keys")
    .description("Operate the routes of a rule: pause, resume, seek, parked, release.")
    .addHelpText("after", "\nExample:\n  isthmus route pause big-orders");
  for (const word of ["pause", "resume"] as const) {
    const command = route
      .command(word)
      .summary(
        word === "pause"
          ? "begin nothing more, until resumed"
          : "go on after a pause; ask a disabled target again",
      )
      .description(
        word === "pause"
          ? "Pause routes. What is under way is finished; a restart does not resume them."
          : "Let paused routes go on from where they were. A target that is disabled (it answered 410) " +
              "or left alone because it is down is asked again at once.",
      )
      .argument("<route>", NAMES)
      .addHelpText("after", `\nExample:\n  isthmus route ${word} big-orders`);
    withConnection(command).action((name: string, flags: ConnectionFlags) =>
      pause(name, word, flags),
    );
  }
  registerSeek(route);
  registerParked(route);
}

function registerSeek(route: Command): void {
  const seek = route
    .command("seek")
    .summary("move a route's cursor: repeat or skip messages")
    .description(
      "Say how many messages moving the cursor would repeat or skip; with --yes, move it. What " +
        "waits or is parked in the route stays there. Repeated messages go out as the rule stands now.",
    )
    .argument("<route>", NAMES)
    .requiredOption("--to <place>", "earliest, latest, a time, `1h ago`, or PARTITION/OFFSET")
    .option("--yes", "do it")
    .addHelpText(
      "after",
      `
Examples:
  isthmus route seek big-orders --to "2h ago"
  isthmus route seek big-orders --to 0/1200 --yes`,
    );
  withConnection(seek).action(seekRoutes);
}

function registerParked(route: Command): void {
  const parked = route
    .command("parked")
    .summary("list keys that wait for an operator")
    .description("List the keys of a rule that wait for an operator, and why.")
    .argument("<route>", NAMES)
    .addHelpText("after", "\nExample:\n  isthmus route parked big-orders");
  withConnection(parked).action(listParked);
  const release = route
    .command("release")
    .summary("let parked keys be tried again")
    .description("Let parked keys be tried again from their first attempt: one of them, or all.")
    .argument("<route>", NAMES)
    .option("--key <key>", "only this key")
    .option("--lane <lane>", "only this lane, as `route parked` shows it")
    .addHelpText("after", "\nExample:\n  isthmus route release big-orders --key customer-17");
  withConnection(release).action(releaseKeys);
}

/** `RULE/TARGET`: a rule's name holds no slash, a target's may. */
function named(name: string): { readonly path: string; readonly target: string | undefined } {
  const slash = name.indexOf("/");
  const rule = slash < 0 ? name : name.slice(0, slash);
  const target = slash < 0 ? undefined : name.slice(slash + 1);
  return { path: `/api/routes/${encodeURIComponent(rule)}`, target };
}

async function pause(
  name: string,
  word: "pause" | "resume",
  flags: ConnectionFlags,
): Promise<void> {
  const { path, target } = named(name);
  const client = await connect(flags);
  const { json } = await client.call({
    method: "POST",
    path: `${path}/${word}`,
    query: { target },
  });
  const output = new Output(flags);
  if (output.json) return await output.value(json);
  const { routes } = json as { readonly routes: number };
  await output.line(`${word}d  ${name}  (${routes} ${routes === 1 ? "route" : "routes"})`);
}

async function seekRoutes(name: string, flags: SeekFlags): Promise<void> {
  const { path, target } = named(name);
  const client = await connect(flags);
  const dryRun = flags.yes === true ? undefined : "1";
  const { json } = await client.call({
    method: "POST",
    path: `${path}/seek`,
    query: { target, to: flags.to, dryRun },
  });
  const output = new Output(flags);
  if (output.json) return await output.value(json);
  const { items } = json as { readonly items: readonly SeekStep[] };
  const right = true;
  await output.table(
    [
      { title: "TARGET" },
      { title: "PARTITION" },
      { title: "FROM", right },
      { title: "TO", right },
      { title: "REPEATED", right },
      { title: "SKIPPED", right },
    ],
    items.map((step) => [
      step.target,
      `${step.stream}/${step.partition}`,
      ...[step.from, step.to, step.repeated, step.skipped].map(String),
    ]),
  );
  if (dryRun !== undefined) await output.note("nothing was moved: do it with --yes");
}

async function listParked(name: string, flags: ConnectionFlags): Promise<void> {
  const { path, target } = named(name);
  const client = await connect(flags);
  const { json } = await client.call({ path: `${path}/parked`, query: { target } });
  const output = new Output(flags);
  const { items } = json as { readonly items: readonly Parked[] };
  if (output.json) return await output.value(items);
  if (items.length === 0) return await output.note("no key is parked");
  await output.table(
    [
      { title: "LANE" },
      { title: "TARGET" },
      { title: "MESSAGES", right: true },
      { title: "SINCE" },
      { title: "REASON" },
    ],
    items.map(({ lane, target: of, messages, sinceMs, reason }) => {
      return [lane, of, String(messages), sinceMs > 0 ? timeText(sinceMs) : "-", reason];
    }),
  );
}

async function releaseKeys(name: string, flags: ReleaseFlags): Promise<void> {
  const { path, target } = named(name);
  const client = await connect(flags);
  const { json } = await client.call({
    method: "POST",
    path: `${path}/release`,
    query: { target, key: flags.key, lane: flags.lane },
  });
  const output = new Output(flags);
  if (output.json) return await output.value(json);
  const { keys } = json as { readonly keys: number };
  await output.line(`released  ${keys} ${keys === 1 ? "key" : "keys"} of ${name}`);
}
