/**
 * CloudEvents 1.0 over HTTP. Binary: the attributes stay headers, percent-decoded. Structured and
 * batch: each event is a message whose body is the event's JSON. In all three the event's type,
 * id and time become the message's own, and `partitionkey` its key when no other is given.
 */
import { isUtf8 } from "node:buffer";
import {
  type Attributes,
  isObject,
  keyOf,
  percentDecoded,
  problemsOf,
  REQUIRED,
  STRUCTURED_TYPE,
} from "../cloudevents/event.ts";
import { type InvalidDetail, InvalidError, LimitError } from "../errors.ts";
import { parseJson, stringifyJson } from "../json.ts";
import { batchMessagesMax, problemsMax } from "../limits.ts";
import { encodeText, type Header, textHeader } from "../message.ts";
import { parseTimeMs } from "../rules/units.ts";
import type { Draft } from "./message-input.ts";

const PREFIX = "ce-";

/** A draft as the event that its `ce-` headers make it; as it is when they make none. */
export function binaryEvent(from: Headers, draft: Draft): Draft {
  if (REQUIRED.some((name) => (from.get(PREFIX + name) ?? "") === "")) return draft;
  const attributes: Record<string, unknown> = {};
  const headers: Header[] = [...draft.headers];
  for (const [name, value] of from) {
    if (!name.startsWith(PREFIX)) continue;
    const attribute = name.slice(PREFIX.length);
    const text = decodeValue(attribute, value);
    attributes[attribute] = text;
    headers.push(textHeader(name, text));
  }
  const errors = problemsOf(attributes, "");
  if (errors.length > 0) throw refusal(errors);
  return withAttributes({ ...draft, headers }, attributes);
}

/** A draft whose body is one event in JSON. @throws InvalidError */
export function parseStructured(draft: Draft): Draft {
  const event = parseEvents(draft.body ?? new Uint8Array());
  if (!isObject(event)) throw refusal([{ pointer: "", detail: "expected a JSON object" }]);
  const errors = problemsOf(event, "");
  if (errors.length > 0) throw refusal(errors);
  return withAttributes(draft, event);
}

/**
 * The messages of a batch; one event that is wrong refuses all. @throws InvalidError, LimitError
 */
export function parseBatch(body: Uint8Array, nowMs: number): readonly Draft[] {
  const events = parseEvents(body);
  if (!Array.isArray(events)) {
    throw refusal([{ pointer: "", detail: "expected a JSON array of events" }]);
  }
  if (events.length > batchMessagesMax) {
    throw new LimitError("too-large", `a request holds at most ${batchMessagesMax} messages`);
  }
  const errors = events.flatMap((event: unknown, index) => {
    if (isObject(event)) return problemsOf(event, `/${index}`);
    return [{ pointer: `/${index}`, detail: "expected a JSON object" }];
  });
  if (errors.length > 0) throw refusal(errors);
  return (events as readonly Attributes[]).map((event) => {
    const draft: Draft = {
      key: null,
      properties: { contentType: STRUCTURED_TYPE },
      headers: [],
      body: encodeText(stringifyJson(event)),
      timestampMs: nowMs,
    };
    return withAttributes(draft, event);
  });
}

function parseEvents(body: Uint8Array): unknown {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  if (!isUtf8(bytes)) throw new InvalidError("the body is not UTF-8");
  return parseJson(bytes.toString("utf8"));
}

function withAttributes(draft: Draft, attributes: Attributes): Draft {
  const { id, type, time } = attributes;
  const timeMs = typeof time === "string" ? parseTimeMs(time, draft.timestampMs) : null;
  return {
    ...draft,
    key: draft.key ?? keyOf(attributes),
    properties: { ...draft.properties, type: String(type), messageId: String(id) },
    timestampMs: timeMs ?? draft.timestampMs,
  };
}

function decodeValue(attribute: string, value: string): string {
  const decoded = percentDecoded(value);
  if (decoded !== null) return decoded;
  throw refusal([{ pointer: `/${PREFIX}${attribute}`, detail: "its bytes are not UTF-8" }]);
}

function refusal(errors: readonly InvalidDetail[]): InvalidError {
  const [first] = errors;
  const text = `not a CloudEvent: ${first?.pointer ?? ""} ${first?.detail ?? ""}`;
  return new InvalidError(text, errors.slice(0, problemsMax));
}
