/** Behaviours when connections break or end: nothing lost, nothing left open, losses told. */
import { expect } from "bun:test";
import type { Bridge, Delivery, Sink, Source } from "../../src/bridge.ts";
import { systemClock } from "../../src/clock.ts";
import { DisconnectedError } from "../../src/errors.ts";
import { encodeText, type Message } from "../../src/message.ts";
import type { Case, Conformance } from "./bridge.ts";
import { bodyText, settles, type Session } from "./session.ts";

const needsProxy = (subject: Conformance): string | null =>
  subject.proxied === undefined ? "the environment has no proxy" : null;

const needsSinkAndProxy = (subject: Conformance): string | null =>
  needsProxy(subject) ?? (subject.module.capabilities.sink ? null : "the kind has no sink");

const needsBothAndProxy = (subject: Conformance): string | null =>
  needsSinkAndProxy(subject) ??
  (subject.module.capabilities.source ? null : "the kind has no source");

/** Long enough for a client's own ways to notice; a bound against a hang, never waited for. */
const RECONNECT_PAUSE_MS = 50;

/** A sink and a source that are opened anew, bridge and all, whenever they are disconnected. */
class Reopening {
  readonly #session: Session;
  readonly #config: unknown;
  #bridge: Bridge | null = null;
  #source: Source | null = null;
  #sink: Sink | null = null;

  constructor(session: Session, config: unknown) {
    this.#session = session;
    this.#config = config;
  }

  async with<T>(use: (ends: { source: Source; sink: Sink }) => Promise<T>): Promise<T> {
    for (let tries = 0; tries < 100; tries += 1) {
      try {
        this.#bridge ??= await this.#session.connect(this.#config);
        this.#source ??= await this.#session.source({ bridge: this.#bridge });
        this.#sink ??= await this.#session.sink({ bridge: this.#bridge });
        return await use({ source: this.#source, sink: this.#sink });
      } catch (error) {
        if (!(error instanceof DisconnectedError)) throw error;
        await this.#close();
        await systemClock.sleep(RECONNECT_PAUSE_MS);
      }
    }
    throw new Error("never connected again");
  }

  async #close(): Promise<void> {
    const bridge = this.#bridge;
    this.#bridge = this.#source = this.#sink = null;
    await bridge?.[Symbol.asyncDispose]();
  }
}

/** Whether the ack counted; a lost connection means that it did not. */
async function acked(delivery: Delivery): Promise<boolean> {
  try {
    await delivery.ack();
    return true;
  } catch (error) {
    if (error instanceof DisconnectedError) return false;
    throw error;
  }
}

async function dropAndGoOn(session: Session): Promise<void> {
  const { config, proxy } = await session.proxied();
  const ends = new Reopening(session, config);
  await ends.with(() => Promise.resolve());
  const sent: Message[] = [];
  const settled = new Set<string>();
  const arrived: string[] = [];
  for (let round = 0; round < 4; round += 1) {
    const batch = session.messages(10, () => ({ key: encodeText("same") }));
    sent.push(...batch);
    await ends.with(({ sink }) => session.sendAll(sink, batch));
    const held = await ends.with(({ source }) => session.next(source));
    arrived.push(...held.messages.map(bodyText));
    proxy.cut();
    if (await acked(held)) for (const message of held.messages) settled.add(bodyText(message));
  }
  const missing = (): Message[] => sent.filter((message) => !settled.has(bodyText(message)));
  while (missing().length > 0) {
    const delivery = await ends.with(({ source }) => session.next(source));
    arrived.push(...delivery.messages.map(bodyText));
    if (await acked(delivery)) {
      for (const message of delivery.messages) settled.add(bodyText(message));
    }
  }
  expect([...settled].sort()).toEqual(sent.map(bodyText).sort());
  expect(new Set(arrived)).toEqual(new Set(sent.map(bodyText)));
}

async function tellLoss(session: Session, subject: Conformance): Promise<void> {
  const { config, proxy } = await session.proxied();
  const bridge = await session.connect(config);
  const sink = await session.sink({ bridge });
  const waiting = subject.module.capabilities.source
    ? (await session.source({ bridge })).receive(session.signal).then(
        (delivery): unknown => delivery,
        (error: unknown) => error,
      )
    : null;
  await session.sendAll(sink, [session.message()]);
  if (waiting !== null) await settles("first receive", waiting);
  const source = waiting === null ? null : await session.source({ bridge, name: "second" });
  const lost = source?.receive(session.signal).then(
    (delivery): unknown => (delivery === null ? null : source.receive(session.signal)),
    (error: unknown) => error,
  );
  await proxy.down();
  const sending = session.send(sink, [session.message()]).then(
    (outcomes): unknown => outcomes,
    (error: unknown) => error,
  );
  expect(await settles("send", sending)).toBeInstanceOf(DisconnectedError);
  expect(await settles("closed", bridge.closed)).toBeInstanceOf(Error);
  if (lost !== undefined) {
    const end = await settles(
      "receive",
      lost.catch((error: unknown) => error),
    );
    expect(end).toBeInstanceOf(DisconnectedError);
  }
}

export const outageBehaviours: readonly Case[] = [
  { name: "loses nothing when its connections drop", notFor: needsBothAndProxy, run: dropAndGoOn },
  { name: "tells the loss of its connection", notFor: needsSinkAndProxy, run: tellLoss },
  {
    name: "resolves an aborted send on a dead line",
    notFor: needsSinkAndProxy,
    run: async (session) => {
      const { config, proxy } = await session.proxied();
      const sink = await session.sink({ bridge: await session.connect(config) });
      await session.sendAll(sink, [session.message()]);
      proxy.blackhole(true);
      const abort = new AbortController();
      const outgoing = await session.outgoing(session.messages(3));
      const sending = sink.send(outgoing, abort.signal);
      abort.abort();
      const outcomes = await settles("send", sending, 5000);
      expect(outcomes).toEqual([{ unknown: true }, { unknown: true }, { unknown: true }]);
      proxy.blackhole(false);
      proxy.cut();
    },
  },
  {
    name: "leaves nothing open after dispose",
    notFor: needsSinkAndProxy,
    run: async (session, { module }) => {
      const { config, proxy } = await session.proxied();
      const bridge = await session.connect(config);
      const sink = await session.sink({ bridge });
      const source = module.capabilities.source ? await session.source({ bridge }) : null;
      await session.sendAll(sink, [session.message()]);
      const held = source === null ? null : await session.next(source);
      expect(held === null || held.messages.length === 1).toBe(true);
      await settles("dispose", bridge[Symbol.asyncDispose]());
      await session.until("no connection is left", () => proxy.connections === 0);
      expect(await settles("closed", bridge.closed)).toBeNull();
      await settles("second dispose", bridge[Symbol.asyncDispose]());
      await settles("dispose of a sink", sink[Symbol.asyncDispose]());
      if (source !== null) await settles("dispose of a source", source[Symbol.asyncDispose]());
      expect(proxy.connections).toBe(0);
    },
  },
];
