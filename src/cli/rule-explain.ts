/** `isthmus rule explain`: which rules take a message, and what decided. */
import type { Explanation } from "../rules/explain.ts";
import { connect } from "./client.ts";
import type { ConnectionFlags } from "./connection.ts";
import { CliError, UsageError } from "./failure.ts";
import { Output } from "./output.ts";
import { yamlText } from "./yaml-text.ts";

interface Flags extends ConnectionFlags {
  readonly rule?: string;
}

const WORDS = {
  yes: "matches",
  no: "does not match",
  failed: "fails, which counts as no",
} as const;

/** Explains what the rules make of one message. */
export async function ruleExplain(stream: string, place: string, flags: Flags): Promise<void> {
  const match = /^(?:(\d{1,9})\/)?(\d{1,15})$/.exec(place);
  if (match === null) {
    throw new UsageError(`"${place}" is not PARTITION/OFFSET, such as 0/17`);
  }
  const client = await connect(flags);
  const output = new Output(flags);
  const [, partition = "0", offset = ""] = match;
  const path = `/api/explanations/${encodeURIComponent(stream)}/${partition}/${offset}`;
  const { json } = await client.call({ path, query: { rule: flags.rule } });
  if (output.json) return await output.value(json);
  const { items } = (json ?? {}) as { items?: readonly Explanation[] };
  if (items === undefined) throw new CliError("the gateway answered without explanations");
  if (items.length === 0) return await output.note(`no rule reads ${stream}`);
  for (const item of items) await printOne(output, item);
}

async function printOne(output: Output, item: Explanation): Promise<void> {
  const note = item.enabled ? "" : " (disabled: it runs on nothing)";
  await output.line(`${item.rule} ${WORDS[item.verdict]}${note}`);
  for (const line of item.because) await output.line(`    ${line}`);
  for (const { target, refused, outgoing } of item.targets) {
    await output.line(`  → ${target}${refused === null ? "" : ` is refused: ${refused}`}`);
    if (outgoing === null) continue;
    for (const line of (await yamlText(outgoing)).trimEnd().split("\n")) {
      await output.line(`    ${line}`);
    }
  }
}
