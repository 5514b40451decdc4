/** `isthmus rule history`, `diff` and `rollback`: a rule's revisions, and the way back. */
import { type Client, connect } from "./client.ts";
import type { ConnectionFlags } from "./connection.ts";
import { CliError } from "./failure.ts";
import { apiPath } from "./kind.ts";
import { timeText } from "./message.ts";
import { type Column, Output } from "./output.ts";

/** One revision as the API lists it. */
interface Revision {
  readonly revision: number;
  readonly by: string;
  readonly why: string | null;
  readonly at: number;
  readonly deleted: boolean;
  readonly linesAdded: number;
  readonly linesRemoved: number;
}

/** One revision with its difference to another. */
interface Difference {
  readonly revision: number;
  readonly against: number | null;
  readonly diff: readonly string[];
}

const COLUMNS: readonly Column[] = [
  { title: "REVISION", right: true },
  { title: "TIME" },
  { title: "BY" },
  { title: "LINES" },
  { title: "WHY" },
];

/** Lists a rule's revisions. */
export async function ruleHistory(name: string, flags: ConnectionFlags): Promise<void> {
  const output = new Output(flags);
  const client = await connect(flags);
  const items = (await client.list(`${apiPath("rules", name)}/revisions`)) as readonly Revision[];
  if (output.json) return await output.value(items);
  const rows = items.map(({ revision, at, by, deleted, linesAdded, linesRemoved, why }) => {
    const lines = deleted ? "deleted" : `+${linesAdded} -${linesRemoved}`;
    return [String(revision), timeText(at), by, lines, why ?? ""];
  });
  await output.table(COLUMNS, rows);
}

/** Shows the difference of two revisions. */
export async function ruleDiff(
  name: string,
  a: number | undefined,
  b: number | undefined,
  flags: ConnectionFlags,
): Promise<void> {
  const output = new Output(flags);
  const client = await connect(flags);
  const newest = b ?? (await newestOf(client, name));
  const path = `${apiPath("rules", name)}/revisions/${newest}`;
  const query = { against: a === undefined ? undefined : String(a) };
  const { json } = await client.call({ path, query });
  const { revision, against, diff } = json as Difference;
  if (output.json) return await output.value({ from: against, to: revision, diff });
  if (diff.length === 0) {
    return await output.note(`revisions ${against ?? 0} and ${revision} are the same`);
  }
  await output.note(`rules/${name}: revision ${against ?? 0} to ${revision}`);
  for (const line of diff) await output.line(line);
}

async function newestOf(client: Client, name: string): Promise<number> {
  const path = `${apiPath("rules", name)}/revisions`;
  const { json } = await client.call({ path, query: { max: "1" } });
  const newest = (json as { items?: readonly Revision[] } | undefined)?.items?.[0]?.revision;
  if (newest === undefined) throw new CliError(`rule ${name} has no revisions`);
  return newest;
}

interface RollbackFlags extends ConnectionFlags {
  readonly to?: number;
  readonly why?: string;
}

/** Goes back to an earlier revision. */
export async function ruleRollback(name: string, flags: RollbackFlags): Promise<void> {
  const output = new Output(flags);
  const client = await connect(flags);
  const { to, why } = flags;
  const { json } = await client.call({
    method: "POST",
    path: `${apiPath("rules", name)}/rollback`,
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ to, why }),
  });
  if (output.json) return await output.value(json);
  const { revision } = json as { revision: number };
  await output.line(`rules/${name} stands at revision ${revision}`);
}
