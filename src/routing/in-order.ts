/**
 * Appends of one source partition in the order of its deliveries, many under way at once. What has
 * failed is appended again before anything later is: else a later message of a key could stand
 * before an earlier one. The look at what has failed and the append are made in one turn.
 */
import { assert } from "../assert.ts";

/** A delivery's place in the order. */
export interface Turn {
  /** Appended, and not told to have failed. */
  isUnderWay: boolean;
  /** How often appends had failed when it was appended. */
  failures: number;
}

/** The deliveries of one source partition that are not durable yet. */
export class InOrder {
  readonly #failures: () => number;
  readonly #turns: Turn[] = [];
  #changed = Promise.withResolvers<void>();

  /** `failures` counts failed appends, and has changed before anybody is told of one. */
  constructor(failures: () => number) {
    this.#failures = failures;
  }

  /** The place behind all that have come. Leave it, whatever becomes of it. */
  enter(): Turn {
    const turn: Turn = { isUnderWay: false, failures: 0 };
    this.#turns.push(turn);
    return turn;
  }

  /**
   * Appends when its turn has come; resolves once that is durable, with false when aborted before.
   * Rejects with what `append` threw, at once or later: call it again, what comes later waits.
   */
  async append(turn: Turn, append: () => Promise<void>, signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted && !this.#isNext(turn)) await this.#change(signal);
    if (signal.aborted) return false;
    turn.isUnderWay = true;
    turn.failures = this.#failures();
    try {
      const durable = append();
      this.#notify();
      await durable;
      return true;
    } catch (error) {
      turn.isUnderWay = false;
      throw error;
    }
  }

  /** It is durable, or given up. */
  leave(turn: Turn): void {
    const index = this.#turns.indexOf(turn);
    assert(index >= 0, "a place is left once");
    this.#turns.splice(index, 1);
    this.#notify();
  }

  /** Until something has changed, or it is aborted. */
  async #change(signal: AbortSignal): Promise<void> {
    const abort = (): void => this.#notify();
    signal.addEventListener("abort", abort, { once: true });
    await this.#changed.promise;
    signal.removeEventListener("abort", abort);
  }

  /** Whether all before it are under way, and none of those can have failed. */
  #isNext(turn: Turn): boolean {
    const failures = this.#failures();
    for (const before of this.#turns) {
      if (before === turn) return true;
      if (!before.isUnderWay || before.failures !== failures) return false;
    }
    return false;
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}
