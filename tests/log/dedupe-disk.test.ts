/**
 * Dedupe keys of sealed segments: found through the filter and the key files, whatever becomes of
 * those, with memory and open files that do not grow with the log.
 */
import { describe, expect, test } from "bun:test";
import { ConflictError, StorageError } from "../../src/errors.ts";
import { openFilesMax } from "../../src/limits.ts";
import { hashKey, KeyFilter } from "../../src/log/key-filter.ts";
import { KeyList, readKeys, searchKeys } from "../../src/log/key-file.ts";
import type { FilePartition } from "../../src/log/partition.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { ids, message, openLog, readAll } from "./support.ts";

const PLACE = { stream: "orders", index: 0 };
const FOLDER = "/data/streams/orders/0";
const OWNER = { baseOffset: 1000, salt: 5, seed: 9 };

async function put(partition: FilePartition, key: string) {
  const appended = partition.append([message(key)], { dedupeKeys: [key] });
  await appended.durable;
  return appended.receipt(0);
}

/** A log of segments with one key each: k0, k1, …; the last one is the newest. */
async function segments(disk: MemoryDisk, count: number) {
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  for (let index = 0; index < count; index++) {
    await put(partition, `k${index}`);
    if (index < count - 1) await partition.roll();
  }
  return { log, partition };
}

async function stored(list: KeyList) {
  const disk = new MemoryDisk();
  const file = await disk.open("/x.keys", "create");
  file.write(list.encode(OWNER), 0);
  return { disk, file };
}

describe("a key file", () => {
  test("finds every key that it holds, equal hashes over the edge of a block included", async () => {
    const list = new KeyList(OWNER.baseOffset);
    const hashes = Array.from({ length: 5000 }, (_, index) => hashKey(`key ${index}`, 9));
    for (const [index, hash] of hashes.entries()) list.add(hash, OWNER.baseOffset + index);
    const same = { high: 0x8000_0000, low: 7 };
    for (let index = 0; index < 1200; index++) list.add(same, OWNER.baseOffset + 5000 + index);
    list.sort();
    const { file } = await stored(list);
    for (const [index, hash] of hashes.entries()) {
      expect(await searchKeys(file, OWNER, hash)).toContain(OWNER.baseOffset + index);
    }
    expect((await searchKeys(file, OWNER, same))?.length).toBe(1200);
    expect(await searchKeys(file, OWNER, { high: 1, low: 1 })).toEqual([]);
    expect((await readKeys(file, OWNER))?.count).toBe(6200);
  });

  test("with any byte changed, or of another segment, is not taken", async () => {
    const list = new KeyList(OWNER.baseOffset);
    for (let index = 0; index < 20; index++) list.add(hashKey(`${index}`, 9), 1000 + index);
    list.sort();
    const { disk, file } = await stored(list);
    expect(await readKeys(file, { ...OWNER, salt: 6 })).toBeNull();
    const bytes = disk.bytes("/x.keys");
    for (const at of [0, 8, 13, 20, 28, 60, 64, 200, 64 + 511 * 8]) {
      const changed = Buffer.from(bytes);
      changed.writeUInt8((bytes[at] ?? 0) ^ 4, at);
      disk.poke("/x.keys", changed);
      expect(await readKeys(file, OWNER), `byte ${at}`).toBeNull();
    }
  });
});

test("the filter finds every key and few others, and gives pages back with their segments", () => {
  const filter = new KeyFilter();
  const keys = 200_000;
  for (let index = 0; index < keys; index++) {
    filter.add(hashKey(`key ${index}`, 1), Math.floor(index / 10_000));
  }
  for (let index = 0; index < keys; index += 7) {
    const tags = filter.find(hashKey(`key ${index}`, 1));
    expect(tags !== null && KeyFilter.matches(tags, Math.floor(index / 10_000))).toBe(true);
  }
  let wrong = 0;
  for (let index = 0; index < 100_000; index++) {
    if (filter.find(hashKey(`other ${index}`, 1)) !== null) wrong++;
  }
  expect(wrong).toBeLessThan(100);
  expect(filter.byteLength * 8).toBeLessThan(keys * 100);
  const before = filter.byteLength;
  filter.dropBelow(20);
  expect(filter.byteLength).toBeLessThan(before / 4);
});

test("a segment's keys, which come sorted by hash, stand apart in the filter", () => {
  const list = new KeyList(0);
  for (let index = 0; index < 100_000; index++) list.add(hashKey(`key ${index}`, 1), index);
  list.sort();
  const filter = new KeyFilter();
  for (let at = 0; at < list.count; at++) filter.add(list.hashAt(at), 0);
  let wrong = 0;
  for (let index = 0; index < 100_000; index++) {
    if (filter.find(hashKey(`other ${index}`, 1)) !== null) wrong++;
  }
  // Side by side they would be one long row that each look walks along: over 1,000 are wrong then.
  expect(wrong).toBeLessThan(100);
});

