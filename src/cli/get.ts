/**
 * `isthmus get`: lists definitions, routes and tokens with how they stand, or shows one of them.
 * With --json it prints what the API answers.
 */
import type { Command } from "commander";
import { connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError, UsageError } from "./failure.ts";
import { apiPath, kindOf, LISTED_TEXT, type Listed } from "./kind.ts";
import { timeText } from "./message.ts";
import { type Column, Output } from "./output.ts";
import { countOf } from "./read.ts";
import { yamlText } from "./yaml-text.ts";

/** A definition as the API shows it. */
export interface DefinitionJson {
  readonly name: string;
  /** Which project's file made it. */
  readonly project: string | null;
  /** From 1; 0 for what nobody has defined and exists by being named. */
  readonly revision: number;
  readonly document: Members;
  readonly status: Members;
}

type Members = Readonly<Record<string, unknown>>;

/** A gateway tells of itself every few seconds. */
const SILENT_MS = 20_000;

interface Flags extends ConnectionFlags {
  readonly revision?: number;
}

/** How one kind is listed: its columns, and an item's cells. */
interface Listing {
  readonly columns: readonly Column[];
  readonly cells: (item: unknown) => readonly string[];
}

export function registerGet(program: Command): void {
  const command = program
    .command("get")
    .summary("list definitions, routes, tokens or nodes, or show one")
    .description(`List what there is of a kind, or show one by its name.\nKinds: ${LISTED_TEXT}.`)
    .argument("<kind>", "a kind, in the singular or plural")
    .argument("[name]", "one of them")
    .option("--revision <n>", "as it stood at this revision", countOf("--revision", 1))
    .addHelpText(
      "after",
      `
Examples:
  isthmus get rules
  isthmus get rule big-orders
  isthmus get rule big-orders --revision 3
  isthmus get routes big-orders
  isthmus get nodes --json`,
    );
  withConnection(command).action(async (word: string, name: string | undefined, flags: Flags) => {
    const kind = kindOf(word);
    if (name !== undefined) return await printOne(kind, name, flags);
    if (flags.revision !== undefined) throw new UsageError("--revision needs a name");
    await printList(kind, flags);
  });
}

/** Prints all of a kind: a table, or the list as JSON. */
export async function printList(kind: Listed, flags: ConnectionFlags): Promise<void> {
  const output = new Output(flags);
  const client = await connect(flags);
  const items = await client.list(apiPath(kind));
  if (output.json) return await output.value(items);
  if (items.length === 0)
    return await output.note(kind === "access" ? "there is no access" : `there are no ${kind}`);
  const { columns, cells } = listings[kind];
  await output.table(columns, items.map(cells));
}

async function printOne(kind: Listed, name: string, flags: Flags): Promise<void> {
  if (kind === "tokens" || kind === "nodes") {
    throw new UsageError(`${kind} are listed all together: isthmus get ${kind}`);
  }
  if (kind === "routes") return await printRoutes(name, flags);
  const output = new Output(flags);
  const client = await connect(flags);
  const past = flags.revision === undefined ? "" : `/revisions/${flags.revision}`;
  const { json } = await client.call({ path: `${apiPath(kind, name)}${past}` });
  if (output.json) await output.value(json);
  else await output.text(await yamlText(json));
}

/** Prints the routes of one rule. */
async function printRoutes(rule: string, flags: Flags): Promise<void> {
  if (flags.revision !== undefined) throw new UsageError("routes have no revisions of their own");
  const output = new Output(flags);
  const client = await connect(flags);
  const items = await client.list(apiPath("routes"));
  const own = items.filter((item) => membersOf(item)["rule"] === rule);
  if (own.length === 0) throw new CliError(`there is no rule ${rule} that runs`);
  if (output.json) return await output.value(own);
  await output.table(routes.columns, own.map(routes.cells));
}

/** Reads a definition of the API's; what is missing stands as nothing. */
export function definitionOf(item: unknown): DefinitionJson {
  const members = membersOf(item);
  return {
    name: text(members["name"]),
    project: typeof members["project"] === "string" ? members["project"] : null,
    revision: typeof members["revision"] === "number" ? members["revision"] : 0,
    document: membersOf(members["document"]),
    status: membersOf(members["status"]),
  };
}

const STATE: readonly Column[] = [{ title: "STATE" }, { title: "DETAIL" }];

/** Name, revision (`-`: it exists by being named), what is special, and how it stands. */
function definitions(
  own: readonly Column[],
  gist: (definition: DefinitionJson) => readonly string[],
): Listing {
  return {
    columns: [{ title: "NAME" }, { title: "REVISION", right: true }, ...own, ...STATE],
    cells: (item) => {
      const definition = definitionOf(item);
      const { name, revision, status } = definition;
      const state = text(status["state"]) || "-";
      const detail = text(status["error"] ?? status["warning"]);
      return [name, revision === 0 ? "-" : text(revision), ...gist(definition), state, detail];
    },
  };
}

/** Of a source or hook: into which stream it writes. */
function streamOf({ document, status }: DefinitionJson): readonly string[] {
  return [text(document["stream"] ?? status["stream"])];
}

