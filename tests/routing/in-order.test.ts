/** Deliveries of one source partition are appended in their order, whatever fails in between. */
import { expect, test } from "bun:test";
import type { Delivery, Source } from "../../src/bridge.ts";
import { systemClock } from "../../src/clock.ts";
import { StorageError } from "../../src/errors.ts";
import { Streams } from "../../src/log/stream.ts";
import { encodeText, type Message } from "../../src/message.ts";
import { InOrder } from "../../src/routing/in-order.ts";
import { type Intake, ingest } from "../../src/routing/ingest.ts";
import { sourceKey } from "../../src/routing/source-key.ts";
import { message, openLog, readAll } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { waitFor } from "../temporary.ts";

const never = new AbortController().signal;

test("what comes later waits until what has failed is appended again", async () => {
  let failures = 0;
  const order = new InOrder(() => failures);
  const begun: string[] = [];
  const first = Promise.withResolvers<void>();
  const [a, b] = [order.enter(), order.enter()];
  const failing = order.append(
    a,
    () => {
      begun.push("a");
      return first.promise;
    },
    never,
  );
  failures++;
  // Known to have failed before anybody is told: b must not go ahead of it in that moment.
  const behind = order.append(
    b,
    () => {
      begun.push("b");
      return Promise.resolve();
    },
    never,
  );
  first.reject(new StorageError("full"));
  await expect(failing).rejects.toThrow("full");
  expect(begun).toEqual(["a"]);
  expect(await order.append(a, async () => void begun.push("a"), never)).toBe(true);
  order.leave(a);
  expect(await behind).toBe(true);
  expect(begun).toEqual(["a", "a", "b"]);
});

test("an append that is refused at once holds those behind it, and an abort frees them", async () => {
  const order = new InOrder(() => 0);
  const [a, b] = [order.enter(), order.enter()];
  const refused = order.append(
    a,
    () => {
      throw new StorageError("no");
    },
    never,
  );
  const stop = new AbortController();
  const behind = order.append(b, () => Promise.reject(new Error("too early")), stop.signal);
  await expect(refused).rejects.toThrow("no");
  stop.abort();
  expect(await behind).toBe(false);
});

function from(offset: number, text = `m${offset}`, more: Partial<Message> = {}): Message {
  const origin = { bridge: "k", address: "t", partition: 0, offset: String(offset), hops: [] };
  return message(`id-${Math.random()}`, { body: encodeText(text), origin, ...more });
}

