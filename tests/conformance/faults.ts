/**
 * Behaviours on lines that are bad in a way of their own: cut inside a frame, silent, slow, broken
 * again and again, and members of a group that vanish.
 */
import { expect } from "bun:test";
import { DisconnectedError } from "../../src/errors.ts";
import { encodeText, type Message } from "../../src/message.ts";
import { Random } from "../sim/random.ts";
import type { Case, Conformance } from "./bridge.ts";
import { needsBothAndProxy, needsSinkAndProxy } from "./needs.ts";
import { Reopening } from "./reopening.ts";
import { isFull, seed } from "./sample.ts";
import { bodyText, settles, type Session } from "./session.ts";

/** The first bytes of a publish after which its line is cut. Count. */
const CUTS = 512;
const CUTS_SAMPLED = 12;
/** A body longer than the cuts reach, so that each is inside the message. Characters. */
const CUT_BODY_CHARS = 700;
const SLOW_MS = 120;
/** Some brokers wait half a minute for a member that has gone without a word. Milliseconds. */
const HAND_OVER_MS = 100_000;
const BREAKS = isFull ? 30 : 8;

function cutPoints(): readonly number[] {
  const all = Array.from({ length: CUTS }, (_, index) => index + 1);
  if (isFull) return all;
  const random = new Random(seed);
  return [1, ...Array.from({ length: CUTS_SAMPLED - 1 }, () => 2 + random.below(CUTS - 1))];
}

async function cutAnywhere(session: Session): Promise<void> {
  const { config, proxy } = await session.proxied();
  const read = await session.reader();
  const direct = await session.sink();
  const ends = new Reopening(session, config, { source: false });
  const sent: Message[] = [];
  for (const bytes of cutPoints()) {
    const one = session.message({
      key: encodeText("same"),
      body: encodeText(`${bytes}/`.padEnd(CUT_BODY_CHARS, "x")),
    });
    sent.push(one);
    const first = await ends.withSink(async (sink) => {
      proxy.cutAfter?.(bytes);
      return await session.send(sink, [one]).catch((error: unknown) => {
        if (error instanceof DisconnectedError) return [{ unknown: true }];
        throw error;
      });
    });
    await ends.close();
    if (!("sent" in (first[0] ?? {}))) await session.sendAll(direct, [one]);
  }
  const whole = new Set(sent.map(bodyText));
  const seen = new Set<string>();
  while (seen.size < whole.size) {
    for (const message of await read(1)) {
      expect(whole.has(bodyText(message))).toBe(true);
      seen.add(bodyText(message));
    }
  }
}

async function swallowed(session: Session, { quick, module }: Conformance): Promise<void> {
  const { config, proxy } = await session.proxied();
  const document = { ...(config as object), ...quick };
  const ends = new Reopening(session, document, { source: module.capabilities.source });
  // So short a heartbeat may end a connection by itself on a busy machine: then once more.
  const bridge = await ends.withBridge(async (one) => {
    await ends.withSink((sink) => session.sendAll(sink, [session.message()]));
    return one;
  });
  const waiting = module.capabilities.source
    ? ends.receivingOn(session.signal).catch((error: unknown) => error)
    : null;
  proxy.blackhole(true);
  expect(await settles("closed", bridge.closed)).toBeInstanceOf(Error);
  if (waiting !== null) {
    expect(await settles("receive", waiting)).toBeInstanceOf(DisconnectedError);
  }
  proxy.blackhole(false);
  proxy.cut();
}

async function slowConfirms(session: Session, subject: Conformance): Promise<void> {
  const { config, proxy } = await session.proxied();
  const read = await session.reader();
  const sink = await session.sink({ bridge: await session.connect(config) });
  await session.sendAll(sink, [session.message({ body: encodeText("first") })]);
  await read(1);
  proxy.delay?.(SLOW_MS);
  const sent = session.messages(60, () => ({ key: encodeText("same") }));
  const outgoing = await session.outgoing(sent);
  const calls = [0, 20, 40].map((at) => sink.send(outgoing.slice(at, at + 20), session.signal));
  for (const outcomes of await settles("sends", Promise.all(calls))) {
    for (const outcome of outcomes) expect(outcome).toHaveProperty("sent");
  }
  proxy.delay?.(0);
  const arrived = (await read(sent.length)).map(bodyText).filter((body) => body !== "first");
  const inOrder = subject.module.capabilities.order === "none" ? arrived.toSorted() : arrived;
  const wanted = sent.map(bodyText);
  expect(inOrder).toEqual(subject.module.capabilities.order === "none" ? wanted.sort() : wanted);
}

async function orderThroughBreaks(session: Session): Promise<void> {
  const { config, proxy } = await session.proxied();
  const read = await session.reader();
  const ends = new Reopening(session, config, { source: false });
  const random = new Random(seed);
  const sent = session.messages(BREAKS * 5, () => ({ key: encodeText("same") }));
  for (const [index, message] of sent.entries()) {
    await ends.withSink(async (sink) => {
      // As a route does with what is in doubt: the next of a key waits for the one before it.
      const sending = session.sendAll(sink, [message]);
      if (index % 5 === random.below(5)) proxy.cut();
      await sending;
    });
  }
  const first: string[] = [];
  while (first.length < sent.length) {
    for (const body of (await read(1)).map(bodyText)) if (!first.includes(body)) first.push(body);
  }
  expect(first).toEqual(sent.map(bodyText));
}

async function handOver(session: Session): Promise<void> {
  const { config, proxy } = await session.proxied();
  const bridge = await session.connect(config);
  const lost = await session.source({ bridge, name: "group" });
  const sent = session.messages(20, (index) => ({ key: encodeText(`key ${index}`) }));
  await session.sendAll(await session.sink(), sent);
  const held = await session.next(lost);
  expect(held.messages.length).toBeGreaterThan(0);
  await proxy.down();
  const heir = await session.source({ bridge: await session.connect(), name: "group" });
  const missing = new Set(sent.map(bodyText));
  const isAll = (messages: readonly Message[]): boolean => {
    for (const message of messages) missing.delete(bodyText(message));
    return missing.size === 0;
  };
  await session.collectUntil(heir, isAll, HAND_OVER_MS);
}

export const faultBehaviours: readonly Case[] = [
  {
    name: "takes all or nothing of a message cut at any byte",
    timeoutMs: isFull ? 900_000 : 120_000,
    notFor: (subject) => needsSinkAndProxy(subject) ?? subject.noCuts ?? null,
    run: cutAnywhere,
  },
  {
    name: "notices a line that swallows everything",
    notFor: (subject) =>
      needsSinkAndProxy(subject) ??
      (subject.quick === undefined ? "the kind has no heartbeat of its own" : null),
    run: swallowed,
  },
  {
    name: "waits for slow confirms and sends nothing twice",
    notFor: (subject) => needsSinkAndProxy(subject) ?? subject.noCuts ?? null,
    run: slowConfirms,
  },
  {
    name: "keeps the order of a key through reconnects",
    timeoutMs: isFull ? 600_000 : 120_000,
    notFor: (subject) =>
      needsSinkAndProxy(subject) ??
      (subject.module.capabilities.order === "none" ? "no order declared" : null),
    run: orderThroughBreaks,
  },
  {
    name: "hands on what a lost member of its group held",
    timeoutMs: 180_000,
    notFor: (subject) =>
      needsBothAndProxy(subject) ??
      (subject.module.capabilities.sharedGroups ? null : "no shared groups declared"),
    run: handOver,
  },
];
