/** A change that several may wait for: each waits for the next one, not for one that has been. */

/** One change to come. */
export interface NextChange {
  /** Resolves when it has happened, or at once when `signal` aborts. */
  wait(signal: AbortSignal): Promise<void>;
  happen(): void;
}

/** Makes one. */
export function nextChange(): NextChange {
  const { promise, resolve } = Promise.withResolvers<void>();
  return {
    async wait(signal) {
      if (signal.aborted) return;
      const aborted = Promise.withResolvers<void>();
      const end = (): void => aborted.resolve();
      signal.addEventListener("abort", end, { once: true });
      await Promise.race([promise, aborted.promise]);
      signal.removeEventListener("abort", end);
    },
    happen: resolve,
  };
}
