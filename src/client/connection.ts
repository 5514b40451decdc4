/**
 * One connection after the other: dials, says who the caller is, notices death, waits and dials
 * again until it is closed or told to stop. At most one socket is alive at a time, and nothing of
 * an earlier one is heard once it was given up.
 */
import { afterClose, retryMs, stopCode, type Tuning } from "./closes.ts";
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

  #ended(code: number, reason: string, cause: ClientError | null = null): void {
    const { tuning, platform, token } = this.#parts;
    const wasOnline = this.#state.status === "online";
    if (wasOnline && platform.nowMs() - this.#upMs >= tuning.stableMs) this.#failures = 0;
    this.#drop();
    let next = afterClose(code);
    const isRenewable = typeof token !== "string" && this.#isProven;
    // A token that was good once may have expired while nobody was connected.
    if (code === 4501 && !wasOnline && isRenewable) next = "renew";
    if (next === "stop" || (next === "renew" && !isRenewable)) {
      return this.close(new ClientError(stopCode(code), `${reason} (${code})`));
    }
    let ms = retryMs(this.#failures, tuning, platform.random());
    if (next === "spread") ms = platform.random() * tuning.restartMs;
    if (next === "renew") {
      this.#token = null;
      this.#isProven = false;
      if (this.#failures === 0) ms = 0;
    }
    // A token that was never let in is asked for again: it may expire while the server is away.
    if (!this.#isProven) this.#token = null;
    this.#failures++;
    this.#after(ms, () => this.#dial());
    this.#enter("offline", cause);
  }
}
