/**
 * A message: what the gateway takes in, keeps and sends on, whatever the protocol.
 * Messages are immutable. The gateway looks inside `body` only when a rule asks.
 */

/** One header. Names may repeat and keep their order; `null` is a header without a value. */
export interface Header {
  readonly name: string;
  readonly value: Uint8Array | null;
}

/** What protocols say about a message beside its headers. Absent means: not said. */
export interface Properties {
  readonly contentType?: string;
  readonly contentEncoding?: string;
  /** Text, or bytes where the protocol has bytes (MQTT). */
  readonly correlationId?: string | Uint8Array;
  readonly replyTo?: string;
  readonly type?: string;
  readonly priority?: number;
  /** When it stops being worth delivering, Unix milliseconds. */
  readonly expiresAtMs?: number;
  /** The id that its producer gave it, where that is not the message's own id. */
  readonly messageId?: string;
  readonly userId?: string;
  readonly appId?: string;
  /** False for MQTT QoS 0 and AMQP delivery mode 1; absent is durable. */
  readonly durable?: boolean;
  /** MQTT retained flag as it was received. */
  readonly retain?: boolean;
  /** MQTT payload format indicator: the body is UTF-8 text. */
  readonly textBody?: boolean;
}

/** Where a message came from, and the way it has taken. */
export interface Origin {
  /** Name of the bridge, or `http`, `socket`, `rule` for what was made here. */
  readonly bridge: string;
  /** Topic, queue, hook name, or `stream` for a message that a rule passed on. */
  readonly address: string;
  readonly partition: number | null;
  /** The position in the source's own terms, as text (offsets can exceed 2^53). */
  readonly offset: string | null;
  /** Bridges and streams passed before, oldest first. */
  readonly hops: readonly string[];
  /** Values captured from the source's address (`{name}` in an MQTT filter). */
  readonly params?: Readonly<Record<string, string>>;
  /** The subject of the client that published it: written by the gateway, never by the client. */
  readonly principal?: string;
  /** True when the broker said that it may have delivered this before. */
  readonly redelivered?: boolean;
  /** By what an operator has had it sent again. */
  readonly again?: string;
  /** How a verified webhook came: with its headers and body, enough to check it once more. */
  readonly http?: HttpOrigin;
}

/** A webhook's request, as far as its headers and body don't tell it. */
export interface HttpOrigin {
  readonly method: string;
  readonly path: string;
  /** With its question mark; absent when there is none. */
  readonly query?: string;
  /** Who called: the peer of the connection, or whom trusted proxies have named. */
  readonly remoteAddress?: string;
  /** The URL that was signed, without the query; absent where none is. */
  readonly url?: string;
  /** What it was verified with. */
  readonly scheme: string;
  readonly keyId: string;
  /** The coding that was undone before the body was kept: the signature was over other bytes. */
  readonly inflated?: "gzip";
}

/** One unit of data. `body: null` is a tombstone, which is not an empty body. */
export interface Message {
  /** Unique, at most 128 bytes of UTF-8: what a receiver removes duplicates by. */
  readonly id: string;
  /** Messages with equal keys keep their order. */
  readonly key: Uint8Array | null;
  readonly properties: Properties;
  readonly headers: readonly Header[];
  readonly body: Uint8Array | null;
  /** The producer's time, Unix milliseconds. */
  readonly timestampMs: number;
  readonly origin: Origin | null;
}

/** A message whose body can be looked into: what expressions are evaluated over. */
export interface ReadableMessage extends Message {
  /** The body as text; what is not valid UTF-8 is replaced. Null for a tombstone. Decoded once. */
  readonly text: string | null;
  /**
   * The body parsed as JSON, `undefined` when it isn't JSON. Whole numbers outside ±2^53 are
   * `bigint`. Parsed at most once for a message, however many rules look at it; do not change it.
   */
  readonly json: unknown;
}

/** A message as it was read from the log: a lazy view over the batch's buffer. */
export interface StoredMessage extends ReadableMessage {
  readonly stream: string;
  readonly partition: number;
  readonly offset: number;
  /** Our own time of the append, Unix milliseconds; never goes back within a partition. */
  readonly appendedAtMs: number;
}

const originTexts = new WeakMap<Origin, string>();

/** An origin that many messages will have, and that must not change: its JSON is made once. */
export function sharedOrigin(origin: Origin): Origin {
  originTexts.set(origin, JSON.stringify(origin));
  return origin;
}

/** The JSON of an origin. */
export function originText(origin: Origin): string {
  return originTexts.get(origin) ?? JSON.stringify(origin);
}

const textEncoder = new TextEncoder();
const textDecoder = new TextDecoder();

/** The UTF-8 bytes of a text. */
export function encodeText(text: string): Uint8Array {
  return textEncoder.encode(text);
}

/** The text of UTF-8 bytes; invalid bytes become U+FFFD. */
export function decodeText(bytes: Uint8Array): string {
  return textDecoder.decode(bytes);
}

/** A header with a text value. */
export function textHeader(name: string, value: string): Header {
  return { name, value: encodeText(value) };
}

/** The header in which the places that a message has passed travel from gateway to gateway. */
export const HOPS_HEADER = "isthmus-hops";

/** What of a name stands in a hop; the rest of a longer one is a digest. Characters. */
const HOP_WORD_MAX = 120;

/**
 * A place that a message has passed, as it stands in `Origin.hops`: `/bridge/place`, with what else
 * tells the place from others behind it. Of another gateway's the gateway's id stands before it.
 */
export function hopOf(bridge: string, place: string, detail?: string): string {
  const words = detail === undefined ? [bridge, place] : [bridge, place, detail];
  return words.map((word) => `/${hopWord(word)}`).join("");
}

function hopWord(text: string): string {
  const word = encodeURIComponent(text.toWellFormed());
  if (word.length <= HOP_WORD_MAX) return word;
  const digest = new Bun.CryptoHasher("sha256").update(text).digest("hex").slice(0, 16);
  return `${word.slice(0, HOP_WORD_MAX - 17).replace(/%.?$/, "")}~${digest}`;
}
