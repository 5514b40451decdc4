/**
 * `isthmus apply`: sends a definitions file to the gateway, which takes all of it or nothing.
 * What is wrong is shown at its place in the file.
 */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { InvalidError } from "../errors.ts";
import { stringifyJson } from "../json.ts";
import type { Json } from "../rules/document.ts";
import type { ParsedFile } from "../rules/yaml.ts";
import { type Client, connect, type Problem } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError, printable, UsageError } from "./failure.ts";
import { Output } from "./output.ts";
import { readInput } from "./publish.ts";

interface Flags extends ConnectionFlags {
  readonly file: string;
  readonly dryRun?: boolean;
  readonly prune?: boolean;
  readonly yes?: boolean;
}

/** What became of one definition. */
interface Result {
  readonly kind: string;
  readonly name: string;
  readonly revision?: number;
  readonly outcome: string;
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
    .option("--dry-run", "check it and show what would change")
    .option("--prune", "delete what this file's project made before and no longer names")
    .option("--yes", "on a terminal: don't ask before --prune deletes")
    .addHelpText(
      "after",
      `
Examples:
  isthmus apply -f examples/quickstart.yaml --dry-run
  isthmus apply -f shop.yaml --prune`,
    );
  withConnection(command).action(async (flags: Flags) => {
    await apply(flags);
  });
}

async function apply(flags: Flags): Promise<void> {
  const output = new Output(flags);
  const { parseFile } = await import("../rules/yaml.ts");
  const name = flags.file === "-" ? "standard input" : flags.file;
  const text = await textOf(flags.file, name);
  const file = inFile(name, () => parseFile(text, name));
  if (flags.prune === true) requireProject(file, name);
  const client = await connect(flags);
  const send = (dryRun: boolean): Promise<Applied> => {
    return post({ client, file, name, dryRun, prune: flags.prune === true });
  };
  if (flags.prune === true && flags.dryRun !== true && flags.yes !== true && output.asks) {
    const deletions = (await send(true)).results.filter(isDeletion);
    if (deletions.length > 0 && !(await agreed(deletions))) {
      throw new CliError("nothing was changed");
    }
  }
  const applied = await send(flags.dryRun === true);
  for (const warning of applied.warnings) await output.note(`warning: ${warning}`);
  if (output.json) return await output.value(applied.json);
  for (const result of applied.results) {
    await output.line(`${result.outcome.padEnd(8)} ${result.kind}/${result.name}`);
  }
  if (applied.results.length === 0) await output.note(`${name} holds no definitions`);
  if (flags.dryRun === true) await output.note("nothing was changed: this was a dry run");
}

/** The text of the file. @throws CliError it can't be read */
async function textOf(path: string, name: string): Promise<string> {
  const bytes = path === "-" ? await readInput() : await fileBytes(path);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new CliError(`${name} is not UTF-8 text`, { cause });
  }
}

async function fileBytes(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    const code = (error as { code?: string }).code ?? "unknown";
    const reasons: Readonly<Record<string, string>> = {
      ENOENT: "there is no such file",
      EACCES: "it may not be read by this user",
      EISDIR: "it is a folder",
    };
    throw new CliError(`${path} can't be read: ${reasons[code] ?? code}`, { cause: error });
  }
}

/** Carries out a step that finds fault with the file. @throws CliError naming each place */
function inFile<Result>(name: string, step: () => Result): Result {
  try {
    return step();
  } catch (error) {
    if (error instanceof InvalidError) throw faultsOf(name, error);
    throw error;
  }
}

/** One fault is one line; several follow their count. */
function faultsOf(name: string, error: InvalidError): CliError {
  if (error.errors.length < 2) return new CliError(error.message, { cause: error });
  const details = error.errors.map(({ line, column, pointer, detail }) => {
    return `${name}:${line ?? 1}:${column ?? 1}: ${pointer === "" ? "" : `${pointer}: `}${detail}`;
  });
  return new CliError(`${name} has ${details.length} faults`, { details, cause: error });
}

function requireProject(file: ParsedFile, name: string): void {
  const { value } = file;
  const members =
    typeof value === "object" && value !== null ? (value as Record<string, Json>) : {};
  if (typeof members["project"] === "string") return;
  throw new UsageError(`--prune deletes what the file's project made: give ${name} a \`project:\``);
}

interface Post {
  readonly client: Client;
  readonly file: ParsedFile;
  readonly name: string;
  readonly dryRun: boolean;
  readonly prune: boolean;
}

async function post({ client, file, name, dryRun, prune }: Post): Promise<Applied> {
  const { status, json, problem } = await client.call({
    method: "POST",
    path: "/api/apply",
    query: { dryRun: dryRun ? "true" : undefined, prune: prune ? "true" : undefined },
    headers: { "content-type": "application/json" },
    body: stringifyJson(file.value),
    accept: [400, 422],
  });
  if (problem !== null) {
    if (problem.errors.length === 0) throw client.failure(status, problem);
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

/** The gateway's problem as the error that the file can find the places of. */
function invalidOf(problem: Problem): InvalidError {
  const errors = problem.errors.map(({ pointer, detail, line, column }) => {
    const place = line === null || column === null ? {} : { line, column };
    return { pointer, detail, ...place };
  });
  return new InvalidError(problem.detail, errors, { code: "definition-invalid" });
}

function isDeletion(result: Result): boolean {
  return result.outcome === "deleted";
}

async function agreed(deletions: readonly Result[]): Promise<boolean> {
  const { confirm, isCancel } = await import("@clack/prompts");
  const names = deletions.map(({ kind, name }) => `${kind}/${name}`).join(", ");
  const message = `Delete ${printable(names)}?`;
  const answer = await confirm({ message, initialValue: false });
  return !isCancel(answer) && answer;
}
