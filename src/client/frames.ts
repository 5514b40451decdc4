/**
 * Frames of `isthmus.v1.json` as the client reads and writes them: the form of a message in JSON
 * becomes the form that programs use, and back. Pure; the vectors of `docs/protocol-vectors.json`
 * run against it.
 */
import { ClientError } from "./error.ts";

export const SUBPROTOCOL = "isthmus.v1.json";

/** Text where the bytes are UTF-8, else the bytes. */
export type Content = string | Uint8Array;

/** What the log no longer has: offsets `from` up to, not including, `to`. */
export interface Gap {
  readonly partition: number;
  readonly from: number;
  readonly to: number;
  /** `retention`: too old; `epoch`: the stream was made anew. */
  readonly reason: string;
}

/** A message of a stream. */
export interface MessageFields {
  readonly id: string;
  readonly stream: string;
  readonly partition: number;
  readonly offset: number;
  /** Where a reader stands that has read up to and including this one. */
  readonly cursor: string;
  readonly key: Content | null;
  readonly headers: readonly (readonly [name: string, value: Content | null])[];
  readonly properties: Readonly<Record<string, unknown>>;
  /** Unix milliseconds: the producer's, and when the log took it. */
  readonly timestamp: number;
  readonly appendedAt: number;
  readonly origin: Readonly<Record<string, unknown>> | null;
  /** Null is a tombstone. */
  readonly body: Content | null;
}

/** What to publish. */
export interface PublishInput {
  /** Text and bytes as they are, null a tombstone, anything else as JSON; none: empty. */
  readonly body?: unknown;
  readonly key?: Content | null;
  readonly headers?: Readonly<Record<string, Content | null>>;
  readonly contentType?: string;
  /** Publishing again with the same id gives the first receipt; made when missing. */
  readonly id?: string;
}

/** A server's frame; members beyond `op` depend on it. */
export interface ServerFrame {
  readonly op: string;
  readonly sub?: string;
  readonly ref?: string;
  readonly code?: string;
  readonly message?: string;
  readonly cursor?: string;
  readonly gap?: Gap | null;
  readonly pingMs?: number;
  readonly spreadMs?: number;
  readonly partition?: number;
  readonly offset?: number;
  readonly duplicate?: boolean;
  readonly [member: string]: unknown;
}

/** A server's frame; null when it is none: what a later server says is passed over. */
export function readFrame(data: unknown): ServerFrame | null {
  if (typeof data !== "string") return null;
  const frame = JSON.parse(data) as ServerFrame | null;
  return typeof frame?.op === "string" ? frame : null;
}

/** The message of a `message` frame. */
export function messageOf(frame: ServerFrame): MessageFields {
  const { op: _op, sub: _sub, bodyBase64, keyBase64, ...members } = frame;
  const headers = members["headers"] as [string, unknown][];
  return {
    ...members,
    body: contentOf(members["body"], bodyBase64),
    key: contentOf(members["key"], keyBase64),
    headers: headers.map(([name, value]) => [
      name,
      contentOf(value, (value as { base64?: string } | null)?.base64),
    ]),
  } as unknown as MessageFields;
}

/** A `publish` frame without its `ref`, as text. @throws ClientError `invalid`: it has no JSON. */
export function publishText(stream: string, input: PublishInput, id: string): string {
  const { body, key, headers, contentType } = input;
  const header = Object.entries(headers ?? {}).map(([name, value]) => [
    name,
    value instanceof Uint8Array ? { base64: toBase64(value) } : value,
  ]);
  try {
    return JSON.stringify({
      op: "publish",
      stream,
      id,
      ...contentMember("key", key),
      ...(header.length > 0 ? { headers: header } : {}),
      contentType,
      ...contentMember("body", body),
    });
  } catch (error) {
    throw new ClientError("invalid", "the body has no JSON", error);
  }
}

function contentMember(name: string, value: unknown): object {
  return value instanceof Uint8Array ? { [`${name}Base64`]: toBase64(value) } : { [name]: value };
}

function contentOf(text: unknown, base64: unknown): Content | null {
  if (typeof base64 !== "string") return (text as string | null | undefined) ?? null;
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
