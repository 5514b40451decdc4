/**
 * One connection to an MQTT broker. It never reconnects by itself and keeps no store of what was
 * sent, so nothing is sent twice behind anyone's back: who needs a connection again opens a new
 * one.
 *
 * Publishes that come in are handed on at once and acked later. The client library would ack as
 * soon as its handler returns, or stand still until then (and with it everything behind, pings
 * included); so each packet is shown to it as QoS 0, which it does not ack, and the PUBACK or
 * PUBREC is written to the connection when the message is safe. A PUBREL is kept from it too where
 * somebody wants to know of it first: the PUBCOMP is written when that is done.
 */
import type { IClientOptions, IConnackPacket, IPublishPacket, MqttClient, Packet } from "mqtt";
import { systemClock } from "../../src/clock.ts";
import { DisconnectedError, errorText, InvalidError } from "../../src/errors.ts";
import type { Tls } from "../document.ts";
import { loginOf, pemOf } from "../endpoint.ts";
import { reasonText } from "../reason.ts";
import type { Version } from "./codec.ts";

/** How long a broker may take to answer a connect. Milliseconds. */
const CONNECT_WAIT_MS = 10_000;
/** Topics that a broker may give a number instead of their name, on one connection. Count. */
const TOPIC_ALIASES_MAX = 64;
/** How long a close waits for the connection to end. Milliseconds. */
const CLOSE_WAIT_MS = 2000;

/** What every connection of a bridge is made with; references are resolved. */
export interface Endpoint {
  readonly urls: readonly string[];
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly tls?: Tls | undefined;
  readonly version: Version;
  readonly keepaliveMs: number;
}

/** A last will, as the broker publishes it. */
export interface Will {
  readonly topic: string;
  readonly body: string;
  readonly qos: 0 | 1 | 2;
  readonly retain: boolean;
}

/** What is this connection's own. */
export interface LinkOptions {
  readonly clientId: string;
  /** How long the broker keeps the session of a connection that is gone; 0: no session. */
  readonly sessionExpiryMs: number;
  readonly cleanStart: boolean;
  /** Messages that the broker may have unacked under way to us (MQTT 5). Count. */
  readonly receiveMaximum: number;
  /** An incoming message, with the QoS that it came with. */
  readonly onPublish: (packet: IPublishPacket, qos: number) => void;
  /** The broker has released a packet id of QoS 2; PUBCOMP goes when it resolves. */
  readonly onRelease?: (packetId: number) => Promise<void>;
  /** What the broker publishes when this connection ends without a goodbye. */
  readonly will?: Will | undefined;
  /** The connection is gone and was not disposed of. Called once. */
  readonly onLost: (reason: Error) => void;
}

/** A live connection. */
export class Link implements AsyncDisposable {
  readonly client: MqttClient;
  readonly #onLost: (reason: Error) => void;
  #connack: IConnackPacket | null = null;
  #lost: Error | null = null;
  #ended = false;
  #reason: Error | null = null;
  #resume: (() => void) | null = null;
  #paused = false;
  /** Something came in since the last ping went out, or could not be read. */
  #heard = false;
  /** Nothing had come when there should have been an answer. */
  #isSuspect = false;

