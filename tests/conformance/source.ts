/** Behaviours of reading: settling, redelivery, groups, bounds, and ends. */
import { expect } from "bun:test";
import type { Delivery } from "../../src/bridge.ts";
import { DisconnectedError } from "../../src/errors.ts";
import { encodeText, type Message } from "../../src/message.ts";
import type { Case } from "./bridge.ts";
import { needsBoth } from "./needs.ts";
import { bodyText, settles, type Session } from "./session.ts";

const BODY_BYTES = 8 * 1024;
const UNSETTLED_BYTES = 64 * 1024;
const BOUND_MESSAGES = 60;

function texts(messages: readonly Message[]): string[] {
  return messages.map(bodyText);
}

async function deliveriesOf(
  session: Session,
  receive: () => Promise<Delivery>,
  count: number,
): Promise<Delivery[]> {
  const deliveries: Delivery[] = [];
  let messages = 0;
  while (messages < count) {
    const delivery = await settles("receive", receive());
    deliveries.push(delivery);
    messages += delivery.messages.length;
  }
  expect(session.signal.aborted).toBe(false);
  return deliveries;
}

/** Opens two readers of one group, each with a connection, and reads with both until all came. */
async function shareOut(session: Session): Promise<void> {
  await session.place();
  const names = ["a", "b"] as const;
  const seen = { a: new Set<string>(), b: new Set<string>() };
  const stop = new AbortController();
  const readers = await Promise.all(
    names.map(async (name) => {
      const source = await session.source({ bridge: await session.connect(), name: "group" });
      return { name, source };
    }),
  );
  const reading = readers.map(async ({ name, source }) => {
    for (;;) {
      const delivery = await source.receive(stop.signal);
      if (delivery === null) return;
      for (const message of delivery.messages) seen[name].add(bodyText(message));
      await delivery.ack();
    }
  });
  const sink = await session.sink();
  const sent = new Set<string>();
  // Sends go on until both have their share: a group may take a while to settle.
  const shared = (): boolean => seen.a.size > 0 && seen.b.size > 0;
  const complete = (): boolean => [...sent].every((body) => seen.a.has(body) || seen.b.has(body));
  for (let round = 0; !shared() && round < 200; round += 1) {
    const batch = session.messages(20, (index) => ({ key: encodeText(`key ${round}/${index}`) }));
    await session.sendAll(sink, batch);
    for (const message of batch) sent.add(bodyText(message));
    await Promise.race([session.until("complete", complete), ...reading]);
  }
  stop.abort();
  await settles("readers", Promise.all(reading));
  expect(shared()).toBe(true);
  expect(complete()).toBe(true);
}

async function stopAtBound(session: Session): Promise<void> {
  const source = await session.source({ unsettledBytesMax: UNSETTLED_BYTES });
  const sink = await session.sink();
  const sent = session.messages(BOUND_MESSAGES, (index) => ({
    body: encodeText(`${index}/`.padEnd(BODY_BYTES, "x")),
  }));
  await session.sendAll(sink, sent);
  const held: Delivery[] = [];
  for (;;) {
    const delivery = await session.nextOrSilence(source);
    if (delivery === null) break;
    held.push(delivery);
  }
  const messages = held.flatMap((delivery) => delivery.messages);
  expect(messages.length).toBeGreaterThan(0);
  expect(messages.length * BODY_BYTES).toBeLessThanOrEqual(UNSETTLED_BYTES);
  for (const delivery of held) await delivery.ack();
  const rest = await session.collect(source, BOUND_MESSAGES - messages.length);
  expect(texts([...messages, ...rest]).sort()).toEqual(texts(sent).sort());
}

