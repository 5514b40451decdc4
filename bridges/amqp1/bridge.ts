/**
 * A live bridge to an AMQP 1.0 broker: one connection from the start, and one more for durable
 * subscriptions from the first of them on, since a broker finds those by the name of the
 * connection, which must then be the same each time and is free for one connection only. Losing
 * either ends the bridge as a whole.
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
import type { Amqp1Config } from "./module.ts";
import { Amqp1Sink } from "./sink.ts";
import { Amqp1Source } from "./source.ts";

/** A connected bridge. */
export class Amqp1Bridge implements Bridge {
  readonly #name: string;
  readonly #endpoint: Endpoint;
  readonly #durableId: string;
  readonly #ending = new AbortController();
  readonly #closed = Promise.withResolvers<Error | null>();
  #main: Link | null = null;
  #durable: Promise<Link> | null = null;
  #disposing: Promise<void> | null = null;

  private constructor(name: string, config: Amqp1Config) {
    const { clientId, ...rest } = config;
    this.#name = name;
    this.#durableId = clientId ?? `isthmus-${name}`;
    this.#endpoint = { ...rest, containerId: `${this.#durableId}-${crypto.randomUUID()}` };
  }

  /**
   * @throws DisconnectedError @throws InvalidError a reference or the broker's protocol is wrong.
   */
  static async open(config: Amqp1Config, context: ConnectContext): Promise<Amqp1Bridge> {
    const bridge = new Amqp1Bridge(context.name, await resolveAll(config, context.resolve));
    bridge.#main = await bridge.#open(bridge.#endpoint, context.signal);
    return bridge;
  }

  get closed(): Promise<Error | null> {
    return this.#closed.promise;
  }

  async source(address: Address, options: SourceOptions): Promise<Source> {
    const { fields } = address;
    const isDurable = fields["topic"] !== undefined && fields["durable"] !== false;
    const link = isDurable ? await this.#openDurable() : this.#link();
    return await Amqp1Source.open({
      link,
      bridge: this.#name,
      fields,
      options,
      clock: systemClock,
    });
  }

  async sink(address: Address): Promise<Sink> {
    return await Amqp1Sink.open(this.#link(), address.fields, systemClock);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposing ??= this.#dispose();
    await this.#disposing;
  }

  async #dispose(): Promise<void> {
    this.#ending.abort();
    await this.#main?.[Symbol.asyncDispose]();
    const [durable] = await Promise.allSettled([this.#durable]);
    if (durable.status === "fulfilled") await durable.value?.[Symbol.asyncDispose]();
    this.#closed.resolve(null);
  }

  async #open(endpoint: Endpoint, signal: AbortSignal): Promise<Link> {
    return await Link.open(endpoint, signal, (reason) => {
      // The loss of one connection closes the other and ends the bridge.
      this.#closed.resolve(reason);
      this.#disposing ??= this.#dispose();
    });
  }

  async #openDurable(): Promise<Link> {
    this.#link();
    const endpoint = { ...this.#endpoint, containerId: this.#durableId };
    this.#durable ??= this.#open(endpoint, this.#ending.signal);
    try {
      return await this.#durable;
    } catch (error) {
      this.#durable = null;
      throw error;
    }
  }

  #link(): Link {
    if (this.#disposing !== null || this.#main === null) {
      throw new DisconnectedError("the bridge is closed");
    }
    return this.#main;
  }
}
