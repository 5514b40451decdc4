/**
 * Lets those who catch up read on a few at a time, in the order they came, and everything else have
 * its turn between: a hundred clients that are far behind must not make a publish, or those who
 * are at the end, wait for a hundred reads.
 */
import { nextTurn } from "../clock.ts";

/** Steps of reading, spread over turns of the event loop. What waits is bounded by who may read. */
export class ReadTurns {
  readonly #stepsOfTurn: number;
  #waiting: (() => void)[] = [];
  #running: Promise<void> | null = null;

  constructor(stepsOfTurn: number) {
    this.#stepsOfTurn = stepsOfTurn;
  }

  /** Resolves when it is one's turn: in the next turn of the event loop, or one behind it. */
  next(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    if (this.#running === null) this.#running = this.#run();
    return promise;
  }

  async #run(): Promise<void> {
    let queue: (() => void)[] = [];
    let at = 0;
    for (;;) {
      await nextTurn();
      for (let step = 0; step < this.#stepsOfTurn; step++) {
        if (at === queue.length) {
          queue = this.#waiting;
          this.#waiting = [];
          at = 0;
        }
        queue[at]?.();
        if (at < queue.length) at++;
      }
      if (at === queue.length && this.#waiting.length === 0) break;
    }
    this.#running = null;
  }
}
