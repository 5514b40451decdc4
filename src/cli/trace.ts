/** `isthmus trace`: where a message came from, what the rules made of it, and where it is now. */
import type { Command } from "commander";
import type { Journey, RouteJourney } from "../routing/journey.ts";
import type { JourneyNote } from "../routing/journey-record.ts";
import { connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError } from "./failure.ts";
import { timeText } from "./message.ts";
import { Output } from "./output.ts";

interface Flags extends ConnectionFlags {
  readonly stream?: string;
}

interface JourneyJson extends Omit<Journey, "message"> {
  readonly message: {
    readonly id: string;
    readonly key: string | null;
    readonly appendedAt: number;
    readonly bytes: number | null;
  } | null;
}

interface Answer {
  readonly items: readonly JourneyJson[];
  readonly searched: number;
  readonly complete: boolean;
}

const PLACE = /^[^/]+\/\d{1,9}\/\d{1,15}$/;
/** Columns of a line: longer text is broken at words. */
const WIDTH = 80;

export function registerTrace(program: Command): void {
  const trace = program
    .command("trace")
    .summary("follow one message: received, matched, sent, where it is")
    .description(
      "Show the journey of one message: how it was received and verified, which rules took it or " +
        "what said no, each attempt and answer, and where it is in the target. An id is looked for " +
        "by the time in it, or among the newest messages.",
    )
    .argument("<message>", "a message's id, or STREAM/PARTITION/OFFSET")
    .option("--stream <stream>", "look for the id in this stream only")
    .addHelpText("after", "\nExample:\n  isthmus trace orders/0/17");
  withConnection(trace).action(traceMessage);
}

async function traceMessage(message: string, flags: Flags): Promise<void> {
  const client = await connect(flags);
  const output = new Output(flags);
  const query = PLACE.test(message)
    ? { place: message }
    : { id: message, ...(flags.stream === undefined ? {} : { stream: flags.stream }) };
  const { json } = await client.call({ path: "/api/journey", query });
  const answer = json as Answer;
  if (output.json) await output.value(answer);
  if (answer.items.length === 0) {
    const bound = answer.complete ? "" : "; the search ended at its bounds: try --stream";
    throw new CliError(`no message ${message} in ${answer.searched} that were looked at${bound}`);
  }
  if (output.json) return;
  for (const [index, item] of answer.items.entries()) {
    if (index > 0) await output.line("");
    for (const line of journeyLines(item)) await output.line(line);
  }
}

/** A journey as lines of at most 80 columns. */
export function journeyLines(journey: JourneyJson): readonly string[] {
  const { stream, partition, offset, message, routes, complete } = journey;
  const lines = [`${stream}/${partition}/${offset}`];
  if (message === null) lines.push("  the message itself is not kept any more");
  else {
    const key = message.key === null ? "no key" : `key ${message.key}`;
    const size = message.bytes === null ? "a tombstone" : `${message.bytes} bytes`;
    lines.push(...wrapped(`id ${message.id}, ${key}, ${size}`, 2));
    lines.push(...wrapped(`${timeText(message.appendedAt)}  ${receivedText(journey)}`, 2, 28));
  }
  if (routes.length === 0) lines.push("  no rule reads this stream");
  for (const route of routes) lines.push("", ...routeLines(route));
  if (!complete) lines.push("", "  there are more notes than one look reads");
  return lines;
}

function receivedText({ received }: JourneyJson): string {
  if (received === null) return "received";
  const { by, from, address, sourcePartition, sourceOffset, principal, verified } = received;
  const words = {
    hook: `received by hook ${address}`,
    api: "received from a client",
    http: "received over HTTP",
    socket: "received over a socket",
    source: `received from bridge ${from}, ${address}`,
    rule: `passed on by rule ${address}`,
    unknown: "received",
  };
  const place = [
    sourcePartition === null ? "" : `partition ${sourcePartition}`,
    sourceOffset === null ? "" : `offset ${sourceOffset}`,
  ];
  const more = [
    place.filter((each) => each !== "").join(" "),
    received.redelivered ? "redelivered" : "",
    principal === null ? "" : `by ${principal}`,
    received.remoteAddress === null ? "" : `from ${received.remoteAddress}`,
    verified === null ? "" : `verified by ${verified.scheme}, key ${verified.keyId}`,
  ];
  return [words[by], ...more.filter((each) => each !== "")].join(", ");
}

function routeLines(route: RouteJourney): readonly string[] {
  const { rule, target, revision, fate, matched, because, notes, waiting } = route;
  const at = revision === null ? "" : `, revision ${revision}`;
  const lines = wrapped(`rule ${rule}${at} → ${target}: ${fateText(route)}`, 2, 4);
  if (matched === "no" || matched === "failed" || fate === "unknown") {
    lines.push(...because.flatMap((each) => wrapped(each, 4, 6)));
  }
  for (const note of notes) lines.push(...wrapped(noteText(note), 4, 30));
  if (waiting !== null) {
    const due =
      waiting.dueMs === null ? "until it is released" : `until ${timeText(waiting.dueMs)}`;
    lines.push(...wrapped(`waits ${due}: ${waiting.reason}`, 4, 6));
  }
  return lines;
}

function fateText({ fate, position, deadLetter, matched, attempts }: RouteJourney): string {
  switch (fate) {
    case "delivered":
      return position === null ? "delivered" : `delivered, ${position}`;
    case "dead-lettered":
      return `dead letter ${deadLetter ?? ""}`.trimEnd();
    case "filtered":
      return matched === "failed" ? "where failed, which counts as no" : "where said no";
    case "retrying":
      return `failed ${attempts} times, is tried again`;
    case "pending":
      return "has not come to it yet";
    case "never-read":
      return "began behind it";
    case "unknown":
      return "passed; nothing is noted of it";
    case "expired":
    case "waiting":
    case "parked":
      return fate;
  }
}

function noteText({ atMs, event, detail, attempts, delayMs, again }: JourneyNote): string {
  const by = again === null ? "" : ` (${again})`;
  const said = detail === null ? "" : `: ${detail}`;
  const words = { sent: "sent", failed: "failed", dead: "dead letter", expired: "expired" }[event];
  const count = event === "failed" && attempts > 0 ? `, refusal ${attempts}` : "";
  const next = event === "failed" && delayMs !== null ? `; again in ${delayText(delayMs)}` : "";
  return `${timeText(atMs)}  ${words}${by}${count}${said}${next}`;
}

function delayText(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 120_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}

/** Text broken at spaces, later lines further in; a word that is too long stands by itself. */
function wrapped(text: string, indent: number, later: number = indent): string[] {
  const lines: string[] = [];
  let line = " ".repeat(indent);
  let isFresh = true;
  for (const word of text.split(/(?<=\S)(?= )/)) {
    if (!isFresh && line.length + word.length > WIDTH) {
      lines.push(line);
      line = " ".repeat(later) + word.trimStart();
    } else line += word;
    isFresh = false;
  }
  return [...lines, line];
}
