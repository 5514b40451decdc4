/**
 * One connection after the other: dials, says who the caller is, notices death, waits and dials
 * again until it is closed or told to stop. At most one socket is alive at a time, and nothing of
 * an earlier one is heard once it was given up.
 */
import { afterClose, retryMs, stopCode, toldMs, type Tuning } from "./closes.ts";
import { ClientError } from "./error.ts";
import { readFrame, type ServerFrame, SUBPROTOCOL } from "./frames.ts";
import type { Platform, SocketLike } from "./platform.ts";

/** A token, or how to get one: asked at the start and when the one there is has expired. */
export type TokenSource = string | (() => string | Promise<string>);

/** `offline`: waiting before the next try; `closed`: for good, with the error that led to it. */
export interface ClientState {
  readonly status: "connecting" | "online" | "offline" | "closed";
  readonly error: ClientError | null;
}

/** What a connection is made from. */
export interface ConnectionParts {
  readonly url: string;
  readonly token: TokenSource;
  readonly platform: Platform;
  readonly tuning: Tuning;
  readonly changed: (state: ClientState) => void;
  readonly frame: (frame: ServerFrame) => void;
}

/** The connection of a client. */
export class Connection {
  readonly #parts: ConnectionParts;
  #state: ClientState = { status: "offline", error: null };
  #socket: SocketLike | null = null;
  /** Late answers of earlier tries are known by it. */
  #try = 0;
  #token: string | null = null;
  /** Whether the server has let this token in before. */
  #isProven = false;
  #failures = 0;
  #upMs = 0;
  #isHeard = false;
  #pingMs: number;
  /** Over how long the server wants its clients to spread their return. */
  #spreadMs = 0;
  #cancel: () => void = () => undefined;

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
    this.#pingMs = parts.tuning.pingMs;
  }

  get state(): ClientState {
    return this.#state;
  }

  /** Sends when online; false: not sent, and all is said anew at the next `online`. */
  send(frame: object | string): boolean {
    if (this.#state.status !== "online") return false;
    this.#socket?.send(typeof frame === "string" ? frame : JSON.stringify(frame));
    return true;
  }

  /** Dials at once when waiting, and looks whether the connection is alive when there is one. */
  wake(): void {
    const { status } = this.#state;
    if (status === "offline") this.#dial();
    if (status === "online") this.#ping();
  }

  /** Ends for good. */
  close(error: ClientError | null): void {
    if (this.#state.status === "closed") return;
    this.#drop();
    this.#enter("closed", error);
  }

  #enter(status: ClientState["status"], error: ClientError | null = null): void {
    this.#state = { status, error };
    this.#parts.changed(this.#state);
  }

  #after(ms: number, run: () => void): void {
    this.#cancel();
    this.#cancel = this.#parts.platform.later(ms, run);
  }

  #dial(): void {
    const { tuning, token } = this.#parts;
    const mine = ++this.#try;
    this.#after(tuning.deadMs, () => this.#ended(0, "no answer in time"));
    this.#enter("connecting");
    const ask = async (): Promise<string> => {
      return this.#token ?? (typeof token === "string" ? token : await token());
    };
    ask().then(
      (known) => {
        if (mine === this.#try) this.#open(known);
      },
      (error: unknown) => {
        const failure = new ClientError("token-failed", "the token callback failed", error);
        if (mine === this.#try) this.#ended(0, "", failure);
      },
    );
  }

  #open(token: string): void {
    const { platform, url } = this.#parts;
    this.#token = token;
    let socket: SocketLike;
    try {
      socket = platform.socket(url, SUBPROTOCOL);
    } catch (error) {
      const isOurs = error instanceof ClientError;
      return this.close(isOurs ? error : new ClientError("invalid", `url: ${url}`, error));
    }
    this.#socket = socket;
    socket.onopen = () => socket.send(JSON.stringify({ op: "auth", token }));
    socket.onmessage = ({ data }) => this.#received(data);
    socket.onclose = ({ code, reason }) => this.#ended(code, reason);
    // A close follows; some libraries throw an error that nobody listens to.
    socket.onerror = () => undefined;
  }

  #received(data: unknown): void {
    this.#isHeard = true;
    let frame: ServerFrame | null;
    try {
      frame = readFrame(data);
    } catch {
      return this.#ended(0, "a frame is no JSON");
    }
    if (frame === null) return;
    if (frame.op !== "welcome") return this.#parts.frame(frame);
    this.#isProven = true;
    this.#upMs = this.#parts.platform.nowMs();
    this.#pingMs = Math.min(this.#parts.tuning.pingMs, frame.pingMs ?? Infinity);
    this.#spreadMs = Math.min(this.#parts.tuning.maxMs, frame.spreadMs ?? 0);
    this.#after(this.#pingMs, () => this.#ping());
    this.#enter("online");
  }

  #ping(): void {
    this.#isHeard = false;
    this.send('{"op":"ping"}');
    this.#after(this.#parts.tuning.deadMs, () => {
      if (!this.#isHeard) return this.#ended(0, "no sign of life");
      this.#after(this.#pingMs, () => this.#ping());
    });
  }

  /** Lets go of the socket and whatever waits. */
  #drop(): void {
    this.#try++;
    this.#cancel();
    const socket = this.#socket;
    if (socket === null) return;
    this.#socket = null;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #waitMs(isRestart: boolean, wasOnline: boolean): number {
    const { tuning, platform } = this.#parts;
    if (isRestart) return platform.random() * tuning.restartMs;
    // Whoever was cut off without a word was probably not the only one.
    const spreadMs = wasOnline ? platform.random() * this.#spreadMs : 0;
    return Math.max(spreadMs, retryMs(this.#failures, tuning, platform.random()));
  }

  /**
   * Lets go of the token; the error if it never was a good one. Whose callback gives old tokens
   * comes back ever more slowly, until it gives a good one.
   */
  #forget(error: ClientError): ClientError | null {
    const cause = this.#isProven ? null : error;
    this.#token = null;
    this.#isProven = false;
    return cause;
  }

  #ended(code: number, reason: string, cause: ClientError | null = null): void {
    const { tuning, platform, token } = this.#parts;
    const wasOnline = this.#state.status === "online";
    if (wasOnline && platform.nowMs() - this.#upMs >= tuning.stableMs) this.#failures = 0;
    this.#drop();
    let next = afterClose(code);
    const isAsked = typeof token !== "string";
    // A token that was good once may have expired while nobody was connected.
    if (code === 4501 && !wasOnline && isAsked && this.#isProven) next = "renew";
    if (next === "stop" || (next === "renew" && !isAsked)) {
      return this.close(new ClientError(stopCode(code), `${reason} (${code})`));
    }
    let ms = toldMs(reason) ?? this.#waitMs(next === "spread", wasOnline);
    if (next === "renew") {
      cause = this.#forget(new ClientError(stopCode(code), `${reason} (${code})`));
      if (this.#failures === 0) ms = 0;
    }
    // A token that was never let in is asked for again: it may expire while the server is away.
    if (!this.#isProven) this.#token = null;
    this.#failures++;
    this.#after(ms, () => this.#dial());
    this.#enter("offline", cause);
  }
}
