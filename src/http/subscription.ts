/**
 * One subscription: a cursor over the log and a loop that reads on only when the client has taken
 * what was sent, and, under a name, has acked enough. Nothing is queued and nothing is dropped: for
 * what the client has no room for, the cursor moves back, and it is read again when there is.
 */
import type { Clock } from "../clock.ts";
import { InvalidError } from "../errors.ts";
import { cursorTellMs, readStepBytes, readStepMessages } from "../limits.ts";
import { type Cursor, decodeCursor, encodeCursor, shortEpoch } from "../log/cursor.ts";
import { type StreamBatch, StreamReader } from "../log/stream-reader.ts";
import type { Waiter } from "../log/log.ts";
import type { Stream } from "../log/stream.ts";
import type { StoredMessage } from "../message.ts";
import type { Telemetry } from "../telemetry.ts";
import { cursorFrame, subscribedFrame } from "./frames.ts";
import { framePrefix, messageFrame } from "./message-frame.ts";
import type { NameClaim } from "./names.ts";
import type { Outbox } from "./outbox.ts";
import { cursorAtMessage } from "./position.ts";
import type { Selection } from "./range.ts";
import type { ReadTurns } from "./read-turns.ts";

/** What a subscription is made from. */
export interface SubscriptionParts {
  readonly sub: string;
  readonly stream: Stream;
  readonly selection: Selection;
  readonly cursor: Cursor;
  readonly outbox: Outbox;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly turns: ReadTurns;
  /** The durable name, and how many unacked messages may be under way; null: anonymous. */
  readonly durable: Durable | null;
  readonly owner: SubscriptionOwner;
}

/** A durable name, and how many unacked messages may be under way. */
interface Durable {
  readonly name: string;
  readonly claim: NameClaim;
  readonly window: number;
}

/** Whose subscription it is. */
export interface SubscriptionOwner {
  /** Told when reading failed: the subscription is over. */
  lost(sub: string, error: unknown): void;
}

interface Place {
  readonly partition: number;
  readonly offset: number;
}

/** Nothing is ended by it: what is read for a subscription has no wait in it. */
const never = new AbortController().signal;
const NO_PLACES: Place[] = [];

/** A running subscription. Start it once, stop it once. */
export class Subscription implements Waiter {
  readonly #parts: SubscriptionParts;
  readonly #reader: StreamReader;
  readonly #prefix: string;
  #isStopped = false;
  /** Null while it waits at the stream's end: then nothing but this object is there. */
  #running: Promise<void> | null = null;
  #isEnded = false;
  /** Next offsets to be acked, by partition; messages below are not sent again. Under a name. */
  readonly #acked: number[] | null;
  /** Sent and not acked, in the order sent; only under a name. */
  readonly #unacked: Place[];
  #wake: (() => void) | null = null;
  /** Behind everything that was sent or left out. */
  #done: Cursor;
  #hasUntold = false;
  #toldMs: number;
  #sent = 0;

  constructor(parts: SubscriptionParts) {
    this.#parts = parts;
    const { stream, cursor, selection } = parts;
    this.#reader = new StreamReader(stream, cursor, { key: selection.keyBytes });
    this.#prefix = framePrefix(parts.sub);
    this.#done = parts.cursor;
    const isDurable = parts.durable !== null;
    this.#acked = isDurable ? parts.cursor.map(({ offset }) => offset) : null;
    this.#unacked = isDurable ? [] : NO_PLACES;
    this.#toldMs = parts.clock.monotonicMs();
  }

  get stream(): Stream {
    return this.#parts.stream;
  }

  get selection(): Selection {
    return this.#parts.selection;
  }

  get key(): string | null {
    return this.#parts.selection.key;
  }

  get name(): string | null {
    return this.#parts.durable?.name ?? null;
  }

