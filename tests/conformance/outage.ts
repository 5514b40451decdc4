/** Behaviours when connections break or end: nothing lost, nothing left open, losses told. */
import { expect } from "bun:test";
import { DisconnectedError } from "../../src/errors.ts";
import { encodeText, type Message } from "../../src/message.ts";
import type { Case, Conformance } from "./bridge.ts";
import { needsBothAndProxy, needsSinkAndProxy } from "./needs.ts";
import { acked, Reopening } from "./reopening.ts";
import { bodyText, settles, type Session } from "./session.ts";

async function dropAndGoOn(session: Session): Promise<void> {
  const { config, proxy } = await session.proxied();
  const ends = new Reopening(session, config);
  await ends.withBridge(() => Promise.resolve());
  const sent: Message[] = [];
  const settled = new Set<string>();
  const arrived: string[] = [];
  for (let round = 0; round < 4; round += 1) {
    const batch = session.messages(10, () => ({ key: encodeText("same") }));
    sent.push(...batch);
    await ends.withSink((sink) => session.sendAll(sink, batch));
    const held = await ends.withSource((source) => session.next(source));
    arrived.push(...held.messages.map(bodyText));
    proxy.cut();
    if (await acked(held)) for (const message of held.messages) settled.add(bodyText(message));
  }
  const missing = (): Message[] => sent.filter((message) => !settled.has(bodyText(message)));
  while (missing().length > 0) {
    const delivery = await ends.withSource((source) => session.next(source));
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
