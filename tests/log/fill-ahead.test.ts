/**
 * Zeros ahead of a segment's end: written for one small group after another, nothing to recovery,
 * and gone from what is sealed or closed.
 */
import { expect, test } from "bun:test";
import { fillAheadBytes, fillAheadGroupBytes, fillAheadGroups } from "../../src/limits.ts";
import type { FilePartition } from "../../src/log/partition.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { Random } from "../sim/random.ts";
import { ids, message, openLog, readAll, type TestLog } from "./support.ts";

const PLACE = { stream: "orders", index: 0 };
const FIRST = "/data/streams/orders/0/00000000000000000000.log";
const MANY = fillAheadGroups + 10;

async function append(partition: FilePartition, count: number, bytes = 100): Promise<void> {
  for (let each = 0; each < count; each++) {
    const id = `m${partition.offsetEnd}`;
    await partition.append([message(id, { body: new Uint8Array(bytes) })]).durable;
  }
}

async function filled(): Promise<TestLog & { disk: MemoryDisk; partition: FilePartition }> {
  const disk = new MemoryDisk();
  const opened = await openLog(disk);
  const partition = opened.log.partition(PLACE);
  await append(partition, MANY);
  return { ...opened, disk, partition };
}

test("a partition that takes many small groups is filled ahead, one that pauses or takes large ones is not", async () => {
  const { disk, partition, log } = await filled();
  const { byteLength } = partition;
  expect(disk.bytes(FIRST).length).toBeGreaterThan(byteLength + fillAheadBytes / 2);
  expect(
    disk
      .bytes(FIRST)
      .subarray(byteLength)
      .every((byte) => byte === 0),
  ).toBe(true);
  const large = log.partition({ stream: "large", index: 0 });
  await append(large, MANY, fillAheadGroupBytes);
  const [path = ""] = disk.paths().filter((each) => each.includes("/large/"));
  expect(disk.bytes(path).length).toBe(large.byteLength);
});

test("zeros are cut off when the segment is sealed, and at a stop", async () => {
  const { disk, partition, log } = await filled();
  const { byteLength } = partition;
  await partition.roll();
  expect(disk.bytes(FIRST).length).toBe(byteLength);
  await append(partition, MANY);
  await log[Symbol.asyncDispose]();
  const held = disk.paths().filter((path) => /orders.*\.log$/.test(path));
  expect(held.reduce((sum, path) => sum + disk.bytes(path).length, 0)).toBe(partition.byteLength);
});

test("what a kill or a power cut leaves of the zeros is neither torn nor corrupt", async () => {
  for (let seed = 0; seed < 20; seed++) {
    const { disk, partition } = await filled();
    const expected = ids(await readAll(partition));
    const left = seed === 0 ? disk.kill() : disk.crash(new Random(seed));
    const { log, warnings } = await openLog(left);
    expect(warnings).toEqual([]);
    expect(log.corruptions()).toEqual([]);
    const again = log.partition(PLACE);
    expect(ids(await readAll(again)), `seed ${seed}`).toEqual(expected);
    await append(again, MANY);
    expect((await readAll(again)).length).toBe(expected.length + MANY);
  }
});

test("a group that is torn among zeros is cut, and only its own bytes are kept", async () => {
  const { disk, partition } = await filled();
  const { byteLength } = partition;
  const bytes = disk.bytes(FIRST);
  bytes.write("half a batch", byteLength);
  disk.poke(FIRST, bytes);
  const { log, warnings } = await openLog(disk.kill());
  expect(warnings.join()).toContain("cut 12 torn bytes");
  expect((await readAll(log.partition(PLACE))).length).toBe(MANY);
});

test("a disk that has no room for zeros takes groups all the same, until it has none for them", async () => {
  const disk = new MemoryDisk();
  const { log, fatal } = await openLog(disk);
  const partition = log.partition(PLACE);
  await append(partition, fillAheadGroups);
  disk.failAfter({ call: "write", after: 1, code: "ENOSPC" });
  await append(partition, 1);
  expect(disk.mend()).toBe(0);
  await append(partition, MANY);
  expect(fatal).toEqual([]);
  const { log: after } = await openLog(disk.kill());
  expect((await readAll(after.partition(PLACE))).length).toBe(fillAheadGroups + 1 + MANY);
});
