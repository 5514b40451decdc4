/**
 * `isthmus export`: prints definitions as one file that `apply` takes back unchanged, its project
 * included. Stored secrets stand in it as references, never in clear.
 */
import type { Command } from "commander";
import { KINDS } from "../rules/document.ts";
import { connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { type DefinitionJson, definitionOf } from "./get.ts";
import { CliError } from "./failure.ts";
import { apiPath } from "./kind.ts";
import { Output } from "./output.ts";
import { yamlText } from "./yaml-text.ts";

interface Flags extends ConnectionFlags {
  readonly project?: string;
}

export function registerExport(program: Command): void {
  const command = program
    .command("export")
    .summary("print definitions as one file")
    .description(
      "Print all definitions, or one project's, as one file (YAML, or JSON with --json) that " +
        "`isthmus apply` takes without a change. A file has one project: it is named when all of " +
        "it belongs to that one. Stored secrets are written as " +
        '"${secret:PATH}", which apply takes as unchanged.',
    )
    .option("--project <name>", "only what this project made")
    .addHelpText(
      "after",
      `
Examples:
  isthmus export > definitions.yaml
  isthmus export --project shop > shop.yaml`,
    );
  withConnection(command).action(exportAll);
}

async function exportAll(flags: Flags): Promise<void> {
  const output = new Output(flags);
  const client = await connect(flags);
  const groups: [string, readonly DefinitionJson[]][] = [];
  for (const kind of KINDS) {
    const items = (await client.list(apiPath(kind))).map(definitionOf);
    // What exists only by being named comes back by being named.
    const defined = items.filter(({ revision }) => revision > 0);
    const chosen = defined.filter(({ project }) => [undefined, project].includes(flags.project));
    if (chosen.length > 0) groups.push([kind, chosen]);
  }
  const all = groups.flatMap(([, definitions]) => definitions);
  if (flags.project !== undefined && all.length === 0) {
    throw new CliError(`there is nothing of project ${flags.project}`);
  }
  const projects = new Set(all.map(({ project }) => project));
  const [project = null] = projects;
  const file: Record<string, unknown> = projects.size === 1 && project !== null ? { project } : {};
  for (const [kind, definitions] of groups) {
    file[kind] = Object.fromEntries(definitions.map(({ name, document }) => [name, document]));
  }
  if (projects.size > 1) {
    const names = [...projects].map((each) => each ?? "none").join(", ");
    await output.note(
      `definitions of several projects (${names}): the file names none; --project exports one`,
    );
  }
  if (output.json) await output.value(file);
  else await output.text(await yamlText(file));
}
