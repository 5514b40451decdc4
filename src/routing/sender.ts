/**
 * Sends the messages of one batch until each is sent or given up. The order of equal keys holds
 * through retries: where a sink's failures are independent, one message of a key is unconfirmed at
 * a time. An outage is waited out; only refusals count attempts.
 */
import { assert } from "../assert.ts";
import { backoffMs } from "../backoff.ts";
import type { Capabilities, Outcome, Outgoing, Sink } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import { DisconnectedError, errorText } from "../errors.ts";
import { reconnectDelayMaxMs, reconnectDelayMinMs } from "../limits.ts";
import type { StoredMessage } from "../message.ts";
import type { RetryDocument } from "../rules/document.ts";

/** One message on its way through a route. */
export interface Work {
  readonly message: StoredMessage;
  readonly outgoing: Outgoing;
}

/** Why and when a message was given up. */
export interface GivenUp {
  readonly reason: string;
  readonly attempts: number;
}

/** How one message has fared so far. */
interface Trouble {
  /** Refusals. */
  attempts: number;
  /** Since when it has not gone through, Unix milliseconds. */
  sinceMs: number;
}

/** What a sender works with: the route that owns it. */
export interface SenderParts {
  readonly clock: Clock;
  readonly random: () => number;
  readonly failure: Capabilities["failure"];
  readonly retry: RetryDocument;
  /** Never gives up (`onFailure: block`). */
  readonly blocks: boolean;
  /** The sink, opened when there is none; null when aborted. */
  readonly sink: (signal: AbortSignal) => Promise<Sink | null>;
  readonly dropSink: () => Promise<void>;
  /** Called once for each message that was confirmed, in order. */
  readonly onSent: (work: Work) => void;
  readonly onGivenUp: (work: Work, given: GivenUp) => Promise<void>;
  /** Told of trouble with a message before a wait. */
  readonly onTrouble: (work: Work, reason: string, trouble: Readonly<Trouble>) => void;
}

/** Ends waits at once, and sends after a grace. */
export interface Signals {
  /** Start nothing more. */
  readonly stop: AbortSignal;
  /** Give up on what is under way. */
  readonly abort: AbortSignal;
}

/** Sends batches of one route. */
export class Sender {
  readonly #parts: SenderParts;
  readonly #troubles = new Map<number, Trouble>();
  /** Waves in a row that could not be sent, or that came to nothing. */
  #failures = 0;

  constructor(parts: SenderParts) {
    this.#parts = parts;
  }

  /** Takes up what an earlier life of the process knew about a message. */
  resume(offset: number, trouble: Trouble): void {
    this.#troubles.set(offset, trouble);
  }

  /** True when every message is sent or given up; false when stopped before that. */
  async deliver(work: readonly Work[], signals: Signals): Promise<boolean> {
    let pending = work;
    while (pending.length > 0) {
      if (signals.stop.aborted) return false;
      const wave = this.#wave(pending);
      const outcomes = await this.#send(wave, signals);
      if (outcomes === null) return false;
      const { left, delayMs } = await this.#settle(wave, outcomes);
      const settled = new Set(wave.filter((each) => !left.has(each)));
      pending = pending.filter((each) => !settled.has(each));
      if (delayMs > 0) await this.#parts.clock.sleep(delayMs, signals.stop);
    }
    return true;
  }

  /** What may be under way together. */
  #wave(pending: readonly Work[]): readonly Work[] {
    if (this.#parts.failure === "prefix") return pending;
    const keys = new Set<string>();
    return pending.filter(({ outgoing }) => {
      const { key } = outgoing.message;
      if (key === null) return true;
      const text = Buffer.from(key.buffer, key.byteOffset, key.length).toString("latin1");
      if (keys.has(text)) return false;
      keys.add(text);
      return true;
    });
  }

  /** The outcomes of a wave, or why there are none; null when stopped before it was sent. */
  async #send(
    wave: readonly Work[],
    signals: Signals,
  ): Promise<readonly Outcome[] | DisconnectedError | null> {
    try {
      const sink = await this.#parts.sink(signals.stop);
      if (sink === null) return null;
      const outgoing = wave.map((work) => work.outgoing);
      const outcomes = await sink.send(outgoing, signals.abort);
      assert(outcomes.length === wave.length, "a sink answers for each message");
      return outcomes;
    } catch (error) {
      await this.#parts.dropSink();
      if (error instanceof DisconnectedError) return error;
      return new DisconnectedError(errorText(error), { cause: error });
    }
  }

  /** What of a wave is left to be sent again, and how long to wait before that. */
  async #settle(wave: readonly Work[], outcomes: readonly Outcome[] | DisconnectedError) {
    const left = new Set<Work>();
    let delayMs = 0;
    const lost = outcomes instanceof DisconnectedError ? outcomes : null;
    for (const [index, work] of wave.entries()) {
      const outcome = Array.isArray(outcomes) ? (outcomes[index] as Outcome) : { unknown: true };
      if ("sent" in outcome) {
        this.#troubles.delete(work.message.offset);
        this.#parts.onSent(work);
        continue;
      }
      const wait = await this.#trouble(work, outcome as Outcome, lost);
      if (wait === null) continue;
      left.add(work);
      delayMs = Math.max(delayMs, wait);
    }
    this.#failures = left.size < wave.length ? 0 : this.#failures + 1;
    // A target that is unsure of everything is not asked again at once.
    const hasToRest = lost !== null || (this.#failures > 0 && delayMs === 0);
    return { left, delayMs: hasToRest ? Math.max(delayMs, this.#restMs()) : delayMs };
  }

  #restMs(): number {
    const bounds = { delayMinMs: reconnectDelayMinMs, delayMaxMs: reconnectDelayMaxMs };
    return backoffMs(this.#failures, bounds, this.#parts.random);
  }

  /** The wait before the message is tried again; null when it was given up. */
  async #trouble(work: Work, outcome: Outcome, lost: Error | null): Promise<number | null> {
    const { retry, random, clock, onGivenUp, onTrouble } = this.#parts;
    const { offset } = work.message;
    const trouble = this.#troubles.get(offset) ?? { attempts: 0, sinceMs: clock.nowMs() };
    this.#troubles.set(offset, trouble);
    const refused = "refused" in outcome ? outcome.refused : null;
    const reason = refused ?? lost?.message ?? unsureReason(outcome);
    if (refused !== null) trouble.attempts++;
    if (this.#isOver(outcome, trouble)) {
      await onGivenUp(work, { reason, attempts: Math.max(1, trouble.attempts) });
      this.#troubles.delete(offset);
      return null;
    }
    onTrouble(work, reason, trouble);
    if (refused !== null) return backoffMs(trouble.attempts, retry, random);
    return "busyMs" in outcome ? Math.min(outcome.busyMs, retry.delayMaxMs) : 0;
  }

  #isOver(outcome: Outcome, trouble: Trouble): boolean {
    const { retry, blocks, clock } = this.#parts;
    if (blocks) return false;
    if ("refused" in outcome) {
      return outcome.final === true || trouble.attempts >= retry.attempts;
    }
    return retry.maxAgeMs !== null && clock.nowMs() - trouble.sinceMs >= retry.maxAgeMs;
  }
}

function unsureReason(outcome: Outcome): string {
  return "busyMs" in outcome ? "the target is busy" : "the target did not confirm";
}
