/**
 * Sends the messages of one batch in the partition's order until each is sent, given up or put
 * aside. Where a sink's failures are independent, one message of a key is unconfirmed at a time, by
 * the sink itself where it keeps lanes; behind a message that failed nothing is begun. An outage is
 * waited out.
 */
import type { Outcome } from "../bridge.ts";
import { DisconnectedError } from "../errors.ts";
import { sleepMsMax } from "../limits.ts";
import type { LanesParts } from "./lanes.ts";
import { type GivenUp, judge, outageMs } from "./trouble.ts";
import { brokenOutcome, type Work } from "./work.ts";

/** What a sender works with: the route that owns it. */
export interface SenderParts
  extends Pick<
    LanesParts,
    "clock" | "random" | "progress" | "stop" | "send" | "onSent" | "onTrouble"
  > {
  /** Whether a message is finished or put aside without being sent. */
  readonly divert: (work: Work) => boolean;
  /** Resolves when it has given up its place; false when it can't for now. */
  readonly giveUp: (work: Work, given: GivenUp) => Promise<boolean>;
  /** Resolves when the route is not paused (any more), or when stopped. */
  readonly opened: () => Promise<void>;
}

/** Sends batches of one route. */
export class Sender {
  readonly #parts: SenderParts;
  /** Messages whose own failure is waited out: nothing passes them. */
  readonly #failed = new Set<Work>();
  /** Waves in a row that came to nothing. */
  #failures = 0;

  constructor(parts: SenderParts) {
    this.#parts = parts;
  }

  /** True when every message has left the batch; false when stopped before that. */
  async deliver(works: readonly Work[]): Promise<boolean> {
    const { stop, send, clock, divert, progress, opened } = this.#parts;
    this.#failed.clear();
    let pending = works;
    for (;;) {
      pending = pending.filter((work) => !divert(work));
      const [first] = pending;
      if (first === undefined) return true;
      if (stop.aborted) return false;
      if (progress.isPaused) {
        await opened();
        continue;
      }
      const earlyMs = first.notBeforeMs - clock.nowMs();
      if (earlyMs > 0) {
        await clock.sleep(Math.min(earlyMs, sleepMsMax), stop);
        continue;
      }
      const wave = this.#wave(pending);
      const isBroken = first.outgoing === null;
      const sent = isBroken ? [brokenOutcome(first)] : await send(first.revision, wave);
      if (sent === null) return false;
      const { gone, delayMs } = await this.#settle(wave, sent);
      pending = pending.filter((work) => !gone.has(work));
      if (delayMs > 0) await clock.sleep(Math.min(delayMs, sleepMsMax), stop);
    }
  }

  /** What may be under way together: the first messages, up to one that holds up the others. */
  #wave(pending: readonly Work[]): readonly Work[] {
    const nowMs = this.#parts.clock.nowMs();
    const wave: Work[] = [];
    const keys = new Set<string>();
    for (const work of pending) {
      const isFirst = wave.length === 0;
      if (!isFirst && (work.outgoing === null || work.notBeforeMs > nowMs)) break;
      const { failure } = work.revision;
      const isBehind = failure === "independent" && keys.has(work.lane);
      if (!isBehind) wave.push(work);
      if (failure === "independent") keys.add(work.lane);
      if (work.outgoing === null || (failure !== "prefix" && this.#failed.has(work))) break;
    }
    return wave;
  }

  /** Which messages of a wave are gone, and how long to wait before the rest is tried again. */
  async #settle(wave: readonly Work[], sent: readonly Outcome[] | DisconnectedError) {
    const gone = new Set<Work>();
    const lost = sent instanceof DisconnectedError ? sent : null;
    const outcomes = lost === null ? (sent as readonly Outcome[]) : [];
    const isClear = outcomes.every((each) => "sent" in each || "unknown" in each);
    let delayMs = 0;
    for (const [index, work] of wave.entries()) {
      const outcome = outcomes[index] ?? { unknown: true };
      if ("sent" in outcome) {
        gone.add(work);
        this.#parts.onSent(work);
        // It goes through again: the others need not be tried one by one.
        if (this.#failed.delete(work)) this.#failed.clear();
        continue;
      }
      // Behind a message that failed all are unsure: it was not their fault.
      if ("unknown" in outcome && !isClear) continue;
      const waitMs = await this.#trouble(work, outcome, lost);
      if (waitMs === null) gone.add(work);
      else delayMs = Math.max(delayMs, waitMs);
    }
    this.#failures = gone.size > 0 ? 0 : this.#failures + 1;
    const hasToRest = lost !== null || this.#failures > 0;
    const restMs = hasToRest ? outageMs(Math.max(1, this.#failures), this.#parts.random) : 0;
    return { gone, delayMs: lost === null && delayMs > 0 ? delayMs : restMs };
  }

  /** The wait before the message is tried again, 0: behind the others; null: it is gone. */
  async #trouble(
    work: Work,
    outcome: Exclude<Outcome, { readonly sent: unknown }>,
    lost: Error | null,
  ): Promise<number | null> {
    const { clock, random, progress, onTrouble, giveUp } = this.#parts;
    const { offset } = work.message;
    const judgement = judge({
      outcome,
      lost,
      before: progress.trouble(offset),
      retry: work.revision.target.document.retry,
      blocks: work.revision.onFailure === "block",
      nowMs: clock.nowMs(),
      random,
    });
    const { trouble, reason, isOver, delayMs } = judgement;
    progress.setTrouble(offset, trouble);
    onTrouble(work, judgement);
    const given = { reason, attempts: Math.max(1, trouble.attempts) };
    if (isOver && (await giveUp(work, given))) {
      this.#failed.delete(work);
      return null;
    }
    if (isOver) return outageMs(trouble.failures, random);
    if ("unknown" in outcome) return 0;
    this.#failed.add(work);
    return delayMs ?? outageMs(trouble.failures, random);
  }
}
