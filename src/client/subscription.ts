/**
 * A place in a stream that outlives connections. Messages are taken in the order they come, each
 * once by its offset, wait in a bounded queue, and are settled when the loop comes back for more:
 * under a name by an ack, else in the store. What was received is where the next connection goes
 * on, what was settled is where the next run does.
 */
import { ClientError, isPassing } from "./error.ts";
import { type Gap, type MessageFields, messageOf, type ServerFrame } from "./frames.ts";
import type { Keeper } from "./store.ts";

/** How to read. */
export interface SubscribeOptions {
  /** Makes it durable: the server keeps the place, for as long as 30 days without use. */
  readonly name?: string;
  /** Where to begin when no place is kept; `latest` when missing. */
  readonly from?: string | { readonly time: number | string };
  /** One key's messages only. */
  readonly key?: string;
  /** An expression: messages for which it holds. */
  readonly where?: string;
  /** Unsettled messages that the server sends ahead; only with a name. */
  readonly window?: number;
  /** `auto`: a message is acked when the loop asks for the next one. */
  readonly ack?: "auto" | "manual";
  /** False: the store does not keep the place. */
  readonly resume?: boolean;
  /** Called in the loop, between the messages that it stands between. */
  readonly onGap?: (gap: Gap) => void;
  /** Ends the loop as if the stream had ended. */
  readonly signal?: AbortSignal;
}

/** A message, and its ack for `ack: "manual"`, which stands for all before it too. */
export type Message = MessageFields & { readonly ack: () => void };

/** What a subscription is made from. */
export interface SubscriptionParts {
  /** Known to the client; each start on a connection appends a number. */
  readonly id: string;
  readonly stream: string;
  readonly options: SubscribeOptions;
  /** The client's own id, by which the server tells its late frames from those of others. */
  readonly client: string;
  readonly keeper: Keeper | null;
  readonly send: (frame: object) => boolean;
  readonly later: (ms: number, run: () => void) => () => void;
  readonly pause: (run: () => void) => void;
  readonly ended: () => void;
}

interface Item {
  cursor: string;
  readonly message?: MessageFields;
  readonly gap?: Gap;
  readonly chars: number;
}

/** Without a name the server sends on and on: from here on it is asked to wait. */
const queueItemsMax = 1000;
const queueCharsMax = 4 * 1024 * 1024;
const windowDefault = 256;
/** Settled messages are told of at least this often. Milliseconds. */
const settleMs = 100;

/** Read it with one `for await`. */
export class Subscription implements AsyncIterable<Message> {
  readonly #parts: SubscriptionParts;
  readonly #place: string | null;
  /** Its name on this connection; null: not started, or asked to wait. */
  #sub: string | null = null;
  #starts = 0;
  #queue: Item[] = [];
  #chars = 0;
  /** The next offset of each partition: what is below has been here. */
  readonly #next = new Map<number, number>();
  #received: string | null = null;
  #isLoaded = false;
  /** Settled and not told yet. */
  #due: string | null = null;
  #dueCount = 0;
  #timer: (() => void) | null = null;
  #yielded = 0;
  #acked = 0;
  /** Progress behind messages that are not acked yet. */
  #behind: string | null = null;
  #wake: (() => void) | null = null;
  #isEnded = false;
  #error: ClientError | null = null;
  #isRead = false;
  readonly #abort = (): void => this.#finish();

