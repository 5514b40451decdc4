/** Recovery: torn is not corrupt, nothing synced is lost, nothing is invented, twice is once. */
import { describe, expect, test } from "bun:test";
import { GapError } from "../../src/errors.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { ids, message, openLog, readAll } from "./support.ts";

const PLACE = { stream: "orders", index: 0 };
const FIRST = "/data/streams/orders/0/00000000000000000000.log";

/** A disk with three groups of messages, left without a clean stop. */
async function written(groups: readonly (readonly string[])[]): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  for (const group of groups) await partition.append(group.map((id) => message(id))).durable;
  return disk;
}

async function recovered(disk: MemoryDisk) {
  const { log, warnings } = await openLog(disk);
  const partition = log.partition(PLACE);
  return { log, partition, warnings };
}

test("a file cut at every byte gives back exactly the groups that were whole", async () => {
  const whole = (await written([["a", "b"], ["c"], ["d", "e"]])).bytes(FIRST);
  const ends = new Set<string>();
  for (let length = 64; length <= whole.length; length++) {
    const disk = await written([["a", "b"], ["c"], ["d", "e"]]);
    disk.poke(FIRST, whole.subarray(0, length));
    const { partition, log } = await recovered(disk);
    const text = ids(await readAll(partition)).join("");
    expect("abcde".startsWith(text)).toBe(true);
    expect(["", "ab", "abc", "abcde"]).toContain(text);
    ends.add(text);
    await partition.append([message("z")]).durable;
    expect(ids(await readAll(partition)).join("")).toBe(`${text}z`);
    await log[Symbol.asyncDispose]();
  }
  expect(ends.size).toBe(4);
});

test("what is behind the tail is cut and a copy is kept", async () => {
  const disk = await written([["a"], ["b"]]);
  const bytes = disk.bytes(FIRST);
  disk.poke(FIRST, Buffer.concat([bytes, Buffer.from("garbage that was never promised")]));
  const { partition, warnings } = await recovered(disk);
  expect(ids(await readAll(partition))).toEqual(["a", "b"]);
  expect(warnings.join()).toContain("torn");
  expect(disk.paths().some((path) => path.includes("torn-"))).toBe(true);
});

describe("a flipped bit", () => {
  test("in what was synced is reported with file and byte, and the rest stays readable", async () => {
    const disk = await written([["a"], ["b"], ["c"], ["d"]]);
    const bytes = disk.bytes(FIRST);
    const at = bytes.indexOf("body of b");
    bytes.writeUInt8((bytes[at] ?? 0) ^ 1, at);
    disk.poke(FIRST, bytes);
    const { log, partition, warnings } = await recovered(disk);
    expect(warnings.join()).toContain("messages 1 to 1 are damaged");
    expect(log.corruptions()).toMatchObject([{ path: FIRST, from: 1, to: 2 }]);
    const { signal } = new AbortController();
    const gap = partition.read(1, { messagesMax: 1, signal });
    await expect(gap).rejects.toThrow(GapError);
    await expect(gap).rejects.toMatchObject({ from: 1, to: 2, reason: "corrupt" });
    expect(ids(await readAll(partition, 2))).toEqual(["c", "d"]);
  });

  test("anywhere is never passed over in silence and never invents a message", async () => {
    const groups = [["a", "b"], ["c"], ["d"]];
    const whole = (await written(groups)).bytes(FIRST);
    for (let at = 64; at < whole.length; at++) {
      const disk = await written(groups);
      const bytes = Buffer.from(whole);
      bytes.writeUInt8((bytes[at] ?? 0) ^ (1 << (at % 8)), at);
      disk.poke(FIRST, bytes);
      const { log, partition, warnings } = await recovered(disk);
      const read: string[] = [];
      let offset = partition.offsetStart;
      while (offset < partition.offsetEnd) {
        const lost = log.corruptions().find(({ from, to }) => offset >= from && offset < to);
        if (lost !== undefined) {
          offset = lost.to;
          continue;
        }
        const { signal } = new AbortController();
        const batch = await partition.read(offset, { messagesMax: 1, signal });
        read.push(...ids([...(batch?.messages ?? [])]));
        offset = batch?.next ?? partition.offsetEnd;
      }
      expect(read.every((id) => "abcd".includes(id))).toBe(true);
      expect(read.length < 4).toBe(true);
      expect(warnings.length).toBeGreaterThan(0);
    }
  });
});

test("recovering twice gives the same messages and the same bytes", async () => {
  const disk = await written([["a"], ["b", "c"]]);
  const first = await recovered(disk);
  const once = disk.paths().map((path) => [path, disk.bytes(path).toString("hex")]);
  expect(ids(await readAll(first.partition))).toEqual(["a", "b", "c"]);
  const second = await recovered(disk);
  const twice = disk.paths().map((path) => [path, disk.bytes(path).toString("hex")]);
  expect(twice).toEqual(once);
  expect(ids(await readAll(second.partition))).toEqual(["a", "b", "c"]);
});
