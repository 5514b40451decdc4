/**
 * What becomes of a message that was not sent: when it is tried again, or that it is given up.
 * Only refusals count attempts; an outage, a busy target and uncertainty are waited out until
 * `maxAge`. Pure: the partition's order, the lanes and the waiting ones share this one rule.
 */
import { backoffMs, fullJitterMs } from "../backoff.ts";
import type { Outcome } from "../bridge.ts";
import { reconnectDelayMaxMs, reconnectDelayMinMs } from "../limits.ts";
import type { RetryDocument } from "../rules/document.ts";

/** How one message has fared so far. */
export interface Trouble {
  /** Refusals: what `retry.attempts` bounds. */
  readonly attempts: number;
  /** Sends that did not go through, for the length of the next wait. */
  readonly failures: number;
  /** Since when it has not gone through, Unix milliseconds. */
  readonly sinceMs: number;
}

/** Why and when a message was given up. */
export interface GivenUp {
  readonly reason: string;
  readonly attempts: number;
}

/** What is known of a message's failure, and by which rules it is judged. */
export interface Failure {
  readonly outcome: Exclude<Outcome, { readonly sent: unknown }>;
  readonly before: Trouble | null;
  /** What broke the whole call, when it was that. */
  readonly lost: Error | null;
  readonly retry: RetryDocument;
  /** Never given up (`onFailure: block`). */
  readonly blocks: boolean;
  readonly nowMs: number;
  readonly random: () => number;
}

/** What becomes of it. `delayMs: null`: no retry can change it, and it is not given up either. */
export interface Judgement {
  readonly trouble: Trouble;
  readonly reason: string;
  readonly isOver: boolean;
  readonly delayMs: number | null;
}

/** Judges one failure. */
export function judge(failure: Failure): Judgement {
  const { outcome, before, retry, blocks, nowMs, random } = failure;
  const isRefusal = "refused" in outcome;
  const isFinal = isRefusal && outcome.final === true;
  const trouble: Trouble = {
    attempts: (before?.attempts ?? 0) + (isRefusal ? 1 : 0),
    failures: (before?.failures ?? 0) + 1,
    sinceMs: before?.sinceMs ?? nowMs,
  };
  const isSpent = isRefusal
    ? isFinal || trouble.attempts >= retry.attempts
    : retry.maxAgeMs !== null && nowMs - trouble.sinceMs >= retry.maxAgeMs;
  return {
    trouble,
    reason: reasonOf(failure),
    isOver: isSpent && !blocks,
    delayMs: isFinal ? null : delayOf(outcome, trouble.failures, { retry, random }),
  };
}

function reasonOf({ outcome, lost }: Failure): string {
  if ("refused" in outcome) return outcome.refused;
  if (lost !== null) return lost.message;
  if ("unknown" in outcome) return "the target did not confirm";
  return outcome.reason ?? "the target is busy";
}

/**
 * What the target asks for is the least, up to `delayMax`; repeated failures wait longer all the
 * same.
 */
function delayOf(
  outcome: Failure["outcome"],
  failures: number,
  { retry, random }: Pick<Failure, "retry" | "random">,
): number {
  if ("unknown" in outcome) return outageMs(failures, random);
  const ownMs = fullJitterMs(failures, retry, random);
  return "busyMs" in outcome ? Math.max(Math.min(outcome.busyMs, retry.delayMaxMs), ownMs) : ownMs;
}

/** The rest of a target that could not be reached, or that was unsure, so many times in a row. */
export function outageMs(failures: number, random: () => number): number {
  const bounds = { delayMinMs: reconnectDelayMinMs, delayMaxMs: reconnectDelayMaxMs };
  return backoffMs(failures, bounds, random);
}
