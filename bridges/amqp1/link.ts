/**
 * One connection to an AMQP 1.0 broker. A connection that fails takes everything on it down, once,
 * with one reason; nothing reconnects here, the client library's own way of it is off: the bridge
 * is opened anew. Each sender and receiver has a session of its own (`attach.ts`).
 */
import type { Connection, ConnectionOptions, EventContext, Session } from "rhea";
import { systemClock } from "../../src/clock.ts";
import { DisconnectedError, errorText, InvalidError } from "../../src/errors.ts";
import type { Tls } from "../document.ts";
import { loginOf, pemOf } from "../endpoint.ts";
import { codeOf, reasonText } from "../reason.ts";
import type { Sasl } from "./module.ts";
import { speaksAmqp091 } from "./probe.ts";

/** How long a broker may take from the first packet to its `open`. Milliseconds. */
const OPEN_WAIT_MS = 10_000;
/** How long a close waits for the broker's answer before it lets go of the socket. Milliseconds. */
const CLOSE_WAIT_MS = 2000;
/** The largest frame that we take; larger messages come in several. Bytes. */
const FRAME_BYTES_MAX = 256 * 1024;

/** What a connection is made with; every reference is resolved. */
export interface Endpoint {
  readonly urls: readonly string[];
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly sasl?: Sasl | undefined;
  readonly tls?: Tls | undefined;
  readonly heartbeatMs: number;
  /** What the broker knows this connection by; some refuse a second one of the same name. */
  readonly containerId: string;
}

/** Which product is at the other end, as it says itself. */
export interface Peer {
  readonly isRabbitMq: boolean;
  /** The first number of its version; 0 when it does not say. */
  readonly majorVersion: number;
  /** What stands before the names of queues and topics, where it tells them apart by that. */
  readonly prefixes: { readonly queue: string; readonly topic: string };
  /** Whether several readers may share a subscription. */
  readonly sharesSubscriptions: boolean;
}

/** How a broker offers that, by the mapping of JMS. */
const SHARED_SUBSCRIPTIONS = "SHARED-SUBS";

/** A live connection. */
export class Link implements AsyncDisposable {
  readonly #connection: Connection;
  readonly #ended = new AbortController();
  readonly #closed = Promise.withResolvers<void>();
  readonly #onLost: (reason: Error) => void;
  #reason: Error | null = null;

  private constructor(connection: Connection, onLost: (reason: Error) => void) {
    this.#connection = connection;
    this.#onLost = onLost;
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
    const failures: string[] = [];
    for (const url of endpoint.urls) {
      if (signal.aborted) break;
      const { options, place } = connectOptions(url, endpoint);
      const where = `${place.host}:${place.port}`;
      try {
        return await Link.#dial(options, signal, onLost);
      } catch (error) {
        if (signal.aborted) break;
        if (codeOf(error) === null && (await speaksAmqp091(place))) {
          throw otherProtocol(where, error);
        }
        failures.push(reasonText(where, inWords(error)));
      }
    }
    throw new DisconnectedError(signal.aborted ? "connecting was aborted" : failures.join("; "));
  }

