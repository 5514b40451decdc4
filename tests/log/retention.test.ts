/** Retention: whole segments go, oldest first, and only what may go. */
import { expect, test } from "bun:test";
import { systemClock } from "../../src/clock.ts";
import { StreamFullError } from "../../src/errors.ts";
import type { FilePartition } from "../../src/log/partition.ts";
import {
  DEFAULT_RETENTION,
  heldBack,
  Retention,
  type RetentionPolicy,
} from "../../src/log/retention.ts";
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

const NOTHING: RetentionPolicy = {
  ageMs: null,
  bytes: null,
  messages: null,
  afterRouted: false,
  keepMs: 0,
  whenFull: "block",
};

async function kept(policy: Partial<RetentionPolicy>, passed = 0, aheadMs = 0): Promise<number> {
  const { partition } = await filled();
  const clock = { ...systemClock, nowMs: () => Date.now() + aheadMs };
  const retention = new Retention(
    () => [partition],
    clock,
    () => undefined,
  );
  retention.define(new Map([["s", { ...NOTHING, ...policy }]]), {
    passed: () => passed,
    slowest: () => ({ rule: "r", next: passed }),
  });
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

test("a full stream drops its oldest only when it is to, and counts what rules had not passed", async () => {
  const policy = { afterRouted: true, messages: 25, keepMs: 60_000 } as const;
  expect(await kept(policy, 0)).toBe(40);
  // What is routed goes at the bound, however long it was to be kept.
  expect(await kept(policy, 40)).toBe(30);
  expect(await kept({ ...policy, whenFull: "dropOldest" }, 0)).toBe(30);
  const { partition } = await filled();
  const warnings: string[] = [];
  const retention = new Retention(
    () => [partition],
    systemClock,
    (sentence) => warnings.push(sentence),
  );
  const dropping = { ...NOTHING, ...policy, whenFull: "dropOldest" } as const;
  retention.define(new Map([["s", dropping]]), {
    passed: () => 4,
    slowest: () => ({ rule: "slow", next: 4 }),
  });
  await retention.keep(partition);
  expect(retention.counts()).toEqual([{ stream: "s", refusedCalls: 0, droppedMessages: 6 }]);
  expect(warnings.join()).toContain("rule slow");
  const { signal } = new AbortController();
  const late = partition.read(4, { messagesMax: 1, signal });
  await expect(late).rejects.toMatchObject({ code: "gap", from: 4, to: 10, reason: "retention" });
});

test("what a rule holds back is counted by share within a segment", async () => {
  const { partition } = await filled();
  expect(heldBack(partition, 40)).toEqual({ bytes: 0, messages: 0 });
  expect(heldBack(partition, 0)).toEqual({ bytes: partition.byteLength, messages: 40 });
  const half = heldBack(partition, 35);
  expect(half.messages).toBe(5);
  expect(half.bytes).toBe((partition.segments.at(-1)?.endPosition ?? 0) / 2);
  expect(heldBack(partition, Number.POSITIVE_INFINITY)).toEqual({ bytes: 0, messages: 0 });
});

test("a full stream that blocks refuses an append, and says which rule holds it", async () => {
  const { partition } = await filled();
  const retention = new Retention(
    () => [partition],
    systemClock,
    () => undefined,
  );
  let next = 0;
  let hasRule = true;
  const policy = { ...NOTHING, afterRouted: true, messages: 25 };
  retention.define(new Map([["s", policy]]), {
    passed: () => next,
    slowest: () => (hasRule ? { rule: "slow", next } : null),
  });
  expect(retention.guards("s")).toBe(true);
  expect(() => retention.admit(partition)).toThrow(StreamFullError);
  expect(() => retention.admit(partition)).toThrow("rule slow has yet to pass 40 messages");
  expect(retention.counts()).toEqual([{ stream: "s", refusedCalls: 2, droppedMessages: 0 }]);
  next = 16;
  retention.admit(partition);
  next = 15;
  expect(() => retention.admit(partition)).toThrow(StreamFullError);
  hasRule = false;
  retention.admit(partition);
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
