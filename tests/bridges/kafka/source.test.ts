/** Reading from a real Kafka, beyond what the conformance suite asks of every bridge. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { Admin, Producer } from "@platformatic/kafka";
import type { Source } from "../../../src/bridge.ts";
import { DisconnectedError, InvalidError } from "../../../src/errors.ts";
import { encodeText, type Message } from "../../../src/message.ts";
import { waitFor } from "../../temporary.ts";
import {
  committed,
  deleteTopic,
  freshTopic,
  kafkaProxy,
  kafkaUrl,
  missingKafka,
  rawProducer,
} from "./cluster.ts";
import { collect, connect, message, next, openSink, openSource, silence, textOf } from "./ends.ts";

setDefaultTimeout(90_000);

async function fill(topic: string, texts: readonly string[], partition = 0): Promise<void> {
  await using bridge = await connect();
  const { send } = await openSink(bridge, { topic, partition });
  await send(texts.map((text) => message({ text })));
}

/** Reads with acks until told to stop, and remembers what came. */
function follow(source: Source, seen: Message[], signal: AbortSignal): Promise<void> {
  const run = async (): Promise<void> => {
    for (;;) {
      const delivery = await source.receive(signal);
      if (delivery === null) return;
      seen.push(...delivery.messages);
      await delivery.ack();
    }
  };
  return run();
}

