/** One message into many: `each` on a stream target, over a real log and real routes. */
import { expect, test } from "bun:test";
import { eachItemsMax } from "../../src/limits.ts";
import type { Stream } from "../../src/log/stream.ts";
import { decodeText, encodeText } from "../../src/message.ts";
import { StreamSink } from "../../src/routing/stream-sink.ts";
import type { JsonObject } from "../../src/rules/document.ts";
import { parseDefinition } from "../../src/rules/parse.ts";
import { compileRule } from "../../src/rules/transform.ts";
import { message, openLog, readAll } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { waitFor } from "../temporary.ts";
import { rig } from "./support.ts";

const TO = { stream: "inbox", each: "body.members", key: "${item}" };

async function put(stream: Stream, id: string, body: unknown): Promise<void> {
  const bytes = encodeText(JSON.stringify(body));
  await stream.appendOne(message(id, { body: bytes })).durable;
}

async function inbox(stream: Stream) {
  const all = await Promise.all(stream.partitions.map((partition) => readAll(partition)));
  return all.flat().map(({ id, key, body, origin }) => ({
    id,
    key: decodeText(key ?? new Uint8Array()),
    body: decodeText(body ?? new Uint8Array()),
    from: origin?.offset,
  }));
}

function parse(to: JsonObject) {
  const rule = { from: "in", to };
  const options = { modules: new Map(), bridges: new Map() };
  return parseDefinition("rules", "r", rule, options) as Parameters<typeof compileRule>[1];
}

test("each element of a list gets the message, under its own key and id", async () => {
  const { log } = await openLog(new MemoryDisk());
  const run = rig(log);
  await run.rule({ from: "in", start: "earliest", to: TO });
  const body = { text: "hi", members: ["ann", "bob", "cleo"] };
  await put(run.streams.stream("in"), "m", body);
  await put(run.streams.stream("in"), "empty", { members: [] });
  await put(run.streams.stream("in"), "none", { text: "hi" });
  await put(run.streams.stream("in"), "text", { members: "ann" });
  await waitFor("all are finished", () => run.routes.statuses()[0]?.offset === 4);
  const text = JSON.stringify(body);
  expect(await inbox(run.streams.stream("inbox"))).toEqual([
    { id: "m.0", key: "ann", body: text, from: "0" },
    { id: "m.1", key: "bob", body: text, from: "0" },
    { id: "m.2", key: "cleo", body: text, from: "0" },
  ]);
  const counts = run.routes.statuses()[0]?.counts;
  expect(counts).toMatchObject({ delivered: 1, filtered: 1, deadLettered: 2 });
  await run.stop();
  await log[Symbol.asyncDispose]();
});

test("a crash between the append and the saved cursor repeats nothing, half or whole", async () => {
  const { log } = await openLog(new MemoryDisk());
  const run = rig(log);
  const { streams } = run;
  const rule = compileRule("r", parse(TO), new Map());
  await put(streams.stream("in"), "m", { members: ["a", "b", "c", "a"] });
  const [stored] = await readAll(streams.stream("in").partitions[0] ?? expect.unreachable());
  const all = rule.targets[0]?.renderAll?.(stored ?? expect.unreachable()) ?? [];
  const sink = new StreamSink(streams, "route", () => 0.5);
  // The first half was on disk when the process died.
  await sink.send(all.slice(0, 2));
  const again = new StreamSink(streams, "route", () => 0.5);
  await again.send(all);
  await again.send(all);
  const found = await inbox(streams.stream("inbox"));
  expect(found.map(({ id, key }) => [id, key])).toEqual([
    ["m.0", "a"],
    ["m.1", "b"],
    ["m.2", "c"],
    ["m.3", "a"],
  ]);
  await run.stop();
  await log[Symbol.asyncDispose]();
});

test("a list that is too long is a failure of its message, and stops no other", async () => {
  const { log } = await openLog(new MemoryDisk());
  const run = rig(log);
  await run.rule({ from: "in", start: "earliest", to: TO });
  const members = Array.from({ length: eachItemsMax + 1 }, (_, n) => `m${n}`);
  await put(run.streams.stream("in"), "long", { members });
  await put(run.streams.stream("in"), "large", { members: ["a", "b"], pad: "x".repeat(9 << 20) });
  await put(run.streams.stream("in"), "fine", { members: members.slice(0, 1000) });
  await waitFor("all are finished", () => run.routes.statuses()[0]?.offset === 3);
  expect(run.routes.statuses()[0]?.counts).toMatchObject({ delivered: 1, deadLettered: 2 });
  const found = await inbox(run.streams.stream("inbox"));
  expect(new Set(found.map(({ key }) => key)).size).toBe(1000);
  await run.stop();
  await log[Symbol.asyncDispose]();
});

test("item is only where each is, each only on streams, and both are checked early", () => {
  expect(() => parse({ stream: "inbox", key: "${item}" })).toThrow(/item/);
  expect(() => parse({ stream: "inbox", each: "body.", key: "${item}" })).toThrow();
  expect(() => parse({ stream: "inbox", each: "body.members", key: 7 })).toThrow(/key/);
  expect(() => parse({ bridge: "b", each: "body.members" })).toThrow(/each works for streams/);
  const { to } = parse({ stream: "in.${item}", each: "body.members" });
  expect(to[0]).toMatchObject({ to: { stream: "in.${item}" }, each: "body.members" });
});
