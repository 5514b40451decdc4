/** Outside systems are waited for, but not for ever: what they promised may never come. */
import type { Clock } from "../clock.ts";
import { DisconnectedError } from "../errors.ts";

/** How long to wait. */
export interface Patience {
  readonly clock: Clock;
  readonly ms: number;
  /** Ends the wait as its time would. */
  readonly signal?: AbortSignal;
}

/**
 * The result of `work`, when it comes in time. What comes later is disposed of.
 * @throws DisconnectedError it did not come in time. What `work` throws in time is thrown.
 */
export async function within<T extends AsyncDisposable | void>(
  work: Promise<T>,
  { clock, ms, signal }: Patience,
): Promise<T> {
  const answered = new AbortController();
  const either =
    signal === undefined ? answered.signal : AbortSignal.any([answered.signal, signal]);
  let isLate = false;
  const timeout = clock.sleep(ms, either).then(() => {
    isLate = true;
    return null;
  });
  try {
    const first = await Promise.race([work.then((value) => ({ value })), timeout]);
    if (first !== null) return first.value;
  } finally {
    answered.abort();
    if (isLate) work.then(disposeLate).catch(ignoreLate);
  }
  throw new DisconnectedError(`no answer within ${ms / 1000} s`);
}

async function disposeLate(value: AsyncDisposable | void): Promise<void> {
  await value?.[Symbol.asyncDispose]();
}

/** Nobody waits any more: the failure to wait was reported. */
function ignoreLate(): void {}
