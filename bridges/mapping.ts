/**
 * The mapping table: where each field of a message stands in each protocol, both ways, with types
 * and units. The codecs run its rows (`carriersOf` for the headers of ours, `losesBy` for what has
 * no place), the documentation prints them and the tests walk them.
 *
 * What a protocol has no place for travels in a header of ours, so that a message that passes
 * through a protocol and comes back is what it was. `spare` names the header that keeps what the
 * place holds only in part: seconds instead of milliseconds, text instead of bytes.
 */
import type { MappedField, MappingRow } from "../src/bridge.ts";

/** What is to be known about a row besides its place. */
type More = Pick<MappingRow, "spare" | "note">;

function own(field: MappedField, place: string, form: string, more: More = {}): MappingRow {
  return { field, by: "own", place, form, ...more };
}

function header(field: MappedField, place: string, form: string, note?: string): MappingRow {
  return { field, by: "header", place, form, ...(note === undefined ? {} : { note }) };
}

function rule(place: string): MappingRow {
  const note = "the rule's target says where a message goes; its origin tells where it came from";
  return { field: "address", by: "rule", place, form: "text", note };
}

function none(field: MappedField, note: string): MappingRow {
  return { field, by: "none", place: "", form: "", note };
}

const kafka: readonly MappingRow[] = [
  rule("topic"),
  header("id", "isthmus-id", "text", "a record without it is known by its topic and offset"),
  own("key", "record key", "bytes or null"),
  own("body", "record value", "bytes"),
  own("tombstone", "null value", "null"),
  own("headers", "record headers", "ordered, repeatable, bytes or null", {
    note: "a header by a name of ours travels as `isthmus-header-NAME`",
  }),
  own("timestampMs", "record timestamp", "milliseconds", { spare: "isthmus_timestamp" }),
  header("contentType", "content-type", "text"),
  header("contentEncoding", "content-encoding", "text"),
  header("correlationId", "isthmus_correlation_id", "bytes", "bytes that are UTF-8 come as text"),
  header("replyTo", "isthmus_reply_to", "text"),
  header("type", "isthmus_type", "text"),
  header("priority", "isthmus_priority", "number"),
  header("expiresAtMs", "isthmus_expires_at", "number", "Unix milliseconds"),
  header("messageId", "isthmus_message_id", "text"),
  header("userId", "isthmus_user_id", "text"),
  header("appId", "isthmus_app_id", "text"),
  header("durable", "isthmus_durable", "bit"),
  header("retain", "isthmus_retain", "bit"),
  header("textBody", "isthmus_pfi", "bit"),
];

const amqp: readonly MappingRow[] = [
  rule("exchange and routing key, or queue"),
  own("id", "message_id", "short string", {
    spare: "isthmus-id",
    note: "the producer's id stands there when it gave another one",
  }),
  header("key", "isthmus-key", "text, or a byte array"),
  own("body", "content", "bytes"),
  header("tombstone", "isthmus-tombstone", "true, with an empty content"),
  own("headers", "headers table", "unique names, typed", {
    spare: "isthmus-header-names",
    note: "a repeated name becomes `name#2`; values that are neither text nor bytes come as JSON, their own form in `isthmus-amqp`",
  }),
  own("timestampMs", "timestamp", "seconds", { spare: "isthmus-timestamp" }),
  own("contentType", "content_type", "short string"),
  own("contentEncoding", "content_encoding", "short string"),
  own("correlationId", "correlation_id", "short string", { spare: "isthmus-correlation-id" }),
  own("replyTo", "reply_to", "short string"),
  own("type", "type", "short string"),
  own("priority", "priority", "0 to 255"),
  own("expiresAtMs", "expiration", "milliseconds from now, as text", {
    spare: "isthmus-expires-at",
  }),
  own("messageId", "message_id", "short string", { spare: "isthmus-message-id" }),
  header("userId", "isthmus-user-id", "text", "RabbitMQ checks `user_id` against the login"),
  own("appId", "app_id", "short string"),
  own("durable", "delivery_mode", "1 or 2", { spare: "isthmus-durable" }),
  header("retain", "isthmus-retain", "flag"),
  header("textBody", "isthmus-text-body", "flag"),
];

