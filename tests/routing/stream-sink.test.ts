/** A stream as a target: what it says of a message's place is true, whenever it was known. */
import { expect, test } from "bun:test";
import { Streams } from "../../src/log/stream.ts";
import { StreamSink } from "../../src/routing/stream-sink.ts";
import { message, openLog } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";

function outgoing(offset: number) {
  const origin = { bridge: "rule", address: "r", partition: 0, offset: String(offset), hops: [] };
  return { message: message(`m${offset}`, { origin }), fields: { stream: "out" } };
}

test("the place of a message is told that had to wait for a look into sealed segments", async () => {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const sink = new StreamSink(new Streams(log), "route", Math.random);
  expect(await sink.send([outgoing(0), outgoing(1)])).toEqual([
    { sent: "partition 0 offset 0" },
    { sent: "partition 0 offset 1" },
  ]);
  await log.partition({ stream: "out", index: 0 }).roll();
  await log[Symbol.asyncDispose]();
  // The keys of sealed segments are not in memory yet: the append is made later than the call.
  const again = await openLog(disk);
  const next = new StreamSink(new Streams(again.log), "route", Math.random);
  expect(await next.send([outgoing(1), outgoing(2)])).toEqual([
    { sent: "partition 0 offset 1" },
    { sent: "partition 0 offset 2" },
  ]);
  await again.log[Symbol.asyncDispose]();
});
