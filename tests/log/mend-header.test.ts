/**
 * A damaged segment header: reported with file and byte, its bytes set aside, every message behind
 * it readable, the log not whole until somebody accepts that.
 */
import { describe, expect, test } from "bun:test";
import { GapError } from "../../src/errors.ts";
import { SEGMENT_HEADER_BYTES } from "../../src/log/segment.ts";
import { encodeText } from "../../src/message.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { ids, message, openLog, readAll } from "./support.ts";

const PLACE = { stream: "orders", index: 0 };
const FOLDER = "/data/streams/orders/0";
const FIRST = `${FOLDER}/00000000000000000000.log`;
const NEWEST = `${FOLDER}/00000000000000000003.log`;
const NAMES = ["a", "b", "c", "d", "e", "f"];

interface Written {
  readonly disk: MemoryDisk;
  readonly epoch: string;
}

/** Three messages in a sealed segment with keys, three in the newest one; one segment if `alone`. */
async function written(alone = false): Promise<Written> {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE, 4);
  for (const id of NAMES) {
    await partition.append([message(id)], { dedupeKeys: [id] }).durable;
    if (id === "c" && !alone) await partition.roll();
  }
  await log.states.save([["route", encodeText("{}")]]);
  await log[Symbol.asyncDispose]();
  return { disk, epoch: partition.epoch };
}

function change(
  disk: MemoryDisk,
  path: string,
  edit: (bytes: Buffer) => Buffer | undefined,
): Buffer {
  const bytes = disk.bytes(path);
  const before = Buffer.from(bytes.subarray(0, SEGMENT_HEADER_BYTES));
  disk.poke(path, edit(bytes) ?? bytes);
  return before;
}

/** Opens what was damaged, and expects all of it to be told and none of it to be lost. */
async function expectMended(
  { disk, epoch }: Written,
  path: string,
  head: Buffer,
): Promise<{ readonly epochIsKept: boolean }> {
  const first = await openLog(disk);
  const partition = first.log.partition(PLACE);
  expect(first.log.corruptions()).toMatchObject([{ path, byte: 0, bytes: SEGMENT_HEADER_BYTES }]);
  expect(first.warnings.join()).toContain("header of segment");
  const copies = disk.paths().filter((each) => /damaged\/.*\.bin$/.test(each));
  expect(copies.map((each) => disk.bytes(each).toString("hex"))).toContain(head.toString("hex"));
  expect(ids(await readAll(partition))).toEqual(NAMES);
  for (const id of NAMES) {
    const again = partition.append([message("again")], { dedupeKeys: [id] });
    await again.durable;
    expect(again.receipt(0).duplicate).toBe(true);
  }
  await partition.append([message("g")]).durable;
  await first.log[Symbol.asyncDispose]();

  const second = await openLog(disk);
  expect(second.log.corruptions()).toMatchObject([{ path }]);
  await second.log[Symbol.asyncDispose]();
  const third = await openLog(disk, undefined, { acceptCorruption: true });
  expect(third.log.corruptions()).toEqual([]);
  await third.log[Symbol.asyncDispose]();
  const fourth = await openLog(disk);
  expect(fourth.log.corruptions()).toEqual([]);
  expect(ids(await readAll(fourth.log.partition(PLACE)))).toEqual([...NAMES, "g"]);
  expect(fourth.log.streams().get("orders")).toBe(4);
  const epochIsKept = fourth.log.partition(PLACE).epoch === epoch;
  await fourth.log[Symbol.asyncDispose]();
  return { epochIsKept };
}

describe.each([
  ["a sealed segment", FIRST, false],
  ["the newest of two segments", NEWEST, false],
  ["the only segment", FIRST, true],
])("in the header of %s", (_, path, alone) => {
  test("any one flipped bit costs nothing, the epoch neither", async () => {
    const whole = await written(alone);
    for (let bit = 0; bit < SEGMENT_HEADER_BYTES * 8; bit++) {
      const own = { ...whole, disk: whole.disk.kill() };
      const flipped = change(own.disk, path, (bytes) => {
        bytes.writeUInt8((bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7)), bit >> 3);
        return bytes;
      });
      const head = Buffer.from(flipped);
      head.writeUInt8((head[bit >> 3] ?? 0) ^ (1 << (bit & 7)), bit >> 3);
      expect(await expectMended(own, path, head)).toEqual({ epochIsKept: true });
    }
  }, 60_000);
});

describe.each([
  ["a sealed segment", FIRST],
  ["the newest of two segments", NEWEST],
])("in the header of %s", (_, path) => {
  test("any one byte, and any run of them from a byte on, costs no message and no epoch", async () => {
    const whole = await written();
    for (let at = 0; at < SEGMENT_HEADER_BYTES; at++) {
      for (const end of [at + 1, SEGMENT_HEADER_BYTES]) {
        const own = { ...whole, disk: whole.disk.kill() };
        change(own.disk, path, (bytes) => {
          for (let each = at; each < end; each++) bytes.writeUInt8((bytes[each] ?? 0) ^ 0xa5, each);
          return bytes;
        });
        const head = own.disk.bytes(path).subarray(0, SEGMENT_HEADER_BYTES);
        expect(await expectMended(own, path, head)).toEqual({ epochIsKept: true });
      }
    }
  }, 60_000);
});

