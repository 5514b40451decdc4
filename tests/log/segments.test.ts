/** Segments under trouble: sealed, deleted or not made while somebody reads or writes. */
import { describe, expect, test } from "bun:test";
import { CorruptionError, StorageError } from "../../src/errors.ts";
import { encodeText } from "../../src/message.ts";
import { SimulatedClock } from "../sim/clock.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { ids, message, openLog, readAll } from "./support.ts";

const PLACE = { stream: "orders", index: 0 };
const FOLDER = "/data/streams/orders/0";
const never = new AbortController().signal;

/** A log opened anew over segments of three messages each. */
async function sealed(segments: number) {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  for (let segment = 0; segment < segments; segment++) {
    await partition.append([0, 1, 2].map((n) => message(`${segment}.${n}`))).durable;
    if (segment < segments - 1) await partition.roll();
  }
  await log[Symbol.asyncDispose]();
  const again = await openLog(disk);
  return { ...again, disk, partition: again.log.partition(PLACE) };
}

describe("deleting a segment", () => {
  test("under a reader lets it finish, and is no damage", async () => {
    const { disk, log, partition } = await sealed(3);
    const { promise, resolve } = Promise.withResolvers<void>();
    disk.holdRead = promise;
    const reading = partition.read(0, { messagesMax: 3, signal: never });
    await Bun.sleep(0);
    const dropped = partition.dropOldest();
    for (let turn = 0; turn < 5; turn++) await Bun.sleep(0);
    disk.holdRead = null;
    resolve();
    expect(ids([...((await reading)?.messages ?? [])])).toEqual(["0.0", "0.1", "0.2"]);
    await dropped;
    expect(log.corruptions()).toEqual([]);
    expect(partition.offsetStart).toBe(3);
    await log[Symbol.asyncDispose]();
    expect(disk.openFiles).toBe(0);
  });

  test("while a time is looked for skips no other segment", async () => {
    const clock = new SimulatedClock();
    const disk = new MemoryDisk();
    const { log } = await openLog(disk, undefined, { clock });
    const partition = log.partition(PLACE);
    for (let segment = 0; segment < 4; segment++) {
      clock.wallMs += 1000;
      await partition.append([message(`${segment}`)]).durable;
      clock.wallMs += 1000;
      await partition.roll();
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    disk.holdRead = promise;
    const found = partition.offsetAt(1_700_000_001_500);
    await Bun.sleep(0);
    const dropped = partition.dropOldest();
    for (let turn = 0; turn < 5; turn++) await Bun.sleep(0);
    disk.holdRead = null;
    resolve();
    expect(await found).toBe(1);
    await dropped;
  });

  test("that the disk refuses is tried again, and nothing is lost from sight", async () => {
    const { disk, partition } = await sealed(3);
    disk.failAfter({ call: "remove", after: 2, code: "EIO" });
    await expect(partition.dropOldest()).rejects.toThrow(StorageError);
    expect((await readAll(partition)).length).toBe(9);
    await partition.dropOldest();
    expect(partition.offsetStart).toBe(3);
    expect(disk.paths().some((path) => path.includes("00000000000000000000"))).toBe(false);
  });
});

test("a time is found behind damage", async () => {
  const clock = new SimulatedClock();
  const disk = new MemoryDisk();
  const { log } = await openLog(disk, undefined, { clock });
  const partition = log.partition(PLACE);
  for (const id of ["a", "b", "c"]) {
    clock.wallMs += 1000;
    await partition.append([message(id)]).durable;
  }
  await partition.roll();
  clock.wallMs += 1000;
  await partition.append([message("d")]).durable;
  await log[Symbol.asyncDispose]();
  const path = `${FOLDER}/00000000000000000000.log`;
  const bytes = disk.bytes(path);
  const second = bytes.indexOf("IBAT", bytes.indexOf("IBAT") + 1);
  bytes.writeUInt8((bytes[second + 9] ?? 0) ^ 1, second + 9);
  disk.poke(path, bytes);
  const again = (await openLog(disk)).log.partition(PLACE);
  expect(await again.offsetAt(1_700_000_003_000)).toBe(2);
});

test("the time of an append never goes back, not even behind an empty segment", async () => {
  const clock = new SimulatedClock();
  const disk = new MemoryDisk();
  const { log } = await openLog(disk, undefined, { clock });
  const partition = log.partition(PLACE);
  await partition.append([message("a")]).durable;
  await partition.roll();
  const again = (await openLog(disk, undefined, { clock })).log.partition(PLACE);
  clock.wallMs -= 60_000;
  await again.append([message("b")]).durable;
  const times = (await readAll(again)).map(({ appendedAtMs }) => appendedAtMs);
  expect(times).toEqual(times.toSorted((a, b) => a - b));
});

describe("a segment that can't be made", () => {
  test("leaves no file open, however often it is tried", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const partition = log.partition(PLACE);
    for (let attempt = 0; attempt < 5; attempt++) {
      disk.failAfter({ call: "write", after: 1, code: "ENOSPC" });
      await expect(partition.append([message("a")]).durable).rejects.toThrow(StorageError);
    }
    expect(disk.openFiles).toBe(0);
    await partition.append([message("b")]).durable;
    expect(ids(await readAll(partition))).toEqual(["b"]);
  });

  for (const call of ["sync", "rename"] as const) {
    for (const after of call === "sync" ? [1, 2] : [1]) {
      test(`because ${call} ${after} fails ends the process, when time seals too`, async () => {
        const disk = new MemoryDisk();
        const { log, fatal } = await openLog(disk);
        const partition = log.partition(PLACE);
        await partition.append([message("a")]).durable;
        disk.failAfter({ call, after, code: "EIO" });
        await expect(partition.roll()).rejects.toThrow(StorageError);
        expect(fatal.length).toBe(1);
        expect(() => partition.append([message("b")])).toThrow(StorageError);
      });
    }
  }
});

