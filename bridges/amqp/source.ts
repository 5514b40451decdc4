/**
 * Takes messages from a queue. The broker pushes as many as the prefetch says; what has arrived
 * together is delivered together. Bodies held unsettled stay within a bound of bytes although the
 * protocol counts messages: a prefetch that is used up is replaced by one that fits the size that
 * messages turned out to have, at once while little is held, else when little is held again. So
 * the count alone never stops who settles late. Acks cover many at once. A queue has no positions,
 * so where a source starts does not apply, and a tap has what came since it was first made; only a
 * stream queue is read from a place (stream-place.ts), and there an ack only asks for more.
 */
import type { Channel, ConsumeMessage } from "amqplib";
import type { Delivery, Source, SourceMemory, SourceOptions } from "../../src/bridge.ts";
import type { Clock } from "../../src/clock.ts";
import { DisconnectedError, errorText, InvalidError } from "../../src/errors.ts";
import type { Message } from "../../src/message.ts";
import { Inbox } from "../inbox.ts";
import { type Entry, Settling } from "../settling.ts";
import { bindQueue } from "./bindings.ts";
import { decodeMessage, type Place } from "./codec.ts";
import { closeChannel, type Link, refusalOf } from "./link.ts";
import { type Binding, type Creation, problemOf, queueOptions } from "./places.ts";
import { isStreamQueue, nameInStream, placed, StreamPlace } from "./stream-place.ts";

/** Messages that the broker pushes before anything is known of their size. Count. */
const PREFETCH_FIRST = 64;
/** Messages of one prefetch at most, however small: more would only wait here. Count. */
const PREFETCH_MAX = 1000;
/** How much of the bounds of bytes and of messages may be held for the queue to be taken up anew. */
const RENEW_SHARE = 0.5;
/** The type of queues that are read and not taken from. */
const STREAM = "stream";
/** How much one message counts in the moving average of sizes. */
const AVERAGE_SHARE = 0.05;

/** What a source takes from: a queue, or a copy of an exchange's messages in a queue of its own. */
export type SourcePlace =
  | { readonly queue: string; readonly creation: Creation | null }
  | { readonly exchange: string; readonly bind: readonly Binding[] };

/** What one consumer was started with; the broker pushes no more than `count` of it unsettled. */
interface Prefetch {
  readonly count: number;
  /** Messages that have come and of which the broker does not know yet that they are settled. */
  unsettled: number;
}

interface Arrival {
  readonly message: ConsumeMessage;
  readonly prefetch: Prefetch;
}

/** The reading end of one queue. */
export class AmqpSource implements Source {
  readonly #channel: Channel;
  readonly #link: Link;
  readonly #place: Place;
  readonly #clock: Clock;
  readonly #bytesMax: number;
  readonly #inbox: Inbox<Arrival>;
  readonly #settling = new Settling<Arrival>();
  /** Null: not a stream queue. */
  #stream: StreamPlace | null = null;
  #averageBytes = 0;
  #consumerTag: string | null = null;
  #seen = 0;
  #widenAt = 2 * PREFETCH_FIRST;
  #prefetch: Prefetch = { count: 0, unsettled: 0 };
  /** Acked, and the broker is to be told. */
  #owed: Entry<Arrival>[] = [];
  /** A change of the consumer that is under way; acks wait for it. */
  #changing: Promise<void> | null = null;

