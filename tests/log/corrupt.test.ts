/** Corruption: remembered with its bytes until somebody accepts exactly that. */
import { expect, test } from "bun:test";
import { MemoryDisk } from "../sim/disk.ts";
import { ids, message, openLog, readAll } from "./support.ts";

const PLACE = { stream: "orders", index: 0 };
const FIRST = "/data/streams/orders/0/00000000000000000000.log";

async function written(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  for (const id of ["a", "b", "c", "d"]) await partition.append([message(id)]).durable;
  await partition.roll();
  await partition.append([message("e")]).durable;
  await log[Symbol.asyncDispose]();
  return disk;
}

function spoil(disk: MemoryDisk, text: string): void {
  const bytes = disk.bytes(FIRST);
  const at = bytes.indexOf(text);
  bytes.writeUInt8((bytes[at] ?? 0) ^ 1, at);
  disk.poke(FIRST, bytes);
}

test("damage that a reader meets is remembered with its bytes, accepted, and nothing else is", async () => {
  const disk = await written();
  spoil(disk, "body of b");
  const first = await openLog(disk);
  expect(first.log.corruptions()).toEqual([]);
  const gap = readAll(first.log.partition(PLACE), 1);
  await expect(gap).rejects.toMatchObject({ from: 1, to: 2, reason: "corrupt" });
  expect(first.log.corruptions()).toMatchObject([{ path: FIRST, from: 1, to: 2 }]);
  const [copy] = disk.paths().filter((path) => /damaged\/.*\.bin$/.test(path));
  expect(disk.bytes(copy ?? "").includes("cody of b")).toBe(true);
  await first.log[Symbol.asyncDispose]();

  const second = await openLog(disk);
  expect(second.log.corruptions()).toMatchObject([{ from: 1, to: 2 }]);
  expect(second.warnings.join()).toContain("messages 1 to 1 are damaged");
  await second.log[Symbol.asyncDispose]();

  const third = await openLog(disk, undefined, { acceptCorruption: true });
  expect(third.log.corruptions()).toEqual([]);
  await third.log[Symbol.asyncDispose]();

  const fourth = await openLog(disk);
  expect(fourth.log.corruptions()).toEqual([]);
  await expect(readAll(fourth.log.partition(PLACE), 1)).rejects.toMatchObject({ to: 2 });
  expect(fourth.log.corruptions()).toEqual([]);
  spoil(disk, "body of d");
  await expect(readAll(fourth.log.partition(PLACE), 2)).rejects.toMatchObject({ from: 3, to: 4 });
  expect(fourth.log.corruptions()).toMatchObject([{ from: 3, to: 4 }]);
  expect(ids(await readAll(fourth.log.partition(PLACE), 4))).toEqual(["e"]);
});