  constructor(parts: SubscriptionParts) {
    this.#parts = parts;
    const { stream, options, keeper } = parts;
    const { name, key = null, where = null, resume = true, signal } = options;
    const isKept = keeper !== null && name === undefined && resume;
    this.#place = isKept ? `cursor/${JSON.stringify([stream, key, where])}` : null;
    signal?.addEventListener("abort", this.#abort);
    if (signal?.aborted === true) this.#finish();
  }

  /** Takes up the place that an earlier run has kept. */
  async load(): Promise<void> {
    const { keeper } = this.#parts;
    if (keeper !== null && this.#place !== null) {
      await keeper.idle();
      this.#received = (await keeper.store.get(this.#place)) ?? null;
    }
    this.#isLoaded = true;
    this.up();
  }

  /** A connection is there. */
  up(): void {
    if (this.#sub !== null || !this.#isLoaded || this.#isEnded || this.#isFull(0.5)) return;
    const { id, stream, options, send } = this.#parts;
    const { name, key, where, window } = options;
    const client = name === undefined ? name : this.#parts.client;
    const sub = `${id}.${++this.#starts}`;
    const from = this.#received ?? options.from;
    if (send({ op: "subscribe", sub, stream, from, key, where, name, client, window }))
      this.#sub = sub;
  }

  /** The connection is gone. */
  down(): void {
    this.#sub = null;
  }

  /** A frame about it, or about one of its earlier starts. */
  frame(frame: ServerFrame): void {
    if (frame.sub !== this.#sub) return;
    if (frame.op === "error") return this.#failed(frame.code ?? "", frame.message ?? "");
    const { cursor } = frame;
    if (typeof cursor !== "string") return;
    this.#received = cursor;
    if (frame.op === "subscribed") this.#placed(cursor, frame.gap ?? null);
    else if (frame.op === "message") this.#take(cursor, messageOf(frame));
    else this.#push({ cursor, chars: 0 });
  }

  /** Ends: the loop ends, by throwing when there is an error. */
  end(error: ClientError | null): void {
    if (this.#isEnded) return;
    this.#error = error;
    // The loop notices later, when the connection may be gone.
    this.#tell();
    this.#finish();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Message, void, void> {
    if (this.#isRead) throw new ClientError("invalid", "a subscription is read by one loop");
    this.#isRead = true;
    try {
      for (let item = await this.#pull(); item !== null; item = await this.#pull()) {
        const { message, gap, cursor } = item;
        if (gap !== undefined) this.#parts.options.onGap?.(gap);
        if (message === undefined) {
          this.#progress(cursor);
          continue;
        }
        const number = ++this.#yielded;
        yield { ...message, ack: () => this.#ack(number, cursor) };
        if (this.#parts.options.ack !== "manual") this.#ack(number, cursor);
      }
    } finally {
      this.#close();
    }
  }

  async #pull(): Promise<Item | null> {
    for (;;) {
      if (this.#isEnded) {
        if (this.#error !== null) throw this.#error;
        return null;
      }
      const item = this.#queue.shift();
      if (item !== undefined) {
        this.#chars -= item.chars;
        this.up();
        return item;
      }
      if (this.#parts.options.name !== undefined) this.#tell();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #placed(cursor: string, gap: Gap | null): void {
    if (gap === null) {
      // What was settled while there was no connection: the server need not send it again.
      this.#tell();
      if (this.#parts.options.name === undefined) this.#push({ cursor, chars: 0 });
      return;
    }
    if (gap.reason === "epoch") {
      this.#next.delete(gap.partition);
      this.#due = null;
    }
    this.#push({ cursor, gap, chars: 0 });
  }

  #take(cursor: string, message: MessageFields): void {
    const { partition, offset, body } = message;
    // Again: settled in its turn, for its ack may have been lost.
    if (offset < (this.#next.get(partition) ?? 0)) return this.#push({ cursor, chars: 0 });
    this.#next.set(partition, offset + 1);
    this.#push({ cursor, message, chars: body?.length ?? 0 });
    if (this.#parts.options.name !== undefined || !this.#isFull(1)) return;
    this.#parts.send({ op: "unsubscribe", sub: this.#sub });
    this.#sub = null;
  }

  #push(item: Item): void {
    const last = this.#queue.at(-1);
    const isProgress = item.message === undefined && item.gap === undefined;
    if (isProgress && last !== undefined && last.message === undefined && last.gap === undefined) {
      last.cursor = item.cursor;
    } else {
      this.#queue.push(item);
      this.#chars += item.chars;
    }
    this.#wakeUp();
  }

  #isFull(share: number): boolean {
    return this.#queue.length >= queueItemsMax * share || this.#chars >= queueCharsMax * share;
  }

  #ack(number: number, cursor: string): void {
    if (number <= this.#acked) return;
    this.#acked = number;
    const behind = number === this.#yielded ? this.#behind : null;
    if (behind !== null) this.#behind = null;
    this.#settle(behind ?? cursor);
  }

  #progress(cursor: string): void {
    if (this.#acked === this.#yielded) this.#settle(cursor);
    else this.#behind = cursor;
  }

  #settle(cursor: string): void {
    this.#due = cursor;
    const { name, window = windowDefault } = this.#parts.options;
    if (name === undefined && this.#place === null) return;
    if (name !== undefined && ++this.#dueCount >= window / 4) return this.#tell();
    this.#timer ??= this.#parts.later(settleMs, () => {
      this.#timer = null;
      this.#tell();
    });
  }

  /** Tells where settled messages end; what cannot be told now is told by the next connection. */
  #tell(): void {
    const cursor = this.#due;
    if (cursor === null) return;
    const { options, keeper, send } = this.#parts;
    if (options.name === undefined) {
      if (this.#place !== null) keeper?.put(this.#place, cursor);
    } else if (this.#sub === null || !send({ op: "ack", sub: this.#sub, cursor })) {
      return;
    }
    this.#due = null;
    this.#dueCount = 0;
  }

  #failed(code: string, message: string): void {
    if (!isPassing(code)) return this.end(new ClientError(code, message));
    // Whether the server reads on is not said: it is asked anew, and the old start is ended.
    this.#parts.send({ op: "unsubscribe", sub: this.#sub });
    this.#sub = null;
    this.#parts.pause(() => this.up());
  }

  #finish(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#wakeUp();
    if (!this.#isRead) this.#close();
  }

  /** The loop has ended, whoever ended it. */
  #close(): void {
    this.#isEnded = true;
    this.#timer?.();
    this.#tell();
    if (this.#sub !== null) this.#parts.send({ op: "unsubscribe", sub: this.#sub });
    this.#sub = null;
    this.#queue = [];
    this.#parts.options.signal?.removeEventListener("abort", this.#abort);
    this.#parts.ended();
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = null;
  }
}