test("a key of any segment is found after a restart, and files stay few", async () => {
  const disk = new MemoryDisk();
  const count = openFilesMax + 20;
  await (await segments(disk, count)).log[Symbol.asyncDispose]();
  const { log } = await openLog(disk);
  // The lock of nothing else: the newest segment of the stream alone is open.
  expect(disk.openFiles).toBe(1);
  const partition = log.partition(PLACE);
  for (let index = 0; index < count; index++) {
    expect(await put(partition, `k${index}`)).toMatchObject({ offset: index, duplicate: true });
  }
  expect(ids(await readAll(partition)).length).toBe(count);
  expect(disk.openFiles).toBeLessThanOrEqual(openFilesMax + 1);
  await log[Symbol.asyncDispose]();
  expect(disk.openFiles).toBe(0);
});

test("key files that are missing, cut or of another format are made anew", async () => {
  const disk = new MemoryDisk();
  await (await segments(disk, 4)).log[Symbol.asyncDispose]();
  const path = (base: number): string => `${FOLDER}/${String(base).padStart(20, "0")}.keys`;
  const whole = disk.bytes(path(0));
  await disk.remove(path(0));
  disk.poke(path(1), disk.bytes(path(1)).subarray(0, 70));
  disk.poke(path(2), Buffer.alloc(28, 1));
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  for (let index = 0; index < 4; index++) {
    expect(await put(partition, `k${index}`)).toMatchObject({ offset: index, duplicate: true });
  }
  expect(disk.bytes(path(0))).toEqual(whole);
  // And one that goes bad while it runs.
  disk.poke(path(0), Buffer.alloc(whole.length, 3));
  expect(await put(partition, "k0")).toMatchObject({ offset: 0, duplicate: true });
});

test("a file that claims a key for another record makes no duplicate", async () => {
  const disk = new MemoryDisk();
  const { log, partition } = await segments(disk, 3);
  const seed = Bun.hash.crc32(partition.epoch);
  await log[Symbol.asyncDispose]();
  const bytes = disk.bytes(`${FOLDER}/${"0".repeat(20)}.keys`);
  const list = new KeyList(0);
  list.add(hashKey("never sent", seed), 0);
  list.sort();
  const owner = { baseOffset: 0, salt: bytes.readUInt32LE(12), seed };
  disk.poke(`${FOLDER}/${"0".repeat(20)}.keys`, list.encode(owner));
  const again = await openLog(disk);
  const receipt = await put(again.log.partition(PLACE), "never sent");
  expect(receipt).toMatchObject({ offset: 3, duplicate: false });
});

test("appends behind a look at the disk keep their order, and two of one key are one", async () => {
  const disk = new MemoryDisk();
  await (await segments(disk, 3)).log[Symbol.asyncDispose]();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  const { promise, resolve } = Promise.withResolvers<void>();
  disk.holdRead = promise;
  const first = partition.append([message("a"), message("b")], { dedupeKeys: ["k1", "new"] });
  const second = partition.append([message("c")]);
  const third = partition.append([message("d")], { dedupeKeys: ["new"] });
  await Bun.sleep(0);
  expect(partition.offsetEnd).toBe(3);
  disk.holdRead = null;
  resolve();
  await Promise.all([first.durable, second.durable, third.durable]);
  expect(first.receipt(0)).toMatchObject({ offset: 1, duplicate: true });
  expect(first.receipt(1)).toMatchObject({ offset: 3, duplicate: false });
  expect(second.receipt(0)).toMatchObject({ offset: 4, duplicate: false });
  expect(third.receipt(0)).toMatchObject({ offset: 3, duplicate: true });
  expect(ids(await readAll(partition, 3))).toEqual(["b", "c"]);
});

test("a condition that a call fulfilled once gives its first receipt when it comes again", async () => {
  const disk = new MemoryDisk();
  const { partition } = await segments(disk, 3);
  const call = { dedupeKeys: ["once"], expectedOffset: 3 };
  await partition.append([message("x")], call).durable;
  const again = partition.append([message("x")], call);
  await again.durable;
  expect(again.receipt(0)).toMatchObject({ offset: 3, duplicate: true });
  await partition.roll();
  const late = partition.append([message("x")], call);
  await late.durable;
  expect(late.receipt(0)).toMatchObject({ offset: 3, duplicate: true });
  const other = { dedupeKeys: ["other"], expectedOffset: 3 };
  const refused = async (): Promise<void> => partition.append([message("y")], other).durable;
  const error: unknown = await refused().catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(ConflictError);
  expect((error as ConflictError).members).toEqual({ end: 4 });
});

test("when the disk can't tell whether a key is held the append is refused, not taken", async () => {
  const disk = new MemoryDisk();
  await (await segments(disk, 3)).log[Symbol.asyncDispose]();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  disk.failAfter({ call: "open", after: 1, code: "EMFILE" });
  await expect(put(partition, "k0")).rejects.toThrow(StorageError);
  expect(partition.offsetEnd).toBe(3);
  expect(await put(partition, "k0")).toMatchObject({ offset: 0, duplicate: true });
});
