/**
 * A live bridge to an AMQP 0-9-1 broker: one connection for publishing from the start, one for
 * consuming from the first source on. Losing either ends the bridge as a whole.
 */
import type {
  Address,
  Bridge,
  ConnectContext,
  Sink,
  Source,
  SourceOptions,
} from "../../src/bridge.ts";
import { systemClock } from "../../src/clock.ts";
import { DisconnectedError } from "../../src/errors.ts";
import { resolveAll } from "../document.ts";
import { type Endpoint, Link } from "./link.ts";
import type { AmqpConfig } from "./module.ts";
import { bindingOf, creationOf } from "./places.ts";
import { AmqpSink } from "./sink.ts";
import { AmqpSource, type SourcePlace } from "./source.ts";

/** A connected bridge. */
export class AmqpBridge implements Bridge {
  readonly #name: string;
  readonly #endpoint: Endpoint;
  readonly #ending = new AbortController();
  readonly #closed = Promise.withResolvers<Error | null>();
  #publishing: Link | null = null;
  #consuming: Promise<Link> | null = null;
  #disposing: Promise<void> | null = null;

  private constructor(name: string, endpoint: Endpoint) {
    this.#name = name;
    this.#endpoint = endpoint;
  }

  /**
   * @throws DisconnectedError @throws InvalidError a reference or the broker's protocol is wrong.
   */
  static async open(config: AmqpConfig, context: ConnectContext): Promise<AmqpBridge> {
    const resolved = await resolveAll(config, context.resolve);
    const bridge = new AmqpBridge(context.name, { ...resolved, label: `isthmus ${context.name}` });
    bridge.#publishing = await bridge.#open(context.signal);
    return bridge;
  }

  get closed(): Promise<Error | null> {
    return this.#closed.promise;
  }

  async source(address: Address, options: SourceOptions): Promise<Source> {
    this.#assertOpen();
    this.#consuming ??= this.#openConsuming();
    const link = await this.#consuming;
    const place = placeOf(address.fields);
    return await AmqpSource.open({ link, bridge: this.#name, place, options, clock: systemClock });
  }

  async sink(address: Address): Promise<Sink> {
    this.#assertOpen();
    if (this.#publishing === null) throw new DisconnectedError("the bridge is not open");
    return await AmqpSink.open(this.#publishing, address.fields, systemClock);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposing ??= this.#dispose();
    await this.#disposing;
  }

  async #dispose(): Promise<void> {
    this.#ending.abort();
    await this.#publishing?.[Symbol.asyncDispose]();
    const [consuming] = await Promise.allSettled([this.#consuming]);
    if (consuming.status === "fulfilled") await consuming.value?.[Symbol.asyncDispose]();
    this.#closed.resolve(null);
  }

  async #open(signal: AbortSignal): Promise<Link> {
    return await Link.open(this.#endpoint, signal, (reason) => {
      // The loss of one connection closes the other and ends the bridge.
      this.#closed.resolve(reason);
      this.#disposing ??= this.#dispose();
    });
  }

  async #openConsuming(): Promise<Link> {
    try {
      return await this.#open(this.#ending.signal);
    } catch (error) {
      this.#consuming = null;
      throw error;
    }
  }

  #assertOpen(): void {
    if (this.#disposing !== null) throw new DisconnectedError("the bridge is closed");
  }
}

function placeOf(fields: Address["fields"]): SourcePlace {
  const { queue, exchange, bind, create } = fields;
  if (typeof queue === "string") return { queue, creation: creationOf(create) };
  return { exchange: String(exchange), bind: (Array.isArray(bind) ? bind : ["#"]).map(bindingOf) };
}
