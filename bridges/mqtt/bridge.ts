/**
 * A live bridge to an MQTT broker: one connection for all sinks, and one with a session of its own
 * for each source, because a broker keeps what a source missed by the id of its client. A source's
 * client id ends with a mark of its filter: with another filter it is another session, and the old
 * filter's messages do not go on arriving in it. The sinks' connection has no session and a new id
 * each time, so that several gateways of one configuration don't take each other's connection.
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
import { DisconnectedError, errorText, InvalidError } from "../../src/errors.ts";
import { resolveAll } from "../document.ts";
import { type Endpoint, Link } from "./link.ts";
import type { MqttConfig } from "./module.ts";
import { MqttSink } from "./sink.ts";
import { MqttSource } from "./source.ts";
import { parseFilter } from "./topic.ts";
import { PublishWindow } from "./window.ts";

/** The least that MQTT 5 brokers must take unacked is 1; sinks subscribe to nothing. Count. */
const SINK_RECEIVE_MAX = 1;
/** Hex digits of the filter's digest in a client id: some brokers bound ids. Count. */
const MARK_LENGTH = 8;

/** A connected bridge. */
export class MqttBridge implements Bridge {
  readonly #name: string;
  readonly #config: MqttConfig;
  readonly #endpoint: Endpoint;
  readonly #clientId: string;
  readonly #ending = new AbortController();
  readonly #closed = Promise.withResolvers<Error | null>();
  readonly #sources = new Set<MqttSource>();
  #link: Link | null = null;
  #window: PublishWindow | null = null;
  #disposing: Promise<void> | null = null;

  private constructor(name: string, config: MqttConfig) {
    this.#name = name;
    this.#config = config;
    this.#endpoint = config;
    this.#clientId = config.clientId ?? `isthmus-${name}`;
  }

  /** @throws DisconnectedError @throws InvalidError a reference or the MQTT version is wrong. */
  static async open(config: MqttConfig, context: ConnectContext): Promise<MqttBridge> {
    const resolved = await resolveAll(config, context.resolve);
    const bridge = new MqttBridge(context.name, resolved);
    const link = await Link.open(
      bridge.#endpoint,
      {
        clientId: `${bridge.#clientId}-${crypto.randomUUID().slice(0, MARK_LENGTH)}`,
        sessionExpiryMs: 0,
        cleanStart: true,
        receiveMaximum: SINK_RECEIVE_MAX,
        will: resolved.will,
        onPublish: () => {
          // Subscribed to nothing.
        },
        onLost: (reason) => bridge.#lost(reason),
      },
      context.signal,
    );
    bridge.#link = link;
    bridge.#window = new PublishWindow(link);
    return bridge;
  }

  get closed(): Promise<Error | null> {
    return this.#closed.promise;
  }

  async source(address: Address, options: SourceOptions): Promise<Source> {
    this.#connected();
    const { topic, qos, share } = address.fields;
    const filter = parseFilter(typeof topic === "string" ? topic : "");
    if ("problem" in filter) throw new InvalidError(`the topic ${filter.problem}`);
    const isShared = typeof share === "string";
    if (isShared) this.#assertShares();
    const text = isShared ? `$share/${share}/${filter.text}` : filter.text;
    const mark = new Bun.CryptoHasher("sha256").update(text).digest("hex").slice(0, MARK_LENGTH);
    const source = await MqttSource.open({
      endpoint: this.#endpoint,
      subscription: {
        filter: text,
        qos: qos === 0 ? 0 : qos === 2 ? 2 : 1,
        clientId: `${this.#clientId}-${options.name}-${mark}`,
        cleanStart: this.#config.cleanStart,
        sessionExpiryMs: this.#config.sessionExpiryMs,
      },
      place: { bridge: this.#name, filter },
      options,
      clock: systemClock,
      signal: this.#ending.signal,
    });
    this.#sources.add(source);
    if (this.#disposing !== null) await source[Symbol.asyncDispose]();
    return source;
  }

  async sink(address: Address): Promise<Sink> {
    const { link, window } = this.#connected();
    const { maximumQoS, retainAvailable } = link.limits;
    const { qos, retain } = address.fields;
    if (typeof qos === "number" && maximumQoS !== undefined && qos > maximumQoS) {
      throw new InvalidError(`the broker takes messages up to QoS ${maximumQoS}, not ${qos}`);
    }
    if (retain === true && retainAvailable === false) {
      throw new InvalidError("the broker does not retain messages; give retain: false");
    }
    return new MqttSink({ link, window, version: this.#config.version, clock: systemClock });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposing ??= this.#dispose();
    await this.#disposing;
  }

  async #dispose(why = "the bridge was closed"): Promise<void> {
    this.#ending.abort();
    const sources = [...this.#sources].map(async (source) => await source.close(why));
    await this.#link?.[Symbol.asyncDispose]();
    await Promise.all(sources);
    this.#window?.lost();
    this.#closed.resolve(null);
  }

  #lost(reason: Error): void {
    this.#closed.resolve(reason);
    this.#window?.lost();
    this.#disposing ??= this.#dispose(`the bridge's connection is gone: ${errorText(reason)}`);
  }

  #connected(): { link: Link; window: PublishWindow } {
    const [link, window] = [this.#link, this.#window];
    if (link === null || window === null || this.#disposing !== null) {
      throw new DisconnectedError("the bridge is closed");
    }
    return { link, window };
  }

  #assertShares(): void {
    const available = this.#link?.limits.sharedSubscriptionAvailable !== false;
    if (this.#config.version === 5 && available) return;
    throw new InvalidError("share needs MQTT 5 and a broker with shared subscriptions");
  }
}
