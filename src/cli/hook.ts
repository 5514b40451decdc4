/**
 * `isthmus hook verify`: has the gateway check a stored webhook's signature once more. The keys
 * stay in the gateway; a signature that does not hold ends with 1.
 */
import type { Command } from "commander";
import { connect } from "./client.ts";
import { type ConnectionFlags, withConnection } from "./connection.ts";
import { CliError, UsageError } from "./failure.ts";
import { Output } from "./output.ts";

/** What the gateway answers. */
interface Verification {
  readonly valid?: boolean;
  readonly hook?: string;
  readonly scheme?: string;
  readonly keyId?: string;
  readonly detail?: string;
}

export function registerHook(program: Command): void {
  const hook = program
    .command("hook")
    .summary("look after webhooks")
    .description("Look after webhooks that came in.")
    .addHelpText("after", "\nExample:\n  isthmus hook verify payments 0/17");
  const command = hook
    .command("verify")
    .summary("check a stored webhook's signature once more")
    .description(
      "Check the signature of a stored webhook once more, over the bytes and headers that are kept, " +
        "by the keys that its hook has today.",
    )
    .argument("<stream>", "the stream")
    .argument("<place>", "PARTITION/OFFSET, as a receipt and tail show it")
    .addHelpText("after", "\nExample:\n  isthmus hook verify payments 0/17");
  withConnection(command).action(verify);
}

async function verify(stream: string, place: string, flags: ConnectionFlags): Promise<void> {
  if (!/^\d{1,9}\/\d{1,15}$/.test(place)) {
    throw new UsageError(`"${place}" is not PARTITION/OFFSET, such as 0/17`);
  }
  const client = await connect(flags);
  const output = new Output(flags);
  const path = `/api/verifications/${encodeURIComponent(stream)}/${place}`;
  const { json } = await client.call({ path });
  const found = (json ?? {}) as Verification;
  if (output.json) await output.value(found);
  if (found.valid !== true) {
    throw new CliError(`${stream} ${place} does not hold: ${found.detail ?? "no reason given"}`);
  }
  if (output.json) return;
  const { hook = "?", scheme = "?", keyId = "?" } = found;
  await output.line(`${stream} ${place} holds: hook ${hook}, scheme ${scheme}, ${keyId}`);
}