test("the only segment's header in zeros costs no message; that the epoch is another is told", async () => {
  const whole = await written(true);
  const first = await openLog(whole.disk.kill());
  expect(first.log.partition(PLACE).epoch).toBe(whole.epoch);
  change(whole.disk, FIRST, (bytes) => bytes.fill(0, 0, SEGMENT_HEADER_BYTES));
  const { log, warnings } = await openLog(whole.disk);
  expect(ids(await readAll(log.partition(PLACE)))).toEqual(NAMES);
  expect(log.partition(PLACE).epoch).not.toBe(whole.epoch);
  expect(warnings.join()).toContain("clients' cursors from before meet a gap");
  const { epoch } = log.partition(PLACE);
  await log[Symbol.asyncDispose]();
  const again = await openLog(whole.disk);
  expect(again.log.partition(PLACE).epoch).toBe(epoch);
  expect(again.log.corruptions()).toMatchObject([{ path: FIRST, from: 0, to: 0 }]);
});

test.each([0, 1, 63, SEGMENT_HEADER_BYTES])(
  "a sealed segment cut to %d bytes is a gap of its messages, told and set aside",
  async (length) => {
    const { disk, epoch } = await written();
    change(disk, FIRST, (bytes) => bytes.subarray(0, length));
    const { log } = await openLog(disk);
    const partition = log.partition(PLACE);
    const read = readAll(partition, 0);
    await expect(read).rejects.toThrow(GapError);
    await expect(read).rejects.toMatchObject({ from: 0, to: 3, reason: "corrupt" });
    expect(log.corruptions()).toMatchObject([{ path: FIRST, from: 0, to: 3 }]);
    expect(ids(await readAll(partition, 3))).toEqual(["d", "e", "f"]);
    expect(partition.epoch).toBe(epoch);
  },
);

test.each([0, 1, 63])(
  "a newest segment cut to %d bytes gets another epoch: its offsets are written anew",
  async (length) => {
    const { disk, epoch } = await written();
    change(disk, NEWEST, (bytes) => bytes.subarray(0, length));
    const { log, warnings } = await openLog(disk);
    const partition = log.partition(PLACE);
    expect(log.corruptions()).toMatchObject([{ path: NEWEST, byte: 0, bytes: length }]);
    expect(warnings.join()).toContain("no batch behind it can be read");
    expect(partition.epoch).not.toBe(epoch);
    expect(ids(await readAll(partition))).toEqual(["a", "b", "c"]);
    await partition.append([message("g")]).durable;
    expect(ids(await readAll(partition, 3))).toEqual(["g"]);
  },
);

test("saved progress behind a damaged header is kept; where it is lost, the start is refused", async () => {
  const { disk } = await written();
  const [path = ""] = disk.paths().filter((each) => /\$state.*\.log$/.test(each));
  change(disk, path, (bytes) => bytes.fill(0, 0, SEGMENT_HEADER_BYTES));
  const mended = await openLog(disk);
  expect(mended.log.stateNames("")).toEqual(["route"]);
  expect(mended.log.corruptions()).toMatchObject([{ path }]);
  await mended.log[Symbol.asyncDispose]();
  change(disk, path, (bytes) => bytes.fill(0));
  const before = disk.bytes(path);
  await expect(openLog(disk)).rejects.toThrow("saved progress is damaged");
  expect(disk.bytes(path)).toEqual(before);
  const accepted = await openLog(disk, undefined, { acceptCorruption: true });
  expect(accepted.log.stateNames("")).toEqual([]);
});

test("a mending that is cut off at any call is completed by the next start, and told", async () => {
  for (let call = 1; call < 80; call++) {
    const { disk } = await written();
    change(disk, NEWEST, (bytes) => bytes.fill(0, 0, SEGMENT_HEADER_BYTES));
    disk.failAfter({ call: "any", after: call, code: "EIO" });
    const isDone = await openLog(disk).then(
      () => true,
      () => false,
    );
    const { log } = await openLog(disk.kill());
    expect(log.corruptions()).toMatchObject([{ path: NEWEST, byte: 0 }]);
    expect(ids(await readAll(log.partition(PLACE)))).toEqual(NAMES);
    if (isDone) return;
  }
  throw new Error("the start never came to its end");
});

test("a header of another release refuses the start as it is", async () => {
  const { disk } = await written();
  change(disk, NEWEST, (bytes) => {
    bytes.writeUInt32LE(9, 8);
    bytes.writeUInt32LE(Bun.hash.crc32(bytes.subarray(0, 60)), 60);
    return bytes;
  });
  await expect(openLog(disk)).rejects.toThrow("format version 9");
});