  /** Messages in the stream behind what was sent or left out. */
  get lag(): number {
    return this.#parts.stream.partitions.reduce((sum, { offsetEnd }, index) => {
      return sum + offsetEnd - (this.#done[index]?.offset ?? offsetEnd);
    }, 0);
  }

  /** How it stands, for lists. */
  describe(): object {
    const { sub, stream } = this.#parts;
    const { name, key, lag } = this;
    const unacked = this.#unacked.length;
    return { sub, stream: stream.name, name, key, lag, sent: this.#sent, unacked };
  }

  /** Begins to send. */
  start(): void {
    if (this.#running !== null || this.#isStopped) return;
    // What ends without a wait has no part in `#running`: it must not be set behind its end.
    this.#isEnded = false;
    const running = this.#run();
    if (!this.#isEnded) this.#running = running;
  }

  /** Something may have come. */
  readable(isClosed: boolean): void {
    if (!isClosed) this.start();
  }

  /** Ends sending and lets go of the name, once what was acked is on disk. Never rejects. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#reader.endWait();
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
    const acked = this.#acked;
    if (durable === null || acked === null) return;
    let moved = false;
    for (const [index, { epoch, offset }] of cursor.entries()) {
      const partition = stream.partitions[index];
      if (partition === undefined || offset <= (acked[index] ?? 0)) continue;
      if (epoch !== shortEpoch(partition.epoch)) throw notOurs("the stream was made anew since");
      acked[index] = Math.min(offset, partition.offsetEnd);
      moved = true;
    }
    if (!moved) return;
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
    if (this.#reader.passOthers()) {
      this.#done = this.#reader.cursor;
      this.#hasUntold = true;
    }
    if (!this.#hasUntold || clock.monotonicMs() - this.#toldMs < cursorTellMs) return;
    this.#tell();
    outbox.answer(cursorFrame(sub, encodeCursor(this.#done)));
  }

  /** Sends until there is nothing more to be read now, and waits for that to change. */
  async #run(): Promise<void> {
    const { outbox, owner, sub, turns } = this.#parts;
    try {
      for (;;) {
        if (outbox.isBlocked) {
          await outbox.ready();
          await turns.next();
        }
        const room = this.#acked === null ? readStepMessages : await this.#room();
        if (this.#isStopped || !outbox.isOpen) return this.#rest();
        // Nothing that was read is held across a wait: a client that stops reading costs little.
        if (!(await this.#step(Math.min(room, readStepMessages)))) break;
        if (!this.#reader.atEnd && !outbox.isBlocked) await turns.next();
      }
    } catch (error) {
      this.#rest();
      return owner.lost(sub, error);
    }
    this.#rest();
    if (!this.#isStopped && outbox.isOpen) this.#reader.whenReadable(this);
  }

  /** It has ended by itself: the next one may start. */
  #rest(): void {
    this.#isEnded = true;
    this.#running = null;
  }

  /** Reads and sends once; false: there was nothing to be read, or all has ended. */
  async #step(messagesMax: number): Promise<boolean> {
    if (this.#reader.atEnd && !this.#reader.hasGaps) return false;
    const limits = { messagesMax, bytesMax: readStepBytes, wait: false, signal: never };
    const batch = await this.#reader.next(limits);
    if (batch === null || this.#isStopped) return false;
    if (batch.gaps.length > 0 && !(await this.#tellGaps(batch))) return false;
    this.#send(batch.messages);
    return true;
  }

  /** How many messages may be sent; waits while the window is full. */
  async #room(): Promise<number> {
    const { durable } = this.#parts;
    if (durable === null) return readStepMessages;
    while (this.#unacked.length >= durable.window && !this.#isStopped) {
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

  /** Sends as much as the client has room for; reading goes on behind that. */
  #send(messages: readonly StoredMessage[]): void {
    const { outbox, telemetry, selection, durable } = this.#parts;
    const at = { prefix: this.#prefix, cursor: this.#reader.cursor };
    const given: StoredMessage[] = [];
    const count = outbox.send(messages.length, (index) => {
      const message = messages[index];
      if (message === undefined || !this.#isWanted(message)) return null;
      given.push(message);
      return messageFrame(message, selection.form, at);
    });
    const rest = messages[count];
    if (rest !== undefined) {
      if (given.at(-1) === rest) given.pop();
      this.#reader.backTo(rest);
    }
    if (durable !== null) {
      for (const { partition, offset } of given) this.#unacked.push({ partition, offset });
    }
    this.#sent += given.length;
    telemetry.socketMessages += given.length;
    this.#done = this.#reader.cursor;
    if (given.length > 0) this.#tell();
    if (count > 0 && given.at(-1) !== messages[count - 1]) this.#hasUntold = true;
  }

  #tell(): void {
    this.#hasUntold = false;
    this.#toldMs = this.#parts.clock.monotonicMs();
  }

  /** Tells of what is missing; false when the socket has closed. */
  async #tellGaps({ gaps, messages }: StreamBatch): Promise<boolean> {
    const { outbox, sub } = this.#parts;
    const { cursor } = this.#reader;
    const [first] = messages;
    // Behind the gap and before the messages: who comes back from here must not miss them.
    const behind = encodeCursor(
      first === undefined ? cursor : cursorAtMessage(cursor, first, "before"),
    );
    for (let told = 0; told < gaps.length; ) {
      await outbox.ready();
      if (this.#isStopped || !outbox.isOpen) return false;
      told += outbox.send(gaps.length - told, (index) => {
        const gap = gaps[told + index];
        return gap === undefined ? null : subscribedFrame(sub, behind, gap);
      });
    }
    this.#tell();
    return true;
  }

  #isWanted(message: StoredMessage): boolean {
    const isAcked = message.offset < (this.#acked?.[message.partition] ?? 0);
    return !isAcked && this.#parts.selection.takes(message);
  }
}

function notOurs(detail: string): InvalidError {
  return new InvalidError(`cursor: ${detail}`, [{ pointer: "/cursor", detail }]);
}
