/**
 * A message taken in from JSON: a line of NDJSON or a socket's publish. Whatever is wrong is told
 * by its pointer; an unknown member is refused, for a misspelt `body` would be an empty message.
 */
import { type InvalidDetail, InvalidError } from "../errors.ts";
import { stringifyJson } from "../json.ts";
import { encodeText, type Header, type Message, type Properties } from "../message.ts";
import { didYouMean } from "../rules/suggest.ts";

/** What a sender says of a message. */
export interface MessageInput {
  readonly key: Uint8Array | null;
  readonly headers: readonly Header[];
  readonly properties: Properties;
  /** Null is a tombstone. */
  readonly body: Uint8Array | null;
}

/** A message before it has an id and an origin. */
export type Draft = Omit<Message, "id" | "origin">;

/** Members of a message in JSON, as senders may give them. */
export const MESSAGE_MEMBERS = [
  "key",
  "keyBase64",
  "headers",
  "contentType",
  "body",
  "bodyBase64",
] as const;

const EMPTY = new Uint8Array(0);
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

type Members = Readonly<Record<string, unknown>>;

/** Reads one message and gathers what is wrong with it. */
export class MessageReader {
  readonly errors: InvalidDetail[] = [];
  readonly #base: string;
  readonly #line: number | null;

  /** `base` comes before every pointer; `line` beside it, where the input has lines. */
  constructor(base: string, line: number | null = null) {
    this.#base = base;
    this.#line = line;
  }

  /** The message; parts that are wrong are noted in `errors` and left empty. */
  read(members: Members, known: readonly string[] = MESSAGE_MEMBERS): MessageInput {
    for (const name of Object.keys(members)) {
      if (known.includes(name)) continue;
      const detail = `there is no member ${JSON.stringify(name.slice(0, 60))}`;
      this.add(`/${escaped(name.slice(0, 60))}`, `${detail}${didYouMean(name, known)}`);
    }
    return {
      key: this.#key(members),
      headers: this.#headers(members["headers"]),
      properties: this.#properties(members["contentType"]),
      body: this.#body(members),
    };
  }

  /** Notes something that is wrong. */
  add(pointer: string, detail: string): void {
    const place = `${this.#base}${pointer}`;
    this.errors.push(
      this.#line === null
        ? { pointer: place, detail }
        : { pointer: place, detail, line: this.#line },
    );
  }

  #key(members: Members): Uint8Array | null {
    const { key, keyBase64 } = members;
    if (keyBase64 !== undefined) {
      if (key !== undefined) this.add("/keyBase64", "give either key or keyBase64");
      return this.#base64("/keyBase64", keyBase64);
    }
    if (key === undefined || key === null) return null;
    return this.#text("/key", key, "expected text or null; bytes go into keyBase64");
  }

  #body(members: Members): Uint8Array | null {
    const { body, bodyBase64 } = members;
    if (bodyBase64 !== undefined) {
      if (body !== undefined) this.add("/bodyBase64", "give either body or bodyBase64");
      return this.#base64("/bodyBase64", bodyBase64);
    }
    if (body === undefined) return EMPTY;
    if (body === null) return null;
    if (typeof body === "string") return this.#text("/body", body, "");
    try {
      return encodeText(stringifyJson(body));
    } catch (error) {
      if (!(error instanceof InvalidError)) throw error;
      this.add("/body", error.message);
      return EMPTY;
    }
  }

  #properties(contentType: unknown): Properties {
    if (contentType === undefined || contentType === null) return {};
    if (typeof contentType === "string") return { contentType };
    this.add("/contentType", "expected text");
    return {};
  }

  #headers(input: unknown): readonly Header[] {
    if (input === undefined || input === null) return [];
    if (Array.isArray(input)) {
      return input.flatMap((pair: unknown, index) => this.#pair(`/headers/${index}`, pair));
    }
    if (typeof input === "object") {
      return Object.entries(input).map(([name, value]) => {
        return this.#header(`/headers/${escaped(name)}`, name, value);
      });
    }
    this.add("/headers", 'expected [["name","value"], …] or an object');
    return [];
  }

  #pair(pointer: string, pair: unknown): Header[] {
    if (Array.isArray(pair) && pair.length === 2 && typeof pair[0] === "string") {
      return [this.#header(pointer, pair[0], pair[1])];
    }
    this.add(pointer, 'expected ["name", value]');
    return [];
  }

  #header(pointer: string, name: string, value: unknown): Header {
    if (name === "" || !name.isWellFormed())
      this.add(pointer, "a header's name is text, not empty");
    return { name, value: this.#headerValue(pointer, value) };
  }

  #headerValue(pointer: string, value: unknown): Uint8Array | null {
    if (value === null) return null;
    const isBytes = typeof value === "object" && value !== undefined && "base64" in value;
    if (isBytes && Object.keys(value).length === 1) return this.#base64(pointer, value.base64);
    return this.#text(pointer, value, 'expected text, null or {"base64":"…"}');
  }

  #text(pointer: string, value: unknown, expected: string): Uint8Array {
    if (typeof value !== "string") {
      this.add(pointer, expected);
      return EMPTY;
    }
    if (!value.isWellFormed()) {
      this.add(pointer, "half of a surrogate pair has no UTF-8: send bytes as base64");
      return EMPTY;
    }
    return encodeText(value);
  }

  #base64(pointer: string, value: unknown): Uint8Array {
    if (typeof value === "string" && value.length % 4 === 0 && BASE64.test(value)) {
      return Buffer.from(value, "base64");
    }
    this.add(pointer, "expected base64 (RFC 4648, with padding)");
    return EMPTY;
  }
}

function escaped(name: string): string {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}
