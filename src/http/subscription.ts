/**
 * One subscription: a cursor over the log and a loop that reads on only when the client has taken
 * what was sent, and, under a name, has acked enough. Nothing is queued beyond one step, nothing
 * is dropped; what was not taken is sent again when the client has room.
 */
import { type Clock, nextTurn } from "../clock.ts";
import { InvalidError } from "../errors.ts";
import { cursorTellMs, readStepBytes, readStepMessages } from "../limits.ts";
import { type Cursor, decodeCursor, encodeCursor, shortEpoch } from "../log/cursor.ts";
import { type StreamBatch, StreamReader } from "../log/stream-reader.ts";
import type { Stream } from "../log/stream.ts";
import type { StoredMessage } from "../message.ts";
import type { Telemetry } from "../telemetry.ts";
import { cursorFrame, subscribedFrame } from "./frames.ts";
import { messageMembers } from "./message-json.ts";
import type { NameClaim } from "./names.ts";
import type { Outbox } from "./outbox.ts";
import { cursorAtMessage } from "./position.ts";
import type { Selection } from "./range.ts";

/** What a subscription is made from. */
export interface SubscriptionParts {
  readonly sub: string;
  readonly stream: Stream;
  readonly selection: Selection;
  readonly cursor: Cursor;
  readonly outbox: Outbox;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  /** The durable name, and how many unacked messages may be under way; null: anonymous. */
  readonly durable: {
    readonly name: string;
    readonly claim: NameClaim;
    readonly window: number;
  } | null;
  /** Told when reading failed: the subscription is over. */
  readonly failed: (error: unknown) => void;
}

/** What is sent together: frames, where reading then stands, and whether a message was left out. */
interface Step {
  readonly texts: readonly string[];
  readonly cursor: Cursor;
  readonly endsUntold: boolean;
}

/** A running subscription. Start it once, stop it once. */
export class Subscription {
  readonly #parts: SubscriptionParts;
  readonly #reader: StreamReader;
  readonly #stop = new AbortController();
  readonly #prefix: string;
  #running: Promise<void> = Promise.resolve();
  /** Next offsets to be acked, by partition; messages below are not sent again. */
  readonly #acked: number[];
  /** Sent and not acked, in the order sent; only under a name. */
  readonly #unacked: { readonly partition: number; readonly offset: number }[] = [];
  #wake: (() => void) | null = null;
  /** Behind everything that was sent or left out. */
  #done: Cursor;
  #hasUntold = false;
  #toldMs: number;
  #sent = 0;

  constructor(parts: SubscriptionParts) {
    this.#parts = parts;
    this.#reader = new StreamReader(parts.stream, parts.cursor);
    this.#prefix = `{"op":"message","sub":${JSON.stringify(parts.sub)},"cursor":"`;
    this.#done = parts.cursor;
    this.#acked = parts.cursor.map(({ offset }) => offset);
    this.#toldMs = parts.clock.monotonicMs();
  }

  get stream(): Stream {
    return this.#parts.stream;
  }

  get key(): string | null {
    return this.#parts.selection.key;
  }

  get name(): string | null {
    return this.#parts.durable?.name ?? null;
  }

