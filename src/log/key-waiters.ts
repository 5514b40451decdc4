/** Readers that wait for messages of one key, by its hash: an append wakes those of its own keys. */
import type { KeyHash } from "./key-filter.ts";

type Wake = (isClosed: boolean) => void;

/** The waiting readers of one partition. */
export class KeyWaiters {
  readonly #byHash = new Map<number, Wake[]>();

  /** How many hashes are waited for. */
  get size(): number {
    return this.#byHash.size;
  }

  /** Adds a reader, to be woken once; what it gives takes it back. */
  add(hash: KeyHash, wake: Wake): () => void {
    const value = valueOf(hash);
    const waiting = this.#byHash.get(value);
    if (waiting === undefined) this.#byHash.set(value, [wake]);
    else waiting.push(wake);
    return () => this.#remove(value, wake);
  }

  /** Wakes those who wait for a key with this hash. */
  wake(hash: KeyHash): void {
    const value = valueOf(hash);
    const waiting = this.#byHash.get(value);
    if (waiting === undefined) return;
    this.#byHash.delete(value);
    for (const wake of waiting) wake(false);
  }

  wakeAll(isClosed: boolean): void {
    const all = [...this.#byHash.values()];
    this.#byHash.clear();
    for (const waiting of all) for (const wake of waiting) wake(isClosed);
  }

  #remove(value: number, wake: Wake): void {
    const waiting = this.#byHash.get(value);
    const index = waiting?.indexOf(wake) ?? -1;
    if (waiting === undefined || index < 0) return;
    if (waiting.length === 1) this.#byHash.delete(value);
    else waiting.splice(index, 1);
  }
}

function valueOf({ high, low }: KeyHash): number {
  return high * 256 + low;
}
