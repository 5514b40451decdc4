/** One partition: durability, order, waiting, conditions, duplicates, sealed segments. */
import { describe, expect, test } from "bun:test";
import {
  ConflictError,
  GapError,
  LimitError,
  OffsetError,
  StorageError,
} from "../../src/errors.ts";
import { bodyBytesMax } from "../../src/limits.ts";
import { encodeText } from "../../src/message.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { ids, message, openLog, readAll } from "./support.ts";

const PLACE = { stream: "orders", index: 0 };
const never = new AbortController().signal;

describe("appending", () => {
  test("a receipt is durable only after the sync, and readers see nothing before it", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const partition = log.partition(PLACE);
    await partition.append([message("first")]).durable;
    const { promise, resolve } = Promise.withResolvers<void>();
    disk.holdSync = promise;
    const appended = partition.append([message("second")]);
    const settled: string[] = [];
    const done = appended.durable.then(() => settled.push("durable"));
    for (let turn = 0; turn < 20; turn++) await Bun.sleep(0);
    expect(settled).toEqual([]);
    expect(partition.offsetEnd).toBe(1);
    expect(ids(await readAll(partition))).toEqual(["first"]);
    resolve();
    await done;
    expect(partition.offsetEnd).toBe(2);
    expect(ids(await readAll(partition))).toEqual(["first", "second"]);
  });

  test("what arrives during a sync shares the next one", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const partition = log.partition(PLACE);
    await partition.append([message("m")]).durable;
    const { promise, resolve } = Promise.withResolvers<void>();
    disk.holdSync = promise;
    const waits = [partition.append([message("a")]).durable];
    await Bun.sleep(0);
    const before = disk.calls.sync;
    for (let index = 0; index < 100; index++) {
      waits.push(partition.append([message(`b${index}`)]).durable);
    }
    expect(new Set(waits.slice(1)).size).toBe(1);
    resolve();
    await Promise.all(waits);
    expect(disk.calls.sync - before).toBe(2);
    expect(partition.offsetEnd).toBe(102);
  });

  test("messages keep every byte, null and order", async () => {
    const { log } = await openLog(new MemoryDisk());
    const partition = log.partition(PLACE);
    const sent = message("x", {
      key: Uint8Array.of(0, 255, 1),
      headers: [
        { name: "a", value: Uint8Array.of(1, 2) },
        { name: "ä", value: null },
        { name: "a", value: new Uint8Array() },
      ],
      properties: { contentType: "text/plain", correlationId: Uint8Array.of(9, 0) },
      body: null,
      origin: { bridge: "b", address: "t", partition: 3, offset: "9", hops: ["h"] },
    });
    await partition.append([sent, message("y", { body: new Uint8Array() })]).durable;
    const [first, second] = await readAll(partition);
    expect(first?.key).toEqual(Buffer.from([0, 255, 1]));
    expect(
      first?.headers.map(({ name, value }) => [name, value === null ? null : [...value]]),
    ).toEqual([
      ["a", [1, 2]],
      ["ä", null],
      ["a", []],
    ]);
    expect(first?.properties).toEqual(sent.properties);
    expect(first?.origin).toEqual(sent.origin);
    expect(first?.body).toBeNull();
    expect(second?.body?.length).toBe(0);
    expect(second?.key).toBeNull();
  });

  test("a message over a bound is refused and its whole call leaves nothing behind", async () => {
    const { log } = await openLog(new MemoryDisk());
    const partition = log.partition(PLACE);
    const tooLarge = message("big", { body: new Uint8Array(bodyBytesMax + 1) });
    expect(() => partition.append([message("a"), tooLarge], { dedupeKeys: ["k", null] })).toThrow(
      LimitError,
    );
    const again = partition.append([message("b")], { dedupeKeys: ["k"] });
    await again.durable;
    expect(again.receipt(0)).toMatchObject({ offset: 0, duplicate: false });
    expect(ids(await readAll(partition))).toEqual(["b"]);
  });

  test("a condition on the end is kept or answered with the end", async () => {
    const { log } = await openLog(new MemoryDisk());
    const partition = log.partition(PLACE);
    await partition.append([message("a")], { expectedOffset: 0 }).durable;
    try {
      partition.append([message("b")], { expectedOffset: 0 });
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(ConflictError);
      expect((error as ConflictError).members).toEqual({ end: 1 });
    }
  });

  test("two at once with one dedupe key give one message and the same receipt", async () => {
    const { log } = await openLog(new MemoryDisk());
    const partition = log.partition(PLACE);
    const first = partition.append([message("a")], { dedupeKeys: ["key"] });
    const second = partition.append([message("b")], { dedupeKeys: ["key"] });
    await Promise.all([first.durable, second.durable]);
    expect(first.receipt(0)).toMatchObject({ offset: 0, duplicate: false });
    expect(second.receipt(0)).toMatchObject({ offset: 0, duplicate: true });
    expect(ids(await readAll(partition))).toEqual(["a"]);
  });

  test("a duplicate of what is being synced waits for that sync", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const partition = log.partition(PLACE);
    const { promise, resolve } = Promise.withResolvers<void>();
    disk.holdSync = promise;
    const first = partition.append([message("a")], { dedupeKeys: ["key"] });
    for (let turn = 0; turn < 10; turn++) await Bun.sleep(0);
    const second = partition.append([message("b")], { dedupeKeys: ["key"] });
    let isDurable = false;
    const done = second.durable.then(() => {
      isDurable = true;
    });
    for (let turn = 0; turn < 10; turn++) await Bun.sleep(0);
    expect(isDurable).toBe(false);
    resolve();
    await Promise.all([first.durable, done]);
    expect(partition.offsetEnd).toBe(1);
  });
});

