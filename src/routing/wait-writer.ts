/**
 * Writes to a route's stream of waiting messages: one append after another, in the order in which
 * it was told, so that what failed to be written is written before what came later.
 */
import { errorText } from "../errors.ts";
import { routeBatchBytes, routeBatchMessages } from "../limits.ts";
import type { Offset } from "../log/log.ts";
import type { Message } from "../message.ts";
import type { Hold } from "./lanes.ts";
import { Tasks } from "./tasks.ts";
import { outageMs } from "./trouble.ts";
import type { WaitParts } from "./wait-load.ts";
import { waitingRecord } from "./wait-record.ts";
import type { Work } from "./work.ts";

interface Item {
  readonly record: Message;
  readonly dedupeKey: string | null;
  readonly bytes: number;
  /** Called when it is durable, with its place, and whether it had been there before. */
  readonly onWritten: (at: Offset, isDuplicate: boolean) => void;
}

/** The writing end of one route's stream of waiting messages. */
export class WaitWriter {
  readonly #parts: WaitParts;
  readonly #tasks: Tasks;
  #items: Item[] = [];
  #bytes = 0;
  #isWriting = false;

  constructor(parts: WaitParts) {
    this.#parts = parts;
    this.#tasks = new Tasks(parts.onFailed);
  }

  /** Bytes that are on their way. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Writes a message once, by its place in the stream that it comes from. */
  move(work: Work, hold: Hold | null, onWritten: (at: Offset) => void): void {
    const { life, stateKey, progress } = this.#parts;
    const record = waitingRecord(work, life, hold);
    const dedupeKey = `${stateKey}/${progress.run}/${work.message.offset}/wait`;
    this.#add({ record, dedupeKey, bytes: work.bytes, onWritten });
  }

  /** Writes a message that is sent again, once for each `again`. */
  again(record: Message, again: string, onWritten: Item["onWritten"]): void {
    const { life, stateKey } = this.#parts;
    const dedupeKey = `${stateKey}/${life}/${again}`;
    this.#add({ record, dedupeKey, bytes: (record.body?.length ?? 0) + 512, onWritten });
  }

  note(record: Message, onWritten: (at: Offset) => void): void {
    this.#add({ record, dedupeKey: null, bytes: record.body?.length ?? 0, onWritten });
  }

  /** Resolves when nothing is on its way: all is written, or the route stops. */
  async written(): Promise<void> {
    await this.#tasks.ended();
  }

  async ended(): Promise<void> {
    await this.#tasks.ended();
  }

  #add(item: Item): void {
    this.#items.push(item);
    this.#bytes += item.bytes;
    if (this.#isWriting) return;
    this.#isWriting = true;
    this.#tasks.run(() => this.#write());
  }

  async #write(): Promise<void> {
    const { stop, clock, random, onTrouble } = this.#parts;
    try {
      for (let failures = 0; this.#items.length > 0; ) {
        const error = await this.#tryAppend();
        failures = error === null ? 0 : failures + 1;
        if (error === null) continue;
        // Not durable means not moved: the message stands where it was read.
        onTrouble(`messages can't be put aside: ${error}`);
        if (stop.aborted) return;
        await clock.sleep(outageMs(failures, random), stop);
      }
    } finally {
      this.#isWriting = false;
    }
  }

  /** Writes the first of what waits; what went wrong, or null. */
  async #tryAppend(): Promise<string | null> {
    try {
      await this.#append(this.#first());
      return null;
    } catch (error) {
      return errorText(error);
    }
  }

  async #append(items: readonly Item[]): Promise<void> {
    const appended = this.#parts.partition.append(
      items.map(({ record }) => record),
      { dedupeKeys: items.map(({ dedupeKey }) => dedupeKey) },
    );
    await appended.durable;
    this.#items.splice(0, items.length);
    for (const [index, item] of items.entries()) {
      this.#bytes -= item.bytes;
      const { offset, duplicate } = appended.receipt(index);
      item.onWritten(offset, duplicate);
    }
    this.#parts.save();
  }

  #first(): readonly Item[] {
    let bytes = 0;
    let count = 0;
    for (const item of this.#items) {
      bytes += item.bytes;
      if (count > 0 && (bytes > routeBatchBytes || count >= routeBatchMessages)) break;
      count++;
    }
    return this.#items.slice(0, count);
  }
}
