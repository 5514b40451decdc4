/**
 * Reading requests: bodies within bounds whatever the sender announces, header values as the bytes
 * that they were, query parameters by name. A body over its bound is refused before it is read.
 */
import { isUtf8 } from "node:buffer";
import type { Server } from "bun";
import { InvalidError, LimitError } from "../errors.ts";
import type { Message } from "../message.ts";
import { idleTimeoutS, shortBodyBytesMax } from "../limits.ts";
import { parseDurationMs } from "../rules/units.ts";
import { didYouMean } from "../rules/suggest.ts";

/** The part of Bun's server that handlers use. */
export type TimeoutServer = Pick<Server<unknown>, "timeout">;

const EMPTY = new Uint8Array(0);
// oxlint-disable-next-line no-control-regex -- header values hold bytes as Latin-1 characters
const NOT_ASCII = /[^\x00-\x7f]/;

/**
 * The whole body. A long one is read in parts, and each part gives the sender new time: slow is
 * well, silent is not. @throws LimitError it is over `bytesMax`; nothing more of it is read.
 */
export function readBody(
  request: Request,
  server: TimeoutServer,
  bytesMax: number,
): Promise<Uint8Array> {
  const length = announcedLength(request, bytesMax);
  if (length !== null && length <= shortBodyBytesMax) return request.bytes();
  return readParts(request, server, { bytesMax });
}

/** What a request says of its body's length; null: nothing. @throws LimitError it is too much. */
export function announcedLength(request: Request, bytesMax: number): number | null {
  const announced = request.headers.get("content-length");
  if (announced === null) return null;
  const length = Number(announced);
  if (length > bytesMax) throw tooLarge(bytesMax);
  return length;
}

/** How a body is read in parts. */
export interface PartsReading {
  readonly bytesMax: number;
  /** Is told the length of each part before it is kept; what it throws ends the reading. */
  readonly onPart?: (bytes: number) => void;
  /** Ends the reading: nothing more is kept, and the body so far is lost. */
  readonly signal?: AbortSignal;
}

/** A body part by part. @throws LimitError it is over `bytesMax`; nothing more of it is read. */
export async function readParts(
  request: Request,
  server: TimeoutServer,
  { bytesMax, onPart, signal }: PartsReading,
): Promise<Uint8Array> {
  if (request.body === null) return EMPTY;
  const reader = request.body.getReader() as ReadableStreamDefaultReader<Uint8Array>;
  const parts: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    server.timeout(request, idleTimeoutS);
    const { done, value } = await reader.read();
    if (done) break;
    length += value.length;
    try {
      if (length > bytesMax) throw tooLarge(bytesMax);
      signal?.throwIfAborted();
      onPart?.(value.length);
    } catch (error) {
      await reader.cancel();
      throw error;
    }
    parts.push(value);
  }
  const [only] = parts;
  return parts.length === 1 && only !== undefined ? only : Buffer.concat(parts, length);
}

function tooLarge(bytesMax: number): LimitError {
  return new LimitError("too-large", `the body is larger than ${bytesMax} bytes`);
}

/** The bytes of a header's value, as they came over the wire. */
export function headerBytes(value: string): Uint8Array {
  return Buffer.from(value, "latin1");
}

/** A header's value as text: UTF-8 where its bytes are that, else Latin-1 as HTTP once meant it. */
export function headerText(value: string): string {
  if (!NOT_ASCII.test(value)) return value;
  const bytes = Buffer.from(value, "latin1");
  return isUtf8(bytes) ? bytes.toString("utf8") : value;
}

/** What a request's headers say of its body; not its coding, when that was undone. */
export function contentProperties(headers: Headers, isInflated = false): Message["properties"] {
  const type = headers.get("content-type");
  const encoding = isInflated ? null : headers.get("content-encoding");
  if (encoding === null) return type === null ? {} : { contentType: headerText(type) };
  const contentEncoding = headerText(encoding);
  return type === null ? { contentEncoding } : { contentType: headerText(type), contentEncoding };
}

/** Query parameters. Unknown names are refused: a misspelt one must not read something else. */
export class Query {
  readonly #parameters: URLSearchParams;

  /** @throws InvalidError a name is unknown, or stands there twice. */
  constructor(url: string, known: readonly string[]) {
    const start = url.indexOf("?");
    this.#parameters = new URLSearchParams(start === -1 ? "" : url.slice(start + 1));
    const seen = new Set<string>();
    for (const name of this.#parameters.keys()) {
      if (!known.includes(name)) {
        const detail = `there is no parameter ${JSON.stringify(name.slice(0, 60))}`;
        throw refused(name, `${detail}${didYouMean(name, known)}`);
      }
      if (seen.has(name)) throw refused(name, `${name} stands here twice`);
      seen.add(name);
    }
  }

  /** The value; null when it is not there. */
  text(name: string): string | null {
    return this.#parameters.get(name);
  }

  /** A whole number within bounds. @throws InvalidError */
  count(name: string, bounds: { readonly min: number; readonly max: number }): number | null {
    const text = this.#parameters.get(name);
    if (text === null) return null;
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= bounds.min && value <= bounds.max) return value;
    throw refused(name, `expected a whole number from ${bounds.min} to ${bounds.max}`);
  }

  /** A duration up to a bound, milliseconds. @throws InvalidError */
  durationMs(name: string, maxMs: number): number | null {
    const text = this.#parameters.get(name);
    if (text === null) return null;
    const value = parseDurationMs(text);
    if (value !== null && value <= maxMs) return value;
    throw refused(name, `expected a duration such as 500ms or 30s, at most ${maxMs / 1000}s`);
  }

  /** A switch: there, `1` or `true` is on; `0` or `false` is off. @throws InvalidError */
  flag(name: string): boolean {
    const text = this.#parameters.get(name);
    if (text === null || text === "0" || text === "false") return false;
    if (text === "" || text === "1" || text === "true") return true;
    throw refused(name, "expected 1 or 0");
  }
}

/** A refusal that names one member of the input. */
export function refused(name: string, detail: string): InvalidError {
  return new InvalidError(`${name}: ${detail}`, [
    { pointer: `/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`, detail },
  ]);
}
