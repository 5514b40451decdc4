/**
 * `isthmus export`: prints every definition as one file that `apply` takes back unchanged. Stored
 * secrets stand in it as references, never in clear.
 */
import type { Command } from "commander";
import { KINDS } from "../rules/document.ts";
import { connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { definitionOf } from "./get.ts";
import { apiPath } from "./kind.ts";
import { Output } from "./output.ts";
import { yamlText } from "./yaml-text.ts";

export function registerExport(program: Command): void {
  const command = program
    .command("export")
    .summary("print all definitions as one file")
    .description(
      "Print all definitions as one file (YAML, or JSON with --json) that `isthmus apply` takes. " +
        'Stored secrets are written as "${secret:PATH}", which apply takes as unchanged.',
    )
    .addHelpText("after", "\nExample:\n  isthmus export > definitions.yaml");
  withConnection(command).action(async (flags: ConnectionFlags) => {
    const output = new Output(flags);
    const client = await connect(flags);
    const file: Record<string, Record<string, unknown>> = {};
    for (const kind of KINDS) {
      const items = (await client.list(apiPath(kind))).map(definitionOf);
      // What exists only by being named comes back by being named.
      const definitions = items.filter(({ revision }) => revision > 0);
      if (definitions.length === 0) continue;
      file[kind] = Object.fromEntries(definitions.map(({ name, document }) => [name, document]));
    }
    if (output.json) await output.value(file);
    else await output.text(await yamlText(file));
  });
}
