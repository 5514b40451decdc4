/** The newest groups of all partitions share one bound of memory; what left it is read from disk. */
import { expect, test } from "bun:test";
import { fresh } from "../../src/log/group-buffer.ts";
import { Tail, TailMemory } from "../../src/log/tail.ts";

const KIB = 1024;

function groupOf(kib: number, baseOffset: number) {
  const header = { payloadBytes: 0, baseOffset, count: 1, salt: 0, knownSynced: 0 };
  const batch = { header: { ...header, appendedAtMs: 0, payloadCrc: 0 }, start: 0 };
  return { memory: fresh(kib * KIB), batches: [batch] };
}

function tailOf(all: TailMemory, released: number[]): Tail {
  const id = { stream: "s", index: 0 };
  return new Tail(id, { bytesMax: 8 * KIB, all }, ({ bytes }) => released.push(bytes.length));
}

test("the partition that was written to least lately gives up its memory first", () => {
  const all = new TailMemory(16 * KIB);
  const released: number[] = [];
  const [first, second, third] = [1, 2, 3].map(() => tailOf(all, released)) as [Tail, Tail, Tail];
  for (const tail of [first, second]) {
    tail.push(groupOf(4, 0));
    tail.push(groupOf(4, 1));
  }
  // The first one is written to again: it holds as much as before, and is the latest.
  first.push(groupOf(4, 2));
  expect(released).toEqual([4 * KIB]);
  expect(all.bytes).toBe(16 * KIB);
  third.push(groupOf(4, 0));
  expect([first.bytes, second.bytes, third.bytes]).toEqual([8 * KIB, 0, 4 * KIB]);
  expect(all.bytes).toBe(12 * KIB);
  expect(second.recordsAt(1)).toBeNull();
  // What is given up is nobody's: a quiet partition keeps no buffers for groups to come.
  expect(released).toEqual([4 * KIB]);
  second.push(groupOf(4, 2));
  expect(all.bytes).toBe(16 * KIB);
});

test("no bound is passed, however partitions take turns", () => {
  const all = new TailMemory(20 * KIB);
  const tails = Array.from({ length: 7 }, () => tailOf(all, []));
  for (let turn = 0; turn < 500; turn++) {
    const tail = tails[(turn * turn) % tails.length];
    tail?.push(groupOf(1 + (turn % 9), turn));
    const held = tails.reduce((sum, { bytes }) => sum + bytes, 0);
    expect(all.bytes).toBe(held);
    expect(held).toBeLessThanOrEqual(20 * KIB);
  }
});