/** A source that gives these deliveries, then nothing more; `acked` are the acked offsets. */
function sourceOf(deliveries: readonly (readonly Message[])[], acked: string[]): Source {
  const left = deliveries.map((messages): Delivery => {
    const ack = (): Promise<void> => {
      acked.push(...messages.map(({ origin }) => origin?.offset ?? ""));
      return Promise.resolve();
    };
    return { messages, ack, nack: () => Promise.resolve() };
  });
  return {
    receive: async (signal) => {
      const next = left.shift();
      if (next !== undefined) return next;
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      return null;
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function intakeOf(streams: Streams, more: Partial<Intake> = {}): Intake {
  return {
    name: "s",
    identity: "s",
    stream: streams.stream("in"),
    dead: streams.stream("s.dead"),
    prepare: (each) => ({ message: each, dedupeKey: null }),
    onTaken: () => undefined,
    warn: () => undefined,
    clock: systemClock,
    random: Math.random,
    ...more,
  };
}

async function take(deliveries: readonly (readonly Message[])[], intake: Intake): Promise<void> {
  const acked: string[] = [];
  const stop = new AbortController();
  const running = ingest(sourceOf(deliveries, acked), intake, stop.signal);
  await waitFor("all is acked", () => acked.length === deliveries.flat().length);
  stop.abort();
  await running;
}

test("a stream that refuses for a while gets all of a partition in its order", async () => {
  const { log } = await openLog(new MemoryDisk());
  const streams = new Streams(log);
  const stream = streams.stream("in");
  let refusals = 0;
  // Every second append is refused, ten times: each is tried again while later ones wait.
  let calls = 0;
  stream.guard = () => {
    if (calls++ % 2 === 1 || refusals >= 10) return;
    refusals++;
    throw new StorageError("full");
  };
  const all = Array.from({ length: 20 }, (_, offset) => [from(offset)]);
  await take(all, intakeOf(streams, { clock: { ...systemClock, sleep: () => Bun.sleep(1) } }));
  const [partition] = stream.partitions;
  if (partition === undefined) throw new Error("the stream has a partition");
  const texts = (await readAll(partition)).map(({ text }) => text);
  expect(refusals).toBe(10);
  expect(texts).toEqual(all.map((_, index) => `m${index}`));
  await log[Symbol.asyncDispose]();
});

test("what a source gives again is appended once, over a restart too", async () => {
  const disk = new MemoryDisk();
  const first = await openLog(disk);
  const messages = Array.from({ length: 10 }, (_, offset) => from(offset));
  await take([messages], intakeOf(new Streams(first.log)));
  await first.log[Symbol.asyncDispose]();
  const { log } = await openLog(disk);
  const streams = new Streams(log);
  // A reader makes ids of its own each time, and sees more behind what it has seen.
  const again = messages.map((each) => ({ ...each, id: crypto.randomUUID() }));
  await take([[...again, from(10)]], intakeOf(streams));
  const [partition] = streams.stream("in").partitions;
  expect(partition?.offsetEnd).toBe(11);
  // The same place in a topic that was made anew, and another source: other messages.
  await take([[from(0, "other")]], intakeOf(streams));
  await take([messages], intakeOf(streams, { identity: "another" }));
  expect(partition?.offsetEnd).toBe(22);
  await log[Symbol.asyncDispose]();
});

test("a source key is of place and content, and only where there is a place", () => {
  const one = from(1);
  const keyOf = (each: Message, id: string | null = null) =>
    sourceKey("s", each, { id, isUnique: false })?.key ?? null;
  expect(keyOf(one)).toBe(keyOf({ ...one, id: "another" }));
  const header = { name: "h", value: encodeText("v") };
  const others = [
    from(2, "m1"),
    from(1, "m2"),
    from(1, "m1", { key: encodeText("") }),
    from(1, "m1", { timestampMs: 1 }),
    from(1, "m1", { headers: [header] }),
    from(1, "m1", { body: null }),
  ];
  const keys = [one, ...others].map((each) => keyOf(each));
  expect(new Set(keys).size).toBe(keys.length);
  expect(keyOf({ ...one, origin: null }, "id")).toBeNull();
});

test("an id of a producer is looked up only in what the broker calls repeated", async () => {
  const { log } = await openLog(new MemoryDisk());
  const streams = new Streams(log);
  const stream = streams.stream("in");
  const queue = { bridge: "q", address: "q", partition: null, offset: null, hops: [] };
  const sent = (text: string, redelivered: boolean): Message =>
    message(text, { origin: redelivered ? { ...queue, redelivered } : queue });
  const put = async (each: Message, id: string | null): Promise<boolean> => {
    const key = sourceKey("s", each, { id, isUnique: false });
    const { durable, receipt } = stream.appendOne(each, { sourceKey: key });
    await durable;
    return receipt.duplicate;
  };
  expect(await put(sent("a", false), "1")).toBe(false);
  // A program that says the same twice under one id has said it twice.
  expect(await put(sent("a", false), "1")).toBe(false);
  expect(await put(sent("a", true), "1")).toBe(true);
  // Something else under the same id was never taken: it must not be lost.
  expect(await put(sent("b", true), "1")).toBe(false);
  expect(await put(sent("a", true), null)).toBe(false);
  await log.partition({ stream: "in", index: 0 }).roll();
  expect(await put(sent("a", false), "1")).toBe(false);
  expect(await put(sent("b", true), "1")).toBe(true);
  await log[Symbol.asyncDispose]();
});