  private constructor(client: MqttClient, options: LinkOptions) {
    this.client = client;
    this.#onLost = options.onLost;
    this.#takeOver(options);
    client.on("error", (error) => {
      this.#reason ??= error;
    });
    client.on("disconnect", (packet) => {
      this.#reason ??= new Error(disconnectText(packet.reasonCode ?? 0, options.clientId));
    });
    client.on("close", () => this.#close());
  }

  /**
   * Connects to the first URL that answers.
   * @throws DisconnectedError when none does. @throws InvalidError for a URL or version that can't
   * be right.
   */
  static async open(endpoint: Endpoint, options: LinkOptions, signal: AbortSignal): Promise<Link> {
    const { connect } = await import("mqtt");
    const failures: string[] = [];
    for (const text of endpoint.urls) {
      if (signal.aborted) break;
      const { url, place, clientOptions } = connectOptions(text, endpoint, options);
      const link = new Link(connect(url, clientOptions), options);
      const failure = await link.#connected(signal);
      if (failure === null) return link;
      await link[Symbol.asyncDispose]();
      if (isVersionRefusal(failure, endpoint.version)) throw wrongVersion(place, endpoint.version);
      failures.push(failureText(place, failure, endpoint.version));
    }
    throw new DisconnectedError(signal.aborted ? "connecting was aborted" : failures.join("; "));
  }

  /** Whether the connection is gone. */
  get isLost(): boolean {
    return this.#lost !== null || this.#ended;
  }

  /** Whether the broker went on with a session that it had kept. */
  get hadSession(): boolean {
    return this.#connack?.sessionPresent === true;
  }

  /** What the broker said of itself when it accepted the connection (MQTT 5). */
  get limits(): NonNullable<IConnackPacket["properties"]> {
    return this.#connack?.properties ?? {};
  }

  /** The error of a connection that is gone. */
  disconnected(): DisconnectedError {
    const reason = this.#lost === null ? "closed" : errorText(this.#lost);
    return new DisconnectedError(`the connection to the broker is gone: ${reason}`, {
      cause: this.#lost,
    });
  }

  /** Stops or goes on reading from the connection. */
  set paused(paused: boolean) {
    this.#paused = paused;
    this.#heard = true;
    if (paused) return;
    // Going on may come back here with the next message, so the place is emptied first.
    const resume = this.#resume;
    this.#resume = null;
    resume?.();
  }

  /** Writes acks for messages of QoS 1 and 2, in the order given. */
  ack(messages: readonly { readonly messageId: number; readonly qos: number }[]): void {
    const bytes = new Uint8Array(messages.length * 4);
    messages.forEach(({ messageId, qos }, index) => {
      // PUBACK or PUBREC with the reason "success": type, length, packet id.
      bytes.set([qos === 1 ? 0x40 : 0x50, 2, messageId >> 8, messageId & 0xff], index * 4);
    });
    if (bytes.byteLength > 0) this.client.stream.write(bytes);
  }

  /** Gives the connection up: it is lost, for the reason given unless there was one before. */
  abandon(error: unknown): void {
    if (error instanceof Error) this.#reason ??= error;
    this.client.stream.destroy();
  }

  /** Says goodbye; the broker keeps the session as long as was asked for. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.paused = false;
    if (this.#lost !== null) return;
    const closed = Promise.withResolvers<boolean>();
    const waiting = new AbortController();
    this.client.on("close", () => closed.resolve(true));
    const unanswered = Object.keys(this.client.outgoing).length > 0 || !this.client.connected;
    this.client.end(unanswered, () => closed.resolve(true));
    const late = systemClock.sleep(CLOSE_WAIT_MS, waiting.signal).then(() => false);
    const answered = await Promise.race([closed.promise, late]);
    waiting.abort();
    if (!answered) this.client.stream.destroy();
  }

  /** Null once connected, else why not. */
  async #connected(signal: AbortSignal): Promise<Error | null> {
    const { promise, resolve } = Promise.withResolvers<Error | null>();
    const abort = (): void => resolve(new Error("connecting was aborted"));
    signal.addEventListener("abort", abort, { once: true });
    this.client.once("connect", (packet) => {
      this.#connack = packet;
      resolve(null);
    });
    this.client.once("error", resolve);
    this.client.once("close", () => resolve(this.#reason ?? new ClosedEarlyError()));
    const failure = await promise;
    signal.removeEventListener("abort", abort);
    return failure;
  }

  #takeOver({ onPublish, onRelease }: LinkOptions): void {
    let qos = 0;
    let topic = "";
    // The library knows which topic an alias stands for, and tells it just before `handleMessage`.
    this.client.on("message", (resolved) => {
      topic = resolved;
    });
    this.client.on("packetsend", (packet: Packet) => {
      if (packet.cmd === "pingreq") this.#heard = false;
    });
    this.client.on("packetreceive", (packet: Packet) => {
      this.#heard = true;
      this.#isSuspect = false;
      if (packet.cmd === "pubrel" && (this.#ended || onRelease !== undefined)) {
        // A command that the library does not know, so that it does nothing. After the goodbye its
        // answer would break the connection off, and the broker may not have read our acks yet.
        (packet as { cmd: string }).cmd = "taken";
        if (this.#ended || onRelease === undefined) return;
        // Without an answer the broker sends it again, on another connection.
        this.#complete(packet.messageId ?? 0, onRelease).catch((error) => this.abandon(error));
      }
      if (packet.cmd !== "publish") return;
      qos = packet.qos;
      packet.qos = 0;
    });
    this.client.handleMessage = (packet, done) => {
      if (packet.topic === "") packet.topic = topic;
      onPublish(packet, qos);
      if (this.#paused) this.#resume = done;
      else done();
    };
    // The answer to a ping is behind what we have not read yet; anything that comes shows life.
    const timeout = this.client.onKeepaliveTimeout.bind(this.client);
    this.client.onKeepaliveTimeout = () => {
      if (this.#paused || this.#heard) {
        this.#isSuspect = false;
        this.client.sendPing();
        this.client.reschedulePing(true);
      } else if (this.#isSuspect) {
        timeout();
      } else {
        // When this process stood still, the answer waits to be read: it is, before the next call
        // of this, half a keep-alive from now.
        this.#isSuspect = true;
      }
    };
  }

  /** Answers a PUBREL. */
  async #complete(
    packetId: number,
    onRelease: NonNullable<LinkOptions["onRelease"]>,
  ): Promise<void> {
    await onRelease(packetId);
    if (this.isLost) return;
    this.client.stream.write(Uint8Array.of(0x70, 2, packetId >> 8, packetId & 0xff));
  }

  #close(): void {
    if (this.#lost !== null) return;
    this.#lost = this.#reason ?? new Error("the broker closed it");
    if (!this.#ended && this.#connack !== null) this.#onLost(this.#lost);
  }
}

/** The broker closed the connection without a word. */
class ClosedEarlyError extends Error {}

function connectOptions(
  text: string,
  endpoint: Endpoint,
  own: LinkOptions,
): { url: string; place: string; clientOptions: IClientOptions } {
  const url = URL.canParse(text) ? new URL(text) : null;
  const scheme = url === null ? undefined : SCHEMES[url.protocol];
  if (url === null || scheme === undefined) {
    throw new InvalidError("an MQTT broker's URL begins with mqtt://, mqtts://, ws:// or wss://");
  }
  const { tls = false, version } = endpoint;
  const protocol = tls === false ? scheme.as : scheme.secured;
  const path = scheme.as.startsWith("ws") ? `${url.pathname}${url.search}` : "";
  const properties = {
    sessionExpiryInterval: Math.ceil(own.sessionExpiryMs / 1000),
    receiveMaximum: own.receiveMaximum,
    topicAliasMaximum: TOPIC_ALIASES_MAX,
  };
  return {
    url: `${protocol}://${url.host}${path}`,
    place: url.host,
    clientOptions: {
      protocolVersion: version,
      clientId: own.clientId,
      clean: own.cleanStart,
      keepalive: Math.max(1, Math.round(endpoint.keepaliveMs / 1000)),
      reconnectPeriod: 0,
      connectTimeout: CONNECT_WAIT_MS,
      resubscribe: false,
      queueQoSZero: false,
      // The library puts each step of each packet into words, whether anybody reads them or not.
      log: unread,
      // As many aliases for topics as the broker takes; none where it takes none.
      autoAssignTopicAlias: true,
      ...willOf(own.will),
      ...loginOf(url, endpoint),
      ...pemOf(tls),
      ...(version === 5 ? { properties } : {}),
    },
  };
}

/** Nobody reads what the library tells of itself. */
function unread(): void {}

function willOf(will: Will | undefined): Pick<IClientOptions, "will"> {
  if (will === undefined) return {};
  const { topic, body, qos, retain } = will;
  return { will: { topic, payload: Buffer.from(body), qos, retain } };
}

/** What each scheme connects with, and with what when TLS is asked for beside it. */
const SCHEMES: Readonly<Record<string, { readonly as: string; readonly secured: string }>> = {
  "mqtt:": { as: "mqtt", secured: "mqtts" },
  "mqtts:": { as: "mqtts", secured: "mqtts" },
  "ws:": { as: "ws", secured: "wss" },
  "wss:": { as: "wss", secured: "wss" },
};

/** The reason code of a CONNACK, PUBACK and the like in an error of the library, or null. */
export function reasonCodeOf(error: unknown): number | null {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return typeof code === "number" ? code : null;
}

function isVersionRefusal(failure: Error, version: Version): boolean {
  return reasonCodeOf(failure) === (version === 5 ? 0x84 : 1);
}

function wrongVersion(place: string, version: Version): InvalidError {
  const [spoken, other] = version === 5 ? ["5", "3.1.1"] : ["3.1.1", "5"];
  return new InvalidError(
    `${place} does not speak MQTT ${spoken}; if it speaks MQTT ${other}, give version: ${other}`,
    [{ pointer: "/version", detail: `the broker refused MQTT ${spoken}` }],
  );
}

function failureText(place: string, failure: Error, version: Version): string {
  if (!(failure instanceof ClosedEarlyError)) return reasonText(place, failure);
  const hint = version === 5 ? "; a broker that speaks only MQTT 3.1.1 needs version: 3.1.1" : "";
  return `${place} closed the connection before it answered${hint}`;
}

function disconnectText(code: number, clientId: string): string {
  if (code === 0x8e) return `another client took over the client id "${clientId}"`;
  return `the broker ended it with reason code 0x${code.toString(16)}`;
}
