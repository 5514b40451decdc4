/** Saves one state record as often as it changes, but one save at a time. */
import { errorText } from "../errors.ts";
import type { States } from "../log/log.ts";

/** What is saved, where, and who is told of a failure. */
export interface SaverParts {
  readonly states: States;
  readonly key: string;
  readonly encode: () => Uint8Array;
  /** A place that only goes forward, and that the record tells of. */
  readonly place: () => number;
  /** What has to be durable before a record that was made earlier; resolves in order of calls. */
  readonly before?: () => Promise<void>;
  readonly warn: (sentence: string) => void;
}

/** Keeps a record up to date on disk. */
export class Saver {
  readonly #parts: SaverParts;
  #savedPlace = 0;
  #saving: Promise<void> | null = null;
  #isDirty = false;
  #isClosed = false;

  constructor(parts: SaverParts) {
    this.#parts = parts;
  }

  /** Saves soon; changes made meanwhile go with it or with the next one. */
  soon(): void {
    if (this.#isClosed) return;
    this.#isDirty = true;
    this.#saving ??= this.#saveWhileDirty();
  }

  /** The place that the record on disk tells of; 0 before the first save. */
  get savedPlace(): number {
    return this.#savedPlace;
  }

  /** Resolves when the record as it is now is on disk. @throws StorageError it is not. */
  async now(): Promise<void> {
    const { states, key, encode, place, before } = this.#parts;
    const record = encode();
    const told = place();
    await before?.();
    await states.save([[key, record]]);
    this.#savedPlace = Math.max(this.#savedPlace, told);
  }

  /** Saves a last time; resolves when nothing is being saved any more, nor will be. */
  async close(): Promise<void> {
    this.soon();
    this.#isClosed = true;
    await this.#saving;
  }

  async #saveWhileDirty(): Promise<void> {
    while (this.#isDirty) {
      this.#isDirty = false;
      try {
        await this.now();
      } catch (error) {
        // Not saved means sent again after a crash, never lost: deliveries go on.
        this.#parts.warn(`the progress of ${this.#parts.key}: ${errorText(error)}`);
      }
    }
    this.#saving = null;
  }
}
