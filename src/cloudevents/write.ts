/**
 * `format: cloudevents`: a message as an event, in the binding of the bridge that it goes to. An
 * event stays the event that it is, whatever binding it came by; of any other message the required
 * attributes are made: the message's id, the stream as the source, its type and its time. Pure: the
 * same message is the same event, however often it is sent.
 */
import { isUtf8 } from "node:buffer";
import type { EventBinding } from "../bridge.ts";
import { parseJson, stringifyJson } from "../json.ts";
import { encodeText, type Header, type Message, textHeader } from "../message.ts";
import { EvaluationError } from "../rules/failure.ts";
import { percentEncoded, problemsOf, STRUCTURED_TYPE, structuredEvent } from "./event.ts";
import { attributesIn, TRACE } from "./headers.ts";

/** How an event stands in a message: in its headers, or all of it in its body. */
export type EventMode = "binary" | "structured";

/** What a message is made an event with. */
export interface EventOptions {
  readonly mode: EventMode;
  readonly binding: EventBinding;
  /** The stream that the message was read from. */
  readonly stream: string;
}

/** The type of an event whose message has none. */
const TYPE_DEFAULT = "isthmus.message";
/** A header by the bare name of an attribute travels under this name. */
const ESCAPE = "isthmus-header-";
/** Characters that an attribute's value may not hold. */
// eslint-disable-next-line no-control-regex -- these are the very characters that are looked for
const FORBIDDEN = /[\0-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]|\p{Cs}/u;
const JSON_TYPE = /^application\/json\b|^text\/json\b|\+json\b/i;
/** The last time that ISO 8601 writes with four digits of a year. Unix milliseconds. */
const TIME_MS_MAX = 253_402_300_799_999;

/** An event in parts. */
interface Event {
  /** Without `data`, without `datacontenttype`. */
  readonly attributes: ReadonlyMap<string, string>;
  /** The message's headers that are no attributes. */
  readonly headers: readonly Header[];
  readonly contentType: string | undefined;
  readonly data: Uint8Array | null;
}

/**
 * The message as an event. @throws EvaluationError its attributes make no right event, or its body
 * can't stand in one.
 */
export function asEvent(message: Message, options: EventOptions): Message {
  const given = structuredEvent(message);
  if (given !== null && options.mode === "structured") return message;
  const event = given === null ? madeEvent(message, options.stream) : openedEvent(message, given);
  check(event);
  return options.mode === "binary"
    ? binaryMessage(message, event, options.binding)
    : structuredMessage(message, event);
}

/** The event that a message is by its headers, completed. */
function madeEvent(message: Message, stream: string): Event {
  const { properties, timestampMs, key } = message;
  const { attributes: found, rest, isEvent } = attributesIn(message.headers);
  const attributes = new Map<string, string>([
    ["specversion", "1.0"],
    ["id", message.id],
    ["source", `/streams/${stream}`],
    ["type", properties.type ?? TYPE_DEFAULT],
  ]);
  if (!isEvent && timestampMs >= 0 && timestampMs <= TIME_MS_MAX) {
    attributes.set("time", new Date(timestampMs).toISOString());
  }
  const keyText = key === null || !isUtf8(key) ? "" : Buffer.from(key).toString("utf8");
  if (!isEvent && keyText !== "" && !FORBIDDEN.test(keyText)) {
    attributes.set("partitionkey", keyText);
  }
  for (const [name, text] of found) if (text !== "") attributes.set(name, text);
  const contentType = properties.contentType ?? attributes.get("datacontenttype");
  attributes.delete("datacontenttype");
  return { attributes, headers: rest, contentType, data: message.body };
}

