/**
 * HTTP as bytes: one keep-alive connection that sends what it is given, right or wrong, and tells
 * what was answered. A server that closes instead of answering is an outcome, not an error.
 */
import { connect, type Socket } from "node:net";

/** What came back for one request. */
export interface RawAnswer {
  readonly status: number;
  readonly body: string;
}

/** A request as its parts; values of headers are bytes as Latin-1 characters. */
export interface RawRequest {
  readonly method?: string;
  /** Path and query. */
  readonly target: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
}

/** The bytes of a well-formed request. */
export function requestBytes({ method = "POST", target, headers, body = "" }: RawRequest): Buffer {
  const content = Buffer.from(body);
  const lines = Object.entries({ host: "x", "content-length": content.length, ...headers })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("");
  const head = Buffer.from(`${method} ${target} HTTP/1.1\r\n${lines}\r\n`, "latin1");
  return Buffer.concat([head, content]);
}

/** One connection. Requests on it are sent one after another. */
export class RawClient implements Disposable {
  readonly #socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #waiting: ((answer: RawAnswer | null) => void) | null = null;
  isClosed = false;

  constructor(port: number) {
    this.#socket = connect(port, "127.0.0.1");
    this.#socket.setNoDelay(true);
    this.#socket.on("data", (bytes: Buffer) => this.#take(bytes));
    this.#socket.on("close", () => this.#end());
    this.#socket.on("error", () => this.#end());
  }

  /** The answer; null when the connection was closed, or is, without one. */
  ask(bytes: Uint8Array): Promise<RawAnswer | null> {
    if (this.#waiting !== null) throw new Error("the request before has no answer");
    if (this.isClosed) return Promise.resolve(null);
    const { promise, resolve } = Promise.withResolvers<RawAnswer | null>();
    this.#waiting = resolve;
    this.#socket.write(bytes);
    return promise;
  }

  /** Sends bytes that get no answer of their own. */
  write(bytes: Uint8Array | string): void {
    if (!this.isClosed) this.#socket.write(bytes);
  }

  /** Says that nothing more is sent; what comes is still taken. */
  half(): void {
    this.#socket.end();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
    this.#end();
  }

  #end(): void {
    this.isClosed = true;
    this.#answer(null);
  }

  #answer(answer: RawAnswer | null): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.(answer);
  }

  #take(bytes: Buffer): void {
    this.#received = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes]);
    for (;;) {
      const end = this.#received.indexOf("\r\n\r\n");
      if (end < 0) return;
      const head = this.#received.toString("latin1", 0, end);
      const status = Number(/^HTTP\/1\.\d (\d{3})/.exec(head)?.[1]);
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0);
      const next = end + 4 + length;
      if (this.#received.length < next) return;
      const body = this.#received.toString("utf8", end + 4, next);
      this.#received = this.#received.subarray(next);
      // A 1xx is no answer yet.
      if (status >= 200) this.#answer({ status, body });
    }
  }
}

/** Sends one request on a connection of its own. */
export async function askOnce(port: number, bytes: Uint8Array): Promise<RawAnswer | null> {
  using client = new RawClient(port);
  return await client.ask(bytes);
}
