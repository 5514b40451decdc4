/**
 * A wait for a change of state: whoever changes the state notifies, whoever waits looks again.
 * A notice carries no data and wakes all waiters once, so a waiter always waits in a loop.
 */

/** Wakes those who wait. */
export class Notice {
  #waiters: PromiseWithResolvers<void> | null = null;

  /** Wakes everyone who waits at this moment. */
  notify(): void {
    this.#waiters?.resolve();
    this.#waiters = null;
  }

  /** Resolves at the next `notify`, or when the signal aborts; never rejects. */
  async wait(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    this.#waiters ??= Promise.withResolvers<void>();
    const { promise, resolve } = Promise.withResolvers<void>();
    const abort = (): void => resolve();
    signal.addEventListener("abort", abort, { once: true });
    try {
      await Promise.race([this.#waiters.promise, promise]);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }
}
