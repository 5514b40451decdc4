/**
 * Sends the messages of one batch in the partition's order until each is sent, given up or put
 * aside. Where a sink's failures are independent, one message of a key is unconfirmed at a time, by
 * the sink itself where it keeps lanes; behind a message that failed nothing is begun. Each call
 * passes the target's gate, which waits out an outage.
 */
import type { Outcome } from "../bridge.ts";
import { DisconnectedError } from "../errors.ts";
import { sleepMsMax } from "../limits.ts";
import { Batching, isAllClear } from "./batching.ts";
import type { LanesParts, Sent } from "./lanes.ts";
import { nextChange } from "./next-change.ts";
import { type GivenUp, judge, outageMs } from "./trouble.ts";
import { brokenOutcome, nameOf, type Work } from "./work.ts";

/** What a sender works with: the route that owns it. */
export interface SenderParts
  extends Pick<
    LanesParts,
    "clock" | "random" | "progress" | "stop" | "seat" | "send" | "onSent" | "onTrouble"
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
  readonly #batching: Batching;
  #called = nextChange();

  constructor(parts: SenderParts) {
    this.#parts = parts;
    this.#batching = new Batching(parts.progress);
  }

  /** The gate has room. */
  called(): void {
    const before = this.#called;
    this.#called = nextChange();
    before.happen();
  }

  /** True when every message has left the batch; false when stopped before that. */
  async deliver(works: readonly Work[]): Promise<boolean> {
    try {
      return await this.#deliver(works);
    } finally {
      this.#parts.seat.withdraw();
    }
  }

  async #deliver(works: readonly Work[]): Promise<boolean> {
    const { stop, clock, divert, progress, opened, seat } = this.#parts;
    this.#failed.clear();
    let pending = works;
    for (;;) {
      pending = pending.filter((work) => !divert(work));
      const [first] = pending;
      if (first === undefined) return true;
      if (stop.aborted) return false;
      if (progress.isPaused) {
        seat.withdraw();
        await opened();
        continue;
      }
      const earlyMs = first.notBeforeMs - clock.nowMs();
      if (earlyMs > 0) {
        seat.withdraw();
        await clock.sleep(Math.min(earlyMs, sleepMsMax), stop);
        continue;
      }
      const wave = this.#batching.wave(this.#wave(pending));
      const made = first.outgoing === null ? broken(first) : await this.#send(wave);
      if (made === "stopped") return false;
      if (made === null) continue;
      const { gone, delayMs } = await this.#settle(made.wave, made.sent);
      pending = pending.filter((work) => !gone.has(work));
      if (delayMs > 0) await clock.sleep(Math.min(delayMs, sleepMsMax), stop);
    }
  }

  /** Sends as much of a wave as the gate lets through; null: nothing, look again. */
  async #send(wave: readonly Work[]): Promise<Made | null | "stopped"> {
    const { seat, send, stop } = this.#parts;
    const [first] = wave;
    if (first === undefined) return null;
    const isBatch = first.revision.target.document.batch !== undefined;
    const called = this.#called;
    const permit = seat.take(isBatch ? 1 : wave.length);
    if (permit === null) {
      await called.wait(stop);
      return null;
    }
    const part = isBatch ? wave : wave.slice(0, permit.units);
    let sent: Sent = null;
    try {
      sent = await send(first.revision, part);
    } finally {
      seat.leave(permit, sent, () => part.map(nameOf));
    }
    return sent === null ? "stopped" : { wave: part, sent };
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
    const answers = lost === null ? (sent as readonly Outcome[]) : wave.map(unsure);
    const outcomes = this.#batching.outcomes(wave, answers);
    const isClear = isAllClear(outcomes);
    let delayMs = 0;
    for (const [index, work] of wave.entries()) {
      const outcome = outcomes[index] ?? null;
      // It is to be tried by itself.
      if (outcome === null) continue;
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
    // A target that is not reached is left alone by its gate.
    if (lost !== null) return { gone, delayMs: 0 };
    this.#failures = gone.size > 0 || outcomes.includes(null) ? 0 : this.#failures + 1;
    const restMs = this.#failures > 0 ? outageMs(this.#failures, this.#parts.random) : 0;
    return { gone, delayMs: delayMs > 0 ? delayMs : restMs };
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

/** What was sent, and what came of it. */
interface Made {
  readonly wave: readonly Work[];
  readonly sent: readonly Outcome[] | DisconnectedError;
}

function unsure(): Outcome {
  return { unknown: true };
}

/** What can't be made passes no gate. */
function broken(work: Work): Made {
  return { wave: [work], sent: [brokenOutcome(work)] };
}
