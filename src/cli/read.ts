/**
 * `isthmus read`: prints what a stream holds between two places, then ends. Pages through
 * HTTP reads by cursor, so that memory stays bounded and a long read is complete.
 */
import type { Command } from "commander";
import { parseTimeMs } from "../rules/units.ts";
import { type Client, connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError, UsageError } from "./failure.ts";
import { type MessageJson, messageLine } from "./message.ts";
import { Output } from "./output.ts";

/** Messages of one page; large bodies make pages of many bytes, so not the server's most. */
const pageMessages = 500;

interface Flags extends ConnectionFlags {
  readonly from: string;
  readonly to?: string;
  readonly partition?: number;
  readonly max?: number;
  readonly where?: string;
  readonly key?: string;
}

/** One page of messages. */
interface Page {
  readonly messages: readonly MessageJson[];
  readonly next: string | null;
  readonly atEnd: boolean;
  readonly gaps: readonly Gap[];
}

/** Messages that were asked for and are gone. */
export interface Gap {
  readonly partition?: unknown;
  readonly from?: unknown;
  readonly to?: unknown;
  readonly reason?: unknown;
}

export function registerRead(program: Command): void {
  const command = program
    .command("read")
    .summary("print a stream's messages between two places")
    .description(
      "Print a stream's messages and end: PARTITION/OFFSET, time, key and body, separated by tabs. " +
        "A place is earliest, latest, an offset, a time (2026-01-31T12:00:00Z), 1h ago, or a cursor.",
    )
    .argument("<stream>", "the stream")
    .requiredOption("--from <place>", "where to begin")
    .option("--to <place>", "where to end (default: the stream's end)")
    .option("--partition <n>", "only this partition", countOf("--partition", 0))
    .option("--max <n>", "no more than so many messages", countOf("--max", 1))
    .option("--key <key>", "only messages of this key")
    .option("--where <cel>", "only messages for which this CEL expression is true")
    .addHelpText(
      "after",
      `
Examples:
  isthmus read orders --from earliest --max 10
  isthmus read orders --from "1h ago" --to 2026-01-31T12:00:00Z --json`,
    );
  withConnection(command).action(async (stream: string, flags: Flags) => {
    await read(stream, flags);
  });
}

/** Reads a flag's whole number. */
export function countOf(flag: string, min: number): (text: string) => number {
  return (text) => {
    const count = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (!(count >= min))
      throw new UsageError(`${flag} "${text}" is not a whole number from ${min}`);
    return count;
  };
}

async function read(stream: string, flags: Flags): Promise<void> {
  const output = new Output(flags);
  const client = await connect(flags);
  const to = flags.to === undefined ? undefined : fixedPlace(flags.to);
  let left = flags.max ?? Number.POSITIVE_INFINITY;
  let from = flags.from;
  while (left > 0) {
    const page = await readPage(client, stream, {
      from,
      to,
      partition: flags.partition?.toString(),
      where: flags.where,
      key: flags.key,
      max: Math.min(left, pageMessages).toString(),
    });
    for (const gap of page.gaps) await output.note(gapText(stream, gap));
    for (const message of page.messages) await printMessage(output, message);
    left -= page.messages.length;
    const stuck = page.messages.length === 0 && page.next === from;
    if (page.atEnd || page.next === null || stuck) return;
    from = page.next;
  }
}

/** A place that doesn't move while pages are read: a time counted from now becomes a fixed one. */
function fixedPlace(place: string): string {
  if (!/\sago$/.test(place)) return place;
  const timeMs = parseTimeMs(place, Date.now());
  return timeMs === null ? place : new Date(timeMs).toISOString();
}

async function readPage(
  client: Client,
  stream: string,
  query: Readonly<Record<string, string | undefined>>,
): Promise<Page> {
  const { json } = await client.call({
    path: `/streams/${encodeURIComponent(stream)}/messages`,
    query,
  });
  const page = json as (Partial<Page> & { gap?: Gap | null }) | undefined;
  if (!Array.isArray(page?.messages)) throw new CliError("the gateway answered without messages");
  return {
    messages: page.messages as readonly MessageJson[],
    next: page.next ?? null,
    atEnd: page.atEnd === true,
    // `gap` is the first one; where partitions have one each, `gaps` holds them all.
    gaps: page.gaps ?? (page.gap ? [page.gap] : []),
  };
}

/** Prints one message: its JSON, or a line of its place, time, key and body. */
export async function printMessage(output: Output, message: MessageJson): Promise<void> {
  if (output.json) await output.jsonLine(message);
  else await output.cells(messageLine(message));
}

/** Tells that messages are gone, and why. */
export function gapText(stream: string, gap: Gap): string {
  const partition = typeof gap.partition === "number" ? `/${gap.partition}` : "";
  const reason = typeof gap.reason === "string" ? ` (${gap.reason})` : "";
  const place = `${JSON.stringify(gap.from)} to ${JSON.stringify(gap.to)}`;
  return `${stream}${partition}: messages from ${place} are gone${reason}`;
}
