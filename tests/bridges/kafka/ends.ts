/** Bridges, sources and sinks for the Kafka tests, and small verbs over them. */
import { kafka } from "../../../bridges/kafka/module.ts";
import type {
  Bridge,
  Delivery,
  Outgoing,
  Sink,
  Source,
  SourceOptions,
} from "../../../src/bridge.ts";
import { encodeText, type Message } from "../../../src/message.ts";
import { kafkaUrl } from "./cluster.ts";

const UNSETTLED_BYTES_MAX = 16 * 1024 * 1024;
/** After so long a message that should come counts as lost. */
const ARRIVAL_MS = 25_000;
/** How long a test looks for what must not come. */
const SILENCE_MS = 700;

export async function connect(document: object | null = null): Promise<Bridge> {
  const config = kafka.parseConfig(document ?? { url: await kafkaUrl() });
  const resolve = (text: string): Promise<string> => Promise.resolve(text);
  const { signal } = new AbortController();
  return await kafka.connect(config, { name: "eu", resolve, signal });
}

export async function openSource(
  bridge: Bridge,
  topic: string,
  options: Partial<SourceOptions> & { address?: Record<string, unknown> } = {},
): Promise<Source> {
  const { address = { topic }, ...rest } = options;
  return await bridge.source(kafka.parseAddress(address, "source"), {
    name: `reader-${topic}`,
    start: "earliest",
    unsettledBytesMax: UNSETTLED_BYTES_MAX,
    ...rest,
  });
}

/** A sink, and how to send with its fields (some rendered). */
export async function openSink(bridge: Bridge, address: Record<string, unknown>) {
  const parsed = kafka.parseAddress(address, "sink");
  const sink: Sink = await bridge.sink(parsed);
  const outgoing = (messages: readonly Message[], rendered: object = {}): Outgoing[] => {
    const fields = { ...parsed.fields, ...rendered };
    return messages.map((message) => ({ message, fields }));
  };
  const { signal } = new AbortController();
  return {
    sink,
    send: async (messages: readonly Message[], rendered: object = {}) =>
      await sink.send(outgoing(messages, rendered), signal),
  };
}

let made = 0;

export function message(parts: Partial<Message> & { text?: string } = {}): Message {
  const { text, ...rest } = parts;
  made += 1;
  return {
    id: `made-${made}`,
    key: null,
    properties: {},
    headers: [],
    body: encodeText(text ?? `message ${made}`),
    timestampMs: 1_700_000_000_000,
    origin: null,
    ...rest,
  };
}

export function textOf({ body }: Message): string {
  return body === null ? "null" : Buffer.from(body).toString();
}

export async function next(source: Source): Promise<Delivery> {
  const delivery = await source.receive(AbortSignal.timeout(ARRIVAL_MS));
  if (delivery === null) throw new Error("nothing was delivered");
  return delivery;
}

export async function silence(source: Source): Promise<boolean> {
  return (await source.receive(AbortSignal.timeout(SILENCE_MS))) === null;
}

/** Receives and acks until so many have come. */
export async function collect(source: Source, count: number): Promise<Message[]> {
  const messages: Message[] = [];
  while (messages.length < count) {
    const delivery = await next(source);
    messages.push(...delivery.messages);
    await delivery.ack();
  }
  return messages;
}