describe("failures of the disk", () => {
  test("a failed sync acks nothing, is told once, and nothing is taken afterwards", async () => {
    const disk = new MemoryDisk();
    const { log, fatal } = await openLog(disk);
    const partition = log.partition(PLACE);
    await partition.append([message("a")]).durable;
    disk.failAfter({ call: "sync", after: 1, code: "EIO" });
    const waits = [
      partition.append([message("b")]).durable,
      partition.append([message("c")]).durable,
    ];
    const results = await Promise.allSettled(waits);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect(fatal.length).toBe(1);
    expect(() => partition.append([message("d")])).toThrow(StorageError);
    expect(ids(await readAll(partition))).toEqual(["a"]);
  });

  for (const code of ["ENOSPC", "EDQUOT"] as const) {
    test(`${code} refuses intake, deletes nothing, and passes when there is space again`, async () => {
      const disk = new MemoryDisk();
      const { log, fatal } = await openLog(disk);
      const partition = log.partition(PLACE);
      await partition.append([message("a")]).durable;
      disk.failAfter({ call: "write", after: 1, code });
      const refused = partition.append([message("b")], { dedupeKeys: ["key"] });
      await expect(refused.durable).rejects.toThrow(StorageError);
      expect(fatal).toEqual([]);
      const later = partition.append([message("c")], { dedupeKeys: ["key"] });
      await later.durable;
      expect(later.receipt(0)).toMatchObject({ offset: 1, duplicate: false });
      expect(ids(await readAll(partition))).toEqual(["a", "c"]);
      await log[Symbol.asyncDispose]();
      const again = await openLog(disk);
      expect(ids(await readAll(again.log.partition(PLACE)))).toEqual(["a", "c"]);
    });
  }
});

