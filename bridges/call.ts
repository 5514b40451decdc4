/**
 * One call of a sink's `send`: collects the outcomes of its messages, which may come in any order
 * and long after an abort. What has no outcome when the call ends is unknown.
 */
import type { Outcome } from "../src/bridge.ts";
import { Notice } from "./notice.ts";

/** The outcomes of one call. */
export class Call {
  readonly #outcomes: (Outcome | undefined)[];
  readonly #notice = new Notice();
  #open: number;

  constructor(count: number) {
    this.#outcomes = Array.from({ length: count });
    this.#open = count;
  }

  /** Gives a message its outcome; a second one is ignored. */
  settle(index: number, outcome: Outcome): void {
    if (this.#outcomes[index] !== undefined) return;
    this.#outcomes[index] = outcome;
    this.#open -= 1;
    this.#notice.notify();
  }

  /** Gives every message from `index` on that has none yet the same outcome. */
  settleRest(index: number, outcome: Outcome): void {
    for (let rest = index; rest < this.#outcomes.length; rest += 1) this.settle(rest, outcome);
  }

  /** Waits until all messages have theirs, or the abort. */
  async allSettled(signal: AbortSignal): Promise<void> {
    while (this.#open > 0 && !signal.aborted) await this.#notice.wait(signal);
  }

  /** The outcomes in the order of the input. */
  outcomes(): readonly Outcome[] {
    return this.#outcomes.map((outcome) => outcome ?? { unknown: true });
  }
}

/** Lets calls go one after another, in the order in which they asked. */
export class Turns {
  #last: Promise<void> = Promise.resolve();

  /**
   * Waits for the turn; the function that it resolves with ends the turn. Null when aborted: the
   * turn is given up then.
   */
  async take(signal: AbortSignal): Promise<(() => void) | null> {
    const before = this.#last;
    const turn = Promise.withResolvers<void>();
    this.#last = turn.promise;
    await orAborted(before, signal);
    if (!signal.aborted) return () => turn.resolve();
    // Whoever comes next still waits for those before this one.
    turn.resolve(before);
    return null;
  }
}

/** Waits for a promise or the abort, which gives null; what comes after the abort is let go. */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | null> {
  const aborted = Promise.withResolvers<null>();
  const abort = (): void => aborted.resolve(null);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
