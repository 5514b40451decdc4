/**
 * Writes the fixture of a format version: two small data folders and what is in them, in words.
 * Run with the code of the release whose format it is, once, before the format changes:
 *
 *   bun tests/log/format-fixture-write.ts tests/log/fixtures/vN
 *
 * `stopped` was closed in order, `killed` was not and ends in bytes that were never whole. The
 * fixture of a release is never written anew.
 */
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { StoredRecord } from "../../src/log/record.ts";
import { encodeText, type Message } from "../../src/message.ts";
import { SimulatedClock } from "../sim/clock.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { Random } from "../sim/random.ts";
import { message, openLog, readAll } from "./support.ts";

const FOLDER = "/data/streams";
const target = process.argv[2];
if (target === undefined) throw new Error("say where to: tests/log/fixtures/vN");

type Dedupe = readonly (string | null)[];

/** What every kind of message looks like. */
function kinds(name: string): readonly Message[] {
  const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
  return [
    message(`${name}-plain`),
    message(`${name}-keyed`, { key: encodeText("customer é 1") }),
    message(`${name}-key-of-no-bytes`, { key: new Uint8Array(0), body: new Uint8Array(0) }),
    message(`${name}-tombstone`, { key: bytes.slice(0, 40), body: null }),
    message(`${name}-headers`, {
      headers: [
        { name: "x-one", value: encodeText("1") },
        { name: "x-one", value: bytes },
        { name: "x-null", value: null },
        { name: "x-empty", value: new Uint8Array(0) },
      ],
    }),
    message(`${name}-described`, {
      properties: { contentType: "application/json", priority: 4, expiresAtMs: 1_900_000_000_000 },
      origin: {
        bridge: "k",
        address: "in",
        partition: 3,
        offset: "90071992547409930",
        hops: ["a"],
      },
      body: encodeText('{"amount":12}'),
      timestampMs: 1_699_999_999_999,
    }),
    // Over the bytes of one batch, so that it has one of its own.
    message(`${name}-large`, { body: new Uint8Array(name === "second-0" ? 70_000 : 700).fill(7) }),
  ];
}

/** Time that stands still once it is told to: what waits for it never happens. */
class StillClock extends SimulatedClock {
  isStill = false;

  override async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (this.isStill) await new Promise<never>(() => undefined);
    await super.sleep(ms, signal);
  }
}

async function write(disk: MemoryDisk, clock: StillClock, isStopped: boolean): Promise<void> {
  const random = new Random(isStopped ? 1 : 2);
  const options = { clock, random: (count: number) => random.bytes(count), stateLogBytes: 600 };
  const { log } = await openLog(disk, FOLDER, options);
  for (let save = 0; save < 8; save++) {
    const value = JSON.stringify({ next: save, more: "x".repeat(80) });
    await log.states.save([
      ["route/copy", encodeText(value)],
      ["client/phone", encodeText(`at ${save}`)],
      ["gone", save < 7 ? encodeText("still here") : null],
    ]);
  }
  for (const index of [0, 1]) {
    const partition = log.partition({ stream: "orders", index }, 2);
    for (const part of ["first", "second", "third"]) {
      const messages = kinds(`${part}-${index}`);
      const dedupeKeys: Dedupe = messages.map(({ id }, at) =>
        at % 2 === 0 ? `key of ${id}` : null,
      );
      await partition.append(messages, { dedupeKeys }).durable;
      clock.wallMs += 1000;
      // The last group of all is on disk, and no mark says so.
      clock.isStill = !isStopped && index === 1 && part === "third";
      await partition.append([message(`${part}-${index}-last`)]).durable;
      if (part !== "third") await partition.roll();
      clock.wallMs += 60_000;
    }
  }
  if (isStopped) await log[Symbol.asyncDispose]();
}

/** A group that a kill or a power cut left half-way at the end of a file. */
function tear(disk: MemoryDisk): void {
  const newest = disk.paths().findLast((path) => /orders\/1\/\d+\.log$/.test(path)) ?? "";
  const bytes = disk.bytes(newest);
  const batch = bytes.indexOf("IBAT");
  disk.poke(newest, Buffer.concat([bytes, bytes.subarray(batch, batch + 100)]));
}

/** All that a reader of this release gets, in JSON. */
async function contentOf(disk: MemoryDisk): Promise<unknown> {
  const { log } = await openLog(disk.kill());
  const base64 = (bytes: Uint8Array | null): string | null =>
    bytes === null ? null : Buffer.from(bytes).toString("base64");
  const partitions = [];
  for (const index of [0, 1]) {
    const partition = log.partition({ stream: "orders", index });
    const messages = ((await readAll(partition)) as StoredRecord[]).map((each) => ({
      id: each.id,
      offset: each.offset,
      appendedAtMs: each.appendedAtMs,
      timestampMs: each.timestampMs,
      key: base64(each.key),
      headers: each.headers.map(({ name, value }) => [name, base64(value)]),
      properties: each.properties,
      origin: each.origin,
      dedupeKey: each.dedupeKey,
      // The large one in short: what it holds is told by its length and its checksum.
      body: each.body === null ? null : [each.body.length, Bun.hash.crc32(each.body)],
    }));
    partitions.push({ stream: "orders", index, epoch: partition.epoch, messages });
  }
  const states: Record<string, string | null> = {};
  for (const name of ["route/copy", "client/phone", "gone"]) {
    states[name] = base64(await log.states.load(name));
  }
  const streams = Object.fromEntries(log.streams());
  await log[Symbol.asyncDispose]();
  return { streams, partitions, states };
}

for (const end of ["stopped", "killed"]) {
  const disk = new MemoryDisk();
  await disk.makeFolder("/data");
  await write(disk, new StillClock(), end === "stopped");
  if (end === "killed") tear(disk);
  for (const path of disk.paths()) {
    const file = join(target, end, path.slice("/data/".length));
    await mkdir(dirname(file), { recursive: true });
    await Bun.write(file, disk.bytes(path));
  }
  const content = JSON.stringify(await contentOf(disk), null, 1);
  await Bun.write(join(target, `${end}.json`), `${content}\n`);
}
