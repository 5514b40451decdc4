/**
 * Takes messages from a queue. The broker pushes as many as the prefetch says; what has arrived
 * together is delivered together. Bodies held unsettled stay within a bound of bytes although the
 * protocol counts messages: over it the consumer is cancelled, and it is taken up again with a
 * prefetch that fits the size that messages turned out to have. Acks cover many at once. A queue
 * has no positions: where a source starts does not apply, and a tap has what came since it was
 * first made.
 */
import type { Channel, ConsumeMessage } from "amqplib";
import type { Delivery, Source, SourceOptions } from "../../src/bridge.ts";
import type { Clock } from "../../src/clock.ts";
import { DisconnectedError, errorText, InvalidError } from "../../src/errors.ts";
import { Inbox } from "../inbox.ts";
import { type Entry, Settling } from "../settling.ts";
import { decodeMessage, type Place } from "./codec.ts";
import { closeChannel, type Link, refusalOf } from "./link.ts";
import { type Creation, problemOf, queueOptions } from "./places.ts";

/** Messages that the broker pushes before anything is known of their size. Count. */
const PREFETCH_FIRST = 64;
/** Messages unsettled at most, however small: more would only wait here. Count. */
const PREFETCH_MAX = 1000;
/** How much one message counts in the moving average of sizes. */
const AVERAGE_SHARE = 0.05;

/** What a source takes from: a queue, or a copy of an exchange's messages in a queue of its own. */
export type SourcePlace =
  | { readonly queue: string; readonly creation: Creation | null }
  | { readonly exchange: string; readonly bind: readonly string[] };

/** The reading end of one queue. */
export class AmqpSource implements Source {
  readonly #channel: Channel;
  readonly #place: Place;
  readonly #clock: Clock;
  readonly #bytesMax: number;
  readonly #inbox: Inbox<ConsumeMessage>;
  readonly #settling = new Settling<ConsumeMessage>();
  #averageBytes = 0;
  #consumerTag: string | null = null;
  #prefetch = 0;
  #prefetchWanted = PREFETCH_FIRST;
  #seen = 0;
  #tuning: Promise<void> | null = null;

  private constructor(parts: {
    channel: Channel;
    link: Link;
    place: Place;
    clock: Clock;
    bytesMax: number;
  }) {
    const { channel, link } = parts;
    this.#channel = channel;
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
    await prepare(link, place, queue);
    const source = new AmqpSource({
      channel: await link.channel(),
      link,
      place: { bridge: parts.bridge, queue },
      clock: parts.clock,
      bytesMax: options.unsettledBytesMax,
    });
    source.#tuning = source.#consume();
    try {
      await source.#tuning;
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal === null) throw link.disconnected();
      throw new InvalidError(problemOf("queue", queue, refusal), [], { cause: error });
    } finally {
      source.#tuning = null;
    }
    source.#tune();
    return source;
  }

  async receive(signal: AbortSignal): Promise<Delivery | null> {
    const taken = await this.#inbox.take(signal);
    if (taken === null) return null;
    const entry = this.#settling.add(taken.items, taken.bytes);
    const nowMs = this.#clock.nowMs();
    return {
      messages: taken.items.map((message) => decodeMessage(message, this.#place, nowMs)),
      ack: async () => this.#settle(entry, "acked"),
      nack: async () => this.#settle(entry, "nacked"),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#inbox.fail(new DisconnectedError("the source was closed"));
    await this.#tuning;
    await closeChannel(this.#channel);
  }

  #settle(entry: Entry<ConsumeMessage>, state: "acked" | "nacked"): void {
    const { failure } = this.#inbox;
    if (failure !== null) throw failure;
    if (state === "nacked") {
      for (const message of entry.items) this.#channel.nack(message, false, true);
    }
    const last = this.#settling.settle(entry, state).at(-1)?.items.at(-1);
    if (last !== undefined) this.#channel.ack(last, true);
    this.#inbox.settled(entry.bytes);
    this.#tune();
  }

  #arrived(message: ConsumeMessage | null): void {
    if (message === null) {
      const { queue } = this.#place;
      this.#inbox.fail(new DisconnectedError(`the queue "${queue}" was deleted or moved away`));
      return;
    }
    const bytes = bytesOf(message);
    this.#averageBytes += (bytes - this.#averageBytes) * (this.#seen === 0 ? 1 : AVERAGE_SHARE);
    this.#seen += 1;
    this.#inbox.push(message);
    this.#tune();
  }

  /** Sets the prefetch that is wanted now, and has it applied when it changed. */
  #tune(): void {
    const fitting = Math.floor(this.#bytesMax / Math.max(1, this.#averageBytes));
    const fits = Math.max(1, Math.min(PREFETCH_MAX, fitting));
    const { heldBytes } = this.#inbox;
    const wanted = this.#prefetchWanted;
    if (heldBytes >= this.#bytesMax) this.#prefetchWanted = 0;
    else if (wanted === 0) this.#prefetchWanted = heldBytes <= this.#bytesMax / 2 ? fits : 0;
    else if (fits >= 2 * wanted && this.#seen >= 2 * wanted) this.#prefetchWanted = fits;
    if (this.#prefetchWanted === this.#prefetch || this.#tuning !== null) return;
    this.#tuning = this.#retune();
  }

  /** Never rejects: a failure ends the source. */
  async #retune(): Promise<void> {
    try {
      while (this.#prefetchWanted !== this.#prefetch && this.#inbox.failure === null) {
        await this.#consume();
      }
    } catch (cause) {
      this.#inbox.fail(
        new DisconnectedError(`the queue can't be read on: ${errorText(cause)}`, { cause }),
      );
    }
    this.#tuning = null;
  }

  /** Takes up the queue with the wanted prefetch; 0 leaves it. What was pushed stays ours. */
  async #consume(): Promise<void> {
    const prefetch = this.#prefetchWanted;
    if (this.#consumerTag !== null) await this.#channel.cancel(this.#consumerTag);
    this.#consumerTag = null;
    if (prefetch > 0) {
      await this.#channel.prefetch(prefetch);
      const onMessage = (message: ConsumeMessage | null): void => this.#arrived(message);
      // The loop that calls this waits for it, so no other consumer is started meanwhile.
      this.#consumerTag = (
        await this.#channel.consume(this.#place.queue, onMessage, {})
      ).consumerTag;
    }
    this.#prefetch = prefetch;
  }
}

function bytesOf(message: ConsumeMessage): number {
  return message.content.byteLength;
}

function closedText(reason: unknown): string {
  const by = reason === null ? "with its connection" : `by the broker: ${errorText(reason)}`;
  return `the channel was closed ${by}`;
}

/** Makes or checks what the source reads from. */
async function prepare(link: Link, place: SourcePlace, queue: string): Promise<void> {
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
  const unbound = await link.attempt(async (channel) => {
    for (const key of place.bind) await channel.bindQueue(queue, place.exchange, key);
  });
  if (unbound !== null) throw new InvalidError(problemOf("exchange", place.exchange, unbound));
}
