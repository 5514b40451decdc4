/**
 * What is kept of a target that has said that it wants nothing more: on disk, so that a restart
 * does not ask it. It counts for the revisions of rule and bridge by which it was said: another
 * revision asks again.
 */
import type { States } from "../log/log.ts";
import { decodeText, encodeText } from "../message.ts";

/** By which definitions a target is asked. */
export interface AskedBy {
  readonly rule: number;
  /** 0: it is no bridge. */
  readonly bridge: number;
}

interface Saved extends AskedBy {
  readonly reason: string;
}

/** The record of one target. */
export class DisabledRecord {
  readonly #states: States;
  readonly #key: string;
  #asked: AskedBy;
  #saved: Saved | null = null;
  #isKept = true;

  private constructor(states: States, key: string, asked: AskedBy) {
    this.#states = states;
    this.#key = key;
    this.#asked = asked;
  }

  /** Reads it. @throws StorageError */
  static async load(states: States, key: string, asked: AskedBy): Promise<DisabledRecord> {
    const record = new DisabledRecord(states, key, asked);
    const bytes = await states.load(key);
    if (bytes !== null) record.#saved = JSON.parse(decodeText(bytes)) as Saved;
    await record.askedBy(asked);
    return record;
  }

  /** Why the target wants nothing more; null: it is asked. */
  get reason(): string | null {
    return this.#saved?.reason ?? null;
  }

  /** False while the reason is on its way to the disk: a crash now would ask the target again. */
  get isKept(): boolean {
    return this.#isKept;
  }

  /** Says by which definitions it is asked from now on; true: others, by which it is enabled. */
  async askedBy(asked: AskedBy): Promise<boolean> {
    this.#asked = asked;
    if (this.#saved === null) return false;
    if (this.#saved.rule === asked.rule && this.#saved.bridge === asked.bridge) return false;
    await this.clear();
    return true;
  }

  /** It counts at once; resolves when it is on disk. @throws StorageError a restart asks again. */
  async set(reason: string): Promise<void> {
    this.#saved = { ...this.#asked, reason };
    this.#isKept = false;
    try {
      await this.#states.save([[this.#key, encodeText(JSON.stringify(this.#saved))]]);
    } finally {
      this.#isKept = true;
    }
  }

  /** The same. */
  async clear(): Promise<void> {
    if (this.#saved === null) return;
    this.#saved = null;
    await this.#states.save([[this.#key, null]]);
  }
}
