/**
 * The sending side of one socket. Bun tells with each send whether it was taken (bytes), taken
 * with backpressure (-1) or dropped (0): messages stop at the first -1 until the client has read,
 * and what was dropped counts as not sent. Memory stays within one frame beyond that.
 */
import type { ServerWebSocket } from "bun";
import { socketUnreadBytesMax } from "../limits.ts";
import { CLOSE } from "./frames.ts";

/** The part of Bun's socket that is used. */
export type RawSocket = Pick<
  ServerWebSocket<unknown>,
  "send" | "close" | "cork" | "terminate" | "getBufferedAmount"
>;

/** Frames to one client. */
export class Outbox {
  readonly #socket: RawSocket;
  readonly #waiting: (() => void)[] = [];
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
   * Sends texts from `start` on, in one write where possible; the index of the first that was not
   * sent. Less than all: wait for `ready` and go on there.
   */
  send(texts: readonly string[], start: number): number {
    let index = start;
    if (!this.#isOpen || this.#isBlocked) return index;
    this.#socket.cork(() => {
      while (index < texts.length && !this.#isBlocked) {
        const code = this.#socket.send(texts[index] ?? "");
        if (code <= 0) this.#isBlocked = true;
        if (code === 0) return;
        index++;
      }
    });
    return index;
  }

  /** Resolves when messages may be sent, or the socket has closed. */
  ready(): Promise<void> {
    if (!this.#isOpen || !this.#isBlocked) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    return promise;
  }

  /** The client has read what was waiting. */
  drained(): void {
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
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
