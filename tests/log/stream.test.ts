/** Streams of several partitions: one count for good, one answer for a whole call. */
import { describe, expect, test } from "bun:test";
import { LimitError } from "../../src/errors.ts";
import { keyBytesMax } from "../../src/limits.ts";
import { earliestCursor } from "../../src/log/cursor.ts";
import { StreamReader } from "../../src/log/stream-reader.ts";
import { Streams } from "../../src/log/stream.ts";
import { encodeText } from "../../src/message.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { message, openLog } from "./support.ts";

const never = new AbortController().signal;

describe("the count of partitions", () => {
  test("outlives a restart, also when the last partitions are empty", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const streams = new Streams(log);
    expect(streams.define("s", 4)).toBe(true);
    await streams.stream("s").appendOne(message("a"), { partition: 1 }).durable;
    await log[Symbol.asyncDispose]();
    const again = new Streams((await openLog(disk)).log);
    expect(again.stream("s").partitions.length).toBe(4);
    expect(again.define("s", 4)).toBe(true);
    expect(again.define("s", 8)).toBe(false);
    expect(again.define("s", 2)).toBe(false);
    const keyed = message("b", { key: encodeText("some key") });
    expect(again.stream("s").choose(keyed, null)).toBe(streams.stream("s").choose(keyed, null));
  });

  test("is free until the first message", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const streams = new Streams(log);
    streams.stream("s");
    expect(streams.define("s", 4)).toBe(true);
    expect(streams.define("s", 2)).toBe(true);
    await streams.stream("s").appendOne(message("a")).durable;
    await log[Symbol.asyncDispose]();
    expect(new Streams((await openLog(disk)).log).stream("s").partitions.length).toBe(2);
  });
});

test("a call that is refused leaves nothing in any partition", async () => {
  const { log } = await openLog(new MemoryDisk());
  const streams = new Streams(log);
  streams.define("s", 8);
  const stream = streams.stream("s");
  const sent = Array.from({ length: 16 }, (_, n) => message(`${n}`, { key: encodeText(`${n}`) }));
  sent.push(message("bad", { key: new Uint8Array(keyBytesMax + 1) }));
  expect(() => stream.append(sent)).toThrow(LimitError);
  await stream.appendOne(message("good"), { partition: 7 }).durable;
  for (let turn = 0; turn < 5; turn++) await Bun.sleep(0);
  expect(stream.partitions.reduce((sum, { offsetEnd }) => sum + offsetEnd, 0)).toBe(1);
});

test("a reader at the end of a log that closes ends, it does not spin", async () => {
  const { log } = await openLog(new MemoryDisk());
  const stream = new Streams(log).stream("s");
  const reader = new StreamReader(stream, earliestCursor(stream));
  const waiting = reader.next({ messagesMax: 1, wait: true, signal: never });
  await log[Symbol.asyncDispose]();
  expect(await waiting).toBeNull();
});