test("a segment that holds nothing but a mark is not sealed: the next would have its name", async () => {
  const disk = new MemoryDisk();
  const clock = new SimulatedClock();
  const { log } = await openLog(disk, undefined, { clock, segmentBytes: 400 });
  const partition = log.partition(PLACE);
  const body = encodeText("x".repeat(300));
  await partition.append([message("a", { body })]).durable;
  await partition.roll();
  const end = partition.byteLength;
  const isMarked = (): boolean => partition.byteLength > end;
  // The mark comes some time after a commit that left the new segment empty.
  disk.failAfter({ call: "write", after: 1, code: "ENOSPC" });
  await expect(partition.append([message("b", { body })]).durable).rejects.toThrow(StorageError);
  for (let turn = 0; turn < 100 && !isMarked(); turn++) await Bun.sleep(1);
  await partition.append([message("c", { body }), message("d", { body })]).durable;
  const bases = partition.segments.map(({ baseOffset }) => baseOffset);
  expect(new Set(bases).size).toBe(bases.length);
  await partition.dropOldest();
  await log[Symbol.asyncDispose]();
  const again = (await openLog(disk)).log.partition(PLACE);
  expect(ids(await readAll(again))).toEqual(["c", "d"]);
});

test("half-written bytes that can't be cut end the process", async () => {
  const disk = new MemoryDisk();
  const { log, fatal } = await openLog(disk);
  const partition = log.partition(PLACE);
  await partition.append([message("a")]).durable;
  disk.failAfter({ call: "write", after: 1, code: "ENOSPC" });
  disk.failAfter({ call: "truncate", after: 1, code: "EIO" });
  await expect(partition.append([message("b")]).durable).rejects.toThrow(StorageError);
  expect(fatal.length).toBe(1);
});

describe("states", () => {
  test("that can't be saved at the end do not keep the log from closing", async () => {
    const disk = new MemoryDisk();
    const { log, warnings } = await openLog(disk);
    await log.partition(PLACE).append([message("a")]).durable;
    const saving = log.states.save([["k", encodeText("v")]]);
    disk.failAfter({ call: "write", after: 1, code: "ENOSPC" });
    const closing = log[Symbol.asyncDispose]();
    await expect(saving).rejects.toThrow(StorageError);
    await closing;
    expect(disk.openFiles).toBe(0);
    expect(warnings.length).toBe(1);
  });

  test("that are damaged refuse the start, with file and byte", async () => {
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    await log.states.save([["k", encodeText("value one")]]);
    await log.states.save([["k", encodeText("value two")]]);
    await log[Symbol.asyncDispose]();
    const path = "/data/streams/$state/0/00000000000000000000.log";
    const bytes = disk.bytes(path);
    const at = bytes.indexOf("value one");
    bytes.writeUInt8((bytes[at] ?? 0) ^ 1, at);
    disk.poke(path, bytes);
    const opening = openLog(disk);
    await expect(opening).rejects.toThrow(CorruptionError);
    await expect(opening).rejects.toMatchObject({ path });
  });

  test("are saved although the snapshot behind them fails, and it is not tried at each save", async () => {
    const disk = new MemoryDisk();
    const clock = new SimulatedClock();
    const { log } = await openLog(disk, undefined, { clock, stateLogBytes: 2000 });
    const value = new Uint8Array(500);
    for (let index = 0; index < 3; index++) await log.states.save([[`k${index}`, value]]);
    // The save itself opens nothing; the snapshot's segment does.
    disk.failAfter({ call: "open", after: 1, code: "ENOSPC" });
    for (let index = 3; index < 6; index++) await log.states.save([[`k${index}`, value]]);
    await log[Symbol.asyncDispose]();
    const again = await openLog(disk);
    expect(again.log.stateNames("k").length).toBe(6);
  });
});
