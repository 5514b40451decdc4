/**
 * The messages of one call that name lanes. Of a lane one is unconfirmed at a time: the next goes
 * out with the confirmation of the one before it. Behind a message that was not sent nothing more
 * is begun, in whatever lane: what waits here is unknown then.
 */
import type { Outcome } from "../../src/bridge.ts";

/** A message that waits for its lane. */
export interface InLane {
  readonly lane: string | undefined;
  /** Called once: when its turn has come. */
  readonly begin: (settle: (outcome: Outcome) => void) => void;
  readonly settle: (outcome: Outcome) => void;
}

/** The lanes of one call. */
export class Lanes {
  /** By lane with a message under way, what waits behind it. */
  readonly #behind = new Map<string, InLane[]>();
  readonly #signal: AbortSignal;
  #isStopped = false;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** Whether a message that named a lane was not sent: nothing more may be begun. */
  get isStopped(): boolean {
    return this.#isStopped || this.#signal.aborted;
  }

  /** Begins it when its lane is free, else behind the others of its lane; without a lane at once. */
  offer(item: InLane): void {
    const { lane } = item;
    if (lane === undefined) return item.begin(item.settle);
    const behind = this.#behind.get(lane);
    if (behind !== undefined) behind.push(item);
    else this.#begin(lane, item, []);
  }

  #begin(lane: string, item: InLane, behind: InLane[]): void {
    this.#behind.set(lane, behind);
    item.begin((outcome) => {
      item.settle(outcome);
      if (!("sent" in outcome)) this.#isStopped = true;
      this.#behind.delete(lane);
      if (this.isStopped) return this.#stop(behind);
      const next = behind.shift();
      if (next !== undefined) this.#begin(lane, next, behind);
    });
  }

  #stop(behind: readonly InLane[]): void {
    for (const { settle } of behind) settle({ unknown: true });
    for (const items of this.#behind.values()) {
      for (const { settle } of items.splice(0)) settle({ unknown: true });
    }
  }
}
