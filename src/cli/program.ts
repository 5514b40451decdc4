/**
 * The command line's commands, put together. A command's file registers it; what a command needs
 * beyond that is loaded when it runs, so that help and errors come at once.
 */
import { Command, CommanderError } from "commander";
import manifest from "../../package.json" with { type: "json" };
import { registerApply } from "./apply.ts";
import { registerDeadLetters } from "./dead-letters.ts";
import { registerDelete } from "./delete.ts";
import { registerDoctor } from "./doctor.ts";
import { registerExport } from "./export.ts";
import { EXIT_DONE, UsageError } from "./failure.ts";
import { registerGet } from "./get.ts";
import { registerHook } from "./hook.ts";
import { registerListen } from "./listen.ts";
import { registerLog } from "./log.ts";
import { registerMap } from "./map.ts";
import { registerPublish } from "./publish.ts";
import { registerRead } from "./read.ts";
import { registerReplay } from "./replay.ts";
import { registerRoute } from "./route.ts";
import { registerRule } from "./rule.ts";
import { registerSend } from "./send.ts";
import { registerTail } from "./tail.ts";
import { registerToken } from "./token.ts";
import { registerTrace } from "./trace.ts";
import { registerUnavailable } from "./unavailable.ts";

/** What `isthmus serve` ends with, told by the gateway. */
export interface Ending {
  exitCode: number;
}

/** The whole command line. Parsing it runs a command; it throws and never ends the process. */
export function makeProgram(ending: Ending): Command {
  const program = new Command("isthmus")
    .description(
      "A gateway that routes messages between a durable log, HTTP, WebSocket, Kafka, AMQP and MQTT.",
    )
    .version(manifest.version, "--version", "print the version")
    .helpCommand("help [command]", "show the help of a command")
    .configureOutput({ writeErr: () => undefined })
    .addHelpText(
      "after",
      `
Example:
  isthmus serve                                  start the gateway
  isthmus apply -f examples/quickstart.yaml      tell it what to do
  isthmus tail orders                            watch

Exit codes: 0 done, 1 failed, 2 wrong usage.`,
    );
  registerServe(program, ending);
  for (const register of [
    registerApply,
    registerExport,
    registerGet,
    registerDelete,
    registerPublish,
    registerTail,
    registerRead,
    registerToken,
    registerHook,
    registerRule,
    registerRoute,
    registerDeadLetters,
    registerReplay,
    registerSend,
    registerListen,
    registerTrace,
    registerDoctor,
    registerLog,
    registerMap,
    registerUnavailable,
  ]) {
    register(program);
  }
  explainUsage(program);
  return program;
}

function registerServe(program: Command, ending: Ending): void {
  program
    .command("serve")
    .summary("start the gateway")
    .description(
      "Start the gateway and run it until SIGTERM or Ctrl-C. Each flag is a setting: it wins over " +
        "its environment variable, and that over isthmus.yaml in the current folder.",
    )
    .option("--data <folder>", "data folder (ISTHMUS_DATA, default ./data)")
    .option("--host <address>", "where to listen (ISTHMUS_HOST, default 127.0.0.1)")
    .option("--port <port>", "where to listen (ISTHMUS_PORT, default 8420)")
    .option("--admin-host <address>", "an own listener for administration (ISTHMUS_ADMIN_HOST)")
    .option("--admin-port <port>", "its port (ISTHMUS_ADMIN_PORT)")
    .option("--public-url <url>", "the address as seen from outside (ISTHMUS_PUBLIC_URL)")
    .option("--trust-proxies <cidrs>", "proxies to believe, as CIDRs (ISTHMUS_TRUST_PROXIES)")
    .option("--origins <list>", "origins whose pages may call (ISTHMUS_ORIGINS)")
    .option(
      "--client-limits <list>",
      "limits of clients, such as caller.messages=100/s (ISTHMUS_CLIENT_LIMITS)",
    )
    .option(
      "--hooks-rate <rate>",
      "webhooks of all hooks together, such as 5000/s (ISTHMUS_HOOKS_RATE)",
    )
    .option(
      "--hooks-concurrency <n>",
      "of all hooks under way (ISTHMUS_HOOKS_CONCURRENCY, default 10000)",
    )
    .option("--hooks-memory <bytes>", "bodies of all hooks (ISTHMUS_HOOKS_MEMORY, default 256MiB)")
    .option("--tls-cert <file>", "certificate (ISTHMUS_TLS_CERT)")
    .option("--tls-key <file>", "its key (ISTHMUS_TLS_KEY)")
    .option("--config <file>", "definitions to apply at start (ISTHMUS_CONFIG)")
    .option(
      "--accept-corruption",
      "go on without the damaged messages known at this start (ISTHMUS_ACCEPT_CORRUPTION=true)",
    )
    .addHelpText(
      "after",
      `
Secrets come from the environment alone: DATABASE_URL, ISTHMUS_ADMIN_TOKEN, ISTHMUS_SECRET_KEY.

Example:
  isthmus serve --data /var/lib/isthmus --port 8420`,
    )
    .action(async (flags: Readonly<Record<string, string | true>>) => {
      const { serve } = await import("./serve.ts");
      const texts = Object.entries(flags).map(([name, value]) => [name, String(value)] as const);
      ending.exitCode = await serve(Object.fromEntries(texts));
    });
}

/** Makes every refusal of the parser a UsageError of one line that names the command's help. */
function explainUsage(command: Command, path = ""): void {
  const name = `${path}${command.name()}`;
  command.exitOverride((error: CommanderError) => {
    if (error.exitCode === EXIT_DONE) throw error;
    if (error.code === "commander.help")
      throw new UsageError(`${name} needs a command; see ${name} --help`);
    const sentence = error.message.replace(/^error: /, "").replaceAll(/\s*\n\s*/g, " ");
    throw new UsageError(`${sentence}; see ${name} --help`);
  });
  for (const own of command.commands) explainUsage(own, `${name} `);
}
