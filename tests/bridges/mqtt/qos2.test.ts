/**
 * QoS 2 through kill -9 at each place of its handshake, with a broker of raw bytes that decides
 * which packet is lost: each message is in the log exactly once, and no other one is taken for it.
 */
import { describe, expect, test } from "bun:test";
import { connectAsync } from "mqtt";
import { mqtt } from "../../../bridges/mqtt/module.ts";
import { Releases } from "../../../bridges/mqtt/releases.ts";
import type { SourceMemory } from "../../../src/bridge.ts";
import { broker, missingBroker } from "../../brokers/broker.ts";
import { TestGateway } from "../../e2e/gateway.ts";
import { waitFor } from "../../temporary.ts";
import { RawBroker } from "./raw-broker.ts";

const never = new AbortController().signal;

/** What a source keeps, in memory. `fails`: the disk takes nothing. */
class Memory implements SourceMemory {
  readonly values = new Map<string, Uint8Array>();
  saves = 0;
  fails = false;

  load(name: string): Promise<Uint8Array | null> {
    return Promise.resolve(this.values.get(name) ?? null);
  }

  async save(entries: Iterable<readonly [string, Uint8Array | null]>): Promise<void> {
    this.saves += 1;
    const all = [...entries];
    await Bun.sleep(1);
    if (this.fails) throw new Error("the disk is full");
    for (const [name, value] of all) if (value !== null) this.values.set(name, value);
  }
}

describe("QoS 2", () => {
  test("is exactly once through kill -9 at each place of its handshake", async () => {
    await using raw = await RawBroker.open();
    await using gateway = await TestGateway.start();
    const topic = "plant/a";
    await gateway.apply({
      bridges: { plant: { kind: "mqtt", url: raw.url } },
      sources: { t: { from: { bridge: "plant", topic: "plant/#", qos: 2 }, stream: "in" } },
    });
    const restart = async (): Promise<void> => {
      await gateway.kill();
      raw.hasSession = true;
      await gateway.start();
      await raw.subscribed();
    };
    const count = async (): Promise<number> => (await gateway.read("in")).length;
    const message = { topic, body: "the same", packetId: 1 };
    await raw.subscribed();

    // Between PUBREC and PUBREL.
    raw.publish(message);
    await raw.answer("pubrec", 1);
    await restart();
    raw.pubrel(1);
    await raw.answer("pubcomp", 1);
    expect(await count()).toBe(1);

    // Another one with the same body and packet id; its PUBREC is lost.
    raw.publish(message);
    await raw.answer("pubrec", 1);
    await restart();
    raw.publish({ ...message, again: true });
    await raw.answer("pubrec", 1);
    expect(await count()).toBe(2);

    // The PUBCOMP is lost, so the PUBREL comes again.
    raw.pubrel(1);
    await raw.answer("pubcomp", 1);
    await restart();
    raw.pubrel(1);
    await raw.answer("pubcomp", 1);

    // A third one, of which the first try never arrived: "again" does not mean known.
    raw.publish({ ...message, again: true });
    await raw.answer("pubrec", 1);
    expect(await count()).toBe(3);

    // The broker has lost its sessions: what comes is of another one.
    await gateway.kill();
    raw.hasSession = false;
    await gateway.start();
    await raw.subscribed();
    raw.publish({ ...message, again: true });
    await raw.answer("pubrec", 1);
    expect(await count()).toBe(4);
  }, 120_000);

  test.skipIf(missingBroker("mqtt") !== null)(
    "is exactly once on Mosquitto while the gateway is killed",
    async () => {
      const { url } = await broker("mqtt");
      const name = `qos2-${process.pid}`;
      await using gateway = await TestGateway.start();
      await gateway.apply({
        bridges: { plant: { kind: "mqtt", url, clientId: name } },
        sources: { t: { from: { bridge: "plant", topic: `${name}/#`, qos: 2 }, stream: "in" } },
      });
      await gateway.sourceRuns("t");
      const client = await connectAsync(url, { protocolVersion: 5 });
      const sent: string[] = [];
      for (let kill = 0; kill < 3; kill++) {
        // The broker takes 20 at once, and this client would not keep to that.
        const publishing = (async () => {
          for (let index = 0; index < 300; index += 10) {
            const bodies = Array.from({ length: 10 }, (_, at) => `m${sent.length + at}`);
            sent.push(...bodies);
            await Promise.all(
              bodies.map((body) => client.publishAsync(`${name}/x`, body, { qos: 2 })),
            );
          }
        })();
        await waitFor("some are in", async () => (await gateway.read("in")).length > kill * 300);
        await gateway.kill();
        await publishing;
        await gateway.start();
      }
      await waitFor("all are in", async () => (await gateway.read("in")).length >= sent.length);
      expect((await gateway.read("in")).map(({ body }) => body)).toEqual(sent);
      await client.endAsync();
    },
    120_000,
  );
});