function streamSize({ document, status }: DefinitionJson): readonly string[] {
  const { partitions, messages } = status;
  const count = Array.isArray(partitions) ? partitions.length : (document["partitions"] ?? 1);
  return [text(count), text(messages)];
}

const routes: Listing = {
  columns: [
    { title: "RULE" },
    { title: "TARGET" },
    { title: "STREAM" },
    { title: "STATE" },
    { title: "OFFSET", right: true },
    { title: "END", right: true },
    { title: "UNSENT", right: true },
    { title: "OLDEST", right: true },
    { title: "DELIVERED", right: true },
    { title: "WAITING", right: true },
    { title: "PARKED", right: true },
    { title: "DEAD", right: true },
    { title: "DETAIL" },
  ],
  cells: (item) => {
    const route = membersOf(item);
    const counts = membersOf(route["counts"]);
    return [
      text(route["rule"]),
      text(route["target"]),
      `${text(route["stream"])}/${text(route["partition"])}`,
      text(route["state"]),
      text(route["offset"]),
      text(route["end"]),
      text(route["lagMessages"]),
      durationText(route["oldestMs"]),
      text(counts["delivered"]),
      text(counts["waiting"]),
      text(counts["parked"]),
      text(counts["deadLettered"]),
      text(route["error"]),
    ];
  },
};

const tokens: Listing = {
  columns: [
    { title: "NAME" },
    { title: "RIGHTS" },
    { title: "STATE" },
    { title: "EXPIRES" },
    { title: "LAST USED" },
  ],
  cells: (item) => {
    const token = membersOf(item);
    const { expiresAtMs, revokedAtMs } = token;
    const expired = typeof expiresAtMs === "number" && expiresAtMs <= Date.now();
    const state = typeof revokedAtMs === "number" ? "revoked" : expired ? "expired" : "live";
    const expires = typeof expiresAtMs === "number" ? timeText(expiresAtMs) : "never";
    return [
      text(token["name"]),
      rightsText(token),
      state,
      expires,
      timeText(token["lastUsedAtMs"]),
    ];
  },
};

const listings: Readonly<Record<Listed, Listing>> = {
  bridges: definitions([{ title: "KIND" }], ({ document }) => [text(document["kind"])]),
  streams: definitions(
    [
      { title: "PARTITIONS", right: true },
      { title: "MESSAGES", right: true },
    ],
    streamSize,
  ),
  sources: definitions([{ title: "STREAM" }], streamOf),
  hooks: definitions([{ title: "STREAM" }], streamOf),
  rules: definitions([{ title: "FROM" }], ({ document }) => [addressText(document["from"])]),
  access: definitions([{ title: "GRANTS" }], ({ document }) => [rightsText(document)]),
  routes,
  tokens,
  nodes: {
    columns: [
      { title: "NAME" },
      { title: "STATE" },
      { title: "VERSION" },
      { title: "DEFINITIONS", right: true },
      { title: "STARTED" },
      { title: "SEEN" },
      { title: "RUNS ALONE" },
    ],
    cells: (item) => {
      const node = membersOf(item);
      const { isSelf, ready, seenAtMs, sources } = node;
      const isSilent = typeof seenAtMs === "number" && Date.now() - seenAtMs > SILENT_MS;
      return [
        `${text(node["name"])}${isSelf === true ? " (this one)" : ""}`,
        isSilent ? "silent" : ready === true ? "ready" : "not ready",
        text(node["version"]),
        text(node["definitionsVersion"]),
        timeText(node["startedAtMs"]),
        timeText(seenAtMs),
        Array.isArray(sources) ? sources.map(text).join(", ") : "",
      ];
    },
  },
};

function rightsText(token: Members): string {
  if (typeof token["role"] === "string") return token["role"];
  const sides = ["read", "write"].map((side) => {
    const grants = Array.isArray(token[side]) ? (token[side] as unknown[]) : [];
    return grants.length === 0 ? "" : `${side} ${grants.map(grantText).join(" ")}`;
  });
  return [text(token["subject"]), ...sides].filter((part) => part !== "").join(" ");
}

function grantText(grant: unknown): string {
  const { stream, key } = membersOf(grant);
  return typeof key === "string" ? `${text(stream)}:${key}` : text(stream);
}

function addressText(from: unknown): string {
  if (typeof from === "string") return from;
  return Object.values(membersOf(from)).map(text).join(" ");
}

/** Milliseconds in the largest unit that says something. */
function durationText(ms: unknown): string {
  if (typeof ms !== "number") return "-";
  if (ms < 1000) return `${Math.round(ms)}ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)}s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)}m`;
  if (ms < 172_800_000) return `${Math.floor(ms / 3_600_000)}h`;
  return `${Math.floor(ms / 86_400_000)}d`;
}

function membersOf(value: unknown): Members {
  return typeof value === "object" && value !== null ? (value as Members) : {};
}

function text(value: unknown): string {
  if (value === undefined || value === null) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value as string | number);
}
