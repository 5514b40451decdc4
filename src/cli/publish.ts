/**
 * `isthmus publish`: appends one message to a stream and prints its receipt, which comes only
 * when the message is on disk. The body is the argument or everything that comes on standard
 * input, byte for byte.
 */
import type { Command } from "commander";
import { stringifyJson } from "../json.ts";
import { connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError, UsageError } from "./failure.ts";
import { exactText } from "./message.ts";
import { Output } from "./output.ts";

/** Standard input that is kept in memory: a guard only, the gateway has the true bound. Bytes. */
const stdinBytesMax = 256 * 1024 * 1024;

/** Larger bodies travel as base64: escapes can make a text six times as long. Bytes. */
const textBytesMax = 1024 * 1024;

interface Flags extends ConnectionFlags {
  readonly key?: string;
  readonly header?: readonly (readonly [string, string])[];
}

/** What a publish answers. */
interface Receipt {
  readonly id?: string;
  readonly stream?: string;
  readonly partition?: number;
  readonly offset?: number;
  readonly duplicate?: boolean;
}

export function registerPublish(program: Command): void {
  const command = program
    .command("publish")
    .summary("append a message to a stream")
    .description(
      "Append one message to a stream and print its receipt, once it is on disk. " +
        "Without DATA, or with -, the body is read from standard input, byte for byte.",
    )
    .argument("<stream>", "the stream")
    .argument("[data]", "the body; - reads standard input")
    .option("--key <key>", "the message's key: equal keys keep their order")
    .option("--header <name=value>", "a header, may be repeated", collectHeader)
    .addHelpText(
      "after",
      `
Examples:
  isthmus publish orders '{"id":1,"amount":250}' --key c1 --header region=eu
  isthmus publish images < picture.png`,
    );
  withConnection(command).action(async (stream: string, data: string | undefined, flags: Flags) => {
    await publish(stream, data, flags);
  });
}

async function publish(stream: string, data: string | undefined, flags: Flags): Promise<void> {
  const output = new Output(flags);
  const client = await connect(flags);
  const body = await bodyOf(data);
  // One line of NDJSON carries any key and keeps letter case and repetition of header names,
  // which HTTP's own headers don't.
  const { json } = await client.call({
    method: "POST",
    path: `/streams/${encodeURIComponent(stream)}/messages`,
    headers: { "content-type": "application/x-ndjson" },
    body: `${messageText(body, flags)}\n`,
  });
  const receipt = Array.isArray(json) ? (json[0] as Receipt | undefined) : undefined;
  if (receipt === undefined) throw new CliError("the gateway answered without a receipt");
  if (output.json) return await output.value(receipt);
  const place = `${receipt.stream ?? stream} ${receipt.partition}/${receipt.offset}`;
  await output.line(`${place} ${receipt.id}${receipt.duplicate === true ? " (duplicate)" : ""}`);
}

function messageText(body: Uint8Array, flags: Flags): string {
  const text = body.length > textBytesMax ? null : exactText(body);
  return stringifyJson({
    ...(flags.key === undefined ? {} : { key: flags.key }),
    ...(flags.header === undefined ? {} : { headers: flags.header }),
    ...(text === null ? { bodyBase64: Buffer.from(body).toString("base64") } : { body: text }),
  });
}

async function bodyOf(data: string | undefined): Promise<Uint8Array> {
  if (data !== undefined && data !== "-") return new TextEncoder().encode(data);
  if (data === undefined && process.stdin.isTTY === true) {
    throw new UsageError("there is no body: give DATA, or - to type it on standard input");
  }
  return await readInput();
}

/** All of standard input. @throws CliError it is larger than what a command keeps in memory */
export async function readInput(): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of process.stdin as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    if (bytes > stdinBytesMax) throw new CliError("standard input holds more than 256 MiB");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function collectHeader(
  text: string,
  before: readonly (readonly [string, string])[] | undefined,
): readonly (readonly [string, string])[] {
  const equals = text.indexOf("=");
  if (equals < 1) throw new UsageError(`--header "${text}" is not NAME=VALUE`);
  return [...(before ?? []), [text.slice(0, equals), text.slice(equals + 1)]];
}
