/**
 * Events that come by a bridge. The message stays as it came, attributes and all; what the event
 * says of itself becomes the message's own where the protocol has said nothing: its type, its id
 * as the producer's, and `partitionkey` as the key. What is no right event is a plain message.
 */
import type { EventBinding } from "../bridge.ts";
import { decodeText, type Header, type Message, textHeader } from "../message.ts";
import { type Attributes, keyOf, percentDecoded, structuredEvent } from "./event.ts";
import { eventIn } from "./headers.ts";

/** A message with what the event in it says; the very same message where there is none. */
export function withEvent<T extends Message>(message: T, binding: EventBinding): T {
  const { headers } = message;
  const found = headers.length === 0 ? null : eventIn(headers, binding);
  const event = found === null ? structuredEvent(message) : Object.fromEntries(found);
  return event === null ? message : withAttributes(message, event);
}

const HTTP: EventBinding = { prefix: "ce-", isPercentEncoded: true };

/** The same for what came by HTTP, whose attributes are kept decoded. */
export function withHttpEvent<T extends Message>(message: T): T {
  const taken = withEvent(message, HTTP);
  if (taken === message || !message.headers.some(({ name }) => name.startsWith(HTTP.prefix))) {
    return taken;
  }
  return { ...taken, headers: message.headers.map(decodedHeader) };
}

function decodedHeader(header: Header): Header {
  const { name, value } = header;
  if (!name.startsWith(HTTP.prefix) || value === null) return header;
  const text = percentDecoded(decodeText(value));
  return text === null ? header : textHeader(name, text);
}

function withAttributes<T extends Message>(message: T, event: Attributes): T {
  const { properties, key } = message;
  const id = String(event["id"]);
  const messageId = properties.messageId ?? (id === message.id ? undefined : id);
  return {
    ...message,
    key: key ?? keyOf(event),
    properties: {
      ...properties,
      type: properties.type ?? String(event["type"]),
      ...(messageId === undefined ? {} : { messageId }),
    },
  };
}
