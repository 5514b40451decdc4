/**
 * The open target of one route: one sink at a time, of one revision. It is opened before there is
 * a message for it, so that what is missing is made, or told, when the rule starts.
 */
import type { Sink } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import { stopTimeoutMs } from "../limits.ts";
import { within } from "./within.ts";

/** Opens a sink; waits while its bridge is away; null when aborted. */
export type OpenSink = (signal: AbortSignal) => Promise<Sink | null>;

/** Holds a sink open. Openings happen one after another; an outdated early one gives way. */
export class HeldSink {
  readonly #clock: Clock;
  #open: { readonly revision: number; readonly sink: Sink } | null = null;
  #opening: Promise<void> = Promise.resolve();
  #early: { readonly revision: number; readonly abort: AbortController } | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The sink of a revision. @throws GatewayError it can't be opened now; call again later. */
  get(revision: number, open: OpenSink, signal: AbortSignal): Promise<Sink | null> {
    if (this.#early !== null && this.#early.revision !== revision) this.#early.abort.abort();
    const opening = this.#opening.then(() => this.#openNow(revision, open, signal));
    this.#opening = opening.then(settled, settled);
    return opening;
  }

  /** Opens it ahead of need; ends early when another revision is asked for. */
  async prepare(revision: number, open: OpenSink, signal: AbortSignal): Promise<void> {
    const abort = new AbortController();
    const early = { revision, abort };
    this.#early = early;
    try {
      await this.get(revision, open, AbortSignal.any([abort.signal, signal]));
    } finally {
      if (this.#early === early) this.#early = null;
    }
  }

  /** Closes the sink, if there is one. @throws GatewayError it did not close; it is given up. */
  async drop(): Promise<void> {
    const held = this.#open;
    this.#open = null;
    if (held === null) return;
    const closing = held.sink[Symbol.asyncDispose]() as Promise<void>;
    await within(closing, { clock: this.#clock, ms: stopTimeoutMs });
  }

  async #openNow(revision: number, open: OpenSink, signal: AbortSignal): Promise<Sink | null> {
    if (this.#open?.revision === revision) return this.#open.sink;
    await this.drop();
    const sink = await open(signal);
    if (sink !== null) this.#open = { revision, sink };
    return sink;
  }
}

/** Whoever opened it has been told; the next one only waits for its turn. */
function settled(): void {}
