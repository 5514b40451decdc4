/**
 * The entry of the command line: `isthmus COMMAND …`. Runs one command and ends with its exit
 * code: 0 done, 1 failed, 2 wrong usage. Failures are told on standard error, without a trace.
 */
import { CommanderError } from "commander";
import { EXIT_DONE, failureOf } from "./failure.ts";
import { type Ending, makeProgram } from "./program.ts";
import { write } from "./output.ts";

async function run(args: readonly string[]): Promise<number> {
  const ending: Ending = { exitCode: EXIT_DONE };
  try {
    await makeProgram(ending).parseAsync([...args], { from: "user" });
    return ending.exitCode;
  } catch (error) {
    // Help and the version end the parsing by an error that is none.
    if (error instanceof CommanderError && error.exitCode === EXIT_DONE) return EXIT_DONE;
    const { lines, exitCode } = failureOf(error);
    await write(process.stderr, `${lines.join("\n")}\n`);
    return exitCode;
  }
}

process.exitCode = await run(process.argv.slice(2));
