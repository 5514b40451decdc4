/**
 * What a push protocol has delivered and nobody has taken yet. Whatever has arrived together is
 * taken together, so that one append and one ack serve many messages; no more is given out than
 * may be unsettled at once. What waits here is bounded by the source that fills the inbox: it looks
 * at `heldBytes` and stops its broker.
 */
import { Notice } from "./notice.ts";

/** Messages of one delivery: enough for a full commit group. Count. */
const DELIVERY_MESSAGES_MAX = 500;
/** Bodies of one delivery; a larger message comes alone. Bytes. */
const DELIVERY_BYTES_MAX = 1024 * 1024;

/** What one `take` gives. */
export interface Taken<Item> {
  readonly items: readonly Item[];
  readonly bytes: number;
}

/** A queue of arrivals with one taker. */
export class Inbox<Item> {
  readonly #bytesOf: (item: Item) => number;
  readonly #unsettledBytesMax: number;
  readonly #notice = new Notice();
  #items: Item[] = [];
  #heldBytes = 0;
  #heldCount = 0;
  #unsettledBytes = 0;
  #failure: Error | null = null;

  /** `bytesOf` gives the size by which deliveries are cut and bounded. */
  constructor(options: { bytesOf: (item: Item) => number; unsettledBytesMax: number }) {
    this.#bytesOf = options.bytesOf;
    this.#unsettledBytesMax = options.unsettledBytesMax;
  }

  /** Bytes that wait here or are unsettled. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Messages that wait here or are unsettled. */
  get heldCount(): number {
    return this.#heldCount;
  }

  /** Takes an arrival in; nothing more is taken in after `fail`. */
  push(item: Item): void {
    if (this.#failure !== null) return;
    this.#items.push(item);
    this.#heldBytes += this.#bytesOf(item);
    this.#heldCount += 1;
    this.#notice.notify();
  }

  /** Gives back the room of what was taken, once the broker knows that it is settled. */
  settled(taken: Taken<Item>): void {
    this.#heldBytes -= taken.bytes;
    this.#heldCount -= taken.items.length;
    this.#unsettledBytes -= taken.bytes;
    this.#notice.notify();
  }

  /** Ends the inbox: every `take` throws this error. What has not been taken comes again later. */
  fail(error: Error): void {
    this.#failure ??= error;
    this.#items = [];
    this.#notice.notify();
  }

  /** Why the inbox has ended, or null. */
  get failure(): Error | null {
    return this.#failure;
  }

  /** The next arrivals in their order, at least one; null when aborted. @throws what `fail` got. */
  async take(signal: AbortSignal): Promise<Taken<Item> | null> {
    for (;;) {
      if (this.#failure !== null) throw this.#failure;
      if (signal.aborted) return null;
      const taken = this.#group();
      if (taken.items.length > 0) return taken;
      await this.#notice.wait(signal);
    }
  }

  #group(): Taken<Item> {
    let bytes = 0;
    let count = 0;
    for (const item of this.#items) {
      if (count === DELIVERY_MESSAGES_MAX) break;
      const more = bytes + this.#bytesOf(item);
      const alone = count === 0;
      if (more > DELIVERY_BYTES_MAX && !alone) break;
      const first = alone && this.#unsettledBytes === 0;
      if (this.#unsettledBytes + more > this.#unsettledBytesMax && !first) break;
      bytes = more;
      count += 1;
    }
    this.#unsettledBytes += bytes;
    // Taken out, not passed over: an inbox that is never empty would hold on to all it ever had.
    return { items: this.#items.splice(0, count), bytes };
  }
}
