/** Waits between attempts: exponential and random, so that many who failed together part. */

/** The bounds of a wait. */
export interface BackoffBounds {
  readonly delayMinMs: number;
  readonly delayMaxMs: number;
}

/**
 * The wait before attempt `failures + 1`, milliseconds: random between half and all of
 * `delayMinMs · 2^(failures − 1)`, at most `delayMaxMs`. `random` answers in [0, 1).
 */
export function backoffMs(failures: number, bounds: BackoffBounds, random: () => number): number {
  const exponent = Math.min(Math.max(failures - 1, 0), 40);
  const ceiling = Math.min(bounds.delayMaxMs, bounds.delayMinMs * 2 ** exponent);
  return ceiling / 2 + (ceiling / 2) * random();
}

/**
 * The same spread over everything between half of `delayMinMs` and the exponential bound: messages
 * that failed together, and gateways that lost the same broker, come back one by one.
 */
export function fullJitterMs(
  failures: number,
  { delayMinMs, delayMaxMs }: BackoffBounds,
  random: () => number,
): number {
  const exponent = Math.min(Math.max(failures - 1, 0), 40);
  const ceiling = Math.min(delayMaxMs, delayMinMs * 2 ** exponent);
  const floor = Math.min(delayMinMs / 2, ceiling);
  return floor + (ceiling - floor) * random();
}
