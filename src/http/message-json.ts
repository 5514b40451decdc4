/**
 * A message as JSON, the one form that reads, events and the socket share. Written by hand, part
 * by part: what is JSON already is put in as it stands, so no digit of a number is lost. The text
 * of a message that many subscribers get is made once and shared.
 */
import { isUtf8 } from "node:buffer";
import type { Header, Properties, StoredMessage } from "../message.ts";

/** How the body is shown: as text or base64, or parsed where it is JSON. */
export type BodyForm = "bytes" | "json";

/** Line breaks between the tokens of a JSON text; within strings they can only be escaped. */
const LINE_BREAKS = /[\r\n]+/g;

const shared: Record<BodyForm, WeakMap<StoredMessage, string>> = {
  bytes: new WeakMap(),
  json: new WeakMap(),
};

/** The message as one line of JSON. */
export function messageJson(message: StoredMessage, form: BodyForm): string {
  return `{${messageMembers(message, form)}`;
}

/** The members of a message's JSON and the closing brace: what follows a frame's own members. */
export function messageMembers(message: StoredMessage, form: BodyForm): string {
  const known = shared[form].get(message);
  if (known !== undefined) return known;
  const text = membersOf(message, form);
  shared[form].set(message, text);
  return text;
}

function membersOf(message: StoredMessage, form: BodyForm): string {
  const { id, stream, partition, offset } = message;
  const origin = message.origin === null ? "null" : JSON.stringify(message.origin);
  return (
    `"id":${JSON.stringify(id)},"stream":${JSON.stringify(stream)},"partition":${partition},` +
    `"offset":${offset},${bytesMember("key", message.key)},"headers":${headersText(message.headers)},` +
    `"properties":${propertiesText(message.properties)},"timestamp":${whole(message.timestampMs)},` +
    `"appendedAt":${whole(message.appendedAtMs)},"origin":${origin},${bodyMember(message, form)}}`
  );
}

function bodyMember(message: StoredMessage, form: BodyForm): string {
  const { body } = message;
  if (form === "json" && body !== null && message.json !== undefined) {
    return `"bodyJson":${(message.text ?? "null").replaceAll(LINE_BREAKS, " ")}`;
  }
  return bytesMember("body", body);
}

/** `"name":null`, `"name":"text"`, or `"nameBase64":"…"` when the bytes are not UTF-8. */
function bytesMember(name: string, bytes: Uint8Array | null): string {
  if (bytes === null) return `"${name}":null`;
  const buffer = bufferOf(bytes);
  if (isUtf8(buffer)) return `"${name}":${JSON.stringify(buffer.toString("utf8"))}`;
  return `"${name}Base64":"${buffer.toString("base64")}"`;
}

function headersText(headers: readonly Header[]): string {
  if (headers.length === 0) return "[]";
  return `[${headers.map(({ name, value }) => `[${JSON.stringify(name)},${valueText(value)}]`).join(",")}]`;
}

function valueText(value: Uint8Array | null): string {
  if (value === null) return "null";
  const buffer = bufferOf(value);
  if (isUtf8(buffer)) return JSON.stringify(buffer.toString("utf8"));
  return `{"base64":"${buffer.toString("base64")}"}`;
}

function propertiesText(properties: Properties): string {
  const { correlationId } = properties;
  if (!(correlationId instanceof Uint8Array)) return JSON.stringify(properties);
  const base64 = bufferOf(correlationId).toString("base64");
  return JSON.stringify({ ...properties, correlationId: { base64 } });
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function whole(ms: number): string {
  return String(Math.floor(ms));
}
