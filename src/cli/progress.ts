/**
 * How far a long command has come: a bar on a terminal, a plain line now and then elsewhere. On
 * standard error, so that a pipe carries only results; never with --json.
 */
import { Output, write } from "./output.ts";

const WIDTH = 30;
/** Plain lines come no more often. Milliseconds. */
const PLAIN_EVERY_MS = 5_000;

/** The progress of one command. Call `end` before anything else is printed. */
export class ProgressBar {
  readonly #isBar: boolean;
  readonly #isShown: boolean;
  readonly #output: Output;
  #isDrawn = false;
  #toldMs = performance.now();

  constructor(output: Output) {
    this.#output = output;
    this.#isShown = !output.json;
    this.#isBar = process.stderr.isTTY === true;
  }

  async update(done: number, total: number): Promise<void> {
    if (!this.#isShown) return;
    const share = total === 0 ? 1 : Math.min(1, done / total);
    const text = `${done} of ${total} (${Math.floor(share * 100)} %)`;
    if (this.#isBar) {
      const full = Math.round(share * WIDTH);
      this.#isDrawn = true;
      await write(process.stderr, `\r[${"#".repeat(full)}${" ".repeat(WIDTH - full)}] ${text} `);
      return;
    }
    if (performance.now() - this.#toldMs < PLAIN_EVERY_MS) return;
    this.#toldMs = performance.now();
    await this.#output.note(text);
  }

  /** Takes the bar away. */
  async end(): Promise<void> {
    if (this.#isDrawn) await write(process.stderr, "\r\u001b[2K");
    this.#isDrawn = false;
  }
}