  /** How it stands, for lists. */
  describe(): object {
    const { sub, stream } = this.#parts;
    const lag = stream.partitions.reduce((sum, { offsetEnd }, index) => {
      return sum + offsetEnd - (this.#done[index]?.offset ?? offsetEnd);
    }, 0);
    const { name, key } = this;
    const unacked = this.#unacked.length;
    return { sub, stream: stream.name, name, key, lag, sent: this.#sent, unacked };
  }

  /** Begins to send. */
  start(): void {
    this.#running = this.#run();
  }

  /** Ends sending and lets go of the name, once what was acked is on disk. Never rejects. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wakeUp();
    await this.#running;
    await this.#parts.durable?.claim.release();
  }

  /**
   * Takes an ack: everything before the cursor needs not come again. An older one changes nothing.
   * @throws InvalidError it is no cursor of this stream.
   */
  ack(text: string): void {
    const { stream, durable } = this.#parts;
    const cursor = decodeCursor(text);
    if (cursor === null || cursor.length > stream.partitions.length) {
      throw notOurs("it is no cursor of this stream");
    }
    if (durable === null) return;
    let moved = false;
    for (const [index, { epoch, offset }] of cursor.entries()) {
      const partition = stream.partitions[index];
      if (partition === undefined || offset <= (this.#acked[index] ?? 0)) continue;
      if (epoch !== shortEpoch(partition.epoch)) throw notOurs("the stream was made anew since");
      this.#acked[index] = Math.min(offset, partition.offsetEnd);
      moved = true;
    }
    if (!moved) return;
    const acked = this.#acked;
    // Cursors only grow from one frame to the next, so what is acked is the front of the list.
    const first = this.#unacked.findIndex(
      ({ partition, offset }) => offset >= (acked[partition] ?? 0),
    );
    this.#unacked.splice(0, first === -1 ? this.#unacked.length : first);
    durable.claim.move(
      stream.name,
      this.#done.map(({ epoch }, index) => ({ epoch, offset: acked[index] ?? 0 })),
    );
    this.#wakeUp();
  }

  /** Tells progress that had no message to stand beside; called twice a second. */
  tick(): void {
    const { sub, outbox, clock, durable } = this.#parts;
    durable?.claim.touch();
    if (!this.#hasUntold || clock.monotonicMs() - this.#toldMs < cursorTellMs) return;
    this.#tell();
    outbox.answer(cursorFrame(sub, encodeCursor(this.#done)));
  }

  async #run(): Promise<void> {
    const { outbox, failed } = this.#parts;
    const { signal } = this.#stop;
    try {
      for (;;) {
        await outbox.ready();
        const room = await this.#room();
        if (signal.aborted || !outbox.isOpen) return;
        const batch = await this.#reader.next({
          messagesMax: Math.min(room, readStepMessages),
          bytesMax: readStepBytes,
          wait: true,
          signal,
        });
        if (batch === null) return;
        // From here on only texts are held: the batch keeps the whole chunk that it was read with.
        if (!(await this.#send(this.#stepOf(batch)))) return;
        if (!this.#reader.atEnd) await nextTurn();
      }
    } catch (error) {
      failed(error);
    }
  }

  /** How many messages may be sent; waits while the window is full. */
  async #room(): Promise<number> {
    const { durable } = this.#parts;
    if (durable === null) return readStepMessages;
    while (this.#unacked.length >= durable.window && !this.#stop.signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await promise;
    }
    return durable.window - this.#unacked.length;
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }

  #stepOf(batch: StreamBatch): Step {
    const { cursor } = this.#reader;
    const last = batch.messages.at(-1);
    return {
      texts: [...this.#gapTexts(batch, cursor), ...this.#messageTexts(batch, cursor)],
      cursor,
      endsUntold: last !== undefined && !this.#isWanted(last),
    };
  }

  /** Sends a step as the client takes it; false when the socket has closed. */
  async #send({ texts, cursor, endsUntold }: Step): Promise<boolean> {
    const { outbox, telemetry } = this.#parts;
    const { signal } = this.#stop;
    let sent = 0;
    while (sent < texts.length) {
      await outbox.ready();
      if (signal.aborted || !outbox.isOpen) return false;
      sent = outbox.send(texts, sent);
    }
    this.#sent += texts.length;
    telemetry.socketMessages += texts.length;
    this.#done = cursor;
    if (texts.length > 0) this.#tell();
    if (endsUntold) this.#hasUntold = true;
    return true;
  }

  #tell(): void {
    this.#hasUntold = false;
    this.#toldMs = this.#parts.clock.monotonicMs();
  }

  #gapTexts({ gaps, messages }: StreamBatch, cursor: Cursor): string[] {
    if (gaps.length === 0) return [];
    const [first] = messages;
    // Behind the gap and before the messages: who comes back from here must not miss them.
    const behind = first === undefined ? cursor : cursorAtMessage(cursor, first, "before");
    return gaps.map((gap) => subscribedFrame(this.#parts.sub, encodeCursor(behind), gap));
  }

  #messageTexts({ messages }: StreamBatch, cursor: Cursor): string[] {
    const { form } = this.#parts.selection;
    const texts: string[] = [];
    for (const message of messages) {
      if (!this.#isWanted(message)) continue;
      const after = encodeCursor(cursorAtMessage(cursor, message, "after"));
      texts.push(`${this.#prefix}${after}",${messageMembers(message, form)}`);
      if (this.#parts.durable !== null) {
        this.#unacked.push({ partition: message.partition, offset: message.offset });
      }
    }
    return texts;
  }

  #isWanted(message: StoredMessage): boolean {
    const isAcked = message.offset < (this.#acked[message.partition] ?? 0);
    return !isAcked && this.#parts.selection.takes(message);
  }
}

function notOurs(detail: string): InvalidError {
  return new InvalidError(`cursor: ${detail}`, [{ pointer: "/cursor", detail }]);
}
