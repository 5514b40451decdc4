/**
 * Who may touch the store's set, and when: one at a time, in the order of asking. And the wait of
 * the one who follows other processes: until a notice comes, or the poll is due.
 */
import type { Clock } from "../../clock.ts";
import { DatabaseError, LimitError } from "../../errors.ts";

/** Changes waiting for their turn; each is a request that is waiting too. */
const WAITING_MAX = 1_000;
/** When to come again after being told that they are too many. */
const RETRY_MS = 1_000;
/** Other processes follow a change within a second even when its notice is lost. */
const POLL_MS = 1_000;

/** A queue of work that is done one after another. */
export class Turns {
  #tail: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #isClosed = false;

  /**
   * Does the work when all before it is done. What it throws is the caller's.
   * @throws LimitError too many are waiting. @throws DatabaseError the queue is closed.
   */
  async take<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isClosed) throw new DatabaseError("the gateway is stopping");
    if (this.#waiting >= WAITING_MAX) {
      throw new LimitError("rate-limited", "too many changes are waiting", RETRY_MS);
    }
    return await this.join(work);
  }

  /** As `take`, past its bounds; for the one worker that is the store's own. */
  async join<T>(work: () => Promise<T>): Promise<T> {
    this.#waiting += 1;
    const turn = this.#tail.then(work);
    // Whoever asked gets the failure; the next in the queue only waits for the end.
    this.#tail = turn.catch(() => undefined);
    try {
      return await turn;
    } finally {
      this.#waiting -= 1;
    }
  }

  /** Takes nothing more; resolves when the last is done. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#tail;
  }
}

/** Wakes the one who follows other processes. */
export class Notices {
  #wake = new AbortController();

  /** Something was changed elsewhere. */
  ring(): void {
    this.#wake.abort();
  }

  /** Resolves when it rings, has rung since the last wait, the poll is due, or at the stop. */
  async wait(clock: Clock, stop: AbortSignal): Promise<void> {
    await clock.sleep(POLL_MS, AbortSignal.any([this.#wake.signal, stop]));
    this.#wake = new AbortController();
  }
}
