/** Routes when everything around them lies, hangs, fails or is gone: none stops, none skips. */
import { afterEach, describe, expect, test } from "bun:test";
import { StorageError } from "../../src/errors.ts";
import { decodeText, encodeText } from "../../src/message.ts";
import type { JsonObject } from "../../src/rules/document.ts";
import { Progress } from "../../src/routing/progress.ts";
import { message, openLog, readAll } from "../log/support.ts";
import { SimulatedClock } from "../sim/clock.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { waitFor } from "../temporary.ts";
import { type Rig, type Revisions, rig, Target } from "./support.ts";

const TO = { bridge: "b", place: "x" };
const QUICK = { delayMin: 1, delayMax: 2, attempts: 3 };
const rigs: Rig[] = [];

afterEach(async () => {
  for (const each of rigs.splice(0)) await each.stop();
});

async function setUp(options: Parameters<typeof rig>[1] & { disk?: MemoryDisk } = {}) {
  const disk = options.disk ?? new MemoryDisk();
  const { log } = await openLog(disk);
  const made = rig(log, options);
  rigs.push(made);
  const put = async (...bodies: string[]): Promise<void> => {
    const sent = bodies.map((body) => message(body.slice(0, 40), { body: encodeText(body) }));
    await made.streams.stream("in").append(sent).durable;
  };
  return { ...made, log, disk, put };
}

async function drained({ routes }: Rig): Promise<void> {
  await waitFor("the route has passed all", () =>
    routes.statuses().every(({ offset, end }) => offset === end),
  );
}

async function texts(run: Rig, stream: string): Promise<string[]> {
  const partition = run.streams.stream(stream).partitions[0];
  if (partition === undefined) throw new Error("a stream has a partition");
  return (await readAll(partition)).map(({ body }) => decodeText(body ?? new Uint8Array()));
}

describe("a bridge that is gone while messages still belong to it", () => {
  test("is waited for, in plain words, and nothing else stands still", async () => {
    let hasBridge = true;
    const target = new Target();
    target.isDown = true;
    const run = await setUp({ target, hasBridge: () => hasBridge });
    await run.rule({ from: "in", to: TO });
    await run.put("a");
    hasBridge = false;
    target.isDown = false;
    await waitFor("the route says so", () =>
      run.routes.statuses().some(({ error }) => error?.includes("there is no bridge b") === true),
    );
    hasBridge = true;
    await drained(run);
    expect(target.texts).toEqual(["a"]);
  });
});

describe("a target that lies", () => {
  test("about every message being unsure is not flooded with repetitions", async () => {
    const target = new Target();
    let sends = 0;
    target.answer = () => {
      sends++;
      return { unknown: true };
    };
    const run = await setUp({ target });
    await run.rule({ from: "in", to: TO });
    await run.put("a");
    await waitFor("the first attempt", () => sends > 0);
    await Bun.sleep(100);
    expect(sends).toBeLessThan(5);
    target.answer = () => null;
    await drained(run);
  });

  test("by never opening does not keep a route from stopping", async () => {
    const target = new Target();
    target.opening = Promise.withResolvers<void>().promise;
    const run = await setUp({ target, clock: new SimulatedClock() });
    await run.rule({ from: "in", to: TO });
    await run.put("a");
    await waitFor("it is being opened", () => target.opened > 0);
    await run.routes.stopAll();
    expect(run.routes.statuses()).toEqual([]);
  });

  test("by never answering and never closing does not keep a route from stopping", async () => {
    const target = new Target();
    target.hold = Promise.withResolvers<void>().promise;
    target.closing = Promise.withResolvers<void>().promise;
    const run = await setUp({ target, clock: new SimulatedClock() });
    await run.rule({ from: "in", to: TO });
    await run.put("a");
    await waitFor("it was opened", () => target.opened > 0);
    await Bun.sleep(5);
    await run.routes.stopAll();
    expect(run.routes.statuses()).toEqual([]);
  });
});

test("a rule that blocks sends nothing behind a message whose set fails", async () => {
  const run = await setUp();
  await run.rule({ from: "in", set: { body: "${body.x}" }, to: TO, onFailure: "block" });
  await run.put('{"x":"a"}', '{"y":1}', '{"x":"c"}');
  await waitFor("it stands", () => run.routes.statuses().some(({ state }) => state === "blocked"));
  expect(run.target.texts).toEqual(["a"]);
  expect(run.routes.statuses()[0]).toMatchObject({ offset: 1 });
});

