/**
 * The client SDK's door: `connect` gives a client that reads streams and publishes to them over
 * one socket, through outages, restarts and sleep. No dependencies; runs in browsers, React
 * Native, Node, Bun and Deno.
 */
import { defaultTuning, type Tuning } from "./closes.ts";
import { type ClientState, Connection, type TokenSource } from "./connection.ts";
import { ClientError as Failure } from "./error.ts";
import type { PublishInput, ServerFrame } from "./frames.ts";
import { defaultBounds, Outbox, type OutboxBounds, type Receipt } from "./outbox.ts";
import { newId, type Platform, systemPlatform } from "./platform.ts";
import { indexedDbStore, Keeper, type Store } from "./store.ts";
import { type SubscribeOptions, Subscription } from "./subscription.ts";

/** The class of every error that a client gives, for `instanceof`. */
export const ClientError = Failure;
export type ClientError = Failure;

/** How to connect. */
export interface ConnectOptions {
  /** The gateway's address: `https://gateway.example`, or its socket's own. */
  readonly url: string;
  /** A callback is asked at the start, and again when the token has expired. */
  readonly token: TokenSource;
  /** What outlives the client: `indexeddb`, `indexeddb:NAME` or a store; nothing when missing. */
  readonly store?: Store | "indexeddb" | `indexeddb:${string}`;
  /** How much may wait to be published. */
  readonly outbox?: Partial<OutboxBounds>;
  readonly tuning?: Partial<Tuning>;
  /** Parts of the runtime, where it lacks them. */
  readonly platform?: Partial<Platform>;
  /** Told what nobody waits for: the store fails, a publish of an earlier run is refused. */
  readonly onError?: (error: ClientError) => void;
  /** Closes the client. */
  readonly signal?: AbortSignal;
}

/** Connects, and stays connected until it is closed or told to stop. */
export function connect(options: ConnectOptions): Client {
  return new Client(options);
}

/** A connected client. */
export class Client {
  readonly #platform: Platform;
  readonly #tuning: Tuning;
  readonly #connection: Connection;
  readonly #keeper: Keeper | null;
  readonly #outbox: Outbox;
  readonly #subscriptions = new Map<string, Subscription>();
  readonly #listeners = new Set<(state: ClientState) => void>();
  readonly #ignoreWakes: () => void;
  readonly #tell: (error: Failure) => void;
  /** Of this client over all of its connections. */
  readonly #id: string;
  #ids = 0;
  #isLoaded = false;

  constructor(options: ConnectOptions) {
    const { url, token, store = null, onError, signal } = options;
    const platform = { ...systemPlatform, ...options.platform };
    this.#platform = platform;
    this.#id = newId(platform.unixMs(), platform.random);
    this.#tuning = { ...defaultTuning, ...options.tuning };
    this.#tell = (error) => queueMicrotask(() => onError?.(error));
    const kept = typeof store === "string" ? indexedDbStore(store.slice(10) || "isthmus") : store;
    this.#keeper = kept === null ? null : new Keeper(kept, this.#tell);
    this.#connection = new Connection({
      url: socketUrl(url),
      token,
      platform,
      tuning: this.#tuning,
      changed: (state) => this.#changed(state),
      frame: (frame) => this.#frame(frame),
    });
    this.#outbox = new Outbox({
      bounds: { ...defaultBounds, ...options.outbox },
      keeper: this.#keeper,
      newId: () => newId(platform.unixMs(), platform.random),
      send: (text) => this.#connection.send(text),
      refused: this.#tell,
      pause: (run) => this.#pause(run),
    });
    this.#ignoreWakes = platform.onWake(() => this.wake());
    signal?.addEventListener("abort", () => this.#stop());
    if (signal?.aborted === true) this.#stop();
    this.#outbox
      .load()
      .catch((error: unknown) => {
        this.#tell(new Failure("store-failed", "the store could not be read", error));
      })
      .then(() => {
        this.#isLoaded = true;
        this.wake();
      })
      .catch((error: unknown) => this.#connection.close(new Failure("invalid", "", error)));
  }

  /** How the connection stands. */
  get state(): ClientState {
    return this.#connection.state;
  }

  /** Listens to changes of the state; gives what ends it. */
  onState(listener: (state: ClientState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Reads a stream: `for await (const message of client.subscribe("orders"))`. Every message comes
   * once, in order within its partition. The loop ends with the client or its signal, and throws
   * ClientError when the server refuses.
   */
  subscribe(stream: string, options: SubscribeOptions = {}): Subscription {
    const id = `s${++this.#ids}`;
    const subscription = new Subscription({
      id,
      stream,
      options,
      client: this.#id,
      keeper: this.#keeper,
      send: (frame) => this.#connection.send(frame),
      later: this.#platform.later,
      pause: (run) => this.#pause(run),
      ended: () => this.#subscriptions.delete(id),
    });
    const { status, error } = this.state;
    if (status === "closed") {
      subscription.end(error);
      return subscription;
    }
    if (options.signal?.aborted === true) return subscription;
    this.#subscriptions.set(id, subscription);
    subscription.load().catch((cause: unknown) => {
      subscription.end(new Failure("store-failed", "the kept place could not be read", cause));
    });
    return subscription;
  }

  /**
   * Publishes; resolves when the message is on the server's disk, however long the way there is.
   * Publishes keep their order. Rejects with ClientError: `outbox-full` when too much waits,
   * `closed`, `aborted`, or what the server refuses it for.
   */
  publish(stream: string, input: PublishInput, signal?: AbortSignal): Promise<Receipt> {
    return this.#outbox.publish(stream, input, signal);
  }

  /** Tries again at once, or looks whether the connection is alive: call it when an app returns. */
  wake(): void {
    if (this.#isLoaded) this.#connection.wake();
  }

  /** Ends everything; resolves when the store is up to date. Loops end, publishes reject. */
  async close(): Promise<void> {
    this.#stop();
    await this.#keeper?.idle();
  }

  #stop(): void {
    // While there is a connection, for what was settled is told now.
    for (const subscription of this.#subscriptions.values()) subscription.end(null);
    this.#connection.close(null);
  }

  #changed(state: ClientState): void {
    const subscriptions = [...this.#subscriptions.values()];
    if (state.status === "online") {
      for (const subscription of subscriptions) subscription.up();
      this.#outbox.resend();
    }
    if (state.status === "offline") for (const each of subscriptions) each.down();
    if (state.status === "closed") {
      this.#ignoreWakes();
      for (const subscription of subscriptions) subscription.end(state.error);
      this.#outbox.end(state.error ?? new Failure("closed", "the client was closed"));
    }
    for (const listener of this.#listeners) queueMicrotask(() => listener(state));
  }

  #frame(frame: ServerFrame): void {
    if (typeof frame.ref === "string") return this.#outbox.settle(frame);
    if (frame.op === "error" && frame.code === "taken-over") {
      // Not left to the close that follows: coming back would take the name over in turn.
      return this.#connection.close(new Failure(frame.code, frame.message ?? frame.code));
    }
    const [id = ""] = (frame.sub ?? "").split(".");
    this.#subscriptions.get(id)?.frame(frame);
  }

  #pause(run: () => void): void {
    this.#platform.later(this.#tuning.minMs * (1 + this.#platform.random()), run);
  }
}

/** The socket's address, from the gateway's. */
function socketUrl(url: string): string {
  const address = url.replace(/^http/, "ws").replace(/\/+$/, "");
  return address.endsWith("/socket") ? address : `${address}/socket`;
}