/** The event in a message's body. */
function openedEvent(message: Message, given: Readonly<Record<string, unknown>>): Event {
  const { data, data_base64: base64, datacontenttype, ...others } = given;
  const attributes = new Map<string, string>();
  for (const [name, value] of Object.entries(others)) {
    if (value === null) continue;
    attributes.set(name, typeof value === "string" ? value : stringifyJson(value));
  }
  const contentType = typeof datacontenttype === "string" ? datacontenttype : undefined;
  const parts = { attributes, headers: attributesIn(message.headers).rest };
  if (typeof base64 === "string") {
    return { ...parts, contentType, data: new Uint8Array(Buffer.from(base64, "base64")) };
  }
  if (data === undefined) return { ...parts, contentType, data: null };
  const isText = typeof data === "string" && contentType !== undefined;
  if (isText && !JSON_TYPE.test(contentType)) {
    return { ...parts, contentType, data: encodeText(data) };
  }
  const text = encodeText(stringifyJson(data));
  return { ...parts, contentType: contentType ?? "application/json", data: text };
}

function check({ attributes }: Event): void {
  const [problem] = problemsOf(Object.fromEntries(attributes), "");
  if (problem !== undefined) {
    throw new EvaluationError(`no CloudEvent: ${problem.pointer.slice(1)}: ${problem.detail}`);
  }
  for (const [name, text] of attributes) {
    if (!FORBIDDEN.test(text)) continue;
    throw new EvaluationError(`no CloudEvent: ${name}: a control character, which none may hold`);
  }
}

function binaryMessage(message: Message, event: Event, binding: EventBinding): Message {
  const { prefix, isPercentEncoded = false } = binding;
  const headers: Header[] = event.headers.map((header) => {
    const isTaken = prefix === "" && event.attributes.has(header.name) && !TRACE.has(header.name);
    return isTaken ? { ...header, name: `${ESCAPE}${header.name}` } : header;
  });
  const present = new Set(headers.map(({ name }) => name));
  for (const [name, text] of event.attributes) {
    // Without a prefix the transport's trace has the name: it is the one that is read there.
    if (prefix === "" && TRACE.has(name) && present.has(name)) continue;
    headers.push(textHeader(prefix + name, isPercentEncoded ? percentEncoded(text) : text));
  }
  return changed(message, { headers, contentType: event.contentType, body: event.data });
}

function structuredMessage(message: Message, event: Event): Message {
  const coding = message.properties.contentEncoding;
  if (coding !== undefined) {
    const detail = `the body is encoded (${coding}), which an event in JSON can't say`;
    throw new EvaluationError(`no CloudEvent: ${detail}; send it with mode: binary`);
  }
  const members = [...event.attributes].map(
    ([name, text]) => `${JSON.stringify(name)}:${JSON.stringify(text)}`,
  );
  const { contentType, data } = event;
  if (contentType !== undefined) members.push(`"datacontenttype":${JSON.stringify(contentType)}`);
  if (data !== null) members.push(dataMember(data, contentType));
  const body = encodeText(`{${members.join(",")}}`);
  return changed(message, { headers: event.headers, contentType: STRUCTURED_TYPE, body });
}

/** JSON as it is written, other text as a string, and anything else in base64. */
function dataMember(data: Uint8Array, contentType: string | undefined): string {
  const view = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const text = isUtf8(view) ? view.toString("utf8") : null;
  const isJson = contentType === undefined || JSON_TYPE.test(contentType);
  if (text !== null && isJson && isJsonText(text)) return `"data":${text}`;
  if (text !== null && !isJson) return `"data":${JSON.stringify(text)}`;
  return `"data_base64":"${view.toString("base64")}"`;
}

function isJsonText(text: string): boolean {
  try {
    parseJson(text);
    return true;
  } catch {
    // Said to be JSON, and none: its bytes travel as they are.
    return false;
  }
}

function changed(
  { id, key, properties, timestampMs, origin }: Message,
  to: {
    readonly headers: readonly Header[];
    readonly contentType: string | undefined;
    readonly body: Uint8Array | null;
  },
): Message {
  const { contentType: _, ...others } = properties;
  return {
    id,
    key,
    properties: to.contentType === undefined ? others : { ...others, contentType: to.contentType },
    headers: to.headers,
    body: to.body,
    timestampMs,
    origin,
  };
}
