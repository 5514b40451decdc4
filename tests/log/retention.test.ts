/** Retention: whole segments go, oldest first, and only what may go. */
import { expect, test } from "bun:test";
import { systemClock } from "../../src/clock.ts";
import type { FilePartition } from "../../src/log/partition.ts";
import { DEFAULT_RETENTION, Retention, type RetentionPolicy } from "../../src/log/retention.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { message, openLog, readAll } from "./support.ts";

const PLACE = { stream: "s", index: 0 };

/** A partition of four segments with ten messages each. */
async function filled(): Promise<{ partition: FilePartition; disk: MemoryDisk }> {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  for (let segment = 0; segment < 4; segment++) {
    const ids = Array.from({ length: 10 }, (_, index) => message(`${segment}.${index}`));
    await partition.append(ids).durable;
    if (segment < 3) await partition.roll();
  }
  return { partition, disk };
}

async function kept(policy: Partial<RetentionPolicy>, passed = 0, aheadMs = 0): Promise<number> {
  const { partition } = await filled();
  const clock = { ...systemClock, nowMs: () => Date.now() + aheadMs };
  const retention = new Retention(
    () => [partition],
    clock,
    () => undefined,
  );
  const none = { ageMs: null, bytes: null, messages: null, afterRouted: false, keepMs: 0 };
  retention.define(new Map([["s", { ...none, ...policy }]]), () => passed);
  await retention.keep(partition);
  const all = await readAll(partition);
  expect(all.length).toBe(partition.offsetEnd - partition.offsetStart);
  return all.length;
}

test("nothing goes without a bound that is passed", async () => {
  expect(await kept({})).toBe(40);
  expect(await kept(DEFAULT_RETENTION)).toBe(40);
  expect(await kept({ ageMs: 60_000 })).toBe(40);
});

test("age takes the segments that are older as a whole, but not the newest", async () => {
  // Time has rolled the segment that was being written as well: a fresh, empty one is left.
  expect(await kept({ ageMs: 60_000 }, 0, 61_000)).toBe(0);
});

test("bytes and messages take the oldest segments until the rest fits", async () => {
  expect(await kept({ messages: 25 })).toBe(30);
  expect(await kept({ messages: 10 })).toBe(10);
  expect(await kept({ bytes: 1 })).toBe(10);
});

test("after routed takes only what every rule has passed", async () => {
  expect(await kept({ afterRouted: true }, 0)).toBe(40);
  expect(await kept({ afterRouted: true }, 15)).toBe(30);
  expect(await kept({ afterRouted: true }, 40)).toBe(10);
  expect(await kept({ afterRouted: true, keepMs: 60_000 }, 40)).toBe(40);
});

test("a deleted segment's files are gone, its dedupe keys too", async () => {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  await partition.append([message("a")], { dedupeKeys: ["key"] }).durable;
  await partition.roll();
  await partition.append([message("b")]).durable;
  await partition.dropOldest();
  const again = partition.append([message("c")], { dedupeKeys: ["key"] });
  await again.durable;
  expect(again.receipt(0)).toMatchObject({ offset: 2, duplicate: false });
  expect(disk.paths().filter((path) => path.includes("00000000000000000000"))).toEqual([]);
});
