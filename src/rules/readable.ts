/**
 * A message that is not from the log, made readable for expressions: its body is decoded and
 * parsed at most once, and only when one looks inside.
 */
import { parseBody } from "../json.ts";
import {
  decodeText,
  type Header,
  type Message,
  type Origin,
  type Properties,
  type ReadableMessage,
} from "../message.ts";

/** The message with its text and JSON. Holds on to the message's own parts, copies nothing. */
export function readable(message: Message): ReadableMessage {
  return new Readable(message);
}

class Readable implements ReadableMessage {
  readonly id: string;
  readonly key: Uint8Array | null;
  readonly properties: Properties;
  readonly headers: readonly Header[];
  readonly body: Uint8Array | null;
  readonly timestampMs: number;
  readonly origin: Origin | null;
  #text: string | null | undefined = undefined;
  #json: { readonly value: unknown } | null = null;

  constructor(message: Message) {
    this.id = message.id;
    this.key = message.key;
    this.properties = message.properties;
    this.headers = message.headers;
    this.body = message.body;
    this.timestampMs = message.timestampMs;
    this.origin = message.origin;
  }

  get text(): string | null {
    this.#text ??= this.body === null ? null : decodeText(this.body);
    return this.#text;
  }

  get json(): unknown {
    this.#json ??= { value: parseBody(this.body, this.text) };
    return this.#json.value;
  }
}
