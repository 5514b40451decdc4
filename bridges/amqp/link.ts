/**
 * One connection to an AMQP 0-9-1 broker, and the channels on it. A channel that fails leaves the
 * connection up; a connection that fails takes everything on it down, once, with one reason.
 * Nothing reconnects here: the bridge is opened anew.
 */
import type { Channel, ChannelModel, ConfirmChannel, Options, SocketOptions } from "amqplib";
import { systemClock } from "../../src/clock.ts";
import { DisconnectedError, errorText, InvalidError } from "../../src/errors.ts";
import type { Tls } from "../document.ts";
import { decodedPart, loginOf, pemOf } from "../endpoint.ts";
import { codeOf, reasonText } from "../reason.ts";
import { speaksAmqp1 } from "./probe.ts";

/** How long the socket may stay silent while a connection is made. Milliseconds. */
const CONNECT_SILENCE_MS = 10_000;
/** How long a close waits for the broker's answer before it lets go of the socket. Milliseconds. */
const CLOSE_WAIT_MS = 2000;
/**
 * The frame size where the library does not say what was agreed: the protocol's usual one. Bytes.
 */
const FRAME_BYTES_DEFAULT = 131_072;
/** Frames that a channel buffers before `publish` says to wait. Count. */
const CHANNEL_FRAMES_MAX = 1024;

/** What a connection is made with; every reference is resolved. */
export interface Endpoint {
  readonly urls: readonly string[];
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly sasl?: "plain" | "external" | undefined;
  readonly vhost?: string | undefined;
  readonly tls?: Tls | undefined;
  readonly heartbeatMs: number;
  /** Shown in the broker's list of connections. */
  readonly label: string;
}

/** A failure that the broker answered with, such as 404 for a missing queue. */
export interface BrokerRefusal {
  readonly code: number;
  readonly text: string;
}

/** A live connection. */
export class Link implements AsyncDisposable {
  readonly #model: ChannelModel;
  readonly #onLost: (reason: Error) => void;
  #lost: Error | null = null;
  #ended = false;
  /** Why the broker takes no publishes for now, in its words. */
  #blocked: string | null = null;

  private constructor(model: ChannelModel, onLost: (reason: Error) => void) {
    this.#model = model;
    this.#onLost = onLost;
    let reason: Error | null = null;
    model.on("error", (error) => {
      reason ??= error;
    });
    model.on("blocked", (reason) => {
      this.#blocked = String(reason);
    });
    model.on("unblocked", () => {
      this.#blocked = null;
    });
    model.on("close", (error) => {
      this.#lost = reason ?? error ?? new Error("the connection was closed");
      if (!this.#ended) this.#onLost(this.#lost);
    });
  }

  /**
   * Connects to the first URL that answers. `onLost` is called once when the connection is gone,
   * unless it was disposed of.
   * @throws DisconnectedError when none does. @throws InvalidError for a URL or a protocol that
   * can't be right.
   */
  static async open(
    endpoint: Endpoint,
    signal: AbortSignal,
    onLost: (reason: Error) => void,
  ): Promise<Link> {
    const amqplib = await import("amqplib");
    const failures: string[] = [];
    for (const url of endpoint.urls) {
      if (signal.aborted) break;
      const { options, socket: plain, place } = connectOptions(url, endpoint);
      const isExternal = endpoint.sasl === "external";
      const socket = isExternal ? { ...plain, credentials: amqplib.credentials.external() } : plain;
      const connecting = amqplib.connect(options, socket);
      try {
        const model = await abortable(connecting, signal);
        if (!hasEnded(model)) return new Link(model, onLost);
        failures.push(`${place.host}:${place.port} closed the connection as soon as it was open`);
      } catch (error) {
        if (signal.aborted) break;
        if (codeOf(error) === null && (await speaksAmqp1(place))) throw otherProtocol(place, error);
        failures.push(reasonText(`${place.host}:${place.port}`, error));
      }
    }
    throw new DisconnectedError(signal.aborted ? "connecting was aborted" : failures.join("; "));
  }

  /** Whether the connection is gone. */
  get isLost(): boolean {
    return this.#lost !== null || this.#ended;
  }

  /** Whether the broker takes no publishes for now (memory or disk alarm). */
  get isBlocked(): boolean {
    return this.#blocked !== null;
  }

  /** The broker's reason for taking no publishes. */
  get blockedText(): string {
    return `the broker takes no messages for now: ${this.#blocked ?? "it did not say why"}`;
  }

  /** Whether the broker has stream queues: RabbitMQ from 3.9 on. */
  get hasStreams(): boolean {
    const { serverProperties } = this.#model.connection as {
      serverProperties?: Readonly<Record<string, unknown>>;
    };
    const { product, version } = serverProperties ?? {};
    const [major = 0, minor = 0] = String(version).split(".").map(Number);
    return product === "RabbitMQ" && (major > 3 || (major === 3 && minor >= 9));
  }

