/**
 * What follows when a connection has ended: come back, come back with another token, or stop.
 * Pure; the vectors of `docs/protocol-vectors.json` run against it.
 */

/** How long to wait before coming back, and when a connection counts as dead. Milliseconds. */
export interface Tuning {
  /** The first wait is up to `minMs`, doubling from one failure to the next up to `maxMs`. */
  readonly minMs: number;
  readonly maxMs: number;
  /** A connection that held for so long was a good one: waits begin at `minMs` again. */
  readonly stableMs: number;
  /** Clients of a server that restarts come back spread over so long. */
  readonly restartMs: number;
  /** A silent connection is pinged, or as often as the server asks if that is more often. */
  readonly pingMs: number;
  /** Without a sign of life for so long after a ping, or while connecting, it is dead. */
  readonly deadMs: number;
}

export const defaultTuning: Tuning = {
  minMs: 500,
  maxMs: 30_000,
  stableMs: 10_000,
  restartMs: 5000,
  pingMs: 25_000,
  deadMs: 10_000,
};

/** `renew`: with a new token; `spread`: the server restarts; `retry`: after a wait; `stop`: not. */
export type AfterClose = "renew" | "spread" | "retry" | "stop";

/** What a close code asks for. */
export function afterClose(code: number): AfterClose {
  if (code >= 4500 && code <= 4999) return "stop";
  if (code === 4401) return "renew";
  return code === 1012 ? "spread" : "retry";
}

/** The code of the error with which a client stops. */
export function stopCode(code: number): string {
  switch (code) {
    case 4401:
      return "token-expired";
    case 4501:
      return "unauthorized";
    case 4503:
      return "forbidden";
    case 4509:
      return "taken-over";
    default:
      return "refused";
  }
}

/** When a server asks to come back, which it has spread over its clients itself. Milliseconds. */
export function toldMs(reason: string): number | null {
  const told = / retryMs=(\d{1,6})$/.exec(reason);
  return told === null ? null : Number(told[1]);
}

/** How long to wait after so many failures in a row, with full jitter. Milliseconds. */
export function retryMs(failures: number, tuning: Tuning, random: number): number {
  return random * Math.min(tuning.maxMs, tuning.minMs * 2 ** Math.min(failures, 30));
}
