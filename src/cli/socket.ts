/**
 * One connection to the gateway's socket, `isthmus.v1.json`: frames out, frames in, in order.
 * What has arrived and is not yet taken is bounded: when the taker is too slow the connection is
 * closed, and the taker goes on from its last cursor over another one. Nothing is skipped.
 */
import { parseJson, stringifyJson } from "../json.ts";

/** Frames that wait to be taken. Characters; a frame is at most one message. */
const waitingCharsMax = 32 * 1024 * 1024;
/** The gateway sends at least a cursor each 5 s: so long a silence is a dead connection. Ms. */
const silenceMsMax = 30_000;
/** How often silence is looked for, and the gateway asked to answer. Milliseconds. */
const pingMs = 10_000;

/** One JSON object; `op` says which. */
export interface Frame {
  readonly op: string;
  readonly [member: string]: unknown;
}

/** Why a connection ended. `opened`: it had been up; `behind`: the taker was too slow. */
export interface Closed {
  readonly opened: boolean;
  readonly behind: boolean;
  readonly code: number;
  readonly reason: string;
}

/** An open or opening connection. `next` is called by one taker at a time. */
export class FrameSocket {
  readonly #socket: WebSocket;
  readonly #waiting: { readonly frame: Frame; readonly chars: number }[] = [];
  readonly #unsent: string[] = [];
  readonly #watch: ReturnType<typeof setInterval>;
  #waitingChars = 0;
  #heardMs = performance.now();
  #opened = false;
  #behind = false;
  #closed: Closed | null = null;
  #wake: (() => void) | null = null;

  /** `url` is the gateway's `http:` or `https:` address. */
  constructor(url: string) {
    this.#socket = new WebSocket(`${url.replace(/^http/, "ws")}/socket`, ["isthmus.v1.json"]);
    this.#socket.addEventListener("open", () => this.#open());
    this.#socket.addEventListener("message", (event: MessageEvent) => this.#take(event.data));
    this.#socket.addEventListener("close", (event: CloseEvent) =>
      this.#end(event.code, event.reason),
    );
    // A close event follows each error and is what is acted on.
    this.#socket.addEventListener("error", () => this.#end(1006, ""));
    this.#watch = setInterval(() => this.#ping(), pingMs);
  }

  /** Sends a frame, at once or when the connection is open. After the end it does nothing. */
  send(frame: Frame): void {
    const text = stringifyJson(frame);
    if (this.#opened) this.#socket.send(text);
    else this.#unsent.push(text);
  }

  /** The next frame, or why there are no more. All that arrived before the end comes first. */
  async next(): Promise<Frame | Closed> {
    for (;;) {
      const waiting = this.#waiting.shift();
      if (waiting !== undefined) {
        this.#waitingChars -= waiting.chars;
        return waiting.frame;
      }
      if (this.#closed !== null) return this.#closed;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Ends the connection; frames that arrived can still be taken. */
  close(): void {
    this.#socket.close(1000);
    this.#end(1000, "");
  }

  #open(): void {
    this.#opened = true;
    this.#heardMs = performance.now();
    for (const text of this.#unsent.splice(0)) this.#socket.send(text);
  }

  #take(data: unknown): void {
    if (this.#closed !== null) return;
    this.#heardMs = performance.now();
    const text = typeof data === "string" ? data : "";
    const frame = frameOf(text);
    if (frame === null) return this.#fail("a frame that is not JSON");
    this.#waiting.push({ frame, chars: text.length });
    this.#waitingChars += text.length;
    if (this.#waitingChars > waitingCharsMax && this.#waiting.length > 1) {
      this.#behind = true;
      this.close();
    }
    this.#wakeUp();
  }

  #ping(): void {
    if (!this.#opened) return;
    if (performance.now() - this.#heardMs > silenceMsMax) return this.#fail("no sign of life");
    this.#socket.send('{"op":"ping"}');
  }

  #fail(reason: string): void {
    this.#socket.close(1000);
    this.#end(1006, reason);
  }

  #end(code: number, reason: string): void {
    if (this.#closed !== null) return;
    clearInterval(this.#watch);
    this.#closed = { opened: this.#opened, behind: this.#behind, code, reason };
    this.#wakeUp();
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}

/** Whether it is the end of a connection and not a frame. */
export function isClosed(next: Frame | Closed): next is Closed {
  return "opened" in next && !("op" in next);
}

function frameOf(text: string): Frame | null {
  try {
    const value = parseJson(text);
    const isFrame = typeof value === "object" && value !== null && "op" in value;
    return isFrame && typeof value.op === "string" ? (value as Frame) : null;
  } catch {
    return null;
  }
}