describe.skipIf(missingKafka !== null)(`reading from Kafka ${missingKafka ?? ""}`, () => {
  test("at the end: what comes after the opening is not lost by a reader that acked nothing", async () => {
    const topic = await freshTopic(2);
    await fill(topic, ["old"]);
    {
      await using bridge = await connect();
      const source = await openSource(bridge, topic, { start: "latest" });
      await fill(topic, ["new"]);
      expect((await next(source)).messages.map(textOf)).toEqual(["new"]);
    }
    await fill(topic, ["newer"]);
    await using bridge = await connect();
    const source = await openSource(bridge, topic, { start: "latest" });
    expect((await collect(source, 2)).map(textOf)).toEqual(["new", "newer"]);
  });

  test("from a time: each partition from its first record of that age", async () => {
    const topic = await freshTopic(2);
    const early = 1_700_000_000_000;
    await using bridge = await connect();
    const { send } = await openSink(bridge, { topic, partition: 0 });
    await send([
      message({ text: "before", timestampMs: early }),
      message({ text: "at", timestampMs: early + 5000 }),
      message({ text: "after", timestampMs: early + 9000 }),
    ]);
    await send([message({ text: "other", timestampMs: early })], { partition: 1 });
    const start = { timestampMs: early + 5000 };
    const source = await openSource(bridge, topic, { start });
    await send([message({ text: "late", timestampMs: early })], { partition: 1 });
    expect((await collect(source, 3)).map(textOf).sort()).toEqual(["after", "at", "late"]);
    expect(await silence(source)).toBe(true);
  });

  test("what kcat wrote in every compression, with its headers", async () => {
    const kcat = Bun.which("kcat");
    const topic = await freshTopic(1);
    const codecs = kcat === null ? [] : ["none", "gzip", "snappy", "lz4", "zstd"];
    for (const codec of codecs) {
      const lines = Array.from(
        { length: 50 },
        (_, index) => `k:${codec} ${index} ${"x".repeat(99)}`,
      );
      const args = ["-b", await kafkaUrl(), "-P", "-t", topic, "-z", codec, "-K:", "-H", "a=1"];
      const child = Bun.spawn([kcat ?? "", ...args, "-H", "a=2"], {
        stdin: Buffer.from(lines.join("\n")),
        stderr: "pipe",
      });
      expect(await child.exited).toBe(0);
    }
    await using bridge = await connect();
    const source = await openSource(bridge, topic);
    const arrived = await collect(source, 50 * codecs.length);
    expect(arrived.map((item) => textOf(item).split(" ").slice(0, 2).join(" "))).toEqual(
      codecs.flatMap((codec) => Array.from({ length: 50 }, (_, index) => `${codec} ${index}`)),
    );
    for (const { headers, key, id, origin } of arrived) {
      const shown = headers.map(
        ({ name, value }) => `${name}=${Buffer.from(value ?? []).toString()}`,
      );
      expect(shown).toEqual(["a=1", "a=2"]);
      expect(Buffer.from(key ?? []).toString()).toBe("k");
      expect(id).toBe(`eu/${topic}/0/${origin?.offset}`);
    }
  });

  test("what every compression of another producer holds", async () => {
    const topic = await freshTopic(1);
    const producer = await rawProducer();
    const codecs = ["none", "gzip", "snappy", "lz4", "zstd"] as const;
    for (const compression of codecs) {
      const value = Buffer.from(compression.repeat(500));
      await producer.send({ messages: [{ topic, partition: 0, value }], acks: -1, compression });
    }
    await producer.close();
    await using bridge = await connect();
    const source = await openSource(bridge, topic);
    expect((await collect(source, codecs.length)).map(textOf)).toEqual(
      codecs.map((codec) => codec.repeat(500)),
    );
  });

  test("commits nothing past an open delivery, and everything once it is acked", async () => {
    const topic = await freshTopic(1);
    await using bridge = await connect();
    const source = await openSource(bridge, topic, { name: topic });
    const { send } = await openSink(bridge, { topic });
    await send([message()]);
    const first = await next(source);
    await send([message()]);
    const second = await next(source);
    await second.ack();
    expect((await committed(`isthmus-${topic}`, topic)).get(0) ?? 0n).toBeLessThanOrEqual(0n);
    await first.ack();
    expect((await committed(`isthmus-${topic}`, topic)).get(0)).toBe(2n);
  });

  test("gives back in order: what waited behind a nacked message comes after it", async () => {
    const topic = await freshTopic(1);
    await fill(
      topic,
      Array.from({ length: 1200 }, (_, index) => String(index)),
    );
    await using bridge = await connect();
    const source = await openSource(bridge, topic);
    const first = await next(source);
    await first.nack();
    const arrived = await collect(source, 1200);
    expect(arrived.map(textOf)).toEqual(Array.from({ length: 1200 }, (_, index) => String(index)));
    expect(await silence(source)).toBe(true);
  });

  test("keeps what it has out when another reader joins, and acks it only for its own partitions", async () => {
    const topic = await freshTopic(2);
    const group = `isthmus-${topic}`;
    await fill(topic, ["a0", "a1"], 0);
    await fill(topic, ["b0", "b1"], 1);
    await using first = await connect();
    const one = await openSource(first, topic, { name: topic });
    const held = [await next(one), await next(one)];
    const owner = new Map(
      held.map((delivery) => [delivery.messages[0]?.origin?.partition, delivery]),
    );
    await using second = await connect();
    const two = await openSource(second, topic, { name: topic });
    const moved = await next(two);
    const partition = moved.messages[0]?.origin?.partition ?? -1;
    expect(moved.messages.length).toBe(2);
    // The one that moved is the other's now: acking it here means nothing.
    await owner.get(partition)?.ack();
    expect((await committed(group, topic)).get(partition) ?? 0n).toBeLessThanOrEqual(0n);
    // The one that stayed was not read again, and its ack counts.
    expect(await silence(one)).toBe(true);
    await owner.get(1 - partition)?.ack();
    await waitFor(
      "the ack counts",
      async () => (await committed(group, topic)).get(1 - partition) === 2n,
    );
    await moved.ack();
    expect((await committed(group, topic)).get(partition)).toBe(2n);
  });

  test("loses nothing and skips nothing while readers come and go", async () => {
    const topic = await freshTopic(4);
    const name = topic;
    await using bridge = await connect();
    const { send } = await openSink(bridge, { topic });
    const sent: string[] = [];
    const seen: Message[] = [];
    const stop = new AbortController();
    const base = await openSource(bridge, topic, { name });
    const following = follow(base, seen, stop.signal);
    for (let round = 0; round < 3; round += 1) {
      const batch = Array.from({ length: 40 }, (_, index) => `${round}/${index}`);
      sent.push(...batch);
      const guest = await openSource(bridge, topic, { name });
      const leave = new AbortController();
      const guestFollowing = follow(guest, seen, leave.signal);
      await send(batch.map((text) => message({ text, key: encodeText(text) })));
      await waitFor("all of the round has come", () => {
        const texts = new Set(seen.map(textOf));
        return sent.every((text) => texts.has(text));
      });
      leave.abort();
      await guestFollowing;
      await guest[Symbol.asyncDispose]();
    }
    stop.abort();
    await following;
  });

  test("goes on in a topic that was made anew under the same name", async () => {
    const topic = await freshTopic(1);
    const name = topic;
    await fill(
      topic,
      Array.from({ length: 20 }, (_, index) => `old ${index}`),
    );
    {
      await using bridge = await connect();
      await collect(await openSource(bridge, topic, { name }), 20);
    }
    await deleteTopic(topic);
    const admin = new Admin({ clientId: "t", bootstrapBrokers: [await kafkaUrl()] });
    await waitFor("the topic is made again", async () =>
      admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 }).then(
        () => true,
        () => false,
      ),
    );
    await admin.close();
    await using bridge = await connect();
    const { send } = await openSink(bridge, { topic, create: true });
    await send([message({ text: "new 0" }), message({ text: "new 1" })]);
    const source = await openSource(bridge, topic, { name });
    expect((await collect(source, 2)).map(textOf)).toEqual(["new 0", "new 1"]);
  });

  test("skips what a producer took back, and does not stop at it", async () => {
    const topic = await freshTopic(1);
    const transactional = new Producer<Buffer, Buffer, Buffer, Buffer>({
      clientId: "t",
      bootstrapBrokers: [await kafkaUrl()],
      idempotent: true,
      transactionalId: topic,
      retries: 20,
    });
    const write = async (text: string, keep: boolean): Promise<void> => {
      const transaction = await transactional.beginTransaction();
      await transaction.send({
        messages: [{ topic, partition: 0, value: Buffer.from(text) }],
        acks: -1,
      });
      await (keep ? transaction.commit() : transaction.abort());
    };
    await write("kept 1", true);
    await write("taken back", false);
    await write("kept 2", true);
    await transactional.close();
    await using bridge = await connect();
    const gaps: string[] = [];
    await using source = await openSource(bridge, topic, {
      onGap: ({ reason }) => gaps.push(reason),
    });
    expect((await collect(source, 2)).map(textOf)).toEqual(["kept 1", "kept 2"]);
    await fill(topic, ["kept 3"]);
    expect((await collect(source, 1)).map(textOf)).toEqual(["kept 3"]);
    await source[Symbol.asyncDispose]();
    expect(gaps).toEqual([]);
  });

  test("refuses a missing topic with a sentence, and makes it when asked to", async () => {
    await using bridge = await connect();
    const topic = `missing-${crypto.randomUUID()}`;
    const error = await openSource(bridge, topic).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(InvalidError);
    expect((error as InvalidError).message).toContain("create: true");
  });

  test("notices a line that has gone silent, and says so", async () => {
    const topic = await freshTopic(1);
    await using proxy = await kafkaProxy();
    await using bridge = await connect({ url: `127.0.0.1:${proxy.port}` });
    const source = await openSource(bridge, topic);
    const { send } = await openSink(bridge, { topic });
    await send([message()]);
    await collect(source, 1);
    proxy.blackhole(true);
    const lost = await source
      .receive(new AbortController().signal)
      .catch((error: unknown) => error);
    expect(lost).toBeInstanceOf(DisconnectedError);
    expect(await bridge.closed).toBeInstanceOf(DisconnectedError);
    expect(((await bridge.closed) as Error).message).toContain(String(proxy.port));
  });

  test("says in plain words that the broker ended the connection", async () => {
    const topic = await freshTopic(1);
    await using proxy = await kafkaProxy();
    await using bridge = await connect({ url: `127.0.0.1:${proxy.port}` });
    const { send } = await openSink(bridge, { topic });
    await send([message()]);
    proxy.cutAfter(20);
    const error = await send([message()]).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(DisconnectedError);
    expect((error as Error).message).toBe(`127.0.0.1:${proxy.port} closed the connection`);
    // The cluster is still there: the same sink goes on.
    expect(await send([message()])).toEqual([{ sent: expect.any(String) }]);
  });

  test("writes no warnings while it reads", async () => {
    const warnings: string[] = [];
    const listen = (warning: Error): number => warnings.push(warning.name);
    process.on("warning", listen);
    const topic = await freshTopic(1);
    await fill(topic, ["a"]);
    await using bridge = await connect();
    await collect(await openSource(bridge, topic), 1);
    process.off("warning", listen);
    expect(warnings).toEqual([]);
  });
});
