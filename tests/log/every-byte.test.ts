/**
 * The log's files cut at every byte and flipped in every bit: what was whole comes back exactly,
 * what was not is told, and nothing else is ever read. A sample runs by default, all of it with
 * ISTHMUS_TEST_FULL=1; ISTHMUS_TEST_SEED repeats a sample.
 */
import { describe, expect, test } from "bun:test";
import { CorruptionError, GapError } from "../../src/errors.ts";
import { parseBatchHeader } from "../../src/log/batch.ts";
import type { FileLog } from "../../src/log/files.ts";
import type { FilePartition } from "../../src/log/partition.ts";
import { SEGMENT_HEADER_BYTES } from "../../src/log/segment.ts";
import { encodeText, type StoredMessage } from "../../src/message.ts";
import { SimulatedClock } from "../sim/clock.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { Random } from "../sim/random.ts";
import { message, openLog } from "./support.ts";

const isFull = process.env["ISTHMUS_TEST_FULL"] === "1";
const given = process.env["ISTHMUS_TEST_SEED"];
const seed = given === undefined ? Date.now() % 1_000_000_000 : Number(given);
const replay = `ISTHMUS_TEST_SEED=${seed}`;

const PLACE = { stream: "orders", index: 0 };
const OWN = "/data/streams/orders/0/";
const clock = new SimulatedClock();
const random = new Random(seed);

/** Groups of messages of one size, each group one append. A null between them rolls the segment. */
type Shape = readonly ({ readonly count: number; readonly bytes: number } | null)[];

const small = { count: 1, bytes: 60 };
const wide = { count: 60, bytes: 1000 };
const SHAPES: Readonly<Record<string, Shape>> = {
  "batches of one record": Array.from({ length: 40 }, () => small),
  "a batch of 64 KiB": [small, wide],
  "a batch over a roll": [small, small, wide, small, null, wide, small],
};

interface Written {
  readonly disk: MemoryDisk;
  /** What each message is, by offset. */
  readonly prints: readonly string[];
}

function print(each: StoredMessage): string {
  const { id, offset, key, body, headers, timestampMs } = each;
  const head = headers.map(({ name, value }) => `${name}=${Bun.hash(value ?? "null")}`);
  return [
    id,
    offset,
    timestampMs,
    Bun.hash(key ?? "null"),
    Bun.hash(body ?? "null"),
    ...head,
  ].join();
}

function open(disk: MemoryDisk) {
  return openLog(disk, "/data/streams", { clock });
}

async function written(shape: Shape): Promise<Written> {
  const disk = new MemoryDisk();
  await disk.makeFolder("/data");
  const { log } = await open(disk);
  const partition = log.partition(PLACE);
  const content = new Random(7);
  let count = 0;
  for (const group of shape) {
    if (group === null) {
      await partition.roll();
      continue;
    }
    const messages = Array.from({ length: group.count }, () =>
      message(`m${count++}`, {
        key: encodeText(`k${count % 5}`),
        headers: [{ name: "x-n", value: encodeText(String(count)) }],
        body: content.bytes(group.bytes),
      }),
    );
    const dedupeKeys = messages.map(({ id }) => `key of ${id}`);
    await partition.append(messages, { dedupeKeys }).durable;
  }
  await log.states.save([["route/a", encodeText('{"next":1}')]]);
  const prints = (await readOver(partition)).messages.map(print);
  await log[Symbol.asyncDispose]();
  expect(prints.length).toBe(count);
  return { disk, prints };
}

/** Everything that can be read, and the ranges that a gap with the reason `corrupt` told. */
async function readOver(partition: FilePartition) {
  const messages: StoredMessage[] = [];
  const lost: { from: number; to: number }[] = [];
  const { signal } = new AbortController();
  for (let offset = partition.offsetStart; offset < partition.offsetEnd; ) {
    try {
      const batch = await partition.read(offset, { messagesMax: 1000, signal });
      messages.push(...(batch?.messages ?? []));
      offset = batch?.next ?? partition.offsetEnd;
    } catch (error) {
      if (!(error instanceof GapError) || error.reason !== "corrupt") throw error;
      lost.push({ from: offset, to: error.to });
      offset = error.to;
    }
  }
  return { messages, lost };
}

interface BatchPlace {
  readonly start: number;
  readonly end: number;
  readonly from: number;
  readonly to: number;
}

/** Where the batches of a segment's bytes stand; marks have no offsets of their own. */
function batchesOf(bytes: Buffer): BatchPlace[] {
  const places: BatchPlace[] = [];
  for (let at = SEGMENT_HEADER_BYTES; ; ) {
    const header = parseBatchHeader(bytes, at, null);
    if (header === null) return places;
    const end = at + 64 + header.payloadBytes;
    const { baseOffset, count } = header;
    places.push({ start: at, end, from: baseOffset, to: baseOffset + count });
    at = end;
  }
}

function segmentsOf(disk: MemoryDisk): string[] {
  return disk.paths().filter((path) => path.startsWith(OWN) && path.endsWith(".log"));
}

/** All of a range, or a sample of it that always has its edges. */
function* sample(length: number, count: number): Generator<number> {
  if (isFull || count >= length) {
    for (let at = 0; at < length; at++) yield at;
    return;
  }
  for (let at = 0; at < count; at++) yield at < 70 ? at : random.below(length);
}

async function told(what: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new Error(`${replay}, ${what}: ${String(error)}`, { cause: error });
  }
}

