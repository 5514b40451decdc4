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
    const dueMs = this.#monotonicMs + ms;
    await nextTurn();
    this.#monotonicMs = Math.max(this.#monotonicMs, dueMs);
  }
}

interface Sleeper {
  readonly dueMs: number;
  readonly number: number;
  readonly wake: () => void;
}

/**
 * A clock that stands still until it is told to go on: sleeps end in the order of their times, each
 * at its own. Once stopped, nothing that sleeps on it ever wakes, as in a process that was killed.
 */
export class VirtualClock implements Clock {
  /** Wall time is this much ahead of the time since the start. */
  wallOffsetMs: number;
  #elapsedMs = 0;
  #sleepers: Sleeper[] = [];
  #count = 0;
  #isStopped = false;

  constructor(wallMs: number) {
    this.wallOffsetMs = wallMs;
  }

  nowMs(): number {
    return Math.floor(this.wallOffsetMs + this.#elapsedMs);
  }

  monotonicMs(): number {
    return this.#elapsedMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true || ms <= 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    const onAbort = (): void => {
      this.#sleepers = this.#sleepers.filter((each) => each !== sleeper);
      resolve();
    };
    const wake = (): void => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    };
    const sleeper = { dueMs: this.#elapsedMs + ms, number: this.#count++, wake };
    if (!this.#isStopped) this.#sleepers.push(sleeper);
    signal?.addEventListener("abort", onAbort, { once: true });
    return promise;
  }

  /** Goes on to the next time at which something wakes; false when nothing sleeps. */
  goOn(): boolean {
    const [first, ...others] = this.#sleepers;
    if (first === undefined) return false;
    const next = others.reduce((best, each) => {
      const isEarlier = each.dueMs < best.dueMs;
      return isEarlier || (each.dueMs === best.dueMs && each.number < best.number) ? each : best;
    }, first);
    this.#sleepers = this.#sleepers.filter((each) => each !== next);
    this.#elapsedMs = next.dueMs;
    next.wake();
    return true;
  }

  /** Nothing wakes any more. */
  stop(): void {
    this.#isStopped = true;
    this.#sleepers = [];
  }
}
