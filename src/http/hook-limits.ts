/**
 * The limits of one hook, and of all hooks together: how many webhooks in a time (a token bucket
 * that starts full) and how many under way. What is over them is refused with 429 before its body
 * is read, and said how long to wait.
 */
import type { Clock } from "../clock.ts";
import type { Rate } from "../rules/units.ts";
import { problemResponse } from "./problem.ts";

/** How long a sender waits when too many are under way. Milliseconds. */
const BUSY_RETRY_MS = 1000;

/** What is limited; null: nothing. */
export interface Bounds {
  readonly rate: Rate | null;
  readonly concurrency: number | null;
}

/** Why one was not let in, and the answer that says so. */
export interface Shed {
  readonly reason: string;
  readonly response: Response;
}

/** Whose limits they are: one hook's, or those of all hooks together. */
export type LimitScope = "hook" | "hooks";

/** Headers that tell of limits. */
type Told = Readonly<Record<string, string>>;

/** Lets webhooks in. Each one let in must leave once. */
export class HookLimiter {
  readonly #clock: Clock;
  readonly #scope: LimitScope;
  readonly #rate: Rate | null;
  readonly #concurrency: number;
  #tokens: number;
  #filledAtMs: number;
  #underWay = 0;

  constructor({ rate, concurrency }: Bounds, clock: Clock, scope: LimitScope) {
    this.#clock = clock;
    this.#scope = scope;
    this.#rate = rate;
    this.#concurrency = concurrency ?? Number.POSITIVE_INFINITY;
    this.#tokens = rate?.count ?? 0;
    this.#filledAtMs = clock.monotonicMs();
  }

  /** Webhooks under way. */
  get underWay(): number {
    return this.#underWay;
  }

  /** Null: it is in. Otherwise the refusal. */
  enter(): Shed | null {
    if (this.#underWay >= this.#concurrency) {
      const whose = this.#scope === "hook" ? "of this hook" : "of all hooks";
      const detail = `${this.#concurrency} webhooks ${whose} are under way already`;
      return this.#shed("busy", detail, BUSY_RETRY_MS, this.#busyHeaders());
    }
    if (this.#rate !== null) {
      this.#fill(this.#rate);
      if (this.#tokens < 1) {
        const waitMs = ((1 - this.#tokens) * this.#rate.perMs) / this.#rate.count;
        const { count, perMs } = this.#rate;
        const who = this.#scope === "hook" ? "this hook takes" : "all hooks together take";
        const many = `${who} ${count} webhooks in ${perMs / 1000} s`;
        return this.#shed("rate-limited", many, waitMs, this.#headers());
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
    if (this.#rate === null) return response;
    for (const [name, value] of Object.entries(this.#headers())) response.headers.set(name, value);
    return response;
  }

  #fill({ count, perMs }: Rate): void {
    const nowMs = this.#clock.monotonicMs();
    const gained = ((nowMs - this.#filledAtMs) * count) / perMs;
    this.#tokens = Math.min(count, this.#tokens + gained);
    this.#filledAtMs = nowMs;
  }

  #shed(why: string, detail: string, waitMs: number, told: Told): Shed {
    const retryAfter = String(Math.max(1, Math.ceil(waitMs / 1000)));
    const headers = { "retry-after": retryAfter, ...told };
    const response = problemResponse({ status: 429, code: "rate-limited", detail, headers });
    return { reason: this.#scope === "hook" ? why : `all-${why}`, response };
  }

  /** The number under way beside the rate, of which some may be left. */
  #busyHeaders(): Told {
    const name = `"${this.#scope}-concurrency"`;
    const policy = `${name};q=${this.#concurrency};qu="concurrent-requests"`;
    const told = this.#headers();
    return {
      "ratelimit-policy": [told["ratelimit-policy"] ?? [], policy].flat().join(", "),
      ratelimit: [told["ratelimit"] ?? [], `${name};r=0`].flat().join(", "),
    };
  }

  #headers(): Told {
    if (this.#rate === null) return {};
    const { count, perMs } = this.#rate;
    const name = this.#scope;
    const left = Math.floor(Math.max(0, this.#tokens));
    const fullS = Math.ceil(((count - this.#tokens) * perMs) / count / 1000);
    return {
      "ratelimit-policy": `"${name}";q=${count};w=${Math.max(1, Math.ceil(perMs / 1000))}`,
      ratelimit: `"${name}";r=${left};t=${Math.max(0, fullS)}`,
    };
  }
}
