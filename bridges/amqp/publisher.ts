/**
 * One confirm channel: publishes in order and tells what became of each message. The broker's acks
 * are matched by delivery tag; a returned message (mandatory, but no queue) comes before its ack
 * and is matched by everything that can tell it from others: exchange, routing key, id and body.
 * When the broker closes the channel with an error while one message alone is unconfirmed, that one
 * is the cause and is refused; with several nobody can say, so all of them are unknown.
 */
import type { ConfirmChannel, Message as Returned } from "amqplib";
import type { Outcome } from "../../src/bridge.ts";
import { errorText } from "../../src/errors.ts";
import { Notice } from "../notice.ts";
import type { Publication } from "./codec.ts";
import { type BrokerRefusal, closeChannel, type Link, refusalOf } from "./link.ts";

/** Messages that may be unconfirmed on one channel. Count. */
const UNCONFIRMED_MAX = 4096;
/**
 * When a nacked message is tried again: a full queue drains in its consumer's time. Milliseconds.
 */
const NACK_RETRY_MS = 1000;

/** Where a message goes. */
export interface Target {
  readonly exchange: string;
  readonly routingKey: string;
  readonly mandatory: boolean;
}

interface Pending {
  readonly target: Target;
  readonly publication: Publication;
  readonly settle: (outcome: Outcome) => void;
  returned: string | null;
}

/** A channel with publisher confirms. */
export class Publisher {
  readonly #channel: ConfirmChannel;
  readonly #notice = new Notice();
  /** By delivery tag, oldest first. */
  readonly #pending = new Map<number, Pending>();
  #lastTag = 0;
  #full = false;
  #closed = false;
  #refusal: BrokerRefusal | null = null;
  #abandoned = 0;

  private constructor(channel: ConfirmChannel) {
    this.#channel = channel;
    channel.on("ack", (fields) => this.#confirm(fields, () => ({ sent: null })));
    channel.on("nack", (fields) => this.#confirm(fields, () => ({ busyMs: NACK_RETRY_MS })));
    channel.on("return", (message: Returned) => this.#return(message));
    channel.on("drain", () => {
      this.#full = false;
      this.#notice.notify();
    });
    channel.on("error", (error) => {
      this.#refusal = refusalOf(error);
    });
    channel.on("close", () => this.#close());
  }

  /** @throws DisconnectedError */
  static async open(link: Link): Promise<Publisher> {
    return new Publisher(await link.confirmChannel());
  }

  /** Whether the channel still takes messages. */
  get isOpen(): boolean {
    return !this.#closed;
  }

  /** How many messages a failure of the channel left unknown. */
  get abandoned(): number {
    return this.#abandoned;
  }

  /** Whether a message can be published without waiting. */
  get hasRoom(): boolean {
    return !this.#closed && !this.#full && this.#pending.size < UNCONFIRMED_MAX;
  }

  /** Waits for room; resolves also when the channel has closed or the signal aborts. */
  async room(signal: AbortSignal): Promise<void> {
    while (!this.hasRoom && !this.#closed && !signal.aborted) await this.#notice.wait(signal);
  }

  /** Publishes at once; `settle` is called exactly once, later or (when it can't be sent) now. */
  publish(publication: Publication, target: Target, settle: (outcome: Outcome) => void): void {
    if (this.#closed) return settle({ unknown: true });
    const { content, options } = publication;
    const { exchange, routingKey, mandatory } = target;
    let writable: boolean;
    try {
      writable = this.#channel.publish(exchange, routingKey, content, { ...options, mandatory });
    } catch (error) {
      // The library encodes before it writes: nothing was sent, and never will be in this form.
      const unfit = error instanceof TypeError || error instanceof RangeError;
      const refused = `AMQP can't carry the message: ${errorText(error)}`;
      return settle(unfit ? { refused, final: true } : { unknown: true });
    }
    this.#lastTag += 1;
    this.#pending.set(this.#lastTag, { target, publication, settle, returned: null });
    if (!writable) this.#full = true;
  }

  /** Closes the channel; what is unconfirmed becomes unknown. */
  async close(): Promise<void> {
    await closeChannel(this.#channel);
    this.#close();
  }

  #confirm(fields: { deliveryTag: number; multiple: boolean }, outcome: () => Outcome): void {
    if (!fields.multiple) {
      this.#settle(fields.deliveryTag, outcome());
    } else {
      for (const tag of this.#pending.keys()) {
        if (tag > fields.deliveryTag) break;
        this.#settle(tag, outcome());
      }
    }
    this.#notice.notify();
  }

  #settle(tag: number, outcome: Outcome): void {
    const pending = this.#pending.get(tag);
    if (pending === undefined) return;
    this.#pending.delete(tag);
    pending.settle(pending.returned === null ? outcome : { refused: pending.returned });
  }

  #return(message: Returned): void {
    const { replyCode, replyText } = message.fields as { replyCode?: unknown; replyText?: unknown };
    for (const pending of this.#pending.values()) {
      if (pending.returned !== null || !isSame(pending, message)) continue;
      const { exchange, routingKey } = pending.target;
      pending.returned =
        `${String(replyCode)} ${String(replyText)}: no queue takes routing key ` +
        `"${routingKey}" of exchange "${exchange}"`;
      return;
    }
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const alone = this.#pending.size === 1 ? this.#refusal : null;
    this.#abandoned = this.#pending.size;
    const outcome: Outcome = alone === null ? { unknown: true } : { refused: alone.text };
    for (const tag of this.#pending.keys()) this.#settle(tag, outcome);
    this.#notice.notify();
  }
}

function isSame({ target, publication }: Pending, message: Returned): boolean {
  return (
    message.fields.exchange === target.exchange &&
    message.fields.routingKey === target.routingKey &&
    message.properties.messageId === publication.options.messageId &&
    publication.content.equals(message.content)
  );
}
