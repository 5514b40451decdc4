/** Readers that wait for messages of one key, by its hash: an append wakes those of its own keys. */
import type { KeyHash } from "./key-filter.ts";
import type { Waiter } from "./log.ts";

/** The waiting readers of one partition. */
export class KeyWaiters {
  /** Mostly there is one reader of a key: only several have a list. */
  readonly #byHash = new Map<number, Waiter | Waiter[]>();

  /** How many hashes are waited for. */
  get size(): number {
    return this.#byHash.size;
  }

  /** Adds a reader, to be woken once. */
  add(hash: KeyHash, waiter: Waiter): void {
    const value = valueOf(hash);
    const waiting = this.#byHash.get(value);
    if (waiting === undefined) this.#byHash.set(value, waiter);
    else if (Array.isArray(waiting)) waiting.push(waiter);
    else this.#byHash.set(value, [waiting, waiter]);
  }

  /** Takes a reader back that may have been woken already. */
  remove(hash: KeyHash, waiter: Waiter): void {
    const value = valueOf(hash);
    const waiting = this.#byHash.get(value);
    if (waiting === waiter) this.#byHash.delete(value);
    if (!Array.isArray(waiting)) return;
    const index = waiting.indexOf(waiter);
    if (index >= 0) waiting.splice(index, 1);
    if (waiting.length === 0) this.#byHash.delete(value);
  }

  /** Wakes those who wait for a key with this hash. */
  wake(hash: KeyHash): void {
    const value = valueOf(hash);
    const waiting = this.#byHash.get(value);
    if (waiting === undefined) return;
    this.#byHash.delete(value);
    wakeUp(waiting, false);
  }

  wakeAll(isClosed: boolean): void {
    const all = [...this.#byHash.values()];
    this.#byHash.clear();
    for (const waiting of all) wakeUp(waiting, isClosed);
  }
}

function wakeUp(waiting: Waiter | readonly Waiter[], isClosed: boolean): void {
  if (!("length" in waiting)) return waiting.readable(isClosed);
  for (const waiter of waiting) waiter.readable(isClosed);
}

function valueOf({ high, low }: KeyHash): number {
  return high * 256 + low;
}
