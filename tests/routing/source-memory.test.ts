/** What a source keeps: found again by the next of its name on the same bridge, and by no other. */
import { expect, test } from "bun:test";
import { sourceKey } from "../../src/routing/source-key.ts";
import { sourceMemory } from "../../src/routing/source-memory.ts";
import { message, openLog } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";

test("a source finds what the one before it of its name kept on the same bridge", async () => {
  const { log } = await openLog(new MemoryDisk());
  const first = await sourceMemory(log.states, "s", "rabbit");
  await first.save([["place", Uint8Array.of(7)]]);
  const next = await sourceMemory(log.states, "s", "rabbit");
  expect(await next.load("place")).toEqual(Uint8Array.of(7));
  const other = await sourceMemory(log.states, "s2", "rabbit");
  expect(await other.load("place")).toBeNull();
});

test("a source on another bridge begins with nothing, and the old one's records go", async () => {
  const { log } = await openLog(new MemoryDisk());
  await (await sourceMemory(log.states, "s", "eu")).save([["place", Uint8Array.of(1)]]);
  await (await sourceMemory(log.states, "s.t", "eu")).save([["place", Uint8Array.of(2)]]);
  expect(await (await sourceMemory(log.states, "s", "us")).load("place")).toBeNull();
  expect(await (await sourceMemory(log.states, "s", "eu")).load("place")).toBeNull();
  expect(await (await sourceMemory(log.states, "s.t", "eu")).load("place")).toEqual(
    Uint8Array.of(2),
  );
});

test("a unique id is looked up whatever the broker says, and counts before a place", () => {
  const origin = { bridge: "b", address: "q", partition: 0, offset: "5", hops: [] };
  const at = (timestampMs: number) => message("x", { origin, timestampMs });
  const keyOf = (timestampMs: number, id: string | null) =>
    sourceKey("s", at(timestampMs), { id, isUnique: id !== null });
  expect(keyOf(1, "u")).toEqual(keyOf(2, "u"));
  expect(keyOf(1, "u")?.isLookedUp).toBe(true);
  expect(keyOf(1, "u")?.key).not.toBe(keyOf(1, "v")?.key);
  expect(keyOf(1, null)?.key).not.toBe(keyOf(2, null)?.key);
});
