/**
 * `isthmus listen`: hands each new webhook of a hook to a program on this machine, with the bytes
 * and headers that it came with, so that the program's own check of the signature passes. It reads
 * the stream over the socket: a lost connection goes on where it was, and nothing is missing.
 */
import type { Command } from "commander";
import { errorText } from "../errors.ts";
import type { HttpOrigin } from "../message.ts";
import { type Client, connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError, UsageError } from "./failure.ts";
import type { MessageJson } from "./message.ts";
import { Output } from "./output.ts";
import { interrupted, Tail, tokenOf } from "./tail.ts";

/** How long the program may take for one webhook. Milliseconds. */
const forwardMsMax = 60_000;
/** Webhooks that `--last` hands out again. */
const lastMax = 10_000;
/** Messages in one page of a read. */
const pageMessages = 1000;

/** Headers that belong to one connection, or that the request makes itself. */
const NOT_FORWARDED: ReadonlySet<string> = new Set([
  "accept-encoding",
  "connection",
  "content-length",
  "content-type",
  "content-encoding",
  "host",
  "transfer-encoding",
]);

interface Flags extends ConnectionFlags {
  readonly forward: string;
  readonly last: string;
  readonly from?: string;
}

/** A webhook as reads and the socket show it. */
interface Webhook extends MessageJson {
  /** The place after it, where it came over the socket. */
  readonly cursor?: string;
  readonly properties?: { readonly contentType?: string; readonly contentEncoding?: string };
  readonly origin?: {
    readonly bridge?: string;
    readonly address?: string;
    readonly http?: HttpOrigin;
  } | null;
}

export function registerListen(program: Command): void {
  const command = program
    .command("listen")
    .summary("hand a hook's webhooks to a program on this machine")
    .description(
      "Post each new webhook of a hook to a URL, until Ctrl-C, with the bytes and headers that it " +
        "came with, and print method, path, status, time and place. Headers that hold a secret " +
        "itself (basic, bearer, gitlab) are not kept and not handed on. A lost connection is made " +
        "again and goes on where it was; --from goes on where another listen ended, by the cursor " +
        "that it told.",
    )
    .argument("<hook>", "the hook")
    .requiredOption("--forward <url>", "where to post them")
    .option("--last <n>", "hand out the last N first", "0")
    .option("--from <place>", "begin there: a cursor, earliest, a time or 1h ago (default: latest)")
    .addHelpText(
      "after",
      `
Example:
  isthmus listen stripe --forward http://localhost:3000/webhooks --last 5`,
    );
  withConnection(command).action(listen);
}

async function listen(hook: string, flags: Flags): Promise<void> {
  const target = targetOf(flags.forward);
  const last = countOf(flags.last);
  const { from = "latest" } = flags;
  if (last > 0 && flags.from !== undefined) {
    throw new UsageError("--last and --from: give one of them");
  }
  const client = await connect(flags);
  const token = await tokenOf(client);
  const output = new Output(flags);
  const { json } = await client.call({ path: `/api/hooks/${encodeURIComponent(hook)}` });
  const stream = (json as { document?: { stream?: unknown } } | undefined)?.document?.stream;
  if (typeof stream !== "string")
    throw new CliError(`hook ${hook} was answered without its stream`);
  const where = `origin.bridge == "http" && origin.address == ${JSON.stringify(hook)}`;
  const handed = new Set<string>();
  const forward = new Forward(target, hook, output);
  const begun = async (): Promise<void> => {
    await output.note(`listening to hook ${hook}, stream ${stream}, for ${target.href}`);
    for (const webhook of await lastOf(client, { stream, where, last })) {
      handed.add(placeOf(webhook));
      await forward.hand(webhook);
    }
  };
  const options = { client, token, output, stream, signal: interrupted(), begun };
  const tail = new Tail({ ...options, flags: { from, where } }, async (message) => {
    // What came while the last ones were read stands in both.
    if (!handed.delete(placeOf(message))) await forward.hand(message);
  });
  await tail.run();
  const { cursor } = tail;
  if (cursor !== null) {
    const command = `isthmus listen ${hook} --forward ${target.href}`;
    await output.note(`to go on from here: ${command} --from ${cursor}`);
  }
}

function targetOf(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url !== null && ["http:", "https:"].includes(url.protocol)) return url;
  throw new UsageError(`--forward: "${text}" is not an address such as http://localhost:3000`);
}

function countOf(text: string): number {
  if (/^\d{1,6}$/.test(text) && Number(text) <= lastMax) return Number(text);
  throw new UsageError(`--last "${text}" is not a whole number from 0 to ${lastMax}`);
}

function placeOf({ partition = 0, offset }: MessageJson): string {
  return `${partition}/${offset ?? "?"}`;
}

