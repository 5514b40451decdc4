/** What the tests of the AMQP 1.0 bridge on real brokers share: the bridge, and rhea beside it. */
import rhea from "rhea";
import { amqp1 } from "../../../bridges/amqp1/module.ts";
import type { Bridge, Delivery, Outcome, Sink, Source } from "../../../src/bridge.ts";
import { systemClock } from "../../../src/clock.ts";
import { encodeText, type Message } from "../../../src/message.ts";
import { waitFor } from "../../temporary.ts";

const UNSETTLED_BYTES_MAX = 16 * 1024 * 1024;
/** How long a test looks for what must not come. Milliseconds. */
const SILENCE_MS = 500;
const never = new AbortController().signal;
let made = 0;

/** A name that no other test uses. */
export function fresh(what: string): string {
  made += 1;
  return `${what}-${process.pid}-${made}`;
}

/** Connects with a bare bridge document. */
export async function open(document: Record<string, unknown>, name = "jms"): Promise<Bridge> {
  const resolve = (text: string): Promise<string> => Promise.resolve(text);
  return await amqp1.connect(amqp1.parseConfig(document), { name, resolve, signal: never });
}

export type Place = Readonly<Record<string, unknown>>;

export async function sourceOf(bridge: Bridge, place: Place, name = "reader"): Promise<Source> {
  return await bridge.source(amqp1.parseAddress(place, "source"), {
    name,
    start: "earliest",
    unsettledBytesMax: UNSETTLED_BYTES_MAX,
  });
}

export async function sinkTo(bridge: Bridge, place: Place): Promise<Sink> {
  return await bridge.sink(amqp1.parseAddress(place, "sink"));
}

export function message(text: string, parts: Partial<Message> = {}): Message {
  made += 1;
  return {
    id: `t${process.pid}-${made}`,
    key: null,
    properties: {},
    headers: [],
    body: encodeText(text),
    timestampMs: 1_700_000_000_000,
    origin: null,
    ...parts,
  };
}

export async function send(
  sink: Sink,
  fields: Place,
  messages: readonly Message[],
): Promise<readonly Outcome[]> {
  return await sink.send(
    messages.map((one) => ({ message: one, fields })),
    never,
  );
}

export function textOf({ body }: Message): string {
  return Buffer.from(body ?? []).toString();
}

/** The next delivery, which is this one message, unsettled. */
export async function hold(source: Source, text: string): Promise<Delivery> {
  const delivery = await source.receive(AbortSignal.timeout(20_000));
  if (delivery?.messages.map(textOf).join() !== text) throw new Error(`${text} did not come`);
  return delivery;
}

/** Takes and acks until so many have come. */
export async function take(source: Source, count: number): Promise<Message[]> {
  const seen: Message[] = [];
  while (seen.length < count) {
    const delivery = await source.receive(AbortSignal.timeout(20_000));
    if (delivery === null) throw new Error(`${seen.length} of ${count} came`);
    seen.push(...delivery.messages);
    await delivery.ack();
  }
  return seen;
}

/** Whether nothing comes for a while. */
export async function isSilent(source: Source): Promise<boolean> {
  const stop = new AbortController();
  const late = systemClock.sleep(SILENCE_MS, never).then(() => stop.abort());
  const delivery = await source.receive(stop.signal);
  await late;
  return delivery === null;
}

/** A client that is not ours: sends, and keeps what comes. */
export interface Raw extends AsyncDisposable {
  send(place: RawPlace, messages: readonly rhea.Message[]): Promise<void>;
  receive(place: RawPlace, count: number): Promise<readonly rhea.Message[]>;
}

interface RawPlace {
  readonly address: string;
  readonly capabilities?: string[];
}

/** Connects rhea by itself. */
export async function raw(url: string): Promise<Raw> {
  const { hostname, port, username, password } = new URL(url);
  const login = username === "" ? { username: "anonymous" } : { username, password };
  const connection = rhea
    .create_container()
    .connect({ host: hostname, port: Number(port), reconnect: false, ...login });
  await new Promise((resolve) => connection.once("connection_open", resolve));
  return {
    async send(place, messages) {
      const sender = connection.open_sender({ target: { ...place } });
      let accepted = 0;
      sender.on("accepted", () => (accepted += 1));
      await new Promise((resolve) => sender.once("sendable", resolve));
      for (const one of messages) sender.send(one);
      await waitFor("all is accepted", () => accepted === messages.length);
      sender.close();
    },
    async receive(place, count) {
      const seen: rhea.Message[] = [];
      const receiver = connection.open_receiver({ source: { ...place } });
      receiver.on("message", ({ message: one }: rhea.EventContext) => {
        if (one !== undefined) seen.push(one);
      });
      await waitFor(`${count} messages came`, () => seen.length >= count);
      receiver.close();
      return seen;
    },
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise((resolve) => connection.once("connection_close", resolve));
      connection.close();
      await closed;
    },
  };
}