const amqp1: readonly MappingRow[] = [
  rule("address of the link, and `to`"),
  own("id", "message-id", "text", {
    spare: "isthmus-id",
    note: "the producer's id stands there when it gave another one",
  }),
  own("key", "group-id", "text", { spare: "isthmus-key" }),
  own("body", "data", "bytes", {
    note: "other bodies come as text or JSON, their own form in `isthmus-amqp1`",
  }),
  own("tombstone", "a null value as body", "null"),
  own("headers", "application properties; `x-opt-…`: annotations", "unique names, typed", {
    spare: "isthmus-header-names",
    note: "a repeated name becomes `name#2`; values that are neither text nor bytes come as text, their own form in `isthmus-amqp1`",
  }),
  own("timestampMs", "creation-time", "milliseconds", { spare: "isthmus-timestamp" }),
  own("contentType", "content-type", "symbol, ASCII"),
  own("contentEncoding", "content-encoding", "symbol, ASCII"),
  own("correlationId", "correlation-id", "text, bytes, a number or a UUID"),
  own("replyTo", "reply-to", "text"),
  own("type", "subject", "text"),
  own("priority", "header priority", "0 to 255"),
  own("expiresAtMs", "absolute-expiry-time and ttl", "milliseconds"),
  own("messageId", "message-id", "text", { spare: "isthmus-message-id" }),
  own("userId", "user-id", "bytes", {
    spare: "isthmus-user-id",
    note: "a broker that checks it against the login gets it in the header alone",
  }),
  header("appId", "isthmus-app-id", "text"),
  own("durable", "header durable", "flag", { spare: "isthmus-durable" }),
  header("retain", "isthmus-retain", "flag"),
  own("textBody", "a text value as body", "flag", { spare: "isthmus-text-body" }),
];

const mqtt: readonly MappingRow[] = [
  rule("topic"),
  header("id", "isthmus-id", "text", "text that MQTT forbids travels in base64, as `NAME-base64`"),
  header("key", "isthmus-key", "text, or base64 in isthmus-key-base64"),
  own("body", "payload", "bytes"),
  header("tombstone", "isthmus-tombstone", "true, with an empty payload"),
  own("headers", "user properties", "ordered, repeatable text", {
    spare: "isthmus-headers",
    note: "bytes that are no text travel in base64; a header by a name of ours as `isthmus-header-NAME`",
  }),
  header("timestampMs", "isthmus-timestamp", "number", "Unix milliseconds"),
  own("contentType", "Content Type", "text", { spare: "isthmus-content-type" }),
  header("contentEncoding", "isthmus-content-encoding", "text"),
  own("correlationId", "Correlation Data", "bytes", { note: "bytes that are UTF-8 come as text" }),
  own("replyTo", "Response Topic", "topic", { spare: "isthmus-reply-to" }),
  header("type", "isthmus-type", "text"),
  header("priority", "isthmus-priority", "number"),
  own("expiresAtMs", "Message Expiry Interval", "seconds from now", {
    spare: "isthmus-expires-at",
  }),
  header("messageId", "isthmus-message-id", "text"),
  header("userId", "isthmus-user-id", "text"),
  header("appId", "isthmus-app-id", "text"),
  own("durable", "QoS", "0 is not durable", { spare: "isthmus-durable" }),
  own("retain", "retain flag", "flag", {
    spare: "isthmus-retain",
    note: "the flag sent is the target's; the one received travels beside it",
  }),
  own("textBody", "Payload Format Indicator", "flag", { spare: "isthmus-text-body" }),
];

const NOTHING = "MQTT 3.1.1 carries topic and payload alone";

const mqtt311: readonly MappingRow[] = mqtt.map((row) => {
  if (row.field === "durable") return own("durable", "QoS", "0 is not durable");
  if (row.field === "retain") return own("retain", "retain flag", "flag");
  return row.field === "address" || row.field === "body" ? row : none(row.field, NOTHING);
});

const http: readonly MappingRow[] = [
  rule("URL and path"),
  own("id", "webhook-id", "text"),
  header("key", "isthmus-key", "text, or base64 in isthmus-key-base64"),
  own("body", "body", "bytes"),
  header("tombstone", "isthmus-tombstone", "true, with an empty body"),
  own("headers", "headers", "repeatable, names without letter case", {
    note: "headers of the connection, credentials and a header's missing value are lost",
  }),
  none("timestampMs", "webhook-timestamp is the time of the attempt"),
  own("contentType", "content-type", "text"),
  own("contentEncoding", "content-encoding", "text"),
  header("correlationId", "isthmus-correlation-id", "text, or base64 in …-base64"),
  header("replyTo", "isthmus-reply-to", "text"),
  header("type", "isthmus-type", "text"),
  header("priority", "isthmus-priority", "number"),
  header("expiresAtMs", "isthmus-expires-at", "number", "Unix milliseconds"),
  header("messageId", "isthmus-message-id", "text"),
  header("userId", "isthmus-user-id", "text"),
  header("appId", "isthmus-app-id", "text"),
  header("durable", "isthmus-durable", "flag"),
  header("retain", "isthmus-retain", "flag"),
  header("textBody", "isthmus-text-body", "flag"),
];

/** The table, by protocol. A new protocol adds its column here. */
export const mapping = {
  kafka,
  amqp,
  amqp1,
  mqtt,
  "mqtt 3.1.1": mqtt311,
  http,
} as const satisfies Record<string, readonly MappingRow[]>;

/** A header by a name that is one of ours travels with this before its name. */
export const escapePrefix = "isthmus-header-";
