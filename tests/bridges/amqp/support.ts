/** What the tests of the AMQP bridge on real brokers share: opening, sending, taking. */
import { amqp } from "../../../bridges/amqp/module.ts";
import type {
  Bridge,
  Delivery,
  Outcome,
  Sink,
  Source,
  SourceMemory,
  SourceOptions,
} from "../../../src/bridge.ts";
import { encodeText, type Message } from "../../../src/message.ts";

export const never = new AbortController().signal;
let made = 0;

/** Connects with a bare bridge document. */
export async function open(document: Record<string, unknown>): Promise<Bridge> {
  return await amqp.connect(amqp.parseConfig(document), {
    name: "rabbit",
    resolve: (text) => Promise.resolve(text),
    signal: never,
  });
}

export async function sinkTo(bridge: Bridge, input: Record<string, unknown>): Promise<Sink> {
  return await bridge.sink(amqp.parseAddress(input, "sink"));
}

export async function sourceOf(
  bridge: Bridge,
  input: Record<string, unknown>,
  options: Partial<SourceOptions> = {},
): Promise<Source> {
  return await bridge.source(amqp.parseAddress(input, "source"), {
    name: `t${process.pid}-source`,
    start: "earliest",
    unsettledBytesMax: 16 * 1024 * 1024,
    ...options,
  });
}

export function message(parts: Partial<Message> = {}): Message {
  made += 1;
  return {
    id: `t${process.pid}-${made}`,
    key: null,
    properties: {},
    headers: [],
    body: encodeText(`body ${made}`),
    timestampMs: 1_700_000_000_000,
    origin: null,
    ...parts,
  };
}

export async function send(
  sink: Sink,
  fields: Record<string, unknown>,
  messages = [message()],
): Promise<readonly Outcome[]> {
  return await sink.send(
    messages.map((one) => ({ message: one, fields })),
    never,
  );
}

export async function next(source: Source): Promise<Delivery> {
  const delivery = await source.receive(AbortSignal.timeout(20_000));
  if (delivery === null) throw new Error("nothing came");
  return delivery;
}

export const bodies = (delivery: Delivery): string[] =>
  delivery.messages.map(({ body }) => Buffer.from(body ?? []).toString());

/** Takes and acks until so many have come. */
export async function take(source: Source, count: number): Promise<Message[]> {
  const seen: Message[] = [];
  while (seen.length < count) {
    const delivery = await next(source);
    seen.push(...delivery.messages);
    await delivery.ack();
  }
  return seen;
}

/** What a source keeps, in memory; `values` is all of it. */
export function memory(): SourceMemory & { readonly values: Map<string, Uint8Array> } {
  const values = new Map<string, Uint8Array>();
  return {
    values,
    load: (name) => Promise.resolve(values.get(name) ?? null),
    save: (entries) => {
      for (const [name, value] of entries) {
        if (value === null) values.delete(name);
        else values.set(name, value);
      }
      return Promise.resolve();
    },
  };
}
