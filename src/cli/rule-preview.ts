/** `isthmus rule preview`: what a draft of a rule would do to recorded messages. */
import { stringifyJson } from "../json.ts";
import type { JsonObject } from "../rules/document.ts";
import type { PreviewEvent, PreviewResult, PreviewSample, SampleTarget } from "../rules/preview.ts";
import { countsText } from "./apply.ts";
import { connect } from "./client.ts";
import type { ConnectionFlags } from "./connection.ts";
import { faultsOf, invalidOf, type NamedFile, readDefinitionsFile } from "./definitions-file.ts";
import { CliError, UsageError } from "./failure.ts";
import { apiPath } from "./kind.ts";
import { Output } from "./output.ts";
import { ProgressBar } from "./progress.ts";

interface Flags extends ConnectionFlags {
  readonly file: string;
  readonly last?: string;
  readonly from?: string;
  readonly to?: string;
  readonly limit?: number;
}

const TITLES: Readonly<Record<keyof PreviewResult["samples"], string>> = {
  added: "newly matched",
  removed: "no longer matched",
  changed: "changed",
  refused: "would be refused",
};

/** Runs a preview and prints what it found. */
export async function rulePreview(name: string, flags: Flags): Promise<void> {
  if (flags.last !== undefined && flags.from !== undefined) {
    throw new UsageError("give either --last or --from");
  }
  const output = new Output(flags);
  const named = await readDefinitionsFile(flags.file);
  const { base, document } = draftIn(named, name);
  const client = await connect(flags);
  const lines = client.lines({
    method: "POST",
    path: `${apiPath("rules", name)}/preview`,
    query: {
      last: flags.last ?? (flags.from === undefined ? "1h" : undefined),
      from: flags.from,
      to: flags.to,
      limit: flags.limit?.toString(),
    },
    headers: { "content-type": "application/json" },
    body: stringifyJson(document),
    onProblem: (problem) => {
      const isOfDraft = problem.code === "definition-invalid" && problem.errors.length > 0;
      return isOfDraft ? faultsOf(named.name, named.file.explain(invalidOf(problem, base))) : null;
    },
  });
  const bar = new ProgressBar(output);
  let result: PreviewResult | null = null;
  for await (const line of lines) {
    const event = line as PreviewEvent | { readonly problem: { readonly detail: string } };
    if ("progress" in event) await bar.update(event.progress.messages, event.progress.total);
    else if ("result" in event) result = event.result;
    else throw new CliError(`the preview could not be ended: ${event.problem.detail}`);
  }
  await bar.end();
  if (result === null) throw new CliError("the preview ended without a result");
  if (output.json) return await output.value(result);
  await printResult(output, result);
}

/** The draft: the file itself, or the rule of that name in a definitions file. */
function draftIn(
  { name: filename, file }: NamedFile,
  name: string,
): { readonly base: string; readonly document: JsonObject } {
  const value = objectOf(file.value);
  const rules = objectOf(value?.["rules"]);
  if (value === null) throw new CliError(`${filename} holds no rule`);
  if (rules === null) return { base: "", document: value };
  const document = objectOf(rules[name]);
  if (document === null) throw new CliError(`${filename} has no rule ${name}`);
  return { base: `/rules/${name}`, document };
}

function objectOf(value: unknown): JsonObject | null {
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  return isObject ? (value as JsonObject) : null;
}

async function printResult(output: Output, result: PreviewResult): Promise<void> {
  await output.line(countsText(result.counts));
  const { messages: looked, whereFailed, refused, refusedLive } = result.counts;
  if (looked === 0) await output.note("there is no message of that time: see --last and --from");
  if (whereFailed > 0) await output.line(`the draft's where fails on ${whereFailed} of them`);
  if (refused + refusedLive > 0)
    await output.line(`of the live rule ${refusedLive} would be refused`);
  for (const [bucket, title] of Object.entries(TITLES)) {
    const samples = result.samples[bucket as keyof PreviewResult["samples"]];
    if (samples.length === 0) continue;
    await output.line("");
    await output.line(`${title}, for example:`);
    for (const sample of samples) await printSample(output, sample);
  }
  for (const { target, loss, messages } of result.losses) {
    await output.line(`${target} loses: ${loss} (${messages} messages)`);
  }
  const gaps = result.gaps.reduce((sum, { from, to }) => sum + to - from, 0);
  if (gaps > 0) await output.note(`${gaps} messages of that time are gone`);
  if (!result.complete) await output.note("there are more messages: raise --limit to see them");
}

async function printSample(output: Output, sample: PreviewSample): Promise<void> {
  const { partition, offset, key, targets } = sample;
  await output.line(`  ${partition}/${offset} key ${key ?? "-"}`);
  for (const each of targets) await printTarget(output, each);
}

async function printTarget(output: Output, each: SampleTarget): Promise<void> {
  const { refused, diff, before, after } = each;
  // A target of only one of the two rules: what it gets comes in, or goes away.
  const sign = before === null && after !== null ? "+ " : "";
  const target = `${before !== null && after === null ? "- " : sign}${each.target}`;
  if (refused !== null) return await output.line(`    ${target}: ${refused}`);
  if (diff.length > 0) {
    await output.line(`    ${target}:`);
    for (const line of diff) await output.line(`      ${line}`);
    return;
  }
  const shown = after ?? before;
  await output.line(`    ${target}${shown === null ? "" : `: ${stringifyJson(shown.to)}`}`);
}
