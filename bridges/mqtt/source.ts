/**
 * Takes messages of a topic filter, over a connection and session of its own: the broker keeps what
 * comes while we are away and gives again what we did not ack. Acks are held back until the message
 * is safe and then written in the order received; meanwhile further messages come in, up to a bound
 * of bytes, at which the connection is not read on. A broker never gives a message again on the
 * same connection, so a nack ends this one and the next brings it back.
 */
import type { IPublishPacket } from "mqtt";
import type { Delivery, Source, SourceOptions } from "../../src/bridge.ts";
import type { Clock } from "../../src/clock.ts";
import { DisconnectedError, errorText, InvalidError } from "../../src/errors.ts";
import { Inbox } from "../inbox.ts";
import { type Entry, Settling } from "../settling.ts";
import { decodeMessage, idGiven, type Place } from "./codec.ts";
import { type Endpoint, Link } from "./link.ts";
import { Releases } from "./releases.ts";

/** Messages unsettled at most, however small. Count. */
const UNSETTLED_MAX = 2000;
/** What a message counts beside its body, so that empty ones are bounded too. Bytes. */
const MESSAGE_BYTES = 64;

interface Arrival {
  readonly packet: IPublishPacket;
  readonly qos: number;
  /** What names a message of QoS 2 for ever. */
  readonly name: string | null;
}

/** What a source subscribes with. */
export interface Subscription {
  /** What is sent to the broker, `$share/` included. */
  readonly filter: string;
  readonly qos: 0 | 1 | 2;
  readonly clientId: string;
  readonly cleanStart: boolean;
  readonly sessionExpiryMs: number;
}

/** The reading end of one topic filter. */
export class MqttSource implements Source {
  readonly #place: Place;
  readonly #clock: Clock;
  readonly #bytesMax: number;
  readonly #inbox: Inbox<Arrival>;
  readonly #settling = new Settling<Arrival>();
  /** Null: nothing of this source is kept, so QoS 2 is at least once. */
  #releases: Releases | null = null;
  #link: Link | null = null;

  private constructor(place: Place, clock: Clock, bytesMax: number) {
    this.#place = place;
    this.#clock = clock;
    this.#bytesMax = bytesMax;
    this.#inbox = new Inbox({ bytesOf, unsettledBytesMax: bytesMax });
  }

  /** @throws InvalidError the broker refuses the subscription. @throws DisconnectedError */
  static async open(parts: {
    endpoint: Endpoint;
    subscription: Subscription;
    place: Place;
    options: SourceOptions;
    clock: Clock;
    signal: AbortSignal;
  }): Promise<MqttSource> {
    const { endpoint, subscription, options } = parts;
    const source = new MqttSource(parts.place, parts.clock, options.unsettledBytesMax);
    const releases = await releasesOf(options, subscription);
    source.#releases = releases;
    const link = await Link.open(
      endpoint,
      {
        ...subscription,
        receiveMaximum: UNSETTLED_MAX,
        onPublish: (packet, qos) => source.#arrived(packet, qos),
        onLost: () => source.#lost(),
        ...(releases === null ? {} : { onRelease: async (id) => await releases.release(id) }),
      },
      parts.signal,
    );
    source.#link = link;
    try {
      if (!link.hadSession) await releases?.begin();
      const subscribed = subscribe(link, subscription, options.start === "earliest");
      // A session that was kept brings what it holds before that answer, perhaps more than may be
      // held here: it is read on only when somebody takes it.
      if (!link.hadSession) await subscribed;
      else subscribed.catch((error: unknown) => source.close(errorText(error)));
    } catch (error) {
      await link[Symbol.asyncDispose]();
      throw error;
    }
    source.#tune();
    return source;
  }

  async receive(signal: AbortSignal): Promise<Delivery | null> {
    const taken = await this.#inbox.take(signal);
    if (taken === null) return null;
    const entry = this.#settling.add(taken.items, taken.bytes);
    const options = { place: this.#place, nowMs: this.#clock.nowMs() };
    return {
      messages: taken.items.map(({ packet, qos }) => decodeMessage(packet, qos, options)),
      ids: taken.items.map(({ packet }) => idGiven(packet)),
      uniqueIds: taken.items.map(({ name }) => name),
      ack: async () => this.#ack(entry),
      nack: async () => await this.#nack(entry),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close("the source was closed");
  }

  /** Closes the source; who waits in `receive` is told why. */
  async close(why: string): Promise<void> {
    this.#inbox.fail(new DisconnectedError(why));
    await this.#link?.[Symbol.asyncDispose]();
  }

  #ack(entry: Entry<Arrival>): void {
    const { failure } = this.#inbox;
    if (failure !== null) throw failure;
    const acked = this.#settling.settle(entry, "acked");
    const acks = acked.flatMap(({ items }) =>
      items.flatMap(({ packet, qos }) =>
        qos > 0 && packet.messageId !== undefined ? [{ messageId: packet.messageId, qos }] : [],
      ),
    );
    this.#link?.ack(acks);
    for (const one of acked) this.#inbox.settled(one);
    this.#tune();
  }

  async #nack(entry: Entry<Arrival>): Promise<void> {
    const { failure } = this.#inbox;
    if (failure !== null) throw failure;
    this.#settling.settle(entry, "nacked");
    this.#inbox.fail(
      new DisconnectedError("a message was given back; the broker gives it again on a new session"),
    );
    await this.#link?.[Symbol.asyncDispose]();
  }

  #arrived(packet: IPublishPacket, qos: number): void {
    const isNamed = qos === 2 && packet.messageId !== undefined;
    const name = isNamed ? (this.#releases?.nameOf(packet.messageId ?? 0) ?? null) : null;
    this.#inbox.push({ packet, qos, name });
    this.#tune();
  }

  #lost(): void {
    this.#inbox.fail(this.#link?.disconnected() ?? new DisconnectedError("the connection is gone"));
  }

  /** Reads on or not, by what is held. */
  #tune(): void {
    if (this.#link === null) return;
    const { heldBytes, heldCount } = this.#inbox;
    this.#link.paused = heldBytes >= this.#bytesMax || heldCount >= UNSETTLED_MAX;
  }
}

/** Packet ids mean something only where a message may come with QoS 2. */
async function releasesOf(
  { memory }: SourceOptions,
  { qos, clientId }: Subscription,
): Promise<Releases | null> {
  return memory === undefined || qos < 2 ? null : await Releases.load(memory, clientId);
}

function bytesOf({ packet }: Arrival): number {
  return packet.payload.length + MESSAGE_BYTES;
}

/** `retained`: a new subscription begins with what the broker retains for its topics. */
async function subscribe(
  link: Link,
  { filter, qos }: Subscription,
  retained: boolean,
): Promise<void> {
  // 1: only when the subscription is new, so that a reconnect does not bring them again; 2: never.
  const options = { qos, rap: true, rh: retained ? 1 : 2 };
  try {
    await link.client.subscribeAsync(filter, options);
  } catch (error) {
    const code = refusalCode(error);
    if (link.isLost || code === null) throw link.disconnected();
    throw new InvalidError(
      `the broker refused the subscription to "${filter}" with 0x${code.toString(16)}`,
      [],
      { cause: error },
    );
  }
}

/** The failure in a SUBACK, or null when there was none to read. */
function refusalCode(error: unknown): number | null {
  if (!(error instanceof Error)) return null;
  const { packet } = error as { packet?: { granted?: unknown } };
  const granted: readonly unknown[] = Array.isArray(packet?.granted) ? packet.granted : [];
  const refused = granted.find((code) => typeof code === "number" && code >= 0x80);
  return typeof refused === "number" ? refused : null;
}
