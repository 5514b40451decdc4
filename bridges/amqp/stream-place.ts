/**
 * Where a source stands in a stream queue. RabbitMQ keeps no position for readers that speak AMQP
 * 0-9-1, so the source does, in its memory: the offset behind all that is acked. A crash before a
 * save only brings messages again, which the log knows by their offsets.
 */
import type { ConsumeMessage } from "amqplib";
import type { SourceGap, SourceMemory, SourceOptions } from "../../src/bridge.ts";
import type { Message } from "../../src/message.ts";
import type { Link } from "./link.ts";

/** The header of each message of a stream queue, and the argument of who reads one. */
const OFFSET = "x-stream-offset";
/**
 * A reader of "latest" that lost its connection before anything came goes on so much before its
 * first opening: the broker's clock may be behind ours. Milliseconds.
 */
const CLOCK_DIFFERENCE_MS = 10_000;

/** What is kept: where to go on, or when it was first opened while nothing has come yet. */
type Kept = { readonly next: number } | { readonly openedMs: number };

/**
 * Whether a queue is a stream. Only a stream lets itself be read from an offset, and reading takes
 * nothing off it; another queue refuses, and nothing of it has moved. Brokers without streams would
 * not refuse, so they are not asked. @throws DisconnectedError
 */
export async function isStreamQueue(link: Link, queue: string): Promise<boolean> {
  if (!link.hasStreams) return false;
  const refusal = await link.attempt(async (channel) => {
    await channel.prefetch(1);
    const onMessage = (): void => {
      // Read again from the right place by the source itself.
    };
    await channel.consume(queue, onMessage, { arguments: { [OFFSET]: "next" } });
  });
  return refusal === null;
}

/** The oldest offset that a stream still has; it holds a message. @throws DisconnectedError */
async function oldestOffset(link: Link, queue: string): Promise<number | null> {
  const oldest = Promise.withResolvers<number | null>();
  const refusal = await link.attempt(async (channel) => {
    channel.on("close", () => oldest.resolve(null));
    await channel.prefetch(1);
    const onMessage = (message: ConsumeMessage | null): void =>
      oldest.resolve(message === null ? null : offsetOf(message));
    await channel.consume(queue, onMessage, { arguments: { [OFFSET]: "first" } });
    await oldest.promise;
  });
  return refusal === null ? await oldest.promise : null;
}

/** What is wrong with a source's place: told as it comes to light. */
export interface PlaceTrouble {
  /** A position could not be kept. */
  readonly onUnsaved: (error: unknown) => void;
  readonly onGap: (gap: SourceGap) => void;
}

/** The place of one source. */
export class StreamPlace {
  readonly #name: string;
  readonly #start: SourceOptions["start"];
  readonly #memory: SourceMemory | null;
  readonly #link: Link;
  readonly #queue: string;
  readonly #trouble: PlaceTrouble;
  #kept: Kept | null = null;
  /** The offset behind the last message that came on this connection. */
  #arrived: number | null = null;
  #owed: number | null = null;
  #saving: Promise<void> | null = null;
  #checking: Promise<void> | null = null;

  private constructor(link: Link, queue: string, options: SourceOptions, trouble: PlaceTrouble) {
    this.#name = `stream ${queue}`;
    this.#link = link;
    this.#queue = queue;
    this.#start = options.start;
    this.#memory = options.memory ?? null;
    this.#trouble = trouble;
  }

