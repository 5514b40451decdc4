/** What a Kafka loses under its reader is told, and never passed over in silence. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { SourceGap, SourceMemory } from "../../../src/bridge.ts";
import { DisconnectedError } from "../../../src/errors.ts";
import { waitFor } from "../../temporary.ts";
import { deleteTopic, freshTopic, makeTopic, missingKafka, purge } from "./cluster.ts";
import { collect, connect, message, next, openSink, openSource, textOf } from "./ends.ts";

setDefaultTimeout(90_000);

async function fill(topic: string, from: number, to: number): Promise<void> {
  await using bridge = await connect();
  const { send } = await openSink(bridge, { topic });
  const texts = Array.from({ length: to - from }, (_, index) => `${from + index}`);
  await send(texts.map((text) => message({ text })));
}

class Memory implements SourceMemory {
  readonly #kept = new Map<string, Uint8Array>();

  load(name: string): Promise<Uint8Array | null> {
    return Promise.resolve(this.#kept.get(name) ?? null);
  }

  save(entries: Iterable<readonly [string, Uint8Array | null]>): Promise<void> {
    for (const [name, value] of entries) {
      if (value === null) this.#kept.delete(name);
      else this.#kept.set(name, value);
    }
    return Promise.resolve();
  }
}

describe.skipIf(missingKafka !== null)(`gaps under a reader ${missingKafka ?? ""}`, () => {
  test("records removed while nobody read are told with their offsets, once", async () => {
    const topic = await freshTopic(1);
    await fill(topic, 0, 10);
    const gaps: SourceGap[] = [];
    const options = { name: topic, onGap: (gap: SourceGap) => gaps.push(gap) };
    {
      await using bridge = await connect();
      const source = await openSource(bridge, topic, options);
      const first = await next(source);
      expect(first.messages).toHaveLength(10);
      await first.ack();
    }
    await fill(topic, 10, 20);
    await purge(topic, 0, 15n);
    await using bridge = await connect();
    await using source = await openSource(bridge, topic, options);
    expect((await collect(source, 5)).map(textOf)).toEqual(["15", "16", "17", "18", "19"]);
    await waitFor("the gap is told", () => gaps.length > 0);
    await source[Symbol.asyncDispose]();
    expect(gaps).toEqual([
      {
        place: `topic ${topic} partition 0`,
        reason: "offsets 10 to 14 were removed before they were read",
      },
    ]);
  });

  test("records removed under a reader that is held back are told", async () => {
    const topic = await freshTopic(1);
    const body = new Uint8Array(100_000);
    const gaps: SourceGap[] = [];
    await using bridge = await connect();
    const { send } = await openSink(bridge, { topic });
    for (let index = 0; index < 40; index += 1) await send([message({ body })]);
    await using source = await openSource(bridge, topic, {
      name: topic,
      unsettledBytesMax: 300_000,
      onGap: (gap) => gaps.push(gap),
    });
    const held = await next(source);
    await purge(topic, 0, 39n);
    await held.ack();
    let last = "";
    while (last !== "39") {
      const delivery = await next(source);
      last = delivery.messages.at(-1)?.origin?.offset ?? "";
      await delivery.ack();
    }
    await waitFor("the gap is told", () => gaps.length > 0);
    expect(gaps).toHaveLength(1);
    expect(gaps[0]?.reason).toMatch(/^offsets \d+ to 38 were removed before they were read$/);
  });

  test("what was given back and is read again is no gap", async () => {
    const topic = await freshTopic(1);
    await fill(topic, 0, 5);
    const gaps: SourceGap[] = [];
    await using bridge = await connect();
    await using source = await openSource(bridge, topic, { onGap: (gap) => gaps.push(gap) });
    await (await next(source)).nack();
    expect((await collect(source, 5)).map(textOf)).toEqual(["0", "1", "2", "3", "4"]);
    await fill(topic, 5, 8);
    expect((await collect(source, 3)).map(textOf)).toEqual(["5", "6", "7"]);
    await source[Symbol.asyncDispose]();
    expect(gaps).toEqual([]);
  });

  test("a topic made anew between two lives is read from its start, and told", async () => {
    const topic = await freshTopic(1);
    const memory = new Memory();
    const gaps: SourceGap[] = [];
    const options = { name: topic, memory, onGap: (gap: SourceGap) => gaps.push(gap) };
    await fill(topic, 0, 5);
    {
      await using bridge = await connect();
      await collect(await openSource(bridge, topic, options), 5);
    }
    await deleteTopic(topic);
    await makeTopic(topic);
    // More than it had: its offsets alone do not tell that it is another one.
    await fill(topic, 100, 110);
    await using bridge = await connect();
    await using source = await openSource(bridge, topic, options);
    const texts = (await collect(source, 10)).map(textOf);
    expect(texts).toEqual(Array.from({ length: 10 }, (_, index) => `${100 + index}`));
    expect(gaps.map(({ place }) => place)).toEqual([`topic ${topic}`]);
    expect(gaps[0]?.reason).toContain("made anew");
  });

  test("a topic that grows ends the source, so that the next one reads all of it", async () => {
    const topic = await freshTopic(1);
    await using bridge = await connect();
    await using source = await openSource(bridge, topic, {
      name: topic,
      address: { pattern: `${topic}.*` },
    });
    const grown = `${topic}-more`;
    await makeTopic(grown);
    const lost = await source
      .receive(new AbortController().signal)
      .catch((error: unknown) => error);
    expect(lost).toBeInstanceOf(DisconnectedError);
    expect((lost as Error).message).toBe(`topic ${grown} is new`);
  });
});
