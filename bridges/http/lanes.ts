/**
 * Keeps messages of equal key one after another while others go side by side. When one of a key was
 * not sent and may be later, those that wait behind it are not tried either, or they would overtake
 * it; one that is refused for good gives up its place. Messages without a key wait for nobody.
 */
import type { Outcome } from "../../src/bridge.ts";

/** Why those behind a message that was not sent are not sent either; null: go on. */
type Stop = Outcome | null;

/** The lanes of one sink. */
export class Lanes {
  readonly #last = new Map<string, Promise<Stop>>();
  readonly #free: (() => void)[] = [];
  readonly #runningMax: number;
  #running = 0;

  /** `runningMax`: how many messages go side by side. */
  constructor(runningMax: number) {
    this.#runningMax = runningMax;
  }

  /** Runs `work` when its turn has come, or resolves with what those behind a failure are told. */
  async run(key: Uint8Array | null, work: () => Promise<Outcome>): Promise<Outcome> {
    if (key === null) return await this.#bounded(work);
    const name = Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("latin1");
    const before = this.#last.get(name);
    const mine = Promise.withResolvers<Stop>();
    this.#last.set(name, mine.promise);
    let stop: Stop = null;
    try {
      stop = before === undefined ? null : await before;
      const outcome = stop ?? (await this.#bounded(work));
      stop = stopOf(outcome);
      return outcome;
    } finally {
      if (this.#last.get(name) === mine.promise) this.#last.delete(name);
      mine.resolve(stop);
    }
  }

  async #bounded(work: () => Promise<Outcome>): Promise<Outcome> {
    if (this.#running >= this.#runningMax) {
      // Whoever ends hands its place over, so the count stays.
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#free.push(resolve);
      await promise;
    } else {
      this.#running += 1;
    }
    try {
      return await work();
    } finally {
      const next = this.#free.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }
}

function stopOf(outcome: Outcome): Stop {
  if ("sent" in outcome) return null;
  if ("refused" in outcome) return outcome.final === true ? null : { busyMs: 0 };
  return outcome;
}
