/**
 * `isthmus map explain`: what becomes of a message's fields between two protocols. Kinds are known
 * without a gateway; names of bridges are asked for.
 */
import type { Command } from "commander";
import type { BridgeModule, MappingRow } from "../bridge.ts";
import { connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError, UsageError } from "./failure.ts";
import { apiPath } from "./kind.ts";
import { explainMapping } from "./map-explain.ts";
import { Output } from "./output.ts";

type Modules = ReadonlyMap<string, BridgeModule>;

/** One end: what was asked for, its kind and its rows of the table. */
interface End {
  readonly name: string;
  readonly kind: string;
  readonly module: BridgeModule;
  readonly rows: readonly MappingRow[];
}

export function registerMap(program: Command): void {
  const map = program
    .command("map")
    .summary("say how messages change between protocols")
    .description("Say how messages change between protocols.")
    .addHelpText("after", "\nExample:\n  isthmus map explain kafka mqtt");
  const command = map
    .command("explain")
    .summary("what is carried, renamed, coerced or lost between two protocols")
    .description(
      "Say for each field of a message what becomes of it from one kind of bridge to another.\n" +
        "An end is a kind (kafka, amqp, amqp1, mqtt, http) or the name of a bridge; for names the\n" +
        "gateway is asked.",
    )
    .argument("<from>", "a kind, or a bridge's name")
    .argument("<to>", "a kind, or a bridge's name")
    .addHelpText(
      "after",
      `
Examples:
  isthmus map explain kafka mqtt
  isthmus map explain eu plant --json`,
    );
  withConnection(command).action(async (from: string, to: string, flags: ConnectionFlags) => {
    // Loaded here: with it comes what the whole gateway is made of.
    const { knownModules } = await import("../main.ts");
    const modules = knownModules();
    await print(await endOf(from, modules, flags), await endOf(to, modules, flags), flags);
  });
}

async function print(from: End, to: End, flags: ConnectionFlags): Promise<void> {
  for (const [{ module, name }, end] of [
    [from, "source"],
    [to, "sink"],
  ] as const) {
    if (module.capabilities[end]) continue;
    const what = end === "source" ? "reads nothing: a hook takes requests in" : "can't be sent to";
    throw new UsageError(`${name} ${what}`);
  }
  const output = new Output(flags);
  const fields = explainMapping(from.rows, to.rows);
  if (output.json) {
    const shown = ({ name, kind }: End) => ({ name, kind });
    return await output.value({ from: shown(from), to: shown(to), fields });
  }
  const columns = ["FIELD", "FATE", from.name.toUpperCase(), to.name.toUpperCase(), "NOTE"];
  await output.table(
    columns.map((title) => ({ title })),
    fields.map((each) => [each.field, each.fate, each.from ?? "-", each.to ?? "-", each.note]),
  );
}

async function endOf(name: string, modules: Modules, flags: ConnectionFlags): Promise<End> {
  const module = modules.get(name);
  if (module !== undefined) return { name, kind: module.kind, module, rows: rowsOf(module, null) };
  const client = await connect(flags);
  const { json } = await client.call({ path: apiPath("bridges", name) });
  const { kind, ...config } = documentIn(json);
  const own = modules.get(String(kind));
  if (own === undefined) throw new CliError(`this isthmus knows no bridge of kind ${String(kind)}`);
  return { name, kind: own.kind, module: own, rows: rowsOf(own, own.parseConfig(config)) };
}

function documentIn(json: unknown): Readonly<Record<string, unknown>> {
  const { document } = json as { readonly document?: unknown };
  if (typeof document === "object" && document !== null) {
    return document as Readonly<Record<string, unknown>>;
  }
  throw new CliError("the gateway's answer is no bridge");
}

function rowsOf({ translation, kind }: BridgeModule, config: unknown): readonly MappingRow[] {
  if (translation === undefined) throw new CliError(`nothing is known of messages by ${kind}`);
  return translation.rows(config);
}
