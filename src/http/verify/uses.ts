/**
 * When a hook's keys last let something in, kept among the states so that a restart does not
 * forget it: whoever takes an old secret away wants to know that nobody uses it any more.
 */
import type { States } from "../../log/log.ts";
import { decodeText, encodeText } from "../../message.ts";
import { parseJson } from "../../json.ts";
import { stateBytesMax } from "../../limits.ts";

/** Uses by a key's id, Unix milliseconds. */
export type Uses = ReadonlyMap<string, number>;

/** The kept uses of one hook. */
export class KeyUses {
  readonly #states: States;
  readonly #key: string;

  constructor(states: States, hook: string) {
    this.#states = states;
    this.#key = `hook-keys/${hook}`;
  }

  /** What is kept; nothing of it is needed to let a webhook in. */
  async load(): Promise<Uses> {
    const bytes = await this.#states.load(this.#key);
    const value: unknown = bytes === null ? null : parseJson(decodeText(bytes));
    if (typeof value !== "object" || value === null) return new Map();
    const entries = Object.entries(value);
    return new Map(entries.filter((entry): entry is [string, number] => !isNaN(Number(entry[1]))));
  }

  /** Resolves when it is on disk. @throws StorageError it may be lost. */
  async save(uses: Uses): Promise<void> {
    const bytes = encodeText(JSON.stringify(Object.fromEntries(uses)));
    // The names of references could be this long; the last use is then known until the restart.
    if (bytes.length > stateBytesMax) return;
    await this.#states.save([[this.#key, bytes]]);
  }
}
