/** Ends of a place that are opened anew, bridge and all, whenever they are disconnected. */
import type { Bridge, Delivery, Sink, Source } from "../../src/bridge.ts";
import { systemClock } from "../../src/clock.ts";
import { DisconnectedError, InvalidError } from "../../src/errors.ts";
import type { Session } from "./session.ts";

/** Long enough for a client's own ways to notice; a bound against a hang, never waited for. */
const RECONNECT_PAUSE_MS = 50;

/** What is opened: an end that is not asked for is not. */
export interface Wanted {
  readonly source?: boolean;
  readonly sink?: boolean;
}

export class Reopening {
  readonly #session: Session;
  readonly #config: unknown;
  readonly #wanted: Wanted;
  readonly #triesMax: number;
  #bridge: Bridge | null = null;
  #source: Source | null = null;
  #sink: Sink | null = null;

  constructor(
    session: Session,
    config: unknown,
    { triesMax = 100, ...wanted }: Wanted & { readonly triesMax?: number } = {},
  ) {
    this.#session = session;
    this.#config = config;
    this.#wanted = wanted;
    this.#triesMax = triesMax;
  }

  /** Does something while the bridge and its ends are open. */
  async withBridge<T>(use: (bridge: Bridge) => Promise<T>): Promise<T> {
    return await this.#with(async () => await use(this.#bridge as Bridge));
  }

  /** Receives from the source as it is, which is not opened anew, until it ends. */
  async receivingOn(signal: AbortSignal): Promise<void> {
    const source = this.#source;
    while (source !== null && (await source.receive(signal)) !== null);
  }

  /** Does something with the source. */
  async withSource<T>(use: (source: Source) => Promise<T>): Promise<T> {
    return await this.#with(async () => await use(this.#source as Source));
  }

  /** Does something with the sink. */
  async withSink<T>(use: (sink: Sink) => Promise<T>): Promise<T> {
    return await this.#with(async () => await use(this.#sink as Sink));
  }

  async #with<T>(use: () => Promise<T>): Promise<T> {
    const { source = true, sink = true } = this.#wanted;
    let last: unknown = null;
    for (let tries = 0; tries < this.#triesMax; tries += 1) {
      try {
        this.#bridge ??= await this.#session.connect(this.#config);
        if (source) this.#source ??= await this.#session.source({ bridge: this.#bridge });
        if (sink) this.#sink ??= await this.#session.sink({ bridge: this.#bridge });
        return await use();
      } catch (error) {
        // A broker that has just come back may not know its queues yet.
        if (!(error instanceof DisconnectedError || error instanceof InvalidError)) throw error;
        last = error;
        await this.close();
        await systemClock.sleep(RECONNECT_PAUSE_MS);
      }
    }
    throw new Error("never connected again", { cause: last });
  }

  async close(): Promise<void> {
    const bridge = this.#bridge;
    this.#bridge = this.#source = this.#sink = null;
    await bridge?.[Symbol.asyncDispose]();
  }
}

/** Whether the ack counted; a lost connection means that it did not. */
export async function acked(delivery: Delivery): Promise<boolean> {
  try {
    await delivery.ack();
    return true;
  } catch (error) {
    if (error instanceof DisconnectedError) return false;
    throw error;
  }
}
