/**
 * Commands that are named and not built: each says so in one line and ends as wrong usage. They
 * don't stand in the help, which lists what works.
 */
import type { Command } from "commander";
import { UnavailableError } from "./failure.ts";

/** The commands, with their own commands where they have some. */
const unavailable: Readonly<Record<string, readonly string[]>> = {
  migrate: ["plan", "start", "status", "verify", "positions", "cutover", "reverse", "abort"],
  bench: [],
};

export function registerUnavailable(program: Command): void {
  for (const [name, own] of Object.entries(unavailable)) {
    program
      .command(name, { hidden: true })
      .argument("[words...]")
      .helpOption(false)
      .allowUnknownOption()
      .addHelpText("before", () => {
        throw new UnavailableError(name);
      })
      .action((words: readonly string[]) => {
        const [first = ""] = words;
        throw new UnavailableError(own.includes(first) ? `${name} ${first}` : name);
      });
  }
}