describe("a rule that was enabled again while the process was down", () => {
  test("goes on with what came while it was disabled", async () => {
    const disk = new MemoryDisk();
    const revisions: Revisions = new Map();
    const first = await setUp({ disk, revisions });
    await first.rule({ from: "in", to: TO });
    await first.rule({ from: "in", to: TO, enabled: false });
    await first.put("a");
    await first.stop();
    await first.log[Symbol.asyncDispose]();
    const second = await setUp({ disk, revisions });
    await second.rule({ from: "in", to: TO });
    await drained(second);
    expect(second.target.texts).toEqual(["a"]);
  });
});

describe("a full disk", () => {
  test("while a rule is applied leaves no route that never starts", async () => {
    const run = await setUp();
    await run.put("a");
    run.disk.failAfter({ call: "write", path: "$state", after: 1, code: "ENOSPC" });
    const document: JsonObject = { from: "in", to: [TO, { stream: "copy" }], start: "earliest" };
    await expect(run.rule(document)).rejects.toThrow(StorageError);
    await run.rule(document);
    await drained(run);
    expect(run.target.texts).toEqual(["a"]);
    expect(await texts(run, "copy")).toEqual(["a"]);
  });

  test("while a route is stopped does not leave it behind, dead", async () => {
    const run = await setUp();
    await run.rule({ from: "in", to: TO });
    await run.put("a");
    await drained(run);
    run.disk.failAfter({ call: "write", path: "$state", after: 1, code: "ENOSPC" });
    await run.routes.stopAll();
    expect(run.routes.statuses()).toEqual([]);
    await run.rule({ from: "in", to: TO });
    await run.put("b");
    await drained(run);
    expect(run.target.texts).toEqual(["a", "b"]);
  });
});

test("a rule made anew sends to a stream what the one before it had sent", async () => {
  const run = await setUp();
  await run.put("a");
  const document = { from: "in", to: { stream: "copy" }, start: "earliest" };
  await run.rule(document);
  await drained(run);
  await run.rule({ from: "in", to: { name: "other", stream: "elsewhere" } });
  await run.rule({ ...document, set: { body: "again ${text}" } });
  await drained(run);
  expect(await texts(run, "copy")).toEqual(["a", "again a"]);
});

test("a message refused again by a rule made anew is buried again", async () => {
  const target = new Target();
  target.answer = () => ({ refused: "no", final: true });
  const run = await setUp({ target });
  await run.put("a");
  const document = { from: "in", to: { name: "t", ...TO }, retry: QUICK, start: "earliest" };
  await run.rule(document);
  await drained(run);
  await run.rule({ from: "in", to: { name: "other", stream: "elsewhere" } });
  await run.rule(document);
  await drained(run);
  expect(await texts(run, "r.dead")).toEqual(["a", "a"]);
});

test("a stream that lost its end is followed from there, not silently skipped", async () => {
  const disk = new MemoryDisk();
  const revisions: Revisions = new Map();
  const first = await setUp({ disk, revisions });
  await first.rule({ from: "in", to: TO });
  await first.put("a", "b", "c");
  await drained(first);
  await first.stop();
  await first.log[Symbol.asyncDispose]();
  const path = "/data/streams/in/0/00000000000000000000.log";
  const second = await setUp({ disk: new MemoryDisk() });
  await second.put("a");
  await second.log[Symbol.asyncDispose]();
  // An older copy of the stream under newer states, as after restoring one folder alone.
  const restored = second.disk.bytes(path);
  const epoch = disk.bytes(path).subarray(24, 40);
  epoch.copy(restored, 24);
  restored.writeUInt32LE(Bun.hash.crc32(restored.subarray(0, 60)), 60);
  disk.poke(path, restored);
  const third = await setUp({ disk, revisions });
  await third.rule({ from: "in", to: TO });
  await third.put("new");
  await drained(third);
  expect(third.target.texts).toEqual(["new"]);
  expect(third.warnings.join()).toContain("in/0 ends at 1, the route had come to 3");
});

test("progress past the end begins at the end, with its newest revision", () => {
  const before = new Progress("0123456789abcdef", 0, [{ offset: 0, revision: 1 }]);
  before.take(
    [0, 1, 2, 3].map((offset) => ({ offset, appendedAtMs: 1 })),
    4,
  );
  for (const offset of [0, 1, 2, 3]) before.finish(offset, "delivered");
  before.swap(6, 2, new Set());
  before.swap(8, 3, new Set());
  const read = Progress.decode(before.encode(), { epoch: "0123456789abcdef", offsetEnd: 2 });
  expect(read?.next).toBe(2);
  expect(read?.revision).toBe(3);
  expect(read?.revisionAt(2)).toBe(3);
});
