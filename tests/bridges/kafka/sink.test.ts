/** Writing to a real Kafka, beyond what the conformance suite asks of every bridge. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { partitionOfKey } from "../../../bridges/kafka/partitioner.ts";
import { encodeText } from "../../../src/message.ts";
import { freshTopic, missingKafka } from "./cluster.ts";
import { collect, connect, message, openSink, openSource, textOf } from "./ends.ts";

setDefaultTimeout(60_000);

describe.skipIf(missingKafka !== null)(`writing to Kafka ${missingKafka ?? ""}`, () => {
  test("tells where each message is, and puts equal keys where Kafka's producers do", async () => {
    const topic = await freshTopic(5);
    await using bridge = await connect();
    const { send } = await openSink(bridge, { topic });
    const keys = ["a", "b", "c", "d", "a", "b"];
    const outcomes = await send(keys.map((key) => message({ key: encodeText(key), text: key })));
    const source = await openSource(bridge, topic);
    const arrived = await collect(source, keys.length);
    for (const { key, origin } of arrived) {
      expect(origin?.partition).toBe(partitionOfKey(key ?? new Uint8Array(0), 5));
    }
    const places = arrived.map(
      ({ origin }) => `partition ${origin?.partition} offset ${origin?.offset}`,
    );
    const told = outcomes.map((outcome) => ("sent" in outcome ? outcome.sent : "not sent"));
    expect(new Set(told)).toEqual(new Set(places));
  });

  test("writes to the partition that the address names", async () => {
    const topic = await freshTopic(3);
    await using bridge = await connect();
    const { send } = await openSink(bridge, { topic, partition: 2 });
    expect(await send([message({ key: encodeText("any") })])).toEqual([
      { sent: "partition 2 offset 0" },
    ]);
    expect(await send([message()], { partition: "1" })).toEqual([{ sent: "partition 1 offset 0" }]);
    const [outside] = await send([message()], { partition: "7" });
    expect(outside).toEqual({ refused: `topic ${topic} has partitions 0 to 2, not 7` });
    const [wrong] = await send([message()], { partition: "x" });
    expect(wrong).toHaveProperty("refused");
  });

  test("keeps the order of a thousand sends that nobody waits for", async () => {
    const topic = await freshTopic(1);
    await using bridge = await connect();
    const { send } = await openSink(bridge, { topic });
    const texts = Array.from({ length: 1000 }, (_, index) => String(index));
    const outcomes = await Promise.all(texts.map((text) => send([message({ text })])));
    expect(outcomes.flat().every((outcome) => "sent" in outcome)).toBe(true);
    const source = await openSource(bridge, topic);
    expect((await collect(source, 1000)).map(textOf)).toEqual(texts);
  });

  test("writes batches larger than a topic takes at once, and refuses the one that never fits", async () => {
    const topic = await freshTopic(1, [{ name: "max.message.bytes", value: "20000" }]);
    await using bridge = await connect();
    const { send } = await openSink(bridge, { topic });
    const texts = Array.from({ length: 30 }, (_, index) => `${index}/`.padEnd(5000, "x"));
    const batch = texts.map((text) => message({ text }));
    const outcomes = await send(batch);
    expect(outcomes.every((outcome) => "sent" in outcome)).toBe(true);
    const big = message({ text: "y".repeat(30_000) });
    const mixed = await send([message({ text: "before" }), big, message({ text: "after" })]);
    expect(mixed[0]).toHaveProperty("sent");
    expect(mixed[1]).toMatchObject({ final: true });
    expect(JSON.stringify(mixed[1])).toContain("max.message.bytes");
    expect(mixed[2]).toEqual({ unknown: true });
    const source = await openSource(bridge, topic);
    expect((await collect(source, 31)).map(textOf)).toEqual([...texts, "before"]);
  });

  test("refuses a record that a topic does not take, and writes those before it", async () => {
    const topic = await freshTopic(1, [{ name: "cleanup.policy", value: "compact" }]);
    await using bridge = await connect();
    const { send } = await openSink(bridge, { topic });
    const keyed = message({ key: encodeText("k") });
    const outcomes = await send([keyed, message(), message({ key: encodeText("k") })]);
    expect(outcomes[0]).toHaveProperty("sent");
    expect(outcomes[1]).toMatchObject({ final: true });
    expect(outcomes[2]).toEqual({ unknown: true });
  });

  test("makes the topics that a template names when it is asked to, at first use", async () => {
    await using bridge = await connect();
    const create = { partitions: 2, replication: 1 };
    const { send } = await openSink(bridge, { topic: "made-${body.region}", create });
    const topic = `made-${crypto.randomUUID()}`;
    expect(await send([message()], { topic })).toEqual([{ sent: expect.any(String) }]);
    const source = await openSource(bridge, topic);
    expect((await collect(source, 1)).length).toBe(1);
  });

  test("refuses rendered names that are no topic's, and topics that nobody made", async () => {
    await using bridge = await connect();
    const { send } = await openSink(bridge, { topic: "x-${body.region}" });
    const [illegal] = await send([message()], { topic: "x-a b" });
    expect(illegal).toMatchObject({ refused: expect.stringContaining("x-a b"), final: true });
    const [missing] = await send([message()], { topic: `missing-${crypto.randomUUID()}` });
    expect(missing).toEqual({ refused: expect.stringContaining("create: true") });
  });

  test("makes a missing topic when the sink is opened with create", async () => {
    await using bridge = await connect();
    const topic = `created-${crypto.randomUUID()}`;
    const { send } = await openSink(bridge, { topic, create: { partitions: 4 } });
    expect(await send([message()], { partition: 3 })).toEqual([{ sent: "partition 3 offset 0" }]);
  });

  test("starts no call behind one that was not written", async () => {
    const topic = await freshTopic(1);
    await using bridge = await connect();
    const { send } = await openSink(bridge, { topic });
    const big = { body: new Uint8Array(1_200_000) };
    const [first, second] = await Promise.all([
      send([message({ text: "a" }), message(big), message({ text: "b" })]),
      send([message({ text: "c" })]),
    ]);
    expect(first?.[1]).toMatchObject({ final: true });
    expect(second).toEqual([{ unknown: true }]);
    await send([message({ text: "b" }), message({ text: "c" })]);
    const source = await openSource(bridge, topic);
    expect((await collect(source, 3)).map(textOf)).toEqual(["a", "b", "c"]);
  });
});
