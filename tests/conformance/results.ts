/**
 * What a run of the suite found, for the table in docs/conformance.md. Written only when the
 * environment names a folder for it: tests/conformance/table.ts does, and makes the table of it.
 */
import { join } from "node:path";

/** The environment's variable with the folder. */
export const RESULTS_FOLDER = "ISTHMUS_CONFORMANCE_RESULTS";

/** One bridge's results: null for what was shown, else why it was not. */
export interface ResultFile {
  readonly name: string;
  readonly behaviours: Readonly<Record<string, string | null>>;
}

/** The results of one bridge as they come. */
export class Results {
  readonly #name: string;
  readonly #behaviours: Record<string, string | null> = {};

  constructor(name: string) {
    this.#name = name;
  }

  note(behaviour: string, reason: string | null): void {
    this.#behaviours[behaviour] = reason;
  }

  async write(): Promise<void> {
    const folder = process.env[RESULTS_FOLDER];
    if (folder === undefined || folder === "") return;
    const file: ResultFile = { name: this.#name, behaviours: this.#behaviours };
    const path = join(folder, `${this.#name.replace(/[^a-z0-9]+/gi, "-")}.json`);
    await Bun.write(path, JSON.stringify(file));
  }
}
