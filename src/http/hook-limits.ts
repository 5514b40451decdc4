/**
 * The limits of one hook: how many webhooks in a time (a token bucket that starts full) and how
 * many under way. What is over them is refused with 429 before its body is read, and said how
 * long to wait.
 */
import type { Clock } from "../clock.ts";
import type { HookLimits } from "../rules/document.ts";
import { problemResponse } from "./problem.ts";

/** How long a sender waits when too many are under way. Milliseconds. */
const BUSY_RETRY_MS = 1000;

/** Lets webhooks of one hook in. Each one let in must leave once. */
export class HookLimiter {
  readonly #clock: Clock;
  readonly #rate: HookLimits["rate"];
  readonly #concurrency: number;
  #tokens: number;
  #filledAtMs: number;
  #underWay = 0;

  constructor({ rate, concurrency }: HookLimits, clock: Clock) {
    this.#clock = clock;
    this.#rate = rate;
    this.#concurrency = concurrency ?? Number.POSITIVE_INFINITY;
    this.#tokens = rate?.count ?? 0;
    this.#filledAtMs = clock.monotonicMs();
  }

  /** Null: it is in. Otherwise the refusal. */
  enter(): Response | null {
    if (this.#underWay >= this.#concurrency) {
      const detail = `${this.#concurrency} webhooks of this hook are under way already`;
      return this.#refusal(detail, BUSY_RETRY_MS);
    }
    if (this.#rate !== null) {
      this.#fill(this.#rate);
      if (this.#tokens < 1) {
        const waitMs = ((1 - this.#tokens) * this.#rate.perMs) / this.#rate.count;
        const { count, perMs } = this.#rate;
        return this.#refusal(`this hook takes ${count} webhooks in ${perMs / 1000} s`, waitMs);
      }
      this.#tokens -= 1;
    }
    this.#underWay += 1;
    return null;
  }

  leave(): void {
    this.#underWay -= 1;
  }

  /** Tells a sender how much it has left. */
  mark(response: Response): Response {
    for (const [name, value] of Object.entries(this.#headers())) response.headers.set(name, value);
    return response;
  }

  #fill({ count, perMs }: { readonly count: number; readonly perMs: number }): void {
    const nowMs = this.#clock.monotonicMs();
    const gained = ((nowMs - this.#filledAtMs) * count) / perMs;
    this.#tokens = Math.min(count, this.#tokens + gained);
    this.#filledAtMs = nowMs;
  }

  #refusal(detail: string, waitMs: number): Response {
    const retryAfter = String(Math.max(1, Math.ceil(waitMs / 1000)));
    const headers = { "retry-after": retryAfter, ...this.#headers() };
    return problemResponse({ status: 429, code: "rate-limited", detail, headers });
  }

  #headers(): Readonly<Record<string, string>> {
    if (this.#rate === null) return {};
    const { count, perMs } = this.#rate;
    const left = Math.floor(Math.max(0, this.#tokens));
    const fullS = Math.ceil(((count - this.#tokens) * perMs) / count / 1000);
    return {
      "ratelimit-policy": `"hook";q=${count};w=${Math.max(1, Math.ceil(perMs / 1000))}`,
      ratelimit: `"hook";r=${left};t=${Math.max(0, fullS)}`,
    };
  }
}