  private constructor(parts: {
    channel: Channel;
    link: Link;
    place: Place;
    clock: Clock;
    bytesMax: number;
  }) {
    const { channel, link } = parts;
    this.#channel = channel;
    this.#link = link;
    this.#place = parts.place;
    this.#clock = parts.clock;
    this.#bytesMax = parts.bytesMax;
    this.#inbox = new Inbox({ bytesOf, unsettledBytesMax: parts.bytesMax });
    let reason: unknown = null;
    channel.on("error", (error) => {
      reason = error;
    });
    channel.on("close", () => {
      this.#inbox.fail(
        reason === null && link.isLost
          ? link.disconnected()
          : new DisconnectedError(closedText(reason), { cause: reason }),
      );
    });
  }

  /** @throws InvalidError the queue or exchange is missing or refused. @throws DisconnectedError */
  static async open(parts: {
    link: Link;
    bridge: string;
    place: SourcePlace;
    options: SourceOptions;
    clock: Clock;
  }): Promise<AmqpSource> {
    const { link, place, options } = parts;
    const queue = "queue" in place ? place.queue : `isthmus.${options.name}`;
    await prepare(link, place, queue, options.memory ?? null);
    const source = new AmqpSource({
      channel: await link.channel(),
      link,
      place: { bridge: parts.bridge, queue },
      clock: parts.clock,
      bytesMax: options.unsettledBytesMax,
    });
    try {
      source.#stream = await source.#streamPlace(place, options);
      source.#changing = source.#consume(PREFETCH_FIRST);
      await source.#changing;
    } catch (error) {
      const refusal = refusalOf(error);
      await closeChannel(source.#channel);
      if (error instanceof DisconnectedError) throw error;
      if (refusal === null) throw link.disconnected();
      throw new InvalidError(problemOf("queue", queue, refusal), [], { cause: error });
    } finally {
      source.#changing = null;
    }
    source.#tune();
    return source;
  }

  async receive(signal: AbortSignal): Promise<Delivery | null> {
    const taken = await this.#inbox.take(signal);
    if (taken === null) return null;
    const entry = this.#settling.add(taken.items, taken.bytes);
    const nowMs = this.#clock.nowMs();
    const decode = (one: ConsumeMessage): Message => decodeMessage(one, this.#place, nowMs);
    return {
      messages: taken.items.map(({ message }) =>
        this.#stream === null ? decode(message) : placed(message, decode),
      ),
      ids: taken.items.map(({ message }) => idGiven(message)),
      uniqueIds: taken.items.map(({ message }) =>
        this.#stream === null ? null : nameInStream(message),
      ),
      ack: async () => this.#settle(entry, "acked"),
      nack: async () => this.#settle(entry, "nacked"),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#inbox.fail(new DisconnectedError("the source was closed"));
    await this.#changing;
    await closeChannel(this.#channel);
    await this.#stream?.settled();
  }

  /** What the place is in a stream queue; null when the queue is no stream. */
  async #streamPlace(place: SourcePlace, options: SourceOptions): Promise<StreamPlace | null> {
    const { queue } = this.#place;
    const asked = "queue" in place ? place.creation?.type : "classic";
    const isStream =
      asked === undefined ? await isStreamQueue(this.#link, queue) : asked === STREAM;
    if (!isStream) return null;
    const at = { link: this.#link, queue, nowMs: this.#clock.nowMs() };
    return await StreamPlace.open(at, options, {
      onUnsaved: (cause) => this.#fail(`where it stands can't be kept: ${errorText(cause)}`, cause),
      onGap: options.onGap ?? (() => undefined),
    });
  }

  #fail(why: string, cause: unknown): void {
    this.#inbox.fail(new DisconnectedError(why, { cause }));
  }

  #settle(entry: Entry<Arrival>, state: "acked" | "nacked"): void {
    const { failure } = this.#inbox;
    if (failure !== null) throw failure;
    if (this.#link.isLost) throw this.#link.disconnected();
    const acked = this.#settling.settle(entry, state);
    if (state === "nacked" && this.#stream !== null) {
      // A stream gives nothing again to a reader that goes on: the next one starts behind the acks.
      this.#fail("a message was given back; the stream is read again from there", null);
    } else if (state === "nacked") {
      for (const { message } of entry.items) this.#channel.nack(message, false, true);
      this.#told(entry);
    }
    this.#owed.push(...acked);
    if (this.#changing === null) this.#tellOwed();
    this.#tune();
  }

  #tellOwed(): void {
    const last = this.#owed.at(-1)?.items.at(-1);
    if (last === undefined) return;
    this.#channel.ack(last.message, true);
    this.#stream?.acked(last.message);
    for (const entry of this.#owed) this.#told(entry);
    this.#owed = [];
  }

  /** The broker knows that these are settled, and may push as many more. */
  #told(entry: Entry<Arrival>): void {
    for (const { prefetch } of entry.items) prefetch.unsettled -= 1;
    this.#inbox.settled(entry);
  }

  #arrived(message: ConsumeMessage | null, prefetch: Prefetch): void {
    if (message === null) {
      const { queue } = this.#place;
      this.#inbox.fail(new DisconnectedError(`the queue "${queue}" was deleted or moved away`));
      return;
    }
    const bytes = message.content.byteLength;
    this.#averageBytes += (bytes - this.#averageBytes) * (this.#seen === 0 ? 1 : AVERAGE_SHARE);
    this.#seen += 1;
    prefetch.unsettled += 1;
    this.#stream?.arrived(message);
    this.#inbox.push({ message, prefetch });
    this.#tune();
  }

  /**
   * Changes the prefetch when it is time to; called after each change of what that depends on. A
   * consumer is cancelled only when its prefetch is used up, so that no message is on its way to
   * it: a quorum queue takes such messages back and gives them again behind later ones.
   */
  #tune(): void {
    if (this.#changing !== null || this.#inbox.failure !== null) return;
    const { count, unsettled } = this.#prefetch;
    const { heldBytes, heldCount } = this.#inbox;
    const hasRoom =
      heldBytes <= this.#bytesMax * RENEW_SHARE && heldCount <= PREFETCH_MAX * RENEW_SHARE;
    const fits = this.#fits();
    if (unsettled >= count) {
      if (hasRoom) this.#changing = this.#change(() => this.#consume(fits));
      else if (heldBytes >= this.#bytesMax && count > 0) {
        this.#changing = this.#change(() => this.#consume(0));
      }
    } else if (hasRoom && fits >= 2 * count && this.#seen >= this.#widenAt) {
      this.#changing = this.#change(() => this.#widen());
    }
  }

  /** How many messages of the size seen of late fit into the bound. */
  #fits(): number {
    const count = Math.floor(this.#bytesMax / Math.max(1, this.#averageBytes));
    return Math.max(1, Math.min(PREFETCH_MAX, count));
  }

  /** Acks wait until the change is done. Never rejects: a failure ends the source. */
  async #change(change: () => Promise<void>): Promise<void> {
    try {
      await change();
      this.#tellOwed();
    } catch (cause) {
      this.#inbox.fail(
        new DisconnectedError(`the queue can't be read on: ${errorText(cause)}`, { cause }),
      );
    }
    this.#changing = null;
    this.#tune();
  }

  /**
   * Widens the prefetch of a source whose acks come too soon for it to be ever used up here, while
   * on a slow network it is the bound of what can be on its way. With acks held back the prefetch
   * fills up, as soon as what the last acks called forth has come: that is behind the second of two
   * answers. When it does not, the queue has no more.
   */
  async #widen(): Promise<void> {
    const { count } = this.#prefetch;
    await this.#channel.prefetch(count);
    await this.#channel.prefetch(count);
    this.#widenAt = this.#seen + PREFETCH_MAX;
    if (this.#prefetch.unsettled >= count) await this.#consume(this.#fits());
  }

  /** Takes up the queue with so many to push; 0 leaves it. What was pushed stays ours. */
  async #consume(count: number): Promise<void> {
    if (this.#consumerTag !== null) await this.#channel.cancel(this.#consumerTag);
    this.#consumerTag = null;
    const prefetch: Prefetch = { count, unsettled: 0 };
    this.#prefetch = prefetch;
    if (count === 0) return;
    await this.#channel.prefetch(count);
    const onMessage = (message: ConsumeMessage | null): void => this.#arrived(message, prefetch);
    // One change at a time, so no other consumer is started meanwhile.
    const options = this.#stream === null ? {} : { arguments: this.#stream.arguments };
    const { consumerTag } = await this.#channel.consume(this.#place.queue, onMessage, options);
    this.#consumerTag = consumerTag;
  }
}

function bytesOf({ message }: Arrival): number {
  return message.content.byteLength;
}

function closedText(reason: unknown): string {
  const by = reason === null ? "with its connection" : `by the broker: ${errorText(reason)}`;
  return `the channel was closed ${by}`;
}

/** Makes or checks what the source reads from. */
async function prepare(
  link: Link,
  place: SourcePlace,
  queue: string,
  memory: SourceMemory | null,
): Promise<void> {
  const refusal = await link.attempt(async (channel) => {
    if ("exchange" in place) {
      await channel.assertQueue(queue, { durable: true });
    } else if (place.creation !== null) {
      await channel.assertQueue(queue, queueOptions(place.creation));
    } else {
      await channel.checkQueue(queue);
    }
  });
  if (refusal !== null) throw new InvalidError(problemOf("queue", queue, refusal));
  if (!("exchange" in place)) return;
  const unbound = await bindQueue(link, queue, place, memory);
  if (unbound !== null) throw new InvalidError(problemOf("exchange", place.exchange, unbound));
}

function idGiven({ properties }: ConsumeMessage): string | null {
  const id: unknown = properties.messageId;
  return typeof id === "string" && id !== "" ? id : null;
}