describe("reading", () => {
  test("a read at the end waits for the next message, and ends with null when aborted", async () => {
    const { log } = await openLog(new MemoryDisk());
    const partition = log.partition(PLACE);
    const waiting = partition.read(0, { messagesMax: 10, signal: never });
    await partition.append([message("a")]).durable;
    expect(ids([...((await waiting)?.messages ?? [])])).toEqual(["a"]);
    const controller = new AbortController();
    const aborted = partition.read(1, { messagesMax: 10, signal: controller.signal });
    controller.abort();
    expect(await aborted).toBeNull();
  });

  test("past the end is an error that says where the stream begins and ends", async () => {
    const { log } = await openLog(new MemoryDisk());
    const partition = log.partition(PLACE);
    await partition.append([message("a")]).durable;
    const reading = partition.read(5, { messagesMax: 1, signal: never });
    await expect(reading).rejects.toThrow(OffsetError);
    await expect(reading).rejects.toMatchObject({ earliest: 0, latest: 1 });
  });

  test("sealed segments are read from disk, and deleted ones leave a gap", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const partition = log.partition(PLACE);
    for (let round = 0; round < 3; round++) {
      const batch = Array.from({ length: 50 }, (_, index) => message(`${round}-${index}`));
      await partition.append(batch).durable;
      await partition.roll();
    }
    await log[Symbol.asyncDispose]();
    const again = (await openLog(disk)).log.partition(PLACE);
    expect((await readAll(again)).length).toBe(150);
    expect(ids(await readAll(again, 75))[0]).toBe("1-25");
    await again.dropOldest();
    const gap = again.read(10, { messagesMax: 1, signal: never });
    await expect(gap).rejects.toThrow(GapError);
    await expect(gap).rejects.toMatchObject({ from: 10, to: 50, reason: "retention" });
    expect((await readAll(again)).length).toBe(100);
  });

  test("a read keeps to the messages and bytes asked for, and gives at least one", async () => {
    const { log } = await openLog(new MemoryDisk());
    const partition = log.partition(PLACE);
    const body = encodeText("x".repeat(1000));
    await partition.append([1, 2, 3, 4].map((id) => message(`${id}`, { body }))).durable;
    const three = await partition.read(0, { messagesMax: 3, signal: never });
    expect(three?.next).toBe(3);
    const one = await partition.read(0, { messagesMax: 10, bytesMax: 10, signal: never });
    expect(one?.messages.length).toBe(1);
    const two = await partition.read(0, { messagesMax: 10, bytesMax: 2200, signal: never });
    expect(two?.next).toBe(2);
  });

  test("a small message at the end keeps no large buffer in memory", async () => {
    const { log } = await openLog(new MemoryDisk());
    const partition = log.partition(PLACE);
    await partition.append([message("a")]).durable;
    const [first] = await readAll(partition);
    expect(first?.body?.buffer.byteLength).toBeLessThan(1000);
  });

  test("a time finds the first message appended at or after it", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const partition = log.partition(PLACE);
    for (let index = 0; index < 6; index++) {
      await partition.append([message(`${index}`)]).durable;
      await Bun.sleep(3);
      if (index === 2) await partition.roll();
    }
    const all = await readAll(partition);
    for (const { appendedAtMs } of all) {
      const first = all.find((each) => each.appendedAtMs >= appendedAtMs)?.offset ?? -1;
      expect(await partition.offsetAt(appendedAtMs)).toBe(first);
    }
    expect(await partition.offsetAt(0)).toBe(0);
    expect(await partition.offsetAt(Number.MAX_SAFE_INTEGER)).toBe(6);
  });
});

test("dedupe keys are found after a restart, in sealed segments too", async () => {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  await partition.append([message("a")], { dedupeKeys: ["one"] }).durable;
  await partition.roll();
  await partition.append([message("b")], { dedupeKeys: ["two"] }).durable;
  await log[Symbol.asyncDispose]();
  const again = (await openLog(disk)).log.partition(PLACE);
  const one = again.append([message("c"), message("d")], { dedupeKeys: ["one", "two"] });
  await one.durable;
  expect([one.receipt(0), one.receipt(1)]).toMatchObject([
    { offset: 0, duplicate: true },
    { offset: 1, duplicate: true },
  ]);
});