  /** The largest frame that was agreed on. Bytes. */
  get frameBytesMax(): number {
    const agreed = (this.#model.connection as { frameMax?: unknown }).frameMax;
    return typeof agreed === "number" ? agreed : FRAME_BYTES_DEFAULT;
  }

  /** The error of a connection that is gone. */
  disconnected(): DisconnectedError {
    const reason = this.#lost === null ? "closed" : errorText(this.#lost);
    return new DisconnectedError(`the connection to the broker is gone: ${reason}`, {
      cause: this.#lost,
    });
  }

  /** A channel; its errors must be listened to by the caller. @throws DisconnectedError */
  async channel(): Promise<Channel> {
    return await this.#guard(() => this.#model.createChannel());
  }

  /** A channel with publisher confirms. @throws DisconnectedError */
  async confirmChannel(): Promise<ConfirmChannel> {
    return await this.#guard(() =>
      this.#model.createConfirmChannel({ highWaterMark: CHANNEL_FRAMES_MAX }),
    );
  }

  /**
   * Does something on a channel of its own, which an error of the broker closes alone.
   * Returns the broker's refusal, or null when it agreed. @throws DisconnectedError
   */
  async attempt(work: (channel: Channel) => Promise<unknown>): Promise<BrokerRefusal | null> {
    const channel = await this.channel();
    channel.on("error", () => {
      // The same error rejects the call under way, where it is handled.
    });
    try {
      await work(channel);
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal === null) throw this.#broken(error);
      return refusal;
    }
    await closeChannel(channel);
    return null;
  }

  /** Closes the connection; the broker takes back what is unsettled. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#lost !== null) return;
    if (!(await closes(this.#model))) destroySocket(this.#model);
  }

  async #guard<T>(open: () => Promise<T>): Promise<T> {
    if (this.isLost) throw this.disconnected();
    try {
      return await open();
    } catch (error) {
      throw this.#broken(error);
    }
  }

  #broken(cause: unknown): DisconnectedError {
    return this.isLost ? this.disconnected() : new DisconnectedError(errorText(cause), { cause });
  }
}

/** The broker's refusal in an error of the library, or null when it is something else. */
export function refusalOf(error: unknown): BrokerRefusal | null {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return typeof code === "number" ? { code, text: errorText(error) } : null;
}

/** Closes a channel; one that is closed already is fine. */
export async function closeChannel(channel: Channel): Promise<void> {
  await closes(channel);
}

/**
 * Closes a channel or a connection; false when the broker did not answer in time. The library
 * leaves its own promise open when the connection breaks meanwhile, but tells of the close.
 */
async function closes(one: Channel | ChannelModel): Promise<boolean> {
  const closed = Promise.withResolvers<boolean>();
  const waiting = new AbortController();
  one.on("close", () => closed.resolve(true));
  one.close().then(
    () => closed.resolve(true),
    // It went first: nothing is left to close.
    () => closed.resolve(true),
  );
  const late = systemClock.sleep(CLOSE_WAIT_MS, waiting.signal).then(() => false);
  const answered = await Promise.race([closed.promise, late]);
  waiting.abort();
  return answered;
}

interface ConnectOptions {
  readonly options: Options.Connect;
  readonly socket: SocketOptions;
  readonly place: Place;
}

interface Place {
  readonly host: string;
  readonly port: number;
}

function connectOptions(text: string, endpoint: Endpoint): ConnectOptions {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== "amqp:" && url.protocol !== "amqps:")) {
    throw new InvalidError("the URL of an AMQP broker begins with amqp:// or amqps://");
  }
  const secure = (endpoint.tls ?? false) !== false || url.protocol === "amqps:";
  const vhost = endpoint.vhost ?? decodedPart(url.pathname.slice(1));
  const login = loginOf(url, endpoint);
  const port = url.port === "" ? (secure ? 5671 : 5672) : Number(url.port);
  const hostname = url.hostname.replace(/^\[|\]$/g, "");
  return {
    options: {
      protocol: secure ? "amqps" : "amqp",
      hostname,
      port,
      ...login,
      // The library unescapes it once more.
      ...(vhost === "" ? {} : { vhost: encodeURIComponent(vhost) }),
      heartbeat: Math.max(1, Math.round(endpoint.heartbeatMs / 1000)),
    },
    socket: {
      ...pemOf(endpoint.tls),
      timeout: CONNECT_SILENCE_MS,
      noDelay: true,
      keepAlive: true,
      clientProperties: { connection_name: endpoint.label },
    },
    place: { host: hostname, port },
  };
}

/** Waits for a connection or the abort; one that comes after the abort is closed. */
async function abortable(
  connecting: Promise<ChannelModel>,
  signal: AbortSignal,
): Promise<ChannelModel> {
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => {
    aborted.reject(new DisconnectedError("connecting was aborted"));
    connecting.then(destroySocket, () => {
      // It failed by itself: there is nothing to close.
    });
  };
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([connecting, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/**
 * Whether a connection ended before anybody could listen: the broker's close can come in the same
 * packet as its consent, and the library tells of it before it hands the connection over.
 */
function hasEnded(model: ChannelModel): boolean {
  const { stream } = model.connection as { stream?: { writableEnded?: boolean } };
  return stream?.writableEnded === true;
}

/** Lets go of the socket without a word; the library has no public way to. */
function destroySocket(model: ChannelModel): void {
  const { stream } = model.connection as { stream?: { destroy?: () => void } };
  model.on("error", () => {
    // The end that is made here.
  });
  stream?.destroy?.();
}

function otherProtocol(place: Place, cause: unknown): InvalidError {
  return new InvalidError(
    `${place.host}:${place.port} does not speak AMQP 0-9-1; a broker of AMQP 1.0 is a bridge of kind amqp1`,
    [{ pointer: "/url", detail: "expected a broker of AMQP 0-9-1" }],
    { cause },
  );
}
