/**
 * Messages by key: what the index finds is what a full read finds, whatever becomes of its files,
 * and a reader that waits for one key is woken by that key only.
 */
import { describe, expect, test } from "bun:test";
import type { FileLog } from "../../src/log/files.ts";
import type { FilePartition } from "../../src/log/partition.ts";
import { earliestCursor } from "../../src/log/cursor.ts";
import { StreamReader } from "../../src/log/stream-reader.ts";
import { Streams } from "../../src/log/stream.ts";
import { decodeText, encodeText, type StoredMessage } from "../../src/message.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { Random } from "../sim/random.ts";
import { message, openLog, readAll } from "./support.ts";

const PLACE = { stream: "inbox", index: 0 };
const FOLDER = "/data/streams/inbox/0";
const never = new AbortController().signal;

function keyed(log: FileLog): FilePartition {
  log.keepIndex(PLACE.stream, true);
  return log.partition(PLACE);
}

function named(key: string | null, n: number) {
  return message(`m${n}`, { key: key === null ? null : encodeText(key) });
}

/** All messages of a key, step by step. */
async function ofKey(partition: FilePartition, key: string, messagesMax = 7) {
  const found: StoredMessage[] = [];
  let offset = partition.offsetStart;
  while (offset < partition.offsetEnd) {
    const options = { messagesMax, bytesMax: 2000, key: encodeText(key), signal: never };
    const batch = await partition.read(offset, options);
    if (batch === null) break;
    expect(batch.next).toBeGreaterThan(offset);
    found.push(...batch.messages);
    offset = batch.next;
  }
  return found;
}

function offsets(messages: readonly StoredMessage[]): number[] {
  return messages.map(({ offset }) => offset);
}

async function expectSame(partition: FilePartition, keys: readonly string[]): Promise<void> {
  const all = await readAll(partition);
  for (const key of keys) {
    const own = all.filter((each) => each.key !== null && decodeText(each.key) === key);
    expect(offsets(await ofKey(partition, key)), key).toEqual(offsets(own));
  }
}

/** Segments of random messages of few keys; the newest one is not empty. */
async function fill(partition: FilePartition, segments: number, random: Random) {
  for (let segment = 0; segment < segments; segment++) {
    if (segment > 0) await partition.roll();
    for (let turn = 0; turn < 5; turn++) {
      const batch = Array.from({ length: 1 + random.below(60) }, (_, n) => {
        const choice = random.below(12);
        return named(choice === 0 ? null : `key ${choice}`, n);
      });
      await partition.append(batch).durable;
    }
  }
}

const KEYS = Array.from({ length: 13 }, (_, index) => `key ${index}`);

