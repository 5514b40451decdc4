/**
 * Keeps one bridge connected for as long as somebody uses it: connects, notices a loss, connects
 * again with backoff. Sources and routes wait here while it is down; nothing else waits for them.
 */
import { fullJitterMs } from "../backoff.ts";
import { type Bridge, type BridgeModule, type Loss, noLosses } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import { errorText } from "../errors.ts";
import {
  connectTimeoutMs,
  reconnectDelayMaxMs,
  reconnectDelayMinMs,
  stopTimeoutMs,
} from "../limits.ts";
import type { Message } from "../message.ts";
import type { BridgeStatus } from "./status.ts";
import { within } from "./within.ts";

/** What a connection is made from. */
export interface ConnectionParts {
  readonly name: string;
  readonly module: BridgeModule;
  readonly config: unknown;
  /** Resolves references in the configuration's texts when they are used. */
  readonly resolve: (text: string) => Promise<string>;
  readonly clock: Clock;
  readonly random: () => number;
  /** Told of each change, for the log. */
  readonly onChange: (status: BridgeStatus) => void;
}

/** A bridge that is connected when it is needed. */
export class BridgeConnection implements AsyncDisposable {
  readonly module: BridgeModule;
  readonly #parts: ConnectionParts;
  readonly #closing = new AbortController();
  readonly #waiters = new Set<() => void>();
  #bridge: Bridge | null = null;
  #running: Promise<void> | null = null;
  #status: BridgeStatus;

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
    this.module = parts.module;
    this.#status = { state: "idle", error: null, sinceMs: parts.clock.nowMs() };
  }

  get status(): BridgeStatus {
    return this.#status;
  }

  /** What a message loses on its way out through the bridge, connected or not. */
  lossesOf(message: Message, form: string | null): readonly Loss[] {
    return this.module.translation?.losses(message, this.#parts.config, form) ?? noLosses;
  }

  /** The live bridge; waits for it as long as it takes. Null when aborted or closed. */
  async acquire(signal: AbortSignal): Promise<Bridge | null> {
    this.#running ??= this.#keepConnected();
    while (this.#bridge === null) {
      if (signal.aborted || this.#closing.signal.aborted) return null;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiters.add(resolve);
      const onAbort = (): void => resolve();
      signal.addEventListener("abort", onAbort, { once: true });
      await promise;
      signal.removeEventListener("abort", onAbort);
      this.#waiters.delete(resolve);
    }
    return signal.aborted ? null : this.#bridge;
  }

  /** Closes the bridge and ends every wait. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    this.#wake();
    await this.#running;
  }

  async #keepConnected(): Promise<void> {
    const { clock, random } = this.#parts;
    const { signal } = this.#closing;
    let failures = 0;
    while (!signal.aborted) {
      try {
        if (failures === 0) this.#become("connecting", null);
        const bridge = await this.#connect();
        failures = 0;
        await this.#stayWith(bridge);
      } catch (error) {
        this.#become("down", errorText(error));
      }
      failures++;
      const bounds = { delayMinMs: 2 * reconnectDelayMinMs, delayMaxMs: reconnectDelayMaxMs };
      if (!signal.aborted) await clock.sleep(fullJitterMs(failures, bounds, random), signal);
    }
  }

  async #connect(): Promise<Bridge> {
    const { module, config, name, resolve, clock } = this.#parts;
    const attempt = new AbortController();
    const signal = AbortSignal.any([attempt.signal, this.#closing.signal]);
    const connecting = module.connect(config, { name, resolve, signal });
    try {
      return await within(connecting, { clock, ms: connectTimeoutMs });
    } catch (error) {
      attempt.abort();
      throw error;
    }
  }

  /** Returns once the bridge is lost or this is closed; the bridge is disposed then. */
  async #stayWith(bridge: Bridge): Promise<void> {
    const { signal } = this.#closing;
    this.#bridge = bridge;
    this.#become("connected", null);
    this.#wake();
    const { promise: closing, resolve } = Promise.withResolvers<null>();
    const onAbort = (): void => resolve(null);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    const reason = await Promise.race([bridge.closed, closing]);
    signal.removeEventListener("abort", onAbort);
    this.#bridge = null;
    if (!signal.aborted) {
      this.#become("down", reason === null ? "the connection was closed" : errorText(reason));
    }
    await within(bridge[Symbol.asyncDispose]() as Promise<void>, {
      clock: this.#parts.clock,
      ms: stopTimeoutMs,
    });
  }

  #become(state: BridgeStatus["state"], error: string | null): void {
    const before = this.#status;
    if (before.state === state && before.error === error) return;
    const sinceMs = before.state === state ? before.sinceMs : this.#parts.clock.nowMs();
    this.#status = { state, error, sinceMs };
    this.#parts.onChange(this.#status);
  }

  #wake(): void {
    for (const resolve of this.#waiters) resolve();
    this.#waiters.clear();
  }
}
