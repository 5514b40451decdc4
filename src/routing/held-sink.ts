/**
 * The open targets of one route: one sink for each revision that has messages on their way. A sink
 * is opened before there is a message for it, so that what is missing is made, or told, when the
 * rule starts.
 */
import type { Sink } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import { stopTimeoutMs } from "../limits.ts";
import type { RunningRevision } from "./route-parts.ts";
import { within } from "./within.ts";

/** Opens a sink; waits while its bridge is away; null when aborted. */
export type OpenSink = (signal: AbortSignal) => Promise<Sink | null>;

/** Holds the sinks of a route's revisions. */
export class HeldSinks {
  readonly #clock: Clock;
  readonly #held = new Map<number, HeldSink>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * The sink of a revision, opened when it is not; null when aborted.
   * @throws GatewayError it can't be opened now; call again later.
   */
  async get(of: RunningRevision, signal: AbortSignal): Promise<Sink | null> {
    let held = this.#held.get(of.revision);
    if (held === undefined) {
      held = new HeldSink(of.openSink, this.#clock);
      this.#held.set(of.revision, held);
    }
    return await held.get(signal);
  }

  /**
   * Closes a sink that failed, unless another one has taken its place.
   * @throws GatewayError it did not close; it is given up.
   */
  async drop(revision: number, failed: Sink): Promise<void> {
    await this.#held.get(revision)?.drop(failed);
  }

  /** Closes the sinks of all other revisions. @throws GatewayError one did not close. */
  async keepOnly(revisions: ReadonlySet<number>): Promise<void> {
    const gone = [...this.#held].filter(([revision]) => !revisions.has(revision));
    for (const [revision] of gone) this.#held.delete(revision);
    await Promise.all(gone.map(([, held]) => held.close()));
  }
}

/** One sink. Openings happen one after another. */
class HeldSink {
  readonly #openSink: OpenSink;
  readonly #clock: Clock;
  readonly #closing = new AbortController();
  #open: Sink | null = null;
  #opening: Promise<Sink | null> | null = null;

  constructor(openSink: OpenSink, clock: Clock) {
    this.#openSink = openSink;
    this.#clock = clock;
  }

  async get(signal: AbortSignal): Promise<Sink | null> {
    if (this.#open !== null) return this.#open;
    this.#opening ??= this.#openNow(AbortSignal.any([signal, this.#closing.signal]));
    return await this.#opening;
  }

  async drop(failed: Sink): Promise<void> {
    if (this.#open === failed) await this.#dispose();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    // Whoever asked for it has been told how the opening ended; what came of it is closed here.
    await this.#opening?.then(opened, opened);
    await this.#dispose();
  }

  async #openNow(signal: AbortSignal): Promise<Sink | null> {
    try {
      this.#open = await this.#openSink(signal);
      return this.#open;
    } finally {
      this.#opening = null;
    }
  }

  async #dispose(): Promise<void> {
    const sink = this.#open;
    this.#open = null;
    if (sink === null) return;
    const closing = sink[Symbol.asyncDispose]() as Promise<void>;
    await within(closing, { clock: this.#clock, ms: stopTimeoutMs });
  }
}

function opened(): void {}