describe("messages of a key", () => {
  test("are those that a full read finds, over segments, restarts and a late wish", async () => {
    const seed = Number(process.env["TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
    console.log(`seed ${seed}; again with TEST_SEED=${seed}`);
    const random = new Random(seed);
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const partition = log.partition(PLACE);
    await fill(partition, 2, random);
    // From the middle of a segment on it is wanted.
    keyed(log);
    await fill(partition, 4, random);
    await expectSame(partition, KEYS);
    await log[Symbol.asyncDispose]();
    const { log: again } = await openLog(disk);
    const after = keyed(again);
    await fill(after, 1, random);
    await expectSame(after, KEYS);
    await again[Symbol.asyncDispose]();
  });

  test("are found when files are missing, cut or of another segment", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const partition = keyed(log);
    await fill(partition, 5, new Random(1));
    await log[Symbol.asyncDispose]();
    const names = (await disk.list(FOLDER)).filter((name) => name.endsWith(".index"));
    expect(names.length).toBe(4);
    const [first = "", second = "", third = ""] = names.map((name) => `${FOLDER}/${name}`);
    await disk.remove(first);
    disk.poke(second, disk.bytes(second).subarray(0, 100));
    disk.poke(third, Buffer.from(disk.bytes(second)));
    const { log: again } = await openLog(disk);
    await expectSame(keyed(again), KEYS);
    expect((await disk.list(FOLDER)).filter((name) => name.endsWith(".index")).length).toBe(4);
    await again[Symbol.asyncDispose]();
  });

  test("come from a file that claims another key's messages without those", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const partition = keyed(log);
    await partition.append([named("a", 1), named("b", 2)]).durable;
    await partition.roll();
    await partition.append([named("a", 3)]).durable;
    const found = await ofKey(partition, "b");
    expect(found.map(({ id }) => id)).toEqual(["m2"]);
    await log[Symbol.asyncDispose]();
  });

  test("go with their segment, and its file before it", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const partition = keyed(log);
    await fill(partition, 3, new Random(2));
    await partition.dropOldest();
    expect((await disk.list(FOLDER)).filter((name) => name.endsWith(".index")).length).toBe(1);
    await expectSame(partition, KEYS);
    const gone = partition.read(0, { messagesMax: 1, key: encodeText("key 1"), signal: never });
    await expect(gone).rejects.toMatchObject({ reason: "retention" });
    await log[Symbol.asyncDispose]();
  });

  test("of a segment with damage that nobody has seen are given with its gap", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const partition = keyed(log);
    for (const n of [0, 1, 2]) await partition.append([named("a", n)]).durable;
    await partition.roll();
    await partition.append([named("a", 3)]).durable;
    await log[Symbol.asyncDispose]();
    const stem = `${FOLDER}/${"0".repeat(20)}`;
    const bytes = Buffer.from(disk.bytes(`${stem}.log`));
    bytes.writeUInt8(0, bytes.indexOf("body of m1"));
    disk.poke(`${stem}.log`, bytes);
    await disk.remove(`${stem}.index`);
    const { log: again } = await openLog(disk);
    const damaged = keyed(again);
    // Whose the lost message was nobody knows: a reader of any key is told.
    const options = { messagesMax: 10, key: encodeText("b"), signal: never };
    await expect(damaged.read(0, options)).rejects.toMatchObject({ reason: "corrupt", to: 2 });
    const own = { ...options, key: encodeText("a") };
    expect(offsets((await damaged.read(0, own))?.messages ?? [])).toEqual([0]);
    expect(offsets((await damaged.read(2, own))?.messages ?? [])).toEqual([2, 3]);
    await again[Symbol.asyncDispose]();
  });

  test("stop at damage, which is a gap for a reader of any key", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const partition = keyed(log);
    await partition.append([named("a", 1)]).durable;
    await partition.append([named("a", 2)]).durable;
    await partition.append([named("a", 3)]).durable;
    await partition.roll();
    await partition.append([named("a", 4)]).durable;
    await log[Symbol.asyncDispose]();
    const path = `${FOLDER}/${"0".repeat(20)}.log`;
    const bytes = Buffer.from(disk.bytes(path));
    const at = bytes.indexOf("body of m2");
    bytes.writeUInt8(0, at);
    disk.poke(path, bytes);
    const { log: again } = await openLog(disk);
    const damaged = keyed(again);
    const options = { messagesMax: 10, key: encodeText("a"), signal: never };
    const before = await damaged.read(0, options);
    expect(before?.next).toBe(1);
    await expect(damaged.read(1, options)).rejects.toMatchObject({ reason: "corrupt", to: 2 });
    expect(offsets((await damaged.read(2, options))?.messages ?? [])).toEqual([2, 3]);
    // A reader of another key passes the same gap, now that it is known.
    const other = { ...options, key: encodeText("b") };
    expect((await damaged.read(0, other))?.next).toBe(1);
    await expect(damaged.read(1, other)).rejects.toMatchObject({ reason: "corrupt", to: 2 });
    await again[Symbol.asyncDispose]();
  });
});

describe("a reader that waits for a key", () => {
  test("is woken by that key only, and passes the others", async () => {
    const { log } = await openLog(new MemoryDisk());
    log.keepIndex("inbox", true);
    const streams = new Streams(log);
    streams.define("inbox", 2, true);
    const stream = streams.stream("inbox");
    const key = encodeText("mine");
    const reader = new StreamReader(stream, earliestCursor(stream), { key });
    let isDone = false;
    const next = reader
      .next({ messagesMax: 10, wait: true, signal: never })
      .finally(() => (isDone = true));
    for (let n = 0; n < 50; n++) await stream.appendOne(named(`other ${n}`, n)).durable;
    await new Promise(setImmediate);
    expect(isDone).toBe(false);
    expect(reader.passOthers()).toBe(true);
    expect(reader.cursor.map(({ offset }) => offset)).toEqual(
      stream.partitions.map(({ offsetEnd }) => offsetEnd),
    );
    await stream.appendOne(named("mine", 99)).durable;
    expect((await next)?.messages.map(({ id }) => id)).toEqual(["m99"]);
    await log[Symbol.asyncDispose]();
  });

  test("ends when aborted, when the log closes, and goes on when the index is given up", async () => {
    const { log } = await openLog(new MemoryDisk());
    const partition = keyed(log);
    await partition.append([named("other", 0)]).durable;
    const streams = new Streams(log);
    const stream = streams.stream("inbox");
    log.keepIndex("inbox", true);
    const key = encodeText("mine");
    const abort = new AbortController();
    const from = [{ epoch: 0, offset: 0 }];
    const aborted = new StreamReader(stream, from, { key });
    const first = await aborted.next({ messagesMax: 10, wait: true, signal: abort.signal });
    expect(first?.messages).toEqual([]);
    const waiting = aborted.next({ messagesMax: 10, wait: true, signal: abort.signal });
    abort.abort();
    expect(await waiting).toBeNull();
    const going = aborted.next({ messagesMax: 10, wait: true, signal: never });
    log.keepIndex("inbox", false);
    await partition.append([named("mine", 1)]).durable;
    expect((await going)?.messages.map(({ id }) => id)).toEqual(["m1"]);
    const closed = aborted.next({ messagesMax: 10, wait: true, signal: never });
    await log[Symbol.asyncDispose]();
    expect(await closed).toBeNull();
  });
});
