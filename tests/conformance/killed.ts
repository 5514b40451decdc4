/**
 * Behaviours of a broker that is killed and comes back, and of one whose passwords change: with a
 * broker of the subject's own.
 */
import { expect } from "bun:test";
import { DisconnectedError } from "../../src/errors.ts";
import { encodeText } from "../../src/message.ts";
import type { Case, Conformance, Mortal } from "./bridge.ts";
import { needsBoth } from "./needs.ts";
import { acked, Reopening } from "./reopening.ts";
import { isFull } from "./sample.ts";
import { bodyText, settles, Session } from "./session.ts";

const KILLS = isFull ? 5 : 2;
const KEYS = ["a", "b", "c", "d"] as const;
/** Messages whose acks the broker may not have seen when it was killed. Count. */
const IN_FLIGHT = 64;
/** Rounds of load before each kill, and after the last. Count. */
const ROUNDS = 30;

/** What is known of the load so far. */
interface Load {
  /** In the order in which each was first sent. */
  readonly sent: string[];
  readonly confirmed: Set<string>;
  readonly arrived: Map<string, number>;
  readonly firsts: string[];
  readonly lastAcked: string[];
  /** May come twice: sent without an answer, or under way at a kill. */
  readonly doubtful: Set<string>;
  kills: number;
  /** Nothing new is sent; nothing is under way any more. */
  done: boolean;
  written: boolean;
}

async function survives(session: Session, mortal: Mortal): Promise<void> {
  const options = { triesMax: 2000 };
  const writer = new Reopening(session, mortal.config, { ...options, source: false });
  const reader = new Reopening(session, mortal.config, { ...options, sink: false });
  const load: Load = {
    sent: [],
    confirmed: new Set(),
    arrived: new Map(),
    firsts: [],
    lastAcked: [],
    doubtful: new Set(),
    kills: 0,
    done: false,
    written: false,
  };
  await reader.withSource(() => Promise.resolve());
  const reading = read(session, reader, load);
  const writing = write(session, writer, load);
  for (; load.kills < KILLS; load.kills += 1) {
    const target = load.arrived.size + ROUNDS * KEYS.length;
    await session.until("the load runs", () => load.arrived.size >= target, RECOVERY_MS);
    for (const body of load.lastAcked) load.doubtful.add(body);
    await mortal.kill();
    // Acked while it was being killed.
    for (const body of load.lastAcked) load.doubtful.add(body);
    await mortal.restart();
  }
  const target = load.arrived.size + ROUNDS * KEYS.length;
  await session.until("the load goes on", () => load.arrived.size >= target, RECOVERY_MS);
  load.done = true;
  await settles("writing", writing, RECOVERY_MS);
  load.written = true;
  const missing = (): string[] => [...load.confirmed].filter((body) => !load.arrived.has(body));
  await settles("reading", reading, RECOVERY_MS).catch((cause: unknown) => {
    const doubtful = missing().filter((body) => load.doubtful.has(body));
    const what = `confirmed, and not arrived: ${missing().join(" ")} (doubtful: ${doubtful.join(" ")})`;
    throw new Error(`${what}; the last that arrived: ${load.firsts.slice(-8).join(" ")}`, {
      cause,
    });
  });
  expect(missing()).toEqual([]);
  const twice = [...load.arrived].filter(([, times]) => times > 1).map(([body]) => body);
  expect(twice.filter((body) => !load.doubtful.has(body))).toEqual([]);
  for (const key of KEYS) {
    const ofKey = (body: string): boolean => body.startsWith(`${key}/`);
    expect(load.firsts.filter(ofKey)).toEqual(load.sent.filter(ofKey));
  }
}

/** After a kill: the broker's own recovery and its clients' reconnects. Milliseconds. */
const RECOVERY_MS = 120_000;

/** One message of each key at a time, each again until it is confirmed. */
async function write(session: Session, ends: Reopening, load: Load): Promise<void> {
  for (let round = 0; !load.done; round += 1) {
    const batch = KEYS.map((key) =>
      session.message({ key: encodeText(key), body: encodeText(`${key}/${round}`) }),
    );
    load.sent.push(...batch.map(bodyText));
    let rest = batch;
    while (rest.length > 0) {
      const outcomes = await ends.withSink((sink) =>
        session.send(sink, rest).catch((error: unknown) => {
          // All of it is unknown; the next try opens everything anew.
          for (const message of rest) load.doubtful.add(bodyText(message));
          throw error;
        }),
      );
      rest = rest.filter((message, index) => {
        const outcome = outcomes[index] ?? { unknown: true };
        if ("sent" in outcome) load.confirmed.add(bodyText(message));
        else load.doubtful.add(bodyText(message));
        return !("sent" in outcome);
      });
    }
  }
}

/** Takes and acks until all that was confirmed has come. */
async function read(session: Session, ends: Reopening, load: Load): Promise<void> {
  const isEnough = (): boolean =>
    load.written && [...load.confirmed].every((body) => load.arrived.has(body));
  while (!isEnough()) {
    await ends.withSource(async (source) => {
      const delivery = await session.nextOrSilence(source);
      if (delivery === null) return;
      const texts = delivery.messages.map(bodyText);
      for (const text of texts) {
        const times = load.arrived.get(text) ?? 0;
        if (times === 0) load.firsts.push(text);
        load.arrived.set(text, times + 1);
      }
      if (await acked(delivery)) load.lastAcked.push(...texts);
      else for (const text of texts) load.doubtful.add(text);
      load.lastAcked.splice(0, Math.max(0, load.lastAcked.length - IN_FLIGHT));
    });
  }
}

async function changingPasswords(session: Session, subject: Conformance): Promise<void> {
  const make = subject.credentials;
  if (make === undefined) return;
  const credentials = await make();
  session.own(credentials);
  const { config } = credentials;
  const old = credentials.password;
  const before = await session.connect(config, () => credentials.password);
  await before[Symbol.asyncDispose]();
  await credentials.change();
  expect(credentials.password).not.toBe(old);
  // The same document: its reference is read anew at each connect.
  const after = await session.connect(config, () => credentials.password);
  await after[Symbol.asyncDispose]();
  const refused = await settles(
    "connect",
    session
      .connect(config, () => old)
      .then(
        () => null,
        (error: unknown) => error,
      ),
  );
  expect(refused).toBeInstanceOf(DisconnectedError);
  expect((refused as DisconnectedError).message).toMatch(
    /ACCESS|auth|password|login|credential|not authori[sz]ed/i,
  );
}

export const killedBehaviours: readonly Case[] = [
  {
    name: "loses nothing while its broker is killed again and again",
    timeoutMs: 600_000,
    notFor: (subject) =>
      needsBoth(subject) ??
      (subject.mortal === undefined ? "no broker to kill in this environment" : null),
    run: async (session, subject) => {
      const mortal = await subject.mortal?.();
      if (mortal === undefined) return;
      session.own(mortal);
      const { place } = mortal;
      await using own = new Session({ ...subject, place: () => Promise.resolve(place) });
      await survives(own, mortal);
    },
  },
  {
    name: "takes a password that has changed",
    timeoutMs: 180_000,
    notFor: (subject) =>
      subject.credentials === undefined ? "no broker with logins in this environment" : null,
    run: changingPasswords,
  },
];
