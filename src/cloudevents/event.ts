/**
 * CloudEvents 1.0 as the bindings have them in common: the form of attributes, what makes a set of
 * them an event, and what of an event a message says in its own words. HTTP intake, the bridges'
 * sources and `format: cloudevents` all go by this file.
 */
import { isUtf8 } from "node:buffer";
import type { InvalidDetail } from "../errors.ts";
import { parseJson } from "../json.ts";
import { encodeText, type Message } from "../message.ts";
import { parseTimeMs } from "../rules/units.ts";

/** The media type of one event in JSON. */
export const STRUCTURED_TYPE = "application/cloudevents+json";

/** The attributes that every event has. */
export const REQUIRED = ["id", "source", "specversion", "type"] as const;

const ATTRIBUTE = /^[a-z0-9]+$/;

/** An event's attributes by name; of one in JSON with `data` or `data_base64`. */
export type Attributes = Readonly<Record<string, unknown>>;

/** How content of this type carries events. `binary` also when it carries none. */
export function eventMode(contentType: string): "batch" | "structured" | "binary" {
  const type = contentType.trim().toLowerCase();
  // The batch's type begins with the other one, so it is asked for first.
  if (type.startsWith("application/cloudevents-batch")) return "batch";
  return type.startsWith("application/cloudevents") ? "structured" : "binary";
}

/** Whether a name can be an attribute's. `data` is none. */
export function isAttributeName(name: string): boolean {
  return ATTRIBUTE.test(name) && name !== "data";
}

/** What is wrong with an event; `base` is the pointer to it. */
export function problemsOf(event: Attributes, base: string): InvalidDetail[] {
  const errors: InvalidDetail[] = [];
  for (const name of REQUIRED) {
    const value = event[name];
    if (typeof value === "string" && value !== "") continue;
    errors.push({ pointer: `${base}/${name}`, detail: "expected text, not empty" });
  }
  if (typeof event["specversion"] === "string" && event["specversion"] !== "1.0") {
    errors.push({ pointer: `${base}/specversion`, detail: 'expected "1.0"' });
  }
  const { data, data_base64: base64, time } = event;
  if (data !== undefined && base64 !== undefined) {
    errors.push({ pointer: `${base}/data_base64`, detail: "give either data or data_base64" });
  }
  if (typeof time === "string" && parseTimeMs(time, 0) === null) {
    errors.push({ pointer: `${base}/time`, detail: "expected an RFC 3339 time" });
  }
  for (const name of Object.keys(event)) {
    if (ATTRIBUTE.test(name) || name === "data_base64") continue;
    errors.push({
      pointer: `${base}/${name.slice(0, 60)}`,
      detail: "attributes are named [a-z0-9]+",
    });
  }
  return errors;
}

/** The key that an event asks for, or null. */
export function keyOf({ partitionkey }: Attributes): Uint8Array | null {
  return typeof partitionkey === "string" && partitionkey !== "" ? encodeText(partitionkey) : null;
}

/** The event in a message's body; null where it holds none that is right. */
export function structuredEvent({ body, properties }: Message): Attributes | null {
  const { contentType, contentEncoding } = properties;
  if (contentType === undefined || eventMode(contentType) !== "structured") return null;
  if (body === null || contentEncoding !== undefined || !isUtf8(body)) return null;
  const event = parsed(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("utf8"));
  if (!isObject(event) || problemsOf(event, "").length > 0) return null;
  return event;
}

/** Whether a value is a map. */
export function isObject(value: unknown): value is Attributes {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parsed(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    // Said to be an event, and none: it passes as what it is.
    return null;
  }
}

/** One round of percent-decoding, after the quotes that some senders put around a value. */
export function percentDecoded(value: string): string | null {
  const quoted = /^"(.*)"$/.exec(value);
  const plain = quoted === null ? value : (quoted[1] ?? "").replaceAll(/\\(.)/g, "$1");
  const unescaped = plain.replaceAll(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => {
    return String.fromCharCode(Number.parseInt(hex, 16));
  });
  const decoded = Buffer.from(unescaped, "latin1");
  return isUtf8(decoded) ? decoded.toString("utf8") : null;
}

/** A value as HTTP's binding has it: everything but visible ASCII, `"` and `%` as bytes in hex. */
export function percentEncoded(value: string): string {
  let text = "";
  for (const byte of encodeText(value)) {
    const isPlain = byte > 0x20 && byte < 0x7f && byte !== 0x22 && byte !== 0x25;
    text += isPlain
      ? String.fromCharCode(byte)
      : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return text;
}
