/** Time for simulations: nothing takes long, and wall time may jump either way. */
import { type Clock, nextTurn } from "../../src/clock.ts";

/** A clock whose sleeps end in the next turn of the event loop. */
export class SimulatedClock implements Clock {
  wallMs = 1_700_000_000_000;
  #monotonicMs = 0;

  nowMs(): number {
    return this.wallMs;
  }

  monotonicMs(): number {
    return ++this.#monotonicMs;
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true || ms <= 0) return;
    await nextTurn();
  }
}
