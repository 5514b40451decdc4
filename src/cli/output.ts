/**
 * What commands print. Results go to standard output, everything else (progress, notes) to
 * standard error, so that a pipe carries only results. Colour only on a terminal without NO_COLOR.
 * Writing waits for a slow reader; a reader that is gone ends the process quietly.
 */
import type { Writable } from "node:stream";
import { stringifyJson } from "../json.ts";
import { EXIT_DONE, printable } from "./failure.ts";

/** A table's column: its title and, for numbers, alignment to the right. */
export interface Column {
  readonly title: string;
  readonly right?: boolean;
}

/** Prints results and notes of one command. */
export class Output {
  readonly json: boolean;
  /** Whether a person watches standard output. */
  readonly terminal: boolean;
  /** Whether that person can be asked something. */
  readonly asks: boolean;
  readonly #colour: boolean;

  constructor(options: { json?: boolean | undefined }) {
    this.json = options.json === true;
    this.terminal = process.stdout.isTTY === true;
    this.asks = this.terminal && process.stdin.isTTY === true;
    const noColour = (process.env["NO_COLOR"] ?? "") !== "" || process.env["TERM"] === "dumb";
    this.#colour = this.terminal && !noColour;
  }

  /** One line on standard output, control characters escaped. */
  async line(text: string): Promise<void> {
    await write(process.stdout, `${printable(text)}\n`);
  }

  /** Cells of one line, separated by tabs; each is escaped, the last may be long. */
  async cells(cells: readonly string[]): Promise<void> {
    await write(process.stdout, `${cells.map(printable).join("\t")}\n`);
  }

  /** Several lines as they are, for text of our own making such as YAML. */
  async text(text: string): Promise<void> {
    await write(process.stdout, text.endsWith("\n") ? text : `${text}\n`);
  }

  /** A value as JSON: indented on a terminal, else one line. */
  async value(value: unknown): Promise<void> {
    const text = this.terminal ? indented(value) : stringifyJson(value);
    await write(process.stdout, `${text}\n`);
  }

  /** A value as one line of JSON, also on a terminal: for streams of values. */
  async jsonLine(value: unknown): Promise<void> {
    await write(process.stdout, `${stringifyJson(value)}\n`);
  }

  /** A remark beside the result, on standard error. */
  async note(text: string): Promise<void> {
    await write(process.stderr, `${printable(text)}\n`);
  }

  /** Rows under their titles. Without rows: nothing but a note. */
  async table(columns: readonly Column[], rows: readonly (readonly string[])[]): Promise<void> {
    const cells = rows.map((row) => row.map(printable));
    const widths = columns.map((column, index) => {
      return Math.max(column.title.length, ...cells.map((row) => width(row[index] ?? "")));
    });
    const render = (row: readonly string[]): string => {
      const padded = columns.map((column, index) => {
        const cell = row[index] ?? "";
        const fill = " ".repeat(Math.max(0, (widths[index] ?? 0) - width(cell)));
        return column.right === true ? fill + cell : cell + fill;
      });
      return padded.join("  ").trimEnd();
    };
    const head = render(columns.map((column) => column.title));
    const lines = [this.dim(head), ...cells.map(render)];
    await write(process.stdout, `${lines.join("\n")}\n`);
  }

  /** Text that steps back, where colour is allowed. */
  dim(text: string): string {
    return this.#colour ? `\u001b[2m${text}\u001b[22m` : text;
  }
}

/** Writes and waits until the text has been taken. */
export async function write(stream: Writable, text: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    stream.write(text, (error) => {
      if (error === null || error === undefined) resolve();
      else reject(error);
    });
  }).catch((error: unknown) => {
    // The reader has gone, as `| head` does: nobody is left to be told anything.
    if ((error as { code?: string }).code === "EPIPE") process.exit(EXIT_DONE);
    throw error;
  });
}

/** Columns that a text takes, near enough for names and numbers. */
function width(text: string): number {
  return Bun.stringWidth(text);
}

/** Indented JSON; whole numbers keep their digits at any size. */
function indented(value: unknown): string {
  return JSON.stringify(value, (_name, member: unknown) => exact(member), 2);
}

function exact(member: unknown): unknown {
  if (typeof member !== "bigint") return member;
  return (JSON as unknown as { rawJSON(text: string): object }).rawJSON(member.toString());
}
