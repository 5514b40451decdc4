/**
 * The sending side of one socket. Bun tells with each send whether it was taken (bytes), taken
 * with backpressure (-1) or dropped (0): messages stop at the first -1 until the client has read
 * all of it, and what was dropped counts as not sent. What waits for a client that does not read is
 * the part of one write (32 KiB and a frame) that the kernel had no room for: frames to come are
 * not made before there is room. Bun itself gathers up to 128 KiB under one cork and tells of the
 * kernel's refusal only behind that.
 */
import type { ServerWebSocket } from "bun";
import { socketUnreadBytesMax, socketWriteCharsMax } from "../limits.ts";
import { CLOSE } from "./frames.ts";

/** The part of Bun's socket that is used. */
export type RawSocket = Pick<
  ServerWebSocket<unknown>,
  "send" | "close" | "cork" | "terminate" | "getBufferedAmount"
>;

/** Frames to one client. */
export class Outbox {
  readonly #socket: RawSocket;
  /** None while nobody waits: there may be thousands of sockets. */
  #waiting: (() => void)[] | null = null;
  #isBlocked = false;
  #isOpen = true;
  /** Bytes of answers since the client has stopped reading. */
  #unreadBytes = 0;

  constructor(socket: RawSocket) {
    this.#socket = socket;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Whether the client has not read what was sent to it. */
  get isBlocked(): boolean {
    return this.#isBlocked;
  }

  /**
   * Sends an answer. A client that sends on and reads nothing is closed, and told to come back:
   * nothing that it could miss was counted as sent.
   */
  answer(text: string): void {
    if (!this.#isOpen) return;
    const code = this.#socket.send(text);
    if (code > 0) return;
    this.#isBlocked = true;
    this.#unreadBytes += text.length;
    if (code === 0 || this.#unreadBytes > socketUnreadBytesMax) {
      this.close(CLOSE.unread, "answers were not read");
    }
  }

  /**
   * Sends up to `count` texts in one write where possible, each made when there is room for it;
   * how many were taken or are null, which is nothing to send. Less than all: wait for `ready`.
   */
  send(count: number, textAt: (index: number) => string | null): number {
    let index = 0;
    const write = (): void => {
      let chars = 0;
      while (index < count && !this.#isBlocked && chars < socketWriteCharsMax) {
        const text = textAt(index);
        const code = text === null ? 1 : this.#socket.send(text);
        if (code <= 0) this.#isBlocked = true;
        if (code === 0) return;
        chars += text?.length ?? 0;
        index++;
      }
    };
    while (index < count && this.#isOpen && !this.#isBlocked) {
      this.#socket.cork(write);
      if (this.#socket.getBufferedAmount() > 0) this.#isBlocked = true;
    }
    return index;
  }

  /** Resolves when messages may be sent, or the socket has closed. */
  ready(): Promise<void> {
    if (!this.#isOpen || !this.#isBlocked) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting ??= [];
    this.#waiting.push(resolve);
    return promise;
  }

  /** The client has read some of what was waiting; there is room once it has read all. */
  drained(): void {
    if (this.#socket.getBufferedAmount() > 0) return;
    this.#isBlocked = false;
    this.#unreadBytes = 0;
    this.#wake();
  }

  /** Closes from our side; frames sent before still arrive. */
  close(code: number, reason: string): void {
    if (!this.#isOpen) return;
    this.ended();
    this.#socket.close(code, reason);
  }

  /** The connection has ended, from whichever side. */
  ended(): void {
    this.#isOpen = false;
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    for (const resolve of waiting ?? []) resolve();
  }
}
