/**
 * Frames of one socket in the order they came. A frame that takes time holds up those behind it;
 * what waits is bounded, for a socket can't be told to stop sending.
 */
import { socketWaitingBytesMax, socketWaitingFramesMax } from "../limits.ts";

/** Who handles frames. */
export interface FrameHandler {
  /** Handles a frame; a promise when those behind it have to wait. It must not reject. */
  handle(text: string): Promise<void> | null;
}

/** The frames that wait. */
export class FrameQueue {
  readonly #handler: FrameHandler;
  #waiting: string[] | null = null;
  #waitingBytes = 0;
  #busy: Promise<void> | null = null;
  #isClosed = false;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** Takes a frame; false when more wait than may. */
  push(text: string): boolean {
    if (this.#busy === null) {
      const pending = this.#handler.handle(text);
      if (pending !== null) this.hold(pending);
      return true;
    }
    this.#waiting ??= [];
    this.#waiting.push(text);
    this.#waitingBytes += text.length;
    return (
      this.#waitingBytes <= socketWaitingBytesMax && this.#waiting.length <= socketWaitingFramesMax
    );
  }

  /** Holds up every frame until this work is done; only while nothing else does. */
  hold(work: Promise<void>): void {
    this.#busy = this.#workThrough(work);
  }

  /** Forgets what waits; resolves when the frame under way is done. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#busy;
  }

  async #workThrough(first: Promise<void>): Promise<void> {
    await first;
    while (this.#waiting !== null) {
      const texts = this.#waiting;
      this.#waiting = null;
      for (const text of texts) {
        this.#waitingBytes -= text.length;
        if (!this.#isClosed) await this.#handler.handle(text);
      }
    }
    this.#busy = null;
  }
}