  static async #dial(
    options: ConnectionOptions,
    signal: AbortSignal,
    onLost: (reason: Error) => void,
  ): Promise<Link> {
    const { default: rhea } = await import("rhea");
    // A container of its own: what the library can't deliver to a connection it throws there.
    const container = rhea.create_container();
    const connection = container.create_connection(options);
    const link = new Link(connection, onLost);
    const opened = Promise.withResolvers<void>();
    const failed = (error: unknown): void => {
      link.#lose(error);
      opened.reject(link.#reason ?? new Error("the connection was closed"));
    };
    container.on("error", failed);
    connection.on("connection_open", () => opened.resolve());
    connection.on("connection_error", ({ error }: EventContext) => failed(error));
    connection.on("connection_close", ({ error }: EventContext) => failed(error));
    connection.on("disconnected", ({ error }: EventContext) => failed(error));
    connection.on("protocol_error", failed);
    connection.on("error", failed);
    connection.connect();
    const waiting = new AbortController();
    const abort = (): void => failed(new Error("connecting was aborted"));
    signal.addEventListener("abort", abort, { once: true });
    const late = systemClock.sleep(OPEN_WAIT_MS, waiting.signal).then(() => {
      if (!waiting.signal.aborted) failed(new Error("did not answer in AMQP 1.0"));
    });
    try {
      await opened.promise;
      return link;
    } finally {
      waiting.abort();
      await late;
      signal.removeEventListener("abort", abort);
    }
  }

  /** Aborts when the connection is gone or closed. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  /** Whether the connection is gone. */
  get isLost(): boolean {
    return this.#ended.signal.aborted;
  }

  /** Who is at the other end. */
  get peer(): Peer {
    const properties: Readonly<Record<string, unknown>> = this.#connection.properties ?? {};
    const offered: unknown = this.#connection.offered_capabilities;
    const major = /^\d+/.exec(textOf(properties["version"]))?.[0];
    return {
      isRabbitMq: properties["product"] === "RabbitMQ",
      majorVersion: Number(major ?? 0),
      prefixes: {
        queue: textOf(properties["queue-prefix"]),
        topic: textOf(properties["topic-prefix"]),
      },
      sharesSubscriptions: [offered].flat().map(String).includes(SHARED_SUBSCRIPTIONS),
    };
  }

  /** The error of a connection that is gone. */
  disconnected(): DisconnectedError {
    const reason = this.#reason === null ? "closed" : errorText(this.#reason);
    return new DisconnectedError(`the connection to the broker is gone: ${reason}`, {
      cause: this.#reason,
    });
  }

  /** A session that has begun. @throws DisconnectedError */
  session(): Session {
    if (this.isLost) throw this.disconnected();
    const session: Session = this.#connection["create_session"]();
    session.begin();
    return session;
  }

  /** Closes the connection; the broker takes back what is unsettled. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.isLost) return;
    this.#ended.abort();
    const waiting = new AbortController();
    this.#connection.close();
    await Promise.race([this.#closed.promise, systemClock.sleep(CLOSE_WAIT_MS, waiting.signal)]);
    waiting.abort();
    this.#destroy();
  }

  #lose(cause: unknown): void {
    this.#closed.resolve();
    if (this.#reason !== null || this.isLost) return;
    this.#reason = reasonOf(cause);
    this.#destroy();
    this.#ended.abort();
    this.#onLost(this.#reason);
  }

  #destroy(): void {
    const { socket } = this.#connection as { socket?: { destroy?: () => void } };
    socket?.destroy?.();
  }
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** The library's errors carry the protocol's condition, which says more than their class. */
function reasonOf(cause: unknown): Error {
  if (!(cause instanceof Error)) return new Error("the broker closed the connection");
  const { condition } = cause as { condition?: unknown };
  if (typeof condition !== "string") return cause;
  return new Error(`${errorText(cause)} (${condition})`, { cause });
}

interface Place {
  readonly host: string;
  readonly port: number;
}

function connectOptions(
  text: string,
  endpoint: Endpoint,
): { readonly options: ConnectionOptions; readonly place: Place } {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== "amqp:" && url.protocol !== "amqps:")) {
    throw new InvalidError("the URL of an AMQP broker begins with amqp:// or amqps://");
  }
  const secure = (endpoint.tls ?? false) !== false || url.protocol === "amqps:";
  const port = url.port === "" ? (secure ? 5671 : 5672) : Number(url.port);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const options = {
    host,
    port,
    hostname: host,
    container_id: endpoint.containerId,
    reconnect: false,
    idle_time_out: endpoint.heartbeatMs,
    max_frame_size: FRAME_BYTES_MAX,
    tcp_no_delay: true,
    properties: { product: "isthmus" },
    ...saslOf(endpoint, loginOf(url, endpoint)),
  };
  const place = { host, port };
  if (!secure) return { options: { ...options, transport: "tcp" }, place };
  return { options: { ...options, transport: "tls", ...pemOf(endpoint.tls) }, place };
}

/**
 * The library chooses the mechanism by what it is given: a name alone is ANONYMOUS, with a password
 * PLAIN, none but a certificate EXTERNAL. Without any, brokers that insist on SASL would close.
 */
function saslOf(
  { sasl, tls }: Endpoint,
  login: { readonly username?: string; readonly password?: string },
): Record<string, unknown> {
  const hasCertificate = pemOf(tls).cert !== undefined;
  const isExternal = login.username === undefined && hasCertificate;
  if ((sasl ?? (isExternal ? "external" : "")) === "external") {
    return { enable_sasl_external: true };
  }
  if (sasl === "anonymous" || login.username === undefined) return { username: "anonymous" };
  return { username: login.username, password: login.password ?? "" };
}

/** The library names what it was sent; that this is no AMQP 1.0 is for us to say. */
function inWords(error: unknown): unknown {
  if (!(error instanceof Error) || error.name !== "ProtocolError") return error;
  return new Error(`does not speak AMQP 1.0: ${error.message}`, { cause: error });
}

function otherProtocol(where: string, cause: unknown): InvalidError {
  return new InvalidError(
    `${where} does not speak AMQP 1.0; a broker of AMQP 0-9-1 is a bridge of kind amqp`,
    [{ pointer: "/url", detail: "expected a broker of AMQP 1.0" }],
    { cause },
  );
}
