/** Dedupe keys: found for as long as their segment lives, wherever their group was written. */
import { expect, test } from "bun:test";
import { StorageError } from "../../src/errors.ts";
import type { FilePartition } from "../../src/log/partition.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { ids, message, openLog, readAll } from "./support.ts";

const PLACE = { stream: "orders", index: 0 };
const FOLDER = "/data/streams/orders/0";

/** Appends a message with its own name as the key; the receipt once it is durable. */
async function put(partition: FilePartition, key: string) {
  const appended = partition.append([message(key)], { dedupeKeys: [key] });
  await appended.durable;
  return appended.receipt(0);
}

async function reopened(disk: MemoryDisk): Promise<FilePartition> {
  return (await openLog(disk)).log.partition(PLACE);
}

test("the keys of every group of a sealed segment are found after a restart", async () => {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  for (const key of ["a", "b", "c"]) await put(partition, key);
  await partition.roll();
  await put(partition, "d");
  await log[Symbol.asyncDispose]();
  const again = await reopened(disk);
  for (const [offset, key] of ["a", "b", "c", "d"].entries()) {
    expect(await put(again, key)).toMatchObject({ offset, duplicate: true });
  }
});

test("a deleted segment's keys are forgotten, of whatever group; others are not", async () => {
  const { log } = await openLog(new MemoryDisk());
  const partition = log.partition(PLACE);
  for (const key of ["a", "b"]) await put(partition, key);
  await partition.roll();
  for (const key of ["c", "d"]) await put(partition, key);
  await partition.dropOldest();
  expect(await put(partition, "b")).toMatchObject({ offset: 4, duplicate: false });
  expect(await put(partition, "d")).toMatchObject({ offset: 3, duplicate: true });
  expect(await put(partition, "b")).toMatchObject({ offset: 4, duplicate: true });
});

test("a group that begins a segment has its keys there, not in the one before", async () => {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk, undefined, { segmentBytes: 600 });
  const partition = log.partition(PLACE);
  const keys = Array.from({ length: 12 }, (_, index) => `k${index}`);
  for (const key of keys) await put(partition, key);
  expect(partition.segments.length).toBeGreaterThan(2);
  const second = partition.segments[1]?.baseOffset ?? 0;
  await log[Symbol.asyncDispose]();
  const again = await reopened(disk);
  await again.dropOldest();
  for (const [offset, key] of keys.entries()) {
    const isKept = offset >= second;
    const receipt = await put(again, key);
    expect(receipt.duplicate, key).toBe(isKept);
    if (isKept) expect(receipt.offset).toBe(offset);
  }
});

test("a failed group takes back its own keys and no others", async () => {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  await put(partition, "old");
  await partition.roll();
  disk.failAfter({ call: "write", after: 1, code: "ENOSPC" });
  const failed = partition.append([message("x"), message("o")], { dedupeKeys: ["x", "old"] });
  await expect(failed.durable).rejects.toThrow(StorageError);
  expect(await put(partition, "x")).toMatchObject({ offset: 1, duplicate: false });
  expect(await put(partition, "old")).toMatchObject({ offset: 0, duplicate: true });
});

test("keys behind damage in a sealed segment are found when its key file is gone", async () => {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  for (const key of ["a", "b", "c"]) await put(partition, key);
  await partition.roll();
  await put(partition, "d");
  await log[Symbol.asyncDispose]();
  const path = `${FOLDER}/00000000000000000000.log`;
  const bytes = disk.bytes(path);
  const second = bytes.indexOf("IBAT", bytes.indexOf("IBAT") + 1);
  bytes.writeUInt8((bytes[second + 9] ?? 0) ^ 1, second + 9);
  disk.poke(path, bytes);
  await disk.remove(`${FOLDER}/00000000000000000000.keys`);
  const again = await reopened(disk);
  expect(await put(again, "c")).toMatchObject({ offset: 2, duplicate: true });
});

test("a key file that can't be written costs no message, and is made anew at the start", async () => {
  const disk = new MemoryDisk();
  const { log, fatal } = await openLog(disk, undefined, { segmentBytes: 600 });
  const partition = log.partition(PLACE);
  for (const key of ["a", "b", "c"]) await put(partition, key);
  const before = partition.segments.length;
  // The first file is the next segment's, the second the keys of the one before.
  disk.failAfter({ call: "open", after: 2, code: "EMFILE" });
  for (const key of ["d", "e", "f"]) await put(partition, key);
  expect(partition.segments.length).toBeGreaterThan(before);
  expect(fatal).toEqual([]);
  expect(ids(await readAll(partition))).toEqual(["a", "b", "c", "d", "e", "f"]);
  await log[Symbol.asyncDispose]();
  const again = await reopened(disk);
  expect(await put(again, "b")).toMatchObject({ offset: 1, duplicate: true });
});
