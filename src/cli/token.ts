/**
 * `isthmus token`: makes, lists and revokes tokens. A new token is the only thing on standard
 * output, so that a script can take it; it is shown this once and stored nowhere.
 */
import type { Command } from "commander";
import type { Grant } from "../rules/document.ts";
import { ROLES } from "../rules/store/role-names.ts";
import { DURATION_FORM, parseDurationMs } from "../rules/units.ts";
import { connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError, UsageError } from "./failure.ts";
import { printList } from "./get.ts";
import { apiPath } from "./kind.ts";
import { Output } from "./output.ts";

interface CreateFlags extends ConnectionFlags {
  readonly role?: string;
  readonly sub?: string;
  readonly read?: readonly Grant[];
  readonly write?: readonly Grant[];
  readonly expires?: string;
}

export function registerToken(program: Command): void {
  const token = program
    .command("token")
    .summary("make, list and revoke tokens")
    .description("Make, list and revoke the bearer tokens of people, programs and clients.")
    .addHelpText("after", "\nExample:\n  isthmus token create ci --role operator --expires 90d");
  registerCreate(token);
  const list = token
    .command("list")
    .summary("list the tokens")
    .description("List the tokens: what each may do, until when, and when it was last used.")
    .addHelpText("after", "\nExample:\n  isthmus token list");
  withConnection(list).action(async (flags: ConnectionFlags) => {
    await printList("tokens", flags);
  });
  const revoke = token
    .command("revoke")
    .summary("revoke a token")
    .description("Revoke a token: calls with it are refused from then on, sockets are closed.")
    .argument("<name>", "the token's name or id")
    .addHelpText("after", "\nExample:\n  isthmus token revoke phone-7");
  withConnection(revoke).action(async (name: string, flags: ConnectionFlags) => {
    const output = new Output(flags);
    const client = await connect(flags);
    await client.call({ method: "DELETE", path: apiPath("tokens", name) });
    if (output.json) await output.value({ name, outcome: "revoked" });
    else await output.line(`revoked  ${name}`);
  });
}

function registerCreate(token: Command): void {
  const create = token
    .command("create")
    .summary("make a token")
    .description(
      "Make a token and print it, this once. It has either a role (admin, operator, viewer), or a " +
        "subject and the streams, and keys of them, that this client may read and write.",
    )
    .argument("<name>", "a name to know it by")
    .option("--role <role>", `one of ${ROLES.join(", ")}`)
    .option("--sub <subject>", "the client: owner of its durable names")
    .option("--read <stream[:key]>", "a stream that it may read, may be repeated", grants("--read"))
    .option(
      "--write <stream[:key]>",
      "a stream that it may write, may be repeated",
      grants("--write"),
    )
    .option("--expires <duration>", "when it ends, such as 90d (default: never)")
    .addHelpText(
      "after",
      `
Examples:
  isthmus token create ci --role operator --expires 90d
  isthmus token create phone-7 --sub phone-7 --read inbox:phone-7 --write chat`,
    );
  withConnection(create).action(async (name: string, flags: CreateFlags) => {
    const wanted = wantedToken(name, flags);
    const output = new Output(flags);
    const client = await connect(flags);
    const { json } = await client.call({
      method: "POST",
      path: apiPath("tokens"),
      headers: { "content-type": "application/json" },
      body: JSON.stringify(wanted),
    });
    const made = (json as { token?: unknown } | undefined)?.token;
    if (typeof made !== "string") throw new CliError("the gateway answered without a token");
    if (output.json) return await output.value(json);
    await output.line(made);
    await output.note("This token is shown only now: keep it.");
  });
}

/** The request. @throws UsageError the flags don't fit together */
function wantedToken(name: string, flags: CreateFlags): object {
  const { expires } = flags;
  if (expires !== undefined && !((parseDurationMs(expires) ?? 0) > 0)) {
    throw new UsageError(`--expires "${expires}" is not ${DURATION_FORM}`);
  }
  const rights = flags.role === undefined ? clientRights(flags) : roleRights(flags, flags.role);
  return { name, ...rights, ...(expires === undefined ? {} : { expires }) };
}

function roleRights({ sub, read, write }: CreateFlags, role: string): object {
  if (sub !== undefined || read !== undefined || write !== undefined) {
    throw new UsageError("a token has either --role, or --sub with --read and --write");
  }
  if (!ROLES.some((each) => each === role)) {
    throw new UsageError(`--role "${role}" is not one of ${ROLES.join(", ")}`);
  }
  return { role };
}

function clientRights({ sub, read = [], write = [] }: CreateFlags): object {
  if (sub === undefined) throw new UsageError("give --role, or --sub with --read and --write");
  if (read.length + write.length === 0) {
    throw new UsageError("a client without --read or --write could do nothing");
  }
  return { subject: sub, read, write };
}

/** Reads `STREAM` or `STREAM:KEY`; the key is everything after the first colon. */
function grants(flag: string): (text: string, before?: readonly Grant[]) => readonly Grant[] {
  return (text, before = []) => {
    const colon = text.indexOf(":");
    const stream = colon === -1 ? text : text.slice(0, colon);
    const key = colon === -1 ? null : text.slice(colon + 1);
    if (stream === "" || key === "")
      throw new UsageError(`${flag} "${text}" is not STREAM or STREAM:KEY`);
    return [...before, { stream, key }];
  };
}
