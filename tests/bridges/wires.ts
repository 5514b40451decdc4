/**
 * Each protocol's wire without a broker: the codec's own encoding, the client library's bytes, and
 * back. What a message is after that is what a gateway behind a broker would take in.
 */
import { createRequire } from "node:module";
import type { ConsumeMessage } from "amqplib";
import type { IPublishPacket } from "mqtt";
import * as amqpCodec from "../../bridges/amqp/codec.ts";
import * as amqp1Codec from "../../bridges/amqp1/codec.ts";
import { decodeRecord, encodeRecord } from "../../bridges/kafka/codec.ts";
import * as mqttCodec from "../../bridges/mqtt/codec.ts";
import { parseFilter } from "../../bridges/mqtt/topic.ts";
import type { Message } from "../../src/message.ts";

/** When everything in these tests happens. */
export const nowMs = 1_700_000_000_000;

/** A message's way over one wire; or why it can't go. */
export type Passed = { readonly message: Message; readonly wire: string } | { refused: string };

/** A protocol with both ends. */
export interface Wire {
  readonly protocol: "kafka" | "amqp" | "amqp1" | "mqtt";
  /** `wire` is what travelled, as text to be compared. */
  readonly pass: (message: Message) => Passed;
}

const kafka: Wire = {
  protocol: "kafka",
  pass: (message) => {
    const record = encodeRecord(message);
    const headers = record.headers.map(([name, value]) => ({
      name: name.toString(),
      value: value === null ? null : new Uint8Array(value),
    }));
    const { key, value, timestampMs } = record;
    const arrived = { partition: 0, offset: "7", timestampMs, key, value, headers };
    const wire = JSON.stringify({ ...arrived, headers: record.headers });
    return { message: decodeRecord(arrived, { bridge: "eu", topic: "orders" }), wire };
  },
};

interface AmqpDefinitions {
  encodeProperties(id: number, channel: number, size: number, fields: object): Buffer;
  decode(id: number, bytes: Buffer): Record<string, unknown>;
}

const amqpDefinitions = createRequire(Bun.resolveSync("amqplib", import.meta.dir))(
  "./lib/defs.js",
) as AmqpDefinitions;
/** The id of the basic properties. */
const BASIC = 60;
/** Type, channel, size, class, weight and the body's size come before the properties. */
const FRAME_START = 19;

/** The message of a delivery with such a field table of another program, and the table as read. */
export function amqpTaken(headers: Record<string, unknown>): {
  readonly message: Message;
  readonly arrived: Record<string, unknown>;
} {
  const frame = amqpDefinitions.encodeProperties(BASIC, 1, 0, { headers, messageId: "m-1" });
  const properties = amqpDefinitions.decode(BASIC, frame.subarray(FRAME_START, -1));
  const fields = { exchange: "", routingKey: "q", redelivered: false };
  const delivered = { content: Buffer.alloc(0), properties, fields } as unknown as ConsumeMessage;
  const message = amqpCodec.decodeMessage(delivered, { bridge: "rabbit", queue: "q" }, nowMs);
  return { message, arrived: properties["headers"] as Record<string, unknown> };
}

/** The field table that a message goes out with, as another program reads it; ours left out. */
export function amqpTable(message: Message): Record<string, unknown> {
  const encoded = amqpCodec.encodeMessage(message, { nowMs, frameBytesMax: 131_072 });
  if ("refused" in encoded) throw new Error(encoded.refused);
  const frame = amqpDefinitions.encodeProperties(BASIC, 1, 0, encoded.options);
  const { headers } = amqpDefinitions.decode(BASIC, frame.subarray(FRAME_START, -1));
  const own = new Set(["isthmus-durable", "isthmus-timestamp"]);
  return Object.fromEntries(
    Object.entries(headers as Record<string, unknown>).filter(([name]) => !own.has(name)),
  );
}

const amqp: Wire = {
  protocol: "amqp",
  pass: (message) => {
    const encoded = amqpCodec.encodeMessage(message, { nowMs, frameBytesMax: 131_072 });
    if ("refused" in encoded) return encoded;
    const { content, options } = encoded;
    const frame = amqpDefinitions.encodeProperties(BASIC, 1, content.byteLength, options);
    const properties = amqpDefinitions.decode(BASIC, frame.subarray(FRAME_START, -1));
    const arrived = {
      content,
      properties,
      fields: { exchange: "", routingKey: "q", redelivered: false },
    } as unknown as ConsumeMessage;
    const place = { bridge: "rabbit", queue: "q" };
    const wire = `${frame.toString("hex")} ${content.toString("hex")}`;
    return { message: amqpCodec.decodeMessage(arrived, place, nowMs), wire };
  },
};

const amqp1: Wire = {
  protocol: "amqp1",
  pass: (message) => {
    const target = { address: "q", kind: "queue", takesUserId: true } as const;
    const encoded = amqp1Codec.encodeMessage(message, target, nowMs);
    if ("refused" in encoded) return encoded;
    const { payload } = encoded;
    const place = { bridge: "jms", address: "q" };
    const decoded = amqp1Codec.decodeMessage(payload, place, nowMs);
    return { message: decoded.message, wire: payload.toString("hex") };
  },
};

interface MqttPackets {
  generate(packet: object, options: { protocolVersion: 5 }): Buffer;
  parser(options: { protocolVersion: 5 }): {
    on(event: "packet" | "error", listener: (packet: IPublishPacket) => void): void;
    parse(bytes: Buffer): number;
  };
}

const mqttPackets = createRequire(Bun.resolveSync("mqtt", import.meta.dir))(
  "mqtt-packet",
) as MqttPackets;
const filter = parseFilter("orders");
if ("problem" in filter) throw new Error(filter.problem);
const mqttPlace = { bridge: "plant", filter };

const mqtt: Wire = {
  protocol: "mqtt",
  pass: (message) => {
    const encoded = mqttCodec.encodeMessage(message, { version: 5, nowMs });
    if ("refused" in encoded) return encoded;
    const { payload, properties } = encoded;
    const packet = { cmd: "publish", topic: "orders", payload, qos: 1, messageId: 1, properties };
    const bytes = mqttPackets.generate(packet, { protocolVersion: 5 });
    const parser = mqttPackets.parser({ protocolVersion: 5 });
    const arrived: IPublishPacket[] = [];
    parser.on("packet", (one) => arrived.push(one));
    parser.on("error", (error) => {
      throw error as unknown as Error;
    });
    parser.parse(bytes);
    const [first] = arrived;
    if (first === undefined) throw new Error("the packet could not be read");
    const back = mqttCodec.decodeMessage(first, 1, { place: mqttPlace, nowMs });
    return { message: back, wire: bytes.toString("hex") };
  },
};

/** Every protocol that a message can come from and go to. */
export const wires: readonly Wire[] = [kafka, amqp, amqp1, mqtt];

/** Every ordered pair of them. */
export const pairs: readonly (readonly [Wire, Wire])[] = wires.flatMap((from) =>
  wires.map((to) => [from, to] as const),
);

/** A message without where it came from, bytes as text, to be compared. */
export function plain(whole: Message): unknown {
  const message = { ...whole, origin: null };
  const bytes = (value: unknown): unknown =>
    value instanceof Uint8Array ? `bytes ${Buffer.from(value).toString("hex")}` : value;
  return {
    ...message,
    key: bytes(message.key),
    body: bytes(message.body),
    headers: message.headers.map(({ name, value }) => [name, bytes(value)]),
    properties: Object.fromEntries(
      Object.entries(message.properties).map(([name, value]) => [name, bytes(value)]),
    ),
  };
}
