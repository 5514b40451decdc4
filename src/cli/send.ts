/** `isthmus send`: signs a file as a provider would and posts it to a hook; its flags and help. */
import type { Command } from "commander";
import { withConnection } from "./connection.ts";
import type { SendFlags } from "./send-webhook.ts";

export function registerSend(program: Command): void {
  const command = program
    .command("send")
    .summary("sign a test webhook and send it to a hook")
    .description(
      "Sign a file as the provider would and post it to a hook. The secret is --secret, else the " +
        "environment variable that the hook names as ${env:NAME}. Where a provider signs with a " +
        "private key (discord, sendgrid, v1a, tokens of jwt), --private-key stands in for it: give " +
        "the hook its public half for the test. For mtls the secret is what the certificate is " +
        "known by, and the gateway must trust this machine as a proxy.",
    )
    .argument("<hook>", "the hook")
    .requiredOption("-f, --file <file>", "the body; - reads standard input")
    .option("--scheme <scheme>", "the scheme (default: the hook's)")
    .option("--secret <secret>", "the secret to sign with")
    .option("--private-key <file>", "a private key as PEM to sign with")
    .option("--type <media-type>", "the content type", "application/json")
    .option("--id <id>", "the message's id, where the scheme has one in a header (default: random)")
    .addHelpText(
      "after",
      `
Examples:
  isthmus send stripe -f event.json --secret whsec_test
  isthmus send chat -f event.json --private-key discord-test.pem
  isthmus send calls --scheme twilio -f call.txt --type application/x-www-form-urlencoded`,
    );
  withConnection(command).action(async (hook: string, flags: SendFlags) => {
    // Loaded here: with it comes what reads definitions.
    const { send } = await import("./send-webhook.ts");
    await send(hook, flags);
  });
}
