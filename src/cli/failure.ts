/**
 * How a command fails: one line on standard error, and an exit code. 1: it could not be done;
 * 2: it was asked for wrongly. Anything else that is thrown is a bug of ours and says so, without
 * a stack trace.
 */
import { errorText, GatewayError, type InvalidDetail, InvalidError } from "../errors.ts";

/** Done, failed, wrong usage. */
export const EXIT_DONE = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** A command that could not be done. `details` are lines that follow the sentence. */
export class CliError extends Error {
  readonly exitCode: number;
  readonly details: readonly string[];
  constructor(
    sentence: string,
    options: { details?: readonly string[]; exitCode?: number; cause?: unknown } = {},
  ) {
    super(sentence, { cause: options.cause });
    this.exitCode = options.exitCode ?? EXIT_FAILED;
    this.details = options.details ?? [];
  }
}

/** A command that was asked for wrongly: exit code 2, nothing was done. */
export class UsageError extends CliError {
  constructor(sentence: string) {
    super(sentence, { exitCode: EXIT_USAGE });
  }
}

/** A command that is named and not built: said as it is, exit code 2. */
export class UnavailableError extends CliError {
  constructor(command: string) {
    super(`isthmus ${command} is not available yet`, { exitCode: EXIT_USAGE });
  }
}

/** The lines that tell a failure, and the exit code that goes with it. */
export function failureOf(error: unknown): { lines: readonly string[]; exitCode: number } {
  if (error instanceof UnavailableError) return { lines: [error.message], exitCode: EXIT_USAGE };
  if (error instanceof CliError) {
    const details = error.details.map((detail) => `  ${printable(detail)}`);
    return {
      lines: [`isthmus: ${printable(error.message)}`, ...details],
      exitCode: error.exitCode,
    };
  }
  const text = printable(errorText(error));
  if (error instanceof InvalidError) {
    // Settings, or the definitions file that they name: one fault is in the sentence already.
    const details = error.errors.length > 1 ? error.errors.map(faultText) : [];
    return { lines: [`isthmus: ${text}`, ...details], exitCode: EXIT_USAGE };
  }
  if (error instanceof GatewayError) return { lines: [`isthmus: ${text}`], exitCode: EXIT_FAILED };
  return { lines: [`isthmus: unexpected failure: ${text}`], exitCode: EXIT_FAILED };
}

function faultText({ pointer, detail, line, column }: InvalidDetail): string {
  const place = line === undefined ? pointer : `${pointer} (line ${line}, column ${column ?? 1})`;
  return `  ${printable(`${place}: ${detail}`)}`;
}

const CONTROL = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu;
const SHORT: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/**
 * Text from outside in one line: control characters are shown as escapes, so that a message
 * cannot move the cursor of the terminal, colour it or forge a line.
 */
export function printable(text: string): string {
  return text.replaceAll(CONTROL, (character) => {
    const code = character.charCodeAt(0).toString(16).padStart(4, "0");
    return SHORT[character] ?? `\\u${code}`;
  });
}