describe("what is kept of packet ids", () => {
  test("gives each use of a packet id a name of its own, also in the next life", async () => {
    const memory = new Memory();
    const first = await Releases.load(memory, "c");
    const before = first.nameOf(7);
    expect(first.nameOf(8)).not.toBe(before);
    await first.release(7);
    expect(first.nameOf(7)).not.toBe(before);
    const second = await Releases.load(memory, "c");
    expect(second.nameOf(7)).toBe(first.nameOf(7));
    expect(second.nameOf(8)).toBe(first.nameOf(8));
    expect(second.nameOf(65_535)).toBe(first.nameOf(65_535));
    const other = await Releases.load(memory, "d");
    expect(other.nameOf(8)).not.toBe(first.nameOf(8));
    await second.begin();
    expect(second.nameOf(8)).not.toBe(first.nameOf(8));
    for (const bytes of memory.values.values()) expect(bytes.length).toBeLessThanOrEqual(4096);
  });

  test("is saved before the release is answered, many at once", async () => {
    const memory = new Memory();
    const releases = await Releases.load(memory, "c");
    memory.saves = 0;
    const all = Array.from({ length: 1000 }, (_, index) => releases.release(index + 1));
    await Promise.all(all);
    expect(memory.saves).toBe(2);
    const next = await Releases.load(memory, "c");
    for (const id of [1, 2, 1000]) expect(next.nameOf(id)).toBe(releases.nameOf(id));
    memory.fails = true;
    await expect(releases.release(1)).rejects.toThrow("the disk is full");
  });
});

// A broker still answers what it had not read before the goodbye. Who takes the session up before
// it is through makes it forget the rest, and gets those messages again.
test("closing waits for the broker, which may release packets meanwhile", async () => {
  await using raw = await RawBroker.open();
  const bridge = await mqtt.connect(mqtt.parseConfig({ url: raw.url }), {
    name: "plant",
    resolve: (text) => Promise.resolve(text),
    signal: never,
  });
  const source = await bridge.source(mqtt.parseAddress({ topic: "a", qos: 2 }, "source"), {
    name: "s",
    start: "latest",
    unsettledBytesMax: 1024,
  });
  raw.publish({ topic: "a", body: "1", packetId: 1 });
  await (await source.receive(AbortSignal.timeout(20_000)))?.ack();
  await raw.answer("pubrec", 1);
  let isThrough = false;
  raw.onGoodbye = (end) => {
    raw.pubrel(1);
    setTimeout(() => {
      isThrough = true;
      end();
    }, 300);
  };
  await source[Symbol.asyncDispose]();
  expect(isThrough).toBe(true);
  raw.onGoodbye = null;
  await bridge[Symbol.asyncDispose]();
});

test("a topic alias of the broker stands for its topic", async () => {
  await using raw = await RawBroker.open();
  const bridge = await mqtt.connect(mqtt.parseConfig({ url: raw.url }), {
    name: "plant",
    resolve: (text) => Promise.resolve(text),
    signal: never,
  });
  const source = await bridge.source(mqtt.parseAddress({ topic: "a/{b}", qos: 2 }, "source"), {
    name: "s",
    start: "latest",
    unsettledBytesMax: 1024,
  });
  raw.publish({ topic: "a/b", body: "1", packetId: 1, alias: 5 });
  raw.publish({ topic: "", body: "2", packetId: 2, alias: 5 });
  raw.publish({ topic: "a/c", body: "3", packetId: 3 });
  const origins: unknown[] = [];
  while (origins.length < 3) {
    const delivery = await source.receive(AbortSignal.timeout(20_000));
    if (delivery === null) throw new Error("nothing came");
    origins.push(...delivery.messages.map(({ origin }) => [origin?.address, origin?.params]));
    await delivery.ack();
  }
  expect(origins).toEqual([
    ["a/b", { b: "b" }],
    ["a/b", { b: "b" }],
    ["a/c", { b: "c" }],
  ]);
  await bridge[Symbol.asyncDispose]();
});
