/** `isthmus delete`: deletes one definition. What is in use stays, and the user of it is named. */
import type { Command } from "commander";
import { connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { UsageError } from "./failure.ts";
import { apiPath, kindOf } from "./kind.ts";
import { Output } from "./output.ts";

interface Flags extends ConnectionFlags {
  readonly why?: string;
}

export function registerDelete(program: Command): void {
  const command = program
    .command("delete")
    .summary("delete a definition")
    .description("Delete one definition. One that others use stays, and they are named.")
    .argument("<kind>", "bridge, stream, source, hook, rule or access")
    .argument("<name>", "its name")
    .option("--why <text>", "why, for the record")
    .addHelpText("after", "\nExample:\n  isthmus delete rule big-orders");
  withConnection(command).action(async (word: string, name: string, flags: Flags) => {
    const kind = kindOf(word);
    if (kind === "routes") {
      throw new UsageError("routes belong to rules: delete the rule, or change its `to`");
    }
    if (kind === "tokens") throw new UsageError(`revoke it: isthmus token revoke ${name}`);
    const output = new Output(flags);
    const client = await connect(flags);
    await client.call({ method: "DELETE", path: apiPath(kind, name), query: { why: flags.why } });
    if (output.json) await output.value({ kind, name, outcome: "deleted" });
    else await output.line(`deleted  ${kind}/${name}`);
  });
}
