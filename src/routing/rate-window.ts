/**
 * Counts what was let through, so that no window of the rate's time ever holds more than its count.
 * Small parts of that time are counted together, and as late as their latest: never too many.
 */
import { limitParts } from "../rules/limits.ts";
import type { Rate } from "../rules/units.ts";

interface Part {
  readonly firstMs: number;
  lastMs: number;
  count: number;
}

/** One limit. Times are those of a clock that never goes back. */
export class RateWindow {
  readonly rate: Rate;
  readonly #parts: Part[] = [];
  #count = 0;

  constructor(rate: Rate) {
    this.rate = rate;
  }

  /** How many may go now. */
  room(nowMs: number): number {
    this.#forget(nowMs);
    return Math.max(0, this.rate.count - this.#count);
  }

  /** When there is room again; now, when there is. */
  roomAtMs(nowMs: number): number {
    const [oldest] = this.#parts;
    if (this.room(nowMs) > 0 || oldest === undefined) return nowMs;
    return oldest.lastMs + this.rate.perMs;
  }

  /** Counts what is let through. */
  take(count: number, nowMs: number): void {
    const newest = this.#parts.at(-1);
    this.#count += count;
    if (newest !== undefined && nowMs - newest.firstMs < this.rate.perMs / limitParts) {
      newest.count += count;
      newest.lastMs = nowMs;
    } else {
      this.#parts.push({ firstMs: nowMs, lastMs: nowMs, count });
    }
  }

  /** What was let through and did not go after all. */
  giveBack(count: number): void {
    const newest = this.#parts.at(-1);
    if (newest === undefined) return;
    const back = Math.min(count, newest.count);
    newest.count -= back;
    this.#count -= back;
    if (newest.count === 0) this.#parts.pop();
  }

  #forget(nowMs: number): void {
    for (;;) {
      const [oldest] = this.#parts;
      if (oldest === undefined || oldest.lastMs + this.rate.perMs > nowMs) return;
      this.#count -= oldest.count;
      this.#parts.shift();
    }
  }
}
