/**
 * `isthmus apply`: sends a definitions file to the gateway, which takes all of it or nothing.
 * What is wrong is shown at its place in the file; a dry run shows what would change.
 */
import type { Command } from "commander";
import { stringifyJson } from "../json.ts";
import type { Json } from "../rules/document.ts";
import type { PreviewCounts } from "../rules/preview.ts";
import { type Client, connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { faultsOf, invalidOf, type NamedFile, readDefinitionsFile } from "./definitions-file.ts";
import { CliError, printable, UsageError } from "./failure.ts";
import { Output } from "./output.ts";

interface Flags extends ConnectionFlags {
  readonly file: string;
  readonly dryRun?: boolean;
  readonly prune?: boolean;
  readonly yes?: boolean;
  readonly why?: string;
  readonly last: string;
}

/** What became of one definition, or would. */
interface Result {
  readonly kind: string;
  readonly name: string;
  readonly outcome: string;
  readonly diff?: readonly string[];
  readonly preview?: PreviewCounts | null;
}

/** What the gateway answers. */
interface Applied {
  readonly results: readonly Result[];
  readonly warnings: readonly string[];
  readonly json: unknown;
}

export function registerApply(program: Command): void {
  const command = program
    .command("apply")
    .summary("apply a file of definitions")
    .description(
      "Apply a file of definitions (YAML or JSON): all of it, or nothing when anything is wrong. " +
        "When the command ends, the gateway works by it.",
    )
    .requiredOption("-f, --file <file>", "the file; - reads standard input")
    .option("--dry-run", "check it, and show what would change and what rules would do")
    .option("--last <duration>", "--dry-run: run changed rules over messages so young", "1h")
    .option("--prune", "delete what this file's project made before and no longer names")
    .option("--yes", "don't ask before --prune deletes; needed where nobody can be asked")
    .option("--why <text>", "why, for the record")
    .addHelpText(
      "after",
      `
Examples:
  isthmus apply -f examples/quickstart.yaml --dry-run
  isthmus apply -f shop.yaml --prune --why "the old queue is gone"`,
    );
  withConnection(command).action(apply);
}

async function apply(flags: Flags): Promise<void> {
  const output = new Output(flags);
  const named = await readDefinitionsFile(flags.file);
  const isDry = flags.dryRun === true;
  const project = projectOf(named);
  if (flags.prune === true && project === null) {
    throw new UsageError(
      `--prune deletes what the file's project made: give ${named.name} a \`project:\``,
    );
  }
  const client = await connect(flags);
  const send = (dryRun: boolean): Promise<Applied> => post({ client, named, flags, dryRun });
  if (flags.prune === true && !isDry && flags.yes !== true) {
    const deletions = (await send(true)).results.filter(isDeletion);
    if (deletions.length > 0) await mustAgree(deletions, project ?? "", output);
  }
  const applied = await send(isDry);
  for (const warning of applied.warnings) await output.note(`warning: ${warning}`);
  if (output.json) return await output.value(applied.json);
  for (const result of applied.results) await printResult(output, result);
  if (applied.results.length === 0) await output.note(`${named.name} holds no definitions`);
  if (isDry) await output.note("nothing was changed: this was a dry run");
}

async function printResult(output: Output, result: Result): Promise<void> {
  await output.line(`${result.outcome.padEnd(8)} ${result.kind}/${result.name}`);
  for (const line of result.diff ?? []) await output.line(`    ${line}`);
  if (result.preview === undefined || result.preview === null) return;
  await output.line(`    ${countsText(result.preview)}`);
}

/** What a preview counted, in one line. */
export function countsText(counts: PreviewCounts): string {
  const { messages, added, removed, changed, same, refused } = counts;
  return (
    `of ${messages} messages: ${added} newly matched, ${removed} no longer matched, ` +
    `${changed} changed, ${same} as before, ${refused} would be refused`
  );
}

function projectOf({ file: { value } }: NamedFile): string | null {
  const members =
    typeof value === "object" && value !== null ? (value as Record<string, Json>) : {};
  const project = members["project"];
  return typeof project === "string" ? project : null;
}

interface Post {
  readonly client: Client;
  readonly named: NamedFile;
  readonly flags: Flags;
  readonly dryRun: boolean;
}

async function post({ client, named, flags, dryRun }: Post): Promise<Applied> {
  const { file, name } = named;
  // The dry run that only looks for deletions needs no previews.
  const isShown = dryRun && flags.dryRun === true;
  const { status, json, problem } = await client.call({
    method: "POST",
    path: "/api/apply",
    query: {
      dryRun: dryRun ? "true" : undefined,
      prune: flags.prune === true ? "true" : undefined,
      why: flags.why,
      preview: isShown ? flags.last : undefined,
    },
    headers: { "content-type": "application/json" },
    body: stringifyJson(file.value),
    accept: [400, 422],
  });
  if (problem !== null) {
    if (problem.errors.length === 0 || problem.errors[0]?.pointer === "/last") {
      throw client.failure(status, problem);
    }
    throw faultsOf(name, file.explain(invalidOf(problem)));
  }
  const { results, warnings } = (json ?? {}) as { results?: unknown; warnings?: unknown };
  if (!Array.isArray(results)) throw new CliError("the gateway answered without results");
  return {
    results: results as readonly Result[],
    warnings: Array.isArray(warnings) ? warnings.map(String) : [],
    json,
  };
}

function isDeletion(result: Result): boolean {
  return result.outcome === "deleted";
}

/** Whoever deletes types the project's name. @throws CliError they did not, or can't be asked */
async function mustAgree(
  deletions: readonly Result[],
  project: string,
  output: Output,
): Promise<void> {
  const names = deletions.map(({ kind, name }) => `${kind}/${name}`).join(", ");
  if (!output.asks) {
    throw new UsageError(`--prune would delete ${printable(names)}: give --yes to do so`);
  }
  const { text, isCancel } = await import("@clack/prompts");
  const message = `This deletes ${printable(names)}. Type ${printable(project)} to go on:`;
  const answer = await text({ message });
  if (isCancel(answer) || answer !== project) throw new CliError("nothing was changed");
}