export const sourceBehaviours: readonly Case[] = [
  {
    name: "gives an unsettled message again",
    notFor: needsBoth,
    run: async (session) => {
      const first = await session.connect();
      const source = await session.source({ bridge: first });
      const sink = await session.sink();
      const sent = session.messages(3);
      await session.sendAll(sink, sent);
      const held = await deliveriesOf(session, () => session.next(source), 3);
      expect(texts(held.flatMap((delivery) => delivery.messages)).sort()).toEqual(
        texts(sent).sort(),
      );
      await source[Symbol.asyncDispose]();
      await first[Symbol.asyncDispose]();
      const again = await session.source({ bridge: await session.connect() });
      const messages = await session.collect(again, 3);
      expect(texts(messages).sort()).toEqual(texts(sent).sort());
    },
  },
  {
    name: "gives nothing again after its ack",
    notFor: needsBoth,
    run: async (session) => {
      const first = await session.connect();
      const source = await session.source({ bridge: first });
      const sink = await session.sink();
      await session.sendAll(sink, session.messages(5));
      await session.collect(source, 5);
      await source[Symbol.asyncDispose]();
      await first[Symbol.asyncDispose]();
      const marker = session.message();
      await session.sendAll(sink, [marker]);
      const again = await session.source({ bridge: await session.connect() });
      expect(texts(await session.collect(again, 1))).toEqual([bodyText(marker)]);
      expect(await session.nextOrSilence(again)).toBeNull();
    },
  },
  {
    name: "takes acks in any order",
    notFor: needsBoth,
    run: async (session) => {
      const bridge = await session.connect();
      const source = await session.source({ bridge });
      const sink = await session.sink();
      const sent = session.messages(3, () => ({ key: encodeText("same") }));
      const held: Delivery[] = [];
      for (const message of sent) {
        await session.sendAll(sink, [message]);
        held.push(await session.next(source));
      }
      const [first, second, third] = held;
      await settles("ack of the third", third?.ack() ?? Promise.resolve());
      await settles("ack of the second", second?.ack() ?? Promise.resolve());
      expect(texts(first?.messages ?? [])).toEqual(texts(sent.slice(0, 1)));
      await source[Symbol.asyncDispose]();
      await bridge[Symbol.asyncDispose]();
      const nextBridge = await session.connect();
      const again = await session.source({ bridge: nextBridge });
      const back = await session.collectUntil(again, (messages) =>
        texts(messages).includes(bodyText(sent[0] ?? session.message())),
      );
      expect(texts(back)).toContain(bodyText(sent[0] ?? session.message()));
    },
  },
  {
    name: "gives a nacked message again",
    notFor: (subject) =>
      needsBoth(subject) ??
      (subject.module.capabilities.redeliverOnNack ? null : "no redelivery on nack declared"),
    run: async (session) => {
      const source = await session.source();
      const sink = await session.sink();
      const sent = session.messages(2, () => ({ key: encodeText("same") }));
      await session.sendAll(sink, sent);
      const held = await deliveriesOf(session, () => session.next(source), 2);
      for (const delivery of held) await delivery.nack();
      const again = await session.collectUntil(
        source,
        (messages) => new Set(texts(messages)).size === 2,
      );
      expect([...new Set(texts(again))].sort()).toEqual(texts(sent).sort());
      await session.sendAll(sink, [session.message()]);
      expect((await session.collect(source, 1)).length).toBe(1);
    },
  },
  {
    name: "shares the messages of a group",
    notFor: (subject) =>
      needsBoth(subject) ??
      (subject.module.capabilities.sharedGroups ? null : "no shared groups declared"),
    run: shareOut,
  },
  { name: "stops reading at the bound of unsettled bytes", notFor: needsBoth, run: stopAtBound },
  {
    name: "ends an aborted receive with null",
    notFor: needsBoth,
    run: async (session) => {
      const source = await session.source();
      expect(await settles("receive", source.receive(AbortSignal.abort()))).toBeNull();
      const abort = new AbortController();
      const waiting = source.receive(abort.signal);
      abort.abort();
      expect(await settles("receive", waiting)).toBeNull();
      const sent = session.message();
      await session.sendAll(await session.sink(), [sent]);
      expect(texts(await session.collect(source, 1))).toEqual([bodyText(sent)]);
    },
  },
  {
    name: "ends a waiting receive when it is disposed",
    notFor: needsBoth,
    run: async (session) => {
      const source = await session.source();
      const waiting = source.receive(session.signal).then(
        (delivery) => delivery,
        (error: unknown) => error,
      );
      await source[Symbol.asyncDispose]();
      const end = await settles("receive", waiting);
      expect(end === null || end instanceof DisconnectedError).toBe(true);
      await settles("second dispose", source[Symbol.asyncDispose]());
    },
  },
];