describe("the newest segment cut at every byte", () => {
  let cuts = 0;

  for (const [name, shape] of Object.entries(SHAPES)) {
    test(`gives back exactly what was whole: ${name} (${replay})`, async () => {
      const { disk, prints } = await written(shape);
      const path = segmentsOf(disk).at(-1) ?? "";
      const whole = disk.bytes(path);
      const batches = batchesOf(whole);
      const base = batches[0]?.from ?? 0;
      for (const length of sample(whole.length, 1000)) {
        await told(`${name}, cut at ${length}`, async () => {
          const cut = disk.kill();
          cut.poke(path, whole.subarray(0, length));
          const left = batches.findLast(({ end }) => end <= length)?.to ?? base;
          await expectPrefix(cut, { prints: prints.slice(0, left), length });
        });
        cuts++;
      }
    }, 900_000);
  }

  test("is cut at 131,072 places or more when all of it runs", () => {
    expect(cuts).toBeGreaterThanOrEqual(isFull ? 131_072 : 2000);
  });
});

async function expectPrefix(
  disk: MemoryDisk,
  { prints, length }: { readonly prints: readonly string[]; readonly length: number },
): Promise<void> {
  const opened = (await open(disk)).log;
  const partition = opened.partition(PLACE);
  const { messages, lost } = await readOver(partition);
  // A file has its name only once its header is on disk: without it, it is damaged and told so.
  if (length < SEGMENT_HEADER_BYTES) expect(opened.corruptions().length).toBeGreaterThan(0);
  else expect(opened.corruptions()).toEqual([]);
  expect(lost).toEqual([]);
  expect(messages.map(print)).toEqual([...prints]);
  await opened[Symbol.asyncDispose]();
}

/** The log; null when the start is refused because of damage. */
async function openedOrRefused(disk: MemoryDisk): Promise<FileLog | null> {
  try {
    return (await open(disk)).log;
  } catch (error) {
    if (error instanceof CorruptionError) return null;
    throw error;
  }
}

interface Flip {
  readonly path: string;
  readonly bit: number;
}

/** What a flipped bit may cost: the batch that it is in, told; everything else is as it was. */
async function expectDetected({ disk, prints }: Written, { path, bit }: Flip): Promise<void> {
  const flipped = disk.kill();
  const bytes = flipped.bytes(path);
  const at = bit >> 3;
  const hit = path.endsWith(".log") ? batchesOf(bytes).find(({ end }) => at < end) : undefined;
  bytes.writeUInt8((bytes[at] ?? 0) ^ (1 << (bit & 7)), at);
  flipped.poke(path, bytes);
  const log = await openedOrRefused(flipped);
  if (log === null) {
    expect(path.includes("$state")).toBe(true);
    return;
  }
  const partition = log.partition(PLACE);
  const { messages, lost } = await readOver(partition);
  for (const each of messages) expect(print(each)).toBe(prints[each.offset] ?? "");
  const isLost = (offset: number): boolean =>
    lost.some(({ from, to }) => offset >= from && offset < to);
  const read = new Set(messages.map(({ offset }) => offset));
  const missing = prints.flatMap((_, offset) => (read.has(offset) ? [] : [offset]));
  for (const offset of missing) {
    expect(isLost(offset)).toBe(true);
    expect(hit !== undefined && offset >= hit.from && offset < hit.to).toBe(true);
  }
  const isHeader = path.endsWith(".log") && at < SEGMENT_HEADER_BYTES;
  if (isHeader) expect(missing).toEqual([]);
  if (isHeader || missing.length > 0) expect(log.corruptions().length).toBeGreaterThan(0);
  await expectKeys(partition, prints.length, new Set(missing));
  await log[Symbol.asyncDispose]();
}

/** Of what is still there, keys are known: one that stands anywhere, and the newest. */
async function expectKeys(
  partition: FilePartition,
  count: number,
  missing: ReadonlySet<number>,
): Promise<void> {
  for (const offset of [random.below(count), count - 1]) {
    if (missing.has(offset)) continue;
    const again = partition.append([message("again")], { dedupeKeys: [`key of m${offset}`] });
    await again.durable;
    expect(again.receipt(0)).toMatchObject({ offset, duplicate: true });
  }
}

describe("a flipped bit", () => {
  const shape: Shape = [small, wide, small, null, small, wide, null, wide, small];
  let all: Written | null = null;
  const once = async (): Promise<Written> => (all ??= await written(shape));

  test(`is detected, each of a window of 4 KiB (${replay})`, async () => {
    const made = await once();
    const path = segmentsOf(made.disk).at(-1) ?? "";
    const { length } = made.disk.bytes(path);
    // The end of a large batch, and the headers and records behind it up to the file's end.
    const start = length - 4096;
    for (const offset of sample(4096 * 8, 400)) {
      const bit = start * 8 + offset;
      await told(`${path}, bit ${bit}`, () => expectDetected(made, { path, bit }));
    }
  }, 900_000);

  test(`is detected anywhere, in segments, key files and saved progress (${replay})`, async () => {
    const made = await once();
    const files = made.disk
      .paths()
      .map((path) => ({ path, bits: made.disk.bytes(path).length * 8 }));
    const bits = files.reduce((sum, file) => sum + file.bits, 0);
    for (let count = isFull ? 100_000 : 1500; count > 0; count--) {
      let bit = random.below(bits);
      // One in four hits a small file, which hardly anything would by its share of the bytes.
      const small = random.chance(0.25) ? random.pick(files) : null;
      if (small !== null) bit = random.below(small.bits);
      const file = small ?? files.find((each) => (bit -= each.bits) < 0);
      if (file === undefined) throw new Error("the bit lies in no file");
      if (bit < 0) bit += file.bits;
      await told(`${file.path}, bit ${bit}`, () => expectDetected(made, { path: file.path, bit }));
    }
  }, 1_800_000);
});
