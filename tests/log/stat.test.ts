/** A log in numbers: from headers and the newest segment, whatever lies between. */
import { expect, test } from "bun:test";
import { summarizePartition } from "../../src/log/stat.ts";
import { verifyPartition } from "../../src/log/verify.ts";
import { SimulatedClock } from "../sim/clock.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { message, openLog } from "./support.ts";

const FOLDER = "/data/streams";
const ID = { stream: "orders", partition: 0 };
const FIRST = `${FOLDER}/orders/0/00000000000000000000.log`;

async function written(segments: number): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const clock = new SimulatedClock();
  const { log } = await openLog(disk, FOLDER, { clock });
  const partition = log.partition({ stream: "orders", index: 0 });
  for (let segment = 0; segment < segments; segment++) {
    await partition.append([message(`a${segment}`), message(`b${segment}`)]).durable;
    clock.wallMs += 1000;
    if (segment < segments - 1) await partition.roll();
  }
  await log[Symbol.asyncDispose]();
  return disk;
}

for (const count of [1, 2, 5]) {
  test(`the numbers of ${count} segments are those that reading all gives`, async () => {
    const disk = await written(count);
    const events = { onBytes: () => undefined };
    const { problems, ...all } = await verifyPartition(disk, FOLDER, ID, events);
    expect(problems).toEqual([]);
    expect(await summarizePartition(disk, FOLDER, ID)).toEqual({ ...all, damagedHeaders: 0 });
  });
}

test("what lies between is not read", async () => {
  const disk = await written(5);
  const before = await summarizePartition(disk, FOLDER, ID);
  const middle = `${FOLDER}/orders/0/00000000000000000004.log`;
  const bytes = disk.bytes(middle);
  disk.poke(middle, bytes.fill(255, 200));
  expect(await summarizePartition(disk, FOLDER, ID)).toEqual(before);
});

test("a damaged header is counted and keeps no other number back", async () => {
  const disk = await written(3);
  const before = await summarizePartition(disk, FOLDER, ID);
  const bytes = disk.bytes(FIRST);
  bytes.writeUInt8((bytes[20] ?? 0) ^ 1, 20);
  disk.poke(FIRST, bytes);
  expect(await summarizePartition(disk, FOLDER, ID)).toEqual({
    ...before,
    oldestMs: (before.oldestMs ?? 0) + 1000,
    damagedHeaders: 1,
  });
});

test("a partition without segments is all zeros", async () => {
  const disk = new MemoryDisk();
  await disk.makeFolder(`${FOLDER}/orders/0`);
  expect(await summarizePartition(disk, FOLDER, ID)).toMatchObject({
    segments: 0,
    bytes: 0,
    offsetEnd: 0,
    oldestMs: null,
    newestMs: null,
  });
});