/** Hands webhooks to the program, one after another, and prints what became of each. */
class Forward {
  readonly #target: URL;
  readonly #hook: string;
  readonly #output: Output;

  constructor(target: URL, hook: string, output: Output) {
    this.#target = target;
    this.#hook = hook;
    this.#output = output;
  }

  /** A program that is away or says no is told of, and the next one is handed all the same. */
  async hand(webhook: Webhook): Promise<void> {
    const http = webhook.origin?.http;
    const method = http?.method ?? "POST";
    const path = `${http?.path ?? `/hooks/${this.#hook}`}${http?.query ?? ""}`;
    const startedMs = performance.now();
    const outcome = await this.#send(webhook, method);
    const ms = Math.round(performance.now() - startedMs);
    const place = placeOf(webhook);
    if (this.#output.json)
      return await this.#output.jsonLine({
        method,
        path,
        ...outcome,
        ms,
        place,
        cursor: webhook.cursor,
      });
    const status = "status" in outcome ? String(outcome.status) : outcome.error;
    await this.#output.cells([method, path, status, `${ms} ms`, place]);
  }

  async #send(webhook: Webhook, method: string): Promise<{ status: number } | { error: string }> {
    const target = new URL(this.#target);
    const query = webhook.origin?.http?.query ?? "";
    if (query !== "")
      target.search = target.search === "" ? query : `${target.search}&${query.slice(1)}`;
    try {
      const response = await fetch(target, {
        method,
        headers: headersOf(webhook),
        redirect: "manual",
        signal: AbortSignal.timeout(forwardMsMax),
        ...(method === "GET" ? {} : { body: bodyOf(webhook) }),
      });
      await response.arrayBuffer();
      return { status: response.status };
    } catch (error) {
      return { error: `not delivered: ${errorText(error)}` };
    }
  }
}

/** The headers as they came: their bytes as Latin-1 characters. */
function headersOf({ headers = [], properties }: Webhook): Headers {
  const result = new Headers();
  const { contentType, contentEncoding } = properties ?? {};
  if (contentType !== undefined) result.set("content-type", contentType);
  if (contentEncoding !== undefined) result.set("content-encoding", contentEncoding);
  for (const [name, value] of headers) {
    if (value === null || NOT_FORWARDED.has(name)) continue;
    const bytes =
      typeof value === "string" ? Buffer.from(value, "utf8") : Buffer.from(value.base64, "base64");
    result.append(name, bytes.toString("latin1"));
  }
  return result;
}

function bodyOf({ body, bodyBase64 }: MessageJson): Uint8Array {
  return bodyBase64 === undefined
    ? Buffer.from(body ?? "", "utf8")
    : Buffer.from(bodyBase64, "base64");
}

interface Wanted {
  readonly stream: string;
  readonly where: string;
  readonly last: number;
}

interface PartitionStatus {
  readonly partition: number;
  readonly earliest: number;
  readonly latest: number;
}

/** The hook's last webhooks, oldest first: looked for from the end, further back when too few. */
async function lastOf(client: Client, wanted: Wanted): Promise<readonly Webhook[]> {
  if (wanted.last === 0) return [];
  const path = `/api/streams/${encodeURIComponent(wanted.stream)}`;
  const { json } = await client.call({ path });
  const status = (json as { status?: { partitions?: readonly PartitionStatus[] } }).status;
  const partitions = status?.partitions ?? [];
  for (let reach = wanted.last; ; reach *= 4) {
    const found: Webhook[] = [];
    for (const each of partitions) found.push(...(await readBack(client, wanted, each, reach)));
    const isAll = partitions.every(({ earliest, latest }) => latest - reach <= earliest);
    if (found.length < wanted.last && !isAll) continue;
    return found
      .toSorted((left, right) => (left.appendedAt ?? 0) - (right.appendedAt ?? 0))
      .slice(-wanted.last);
  }
}

async function readBack(
  client: Client,
  { stream, where, last }: Wanted,
  { partition, earliest, latest }: PartitionStatus,
  reach: number,
): Promise<readonly Webhook[]> {
  const found: Webhook[] = [];
  if (latest <= earliest) return found;
  let from = String(Math.max(earliest, latest - reach));
  for (;;) {
    const { json } = await client.call({
      path: `/streams/${encodeURIComponent(stream)}/messages`,
      query: {
        partition: String(partition),
        from,
        to: String(latest),
        where,
        max: String(pageMessages),
      },
    });
    const page = json as { messages?: readonly Webhook[]; next?: string; atEnd?: boolean };
    found.push(...(page.messages ?? []));
    // Only the newest can be among the last.
    found.splice(0, Math.max(0, found.length - last));
    if (page.atEnd !== false || page.next === undefined || page.next === from) return found;
    from = page.next;
  }
}
