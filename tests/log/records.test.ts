/** Records, streams, cursors and states: what goes in comes out, and finds its place. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { systemClock } from "../../src/clock.ts";
import { FencedError, InvalidError } from "../../src/errors.ts";
import { decodeCursor, earliestCursor, encodeCursor, latestCursor } from "../../src/log/cursor.ts";
import { lockFolder } from "../../src/log/lock.ts";
import { murmur2, partitionOf } from "../../src/log/murmur2.ts";
import { StreamReader } from "../../src/log/stream-reader.ts";
import { Streams } from "../../src/log/stream.ts";
import { encodeText, type Message } from "../../src/message.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { temporaryFolder } from "../temporary.ts";
import { ids, message, openLog, readAll } from "./support.ts";

const bytes = fc.uint8Array({ maxLength: 300 });
const text = fc.string({ unit: "grapheme", maxLength: 30 });
const anyMessage: fc.Arbitrary<Message> = fc.record({
  id: fc.string({ minLength: 1, maxLength: 30 }),
  key: fc.option(bytes),
  properties: fc.record(
    { contentType: text, priority: fc.nat(9), correlationId: fc.oneof(text, bytes) },
    { requiredKeys: [] },
  ),
  headers: fc.array(fc.record({ name: text, value: fc.option(bytes) }), { maxLength: 5 }),
  body: fc.option(bytes),
  timestampMs: fc.nat(),
  origin: fc.option(
    fc.record({
      bridge: text,
      address: text,
      partition: fc.option(fc.nat(100)),
      offset: fc.option(text),
      hops: fc.array(text, { maxLength: 3 }),
    }),
  ),
});

function plain(value: Message): unknown {
  const hex = (part: Uint8Array | null): string | null =>
    part === null ? null : Buffer.from(part).toString("hex");
  const { correlationId } = value.properties;
  const isBytes = correlationId instanceof Uint8Array;
  return {
    id: value.id,
    key: hex(value.key),
    properties: {
      ...value.properties,
      correlationId: isBytes ? hex(correlationId) : correlationId,
    },
    headers: value.headers.map((header) => [header.name, hex(header.value)]),
    body: hex(value.body),
    timestampMs: value.timestampMs,
    origin: value.origin,
  };
}

test("every message comes back as it went in", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyMessage, { minLength: 1, maxLength: 20 }), async (messages) => {
      const { log } = await openLog(new MemoryDisk());
      const partition = log.partition({ stream: "s", index: 0 });
      await partition.append(messages).durable;
      const read = await readAll(partition);
      expect(read.map(plain)).toEqual(messages.map(plain));
    }),
    { numRuns: 200 },
  );
});

test("keys are placed as Kafka's own clients place them", () => {
  const known: [string, number][] = [
    ["21", -973_932_308],
    ["foobar", -790_332_482],
    ["a-little-bit-long-string", -985_981_536],
    ["a-little-bit-longer-string", -1_486_304_829],
    ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971],
    ["abc", 479_470_107],
  ];
  for (const [key, hash] of known) expect(murmur2(encodeText(key)) | 0).toBe(hash);
});

describe("a stream of several partitions", () => {
  test("keeps equal keys together and reads all of them from one cursor", async () => {
    const { log } = await openLog(new MemoryDisk());
    const streams = new Streams(log);
    expect(streams.define("s", 4)).toBe(true);
    const stream = streams.stream("s");
    const sent = Array.from({ length: 60 }, (_, index) =>
      message(`${index}`, { key: encodeText(`k${index % 7}`) }),
    );
    const { receipts, durable } = stream.append(sent);
    await durable;
    for (const [index, receipt] of receipts.entries()) {
      expect(receipt.id).toBe(`${index}`);
      expect(receipt.partition).toBe(partitionOf(encodeText(`k${index % 7}`), 4));
    }
    const reader = new StreamReader(stream, earliestCursor(stream));
    const { signal } = new AbortController();
    const seen: string[] = [];
    let cursor = "";
    for (;;) {
      const batch = await reader.next({ messagesMax: 5, wait: false, signal });
      if (batch === null) break;
      const [first] = batch.messages;
      if (first !== undefined) cursor = reader.cursorAfter(first);
      seen.push(...ids(batch.messages));
    }
    expect(seen.length).toBe(60);
    for (let key = 0; key < 7; key++) {
      const own = seen.map(Number).filter((each) => each % 7 === key);
      expect(own).toEqual(own.toSorted((a, b) => a - b));
    }
    expect(decodeCursor(cursor)?.length).toBe(4);
    expect(streams.define("s", 2)).toBe(false);
  });

  test("a reader that waits gets what any partition brings", async () => {
    const { log } = await openLog(new MemoryDisk());
    const streams = new Streams(log);
    streams.define("s", 3);
    const stream = streams.stream("s");
    const reader = new StreamReader(stream, latestCursor(stream));
    const { signal } = new AbortController();
    for (const partition of [2, 0, 1]) {
      const waiting = reader.next({ messagesMax: 5, wait: true, signal });
      await stream.appendOne(message(`m${partition}`), { partition }).durable;
      expect(ids([...((await waiting)?.messages ?? [])])).toEqual([`m${partition}`]);
    }
  });

  test("a cursor of another epoch begins at the oldest and says so", async () => {
    const { log } = await openLog(new MemoryDisk());
    const stream = new Streams(log).stream("s");
    await stream.appendOne(message("a")).durable;
    const reader = new StreamReader(stream, [{ epoch: 12, offset: 7 }]);
    const { signal } = new AbortController();
    const batch = await reader.next({ messagesMax: 5, wait: false, signal });
    expect(batch?.gaps).toEqual([{ partition: 0, from: 7, to: 0, reason: "epoch" }]);
    expect(ids([...(batch?.messages ?? [])])).toEqual(["a"]);
  });
});

test("a cursor's text comes back, and a changed one is no cursor", () => {
  const cursor = [
    { epoch: 1, offset: 2 ** 40 },
    { epoch: 4_294_967_295, offset: 0 },
  ];
  const encoded = encodeCursor(cursor);
  expect(decodeCursor(encoded)).toEqual(cursor);
  for (let at = 0; at < encoded.length; at++) {
    const other = encoded[at] === "A" ? "B" : "A";
    expect(decodeCursor(encoded.slice(0, at) + other + encoded.slice(at + 1))).toBeNull();
  }
  expect(decodeCursor("")).toBeNull();
});

test("a stream's name that is no folder's name is refused", async () => {
  const { log } = await openLog(new MemoryDisk());
  for (const name of ["", "..", "a/b", ".hidden", "a b", "x".repeat(200)]) {
    expect(() => new Streams(log).stream(name)).toThrow(InvalidError);
  }
});

describe("states", () => {
  test("the newest value of a name survives, a removed one does not", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    await log.states.save([["a", encodeText("1")]]);
    await Promise.all([
      log.states.save([["a", encodeText("2")]]),
      log.states.save([
        ["b", encodeText("3")],
        ["c", encodeText("4")],
      ]),
    ]);
    await log.states.save([["c", null]]);
    const again = await openLog(disk);
    expect(await again.log.states.load("a")).toEqual(encodeText("2"));
    expect(await again.log.states.load("b")).toEqual(encodeText("3"));
    expect(await again.log.states.load("c")).toBeNull();
  });

  test("a long life takes bounded space, and a crash in between loses nothing saved", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const value = new Uint8Array(4000);
    const saves: Promise<void>[] = [];
    for (let round = 0; round < 5; round++) {
      const names = Array.from({ length: 1000 }, (_, index) => `n${index}`);
      saves.push(log.states.save(names.map((name) => [name, value] as const)));
      await saves.at(-1);
    }
    await log.states.save([["last", encodeText("x")]]);
    const again = await openLog(disk);
    expect(await again.log.states.load("last")).toEqual(encodeText("x"));
    expect((await again.log.states.load("n999"))?.length).toBe(4000);
    const size = disk.paths().reduce((sum, path) => sum + disk.bytes(path).length, 0);
    expect(size).toBeLessThan(20_000_000);
  });
});

test("a second owner of a data folder is refused, naming the first one's pid", async () => {
  await using folder = await temporaryFolder();
  const first = await lockFolder(folder.path, systemClock);
  await expect(lockFolder(folder.path, systemClock)).rejects.toThrow(FencedError);
  await expect(lockFolder(folder.path, systemClock)).rejects.toThrow(String(process.pid));
  first[Symbol.dispose]();
  (await lockFolder(folder.path, systemClock))[Symbol.dispose]();
}, 20_000);