  /** `nowMs`: for a source that begins at the latest. */
  static async open(
    { link, queue, nowMs }: { link: Link; queue: string; nowMs: number },
    options: SourceOptions,
    trouble: PlaceTrouble,
  ): Promise<StreamPlace> {
    const place = new StreamPlace(link, queue, options, trouble);
    const bytes = (await place.#memory?.load(place.#name)) ?? null;
    place.#kept = bytes === null ? null : keptOf(bytes);
    if (place.#kept === null && options.start === "latest") {
      await place.#memory?.save([[place.#name, bytesOf({ openedMs: nowMs })]]);
    }
    return place;
  }

  /** The consumer's arguments: where the broker is to begin. */
  get arguments(): Record<string, unknown> {
    return { [OFFSET]: this.#from() };
  }

  /** A message has come. */
  arrived(message: ConsumeMessage): void {
    const offset = offsetOf(message);
    if (offset === null) return;
    const kept = this.#arrived === null ? this.#kept : null;
    this.#arrived = offset + 1;
    if (kept === null || !("next" in kept) || offset <= kept.next) return;
    this.#checking = this.#check(kept.next, offset);
  }

  /** All up to this message is acked; kept soon. */
  acked(message: ConsumeMessage): void {
    const offset = offsetOf(message);
    if (offset === null || this.#memory === null) return;
    this.#owed = offset + 1;
    this.#saving ??= this.#save(this.#memory);
  }

  /** Resolves when nothing is left to do; never rejects. */
  async settled(): Promise<void> {
    await this.#saving;
    await this.#checking;
  }

  /**
   * The first that came is not the one that was due: streams have offsets without messages, so
   * only what lies before the oldest that is left is a gap. In doubt it is one.
   */
  async #check(due: number, came: number): Promise<void> {
    const oldest = await oldestOffset(this.#link, this.#queue).catch(() => null);
    if (oldest !== null && oldest <= due) return;
    this.#trouble.onGap({
      place: `stream queue ${this.#queue}`,
      reason: `offset ${due} is not kept any more; it goes on at ${came}`,
    });
  }

  async #save(memory: SourceMemory): Promise<void> {
    try {
      while (this.#owed !== null) {
        const next = this.#owed;
        this.#owed = null;
        await memory.save([[this.#name, bytesOf({ next })]]);
      }
    } catch (error) {
      this.#trouble.onUnsaved(error);
    }
    this.#saving = null;
  }

  #from(): unknown {
    if (this.#arrived !== null) return this.#arrived;
    if (this.#kept !== null) {
      if ("next" in this.#kept) return this.#kept.next;
      return timeArgument(this.#kept.openedMs - CLOCK_DIFFERENCE_MS);
    }
    if (this.#start === "earliest") return "first";
    return this.#start === "latest" ? "next" : timeArgument(this.#start.timestampMs);
  }
}

/**
 * A delivery of a stream as its producer made it, and the message with its place in the stream:
 * the place comes as a header that nobody sent.
 */
export function placed(
  delivered: ConsumeMessage,
  decode: (delivered: ConsumeMessage) => Message,
): Message {
  const { [OFFSET]: offset, ...headers } = delivered.properties.headers ?? {};
  const message = decode({ ...delivered, properties: { ...delivered.properties, headers } });
  if (typeof offset !== "number" || message.origin === null) return message;
  return { ...message, origin: { ...message.origin, partition: 0, offset: String(offset) } };
}

/**
 * What names a message of a stream for ever: its offset, and what its producer said of it, since
 * offsets begin anew in a stream that is made anew.
 */
export function nameInStream(delivered: ConsumeMessage): string | null {
  const offset = offsetOf(delivered);
  const { messageId, timestamp } = delivered.properties as {
    messageId?: unknown;
    timestamp?: unknown;
  };
  return offset === null ? null : JSON.stringify([offset, messageId ?? null, timestamp ?? null]);
}

function offsetOf({ properties }: ConsumeMessage): number | null {
  const offset: unknown = properties.headers?.[OFFSET];
  return typeof offset === "number" ? offset : null;
}

/** The broker begins with the block of messages that holds the time. Seconds in the protocol. */
function timeArgument(timestampMs: number): unknown {
  return { "!": "timestamp", value: Math.max(0, Math.floor(timestampMs / 1000)) };
}

function bytesOf(kept: Kept): Uint8Array {
  return new Uint8Array(Buffer.from(JSON.stringify(kept)));
}

/** Null for what this program did not write: the source then begins as one that is new. */
function keptOf(bytes: Uint8Array): Kept | null {
  const [, name, value] =
    /^\{"(next|openedMs)":(\d{1,16})\}$/.exec(Buffer.from(bytes).toString("utf8")) ?? [];
  if (name === "next") return { next: Number(value) };
  return name === "openedMs" ? { openedMs: Number(value) } : null;
}
