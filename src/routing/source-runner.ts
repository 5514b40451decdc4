/**
 * Keeps one source running: opens it on its bridge, takes messages in, opens it anew after a loss.
 */
import { backoffMs } from "../backoff.ts";
import type { Source, SourceGap } from "../bridge.ts";
import { errorText } from "../errors.ts";
import {
  connectTimeoutMs,
  reconnectDelayMaxMs,
  reconnectDelayMinMs,
  stopTimeoutMs,
  unsettledBytesMax,
} from "../limits.ts";
import type { SourceDocument } from "../rules/document.ts";
import type { Nodes } from "../rules/store/nodes.ts";
import type { BridgeConnection } from "./connection.ts";
import { type Intake, ingest } from "./ingest.ts";
import { forgetMemory, sourceMemory } from "./source-memory.ts";
import type { SourceStatus } from "./status.ts";
import { within } from "./within.ts";

/** What a source is made from. */
export interface SourceParts {
  readonly document: SourceDocument;
  readonly connection: BridgeConnection;
  /** Null: the source is shared, or there is one gateway. */
  readonly turns: Turns | null;
}

/** By which one gateway alone runs a source. */
export type Turns = Pick<Nodes, "take" | "holder">;

/** A source as it runs. Start it once, stop it once. */
export class SourceRunner {
  readonly #document: SourceDocument;
  readonly #connection: BridgeConnection;
  readonly #intake: Intake;
  /** Null: whoever has the source may run it. */
  readonly #turns: Turns | null;
  readonly #stop = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  /** The turn is new: what is kept may be older than what another gateway has read. */
  #isNewTurn = false;
  #state: SourceStatus["state"] = "waiting";
  #error: string | null = null;
  #messages = 0;
  #gaps = 0;
  #lastGap: string | null = null;

  constructor({ document, connection, turns }: SourceParts, intake: Intake) {
    this.#document = document;
    this.#connection = connection;
    this.#turns = turns;
    this.#intake = {
      ...intake,
      onTaken: (messages) => {
        this.#messages += messages;
        intake.onTaken(messages);
      },
    };
  }

  get status(): SourceStatus {
    const { status } = this.#connection;
    const elsewhere =
      this.#state === "standby" ? (this.#turns?.holder(this.#intake.name) ?? null) : null;
    return {
      state: this.#state,
      stream: this.#document.stream,
      error: elsewhere ?? this.#error ?? status.error,
      messages: this.#messages,
      gaps: this.#gaps,
      lastGap: this.#lastGap,
    };
  }

  start(): void {
    this.#loop = this.#run();
  }

  /** Ends it, soon; what was not acked is given back by the broker. */
  async stop(): Promise<void> {
    this.#stop.abort();
    const { clock, warn, name } = this.#intake;
    try {
      await within(this.#loop, { clock, ms: stopTimeoutMs });
    } catch (error) {
      // Closing its bridge ends it; what it still appends it can't ack any more.
      warn(`source ${name} did not stop: ${errorText(error)}`);
    }
    this.#state = "stopped";
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const turns = this.#turns;
    if (turns === null) return await this.#keepOpen(signal);
    while (!signal.aborted) {
      this.#state = "standby";
      const turn = await turns.take(this.#intake.name, signal);
      if (turn === null) return;
      this.#state = "waiting";
      this.#isNewTurn = true;
      try {
        await this.#keepOpen(AbortSignal.any([signal, turn.lost]));
      } finally {
        turn.release();
      }
    }
  }

  async #keepOpen(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#intake;
    const bounds = { delayMinMs: reconnectDelayMinMs, delayMaxMs: reconnectDelayMaxMs };
    let failures = 0;
    while (!signal.aborted) {
      try {
        const source = await this.#open(signal);
        if (source === null) return;
        this.#state = "running";
        this.#error = null;
        const before = this.#messages;
        await this.#takeIn(source, signal).finally(() => {
          if (this.#messages > before) failures = 0;
        });
      } catch (error) {
        this.#error = errorText(error);
      }
      this.#state = "waiting";
      failures++;
      if (!signal.aborted) await clock.sleep(backoffMs(failures, bounds, random), signal);
    }
  }

  async #takeIn(source: Source, signal: AbortSignal): Promise<void> {
    try {
      await ingest(source, this.#intake, signal);
    } finally {
      const closing = source[Symbol.asyncDispose]() as Promise<void>;
      await within(closing, { clock: this.#intake.clock, ms: stopTimeoutMs });
    }
  }

  async #open(signal: AbortSignal): Promise<Source | null> {
    const bridge = await this.#connection.acquire(signal);
    if (bridge === null) return null;
    const { text, fields, bridge: bridgeName } = this.#document.from;
    const { clock, name, states } = this.#intake;
    const { start } = this.#document;
    const onGap = (gap: SourceGap): void => this.#tellGap(gap);
    const options = { name, start, unsettledBytesMax, onGap };
    if (this.#isNewTurn && states !== undefined) await forgetMemory(states, name);
    this.#isNewTurn = false;
    const memory = states === undefined ? null : await sourceMemory(states, name, bridgeName);
    const opening = bridge.source(
      { text, fields },
      memory === null ? options : { ...options, memory },
    );
    return within(opening, { clock, ms: connectTimeoutMs, signal });
  }

  /** The broker has lost what was not read: counted, shown and logged, never passed over. */
  #tellGap({ place, reason }: SourceGap): void {
    this.#gaps++;
    this.#lastGap = `${place}: ${reason}`;
    this.#intake.warn(`source ${this.#intake.name} has a gap: ${this.#lastGap}`);
  }
}
