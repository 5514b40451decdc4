/** Which topics and offsets a source reads, and how a sink compresses: against a real Kafka. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { InvalidError } from "../../../src/errors.ts";
import { freshTopic, kafkaUrl, makeTopic, missingKafka } from "./cluster.ts";
import { collect, connect, message, openSink, openSource, textOf } from "./ends.ts";

setDefaultTimeout(90_000);

async function fill(topic: string, texts: readonly string[], partition = 0): Promise<void> {
  await using bridge = await connect();
  const { send } = await openSink(bridge, { topic, partition });
  await send(texts.map((text) => message({ text })));
}

describe.skipIf(missingKafka !== null)(`Kafka's topics ${missingKafka ?? ""}`, () => {
  test("those whose whole name fits a pattern are read, and no others", async () => {
    const base = `p-${crypto.randomUUID()}`;
    for (const name of ["orders-eu", "orders-us", "other", "x-orders-eu"]) {
      await makeTopic(`${base}.${name}`, 2);
      await fill(`${base}.${name}`, [name], 1);
    }
    await using bridge = await connect();
    const address = { pattern: `${base}\\.orders-(eu|us)` };
    await using source = await openSource(bridge, base, { address });
    const messages = await collect(source, 2);
    expect(messages.map(textOf).toSorted()).toEqual(["orders-eu", "orders-us"]);
    expect(messages.map(({ origin }) => origin?.address ?? "").toSorted()).toEqual([
      `${base}.orders-eu`,
      `${base}.orders-us`,
    ]);
    const none = { pattern: `${base}-nothing.*` };
    const error = await openSource(bridge, base, { address: none }).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(InvalidError);
    expect((error as InvalidError).message).toContain("no topic has a name that fits");
  });

  test("are read from an offset, in every partition or in those that are named", async () => {
    const topic = await freshTopic(2);
    await fill(topic, ["a0", "a1", "a2", "a3"], 0);
    await fill(topic, ["b0", "b1", "b2", "b3"], 1);
    await using bridge = await connect();
    const texts = async (offset: unknown, count: number): Promise<string[]> => {
      const name = `reader-${crypto.randomUUID()}`;
      const address = { topic, offset };
      await using source = await openSource(bridge, topic, { address, name });
      return (await collect(source, count)).map(textOf).toSorted();
    };
    expect(await texts(2, 4)).toEqual(["a2", "a3", "b2", "b3"]);
    expect(await texts({ 1: 3 }, 5)).toEqual(["a0", "a1", "a2", "a3", "b3"]);
    const error = await texts({ 0: 9 }, 1).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(InvalidError);
    expect((error as InvalidError).message).toContain("has 0 to 4, not 9");
  });

  for (const compression of ["none", "gzip", "snappy", "lz4", "zstd"]) {
    test(`are written with compression ${compression}, and kcat reads it`, async () => {
      const topic = await freshTopic(1);
      await using bridge = await connect();
      const { send } = await openSink(bridge, { topic, compression });
      const lines = Array.from({ length: 200 }, (_, index) => `line ${index} ${"x".repeat(300)}`);
      const headers = [
        { name: "a", value: Buffer.from("1") },
        { name: "a", value: Buffer.from("2") },
        { name: "none", value: null },
      ];
      await send(lines.map((text) => message({ text, headers })));
      const arguments_ = ["-C", "-b", await kafkaUrl(), "-t", topic, "-e", "-q", "-f", "%h|%s\n"];
      const kcat = Bun.spawnSync(["kcat", ...arguments_]);
      const read = kcat.stdout.toString().trimEnd().split("\n");
      expect(read.map((line) => line.slice(line.indexOf("|") + 1))).toEqual(lines);
      expect(read[0]).toStartWith("a=1,a=2,none=NULL");
      await using source = await openSource(bridge, topic);
      expect((await collect(source, 200)).map(textOf)).toEqual(lines);
    });
  }
});
