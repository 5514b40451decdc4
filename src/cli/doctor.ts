/**
 * `isthmus doctor`: asks a running gateway how it is, tries every bridge, and says in plain words
 * what is wrong and what to do about it. Changes nothing and sends nothing to any broker.
 */
import type { Command } from "commander";
import { type Client, connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError } from "./failure.ts";
import { apiPath } from "./kind.ts";
import { Output } from "./output.ts";

interface Finding {
  readonly what: string;
  readonly ok: boolean;
  /** It works, and deserves a look all the same: a warning never fails the command. */
  readonly warning?: true;
  readonly detail: string | null;
}

interface Health {
  readonly reasons?: readonly { readonly detail: string }[];
  readonly warnings?: readonly { readonly detail: string }[];
}

interface Status {
  readonly name: string;
  readonly status: {
    readonly state?: unknown;
    readonly error?: unknown;
    readonly warning?: unknown;
  };
}

export function registerDoctor(program: Command): void {
  const command = program
    .command("doctor")
    .summary("say in plain words what is wrong")
    .description(
      "Ask the gateway how it is and try every bridge: a name that is not resolved, a refused " +
        "connection, TLS, a wrong login, a missing topic or queue. Sends nothing to any broker.\n" +
        "Exit code 1 when something is WRONG; a WARN, such as of a hook that lets anyone send, is none.",
    )
    .argument("[bridge]", "try this bridge only")
    .addHelpText("after", "\nExamples:\n  isthmus doctor\n  isthmus doctor rabbit --json");
  withConnection(command).action(async (bridge: string | undefined, flags: ConnectionFlags) => {
    const client = await connect(flags);
    const findings: Finding[] = [];
    if (bridge === undefined) {
      findings.push(...(await health(client)), ...(await states(client)));
      for (const { name } of await statuses(client, "bridges")) {
        findings.push(...(await tryBridge(client, name)));
      }
    } else {
      findings.push(...(await tryBridge(client, bridge)));
    }
    const wrong = findings.filter(({ ok }) => !ok).length;
    const warnings = findings.filter(({ warning }) => warning).length;
    const output = new Output(flags);
    if (output.json) await output.value({ ok: wrong === 0, warnings, findings });
    else for (const finding of findings) await output.line(lineOf(finding));
    if (wrong > 0) throw new CliError(`${wrong} of ${findings.length} checks found a fault`);
  });
}

function lineOf({ what, ok, warning, detail }: Finding): string {
  const mark = warning ? "WARN  " : ok ? "ok    " : "WRONG ";
  return `${mark} ${what}${detail === null ? "" : `: ${detail}`}`;
}

/** What stands in the way of taking messages in, and what deserves a look. */
async function health(client: Client): Promise<readonly Finding[]> {
  const { json, problem } = await client.call({ path: "/health/ready", accept: [503] });
  const said = (json ?? problem?.members ?? {}) as Health;
  const reasons = said.reasons ?? [];
  const warnings = said.warnings ?? [];
  if (reasons.length === 0 && warnings.length === 0) {
    return [{ what: "gateway", ok: true, detail: "ready" }];
  }
  return [...reasons, ...warnings].map(({ detail }) => ({ what: "gateway", ok: false, detail }));
}

/** Sources, hooks and rules that say themselves that something is wrong. */
async function states(client: Client): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (const kind of ["sources", "hooks", "rules"] as const) {
    for (const { name, status } of await statuses(client, kind)) {
      const what = `${kind.slice(0, -1)} ${name}`;
      if (typeof status.error === "string")
        findings.push({ what, ok: false, detail: status.error });
      else if (typeof status.warning === "string") {
        findings.push({ what, ok: true, warning: true, detail: status.warning });
      }
    }
  }
  return findings;
}

async function statuses(
  client: Client,
  kind: "bridges" | "sources" | "hooks" | "rules",
): Promise<readonly Status[]> {
  return (await client.list(`/api/${kind}`)) as readonly Status[];
}

async function tryBridge(client: Client, name: string): Promise<readonly Finding[]> {
  const path = `${apiPath("bridges", name)}/test`;
  const { json } = await client.call({ method: "POST", path });
  const { findings } = json as { readonly findings: readonly Finding[] };
  return findings.map((finding) => ({ ...finding, what: `bridge ${name}: ${finding.what}` }));
}
