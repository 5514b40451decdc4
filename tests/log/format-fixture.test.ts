/**
 * What every released format version has left must still open, message for message: the fixtures
 * were written by the code of that release (`format-fixture-write.ts`) and are never written anew.
 */
import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { FileLog } from "../../src/log/files.ts";
import type { StoredRecord } from "../../src/log/record.ts";
import { listPartitions, verifyPartition } from "../../src/log/verify.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { message, openLog, readAll } from "./support.ts";

const FIXTURES = join(import.meta.dir, "fixtures");
const FOLDER = "/data/streams";

interface Content {
  readonly streams: Readonly<Record<string, number>>;
  readonly partitions: readonly {
    readonly stream: string;
    readonly index: number;
    readonly epoch: string;
    readonly messages: readonly { readonly offset: number; readonly dedupeKey: string | null }[];
  }[];
  readonly states: Readonly<Record<string, string | null>>;
}

/** A disk that holds what a fixture's folder does. */
async function diskOf(folder: string): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  for (const path of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    if (!/\.\w+$/.test(path)) continue;
    const parent = join("/data", path, "..");
    await disk.makeFolder(parent);
    const file = await disk.open(join("/data", path), "create");
    file.write(await readFile(join(folder, path)), 0);
    await file.sync();
    await file.close();
    await disk.syncFolder(parent);
  }
  return disk;
}

function base64(bytes: Uint8Array | null): string | null {
  return bytes === null ? null : Buffer.from(bytes).toString("base64");
}

/** Messages in the words of the fixture. */
function told(messages: readonly StoredRecord[]): unknown {
  return messages.map((each) => ({
    id: each.id,
    offset: each.offset,
    appendedAtMs: each.appendedAtMs,
    timestampMs: each.timestampMs,
    key: base64(each.key),
    headers: each.headers.map(({ name, value }) => [name, base64(value)]),
    properties: each.properties,
    origin: each.origin,
    dedupeKey: each.dedupeKey,
    body: each.body === null ? null : [each.body.length, Bun.hash.crc32(each.body)],
  }));
}

async function expectContent(log: FileLog, content: Content): Promise<void> {
  expect(Object.fromEntries(log.streams())).toEqual(content.streams);
  expect(log.corruptions()).toEqual([]);
  for (const { stream, index, epoch, messages } of content.partitions) {
    const partition = log.partition({ stream, index });
    expect(partition.epoch).toBe(epoch);
    const held = (await readAll(partition)) as StoredRecord[];
    expect(told(held.slice(0, messages.length))).toEqual(messages);
    for (const { dedupeKey, offset } of messages) {
      if (dedupeKey === null) continue;
      const again = partition.append([message("again")], { dedupeKeys: [dedupeKey] });
      await again.durable;
      expect(again.receipt(0)).toMatchObject({ offset, duplicate: true });
    }
  }
  for (const [name, value] of Object.entries(content.states)) {
    expect(base64(await log.states.load(name)), name).toBe(value);
  }
}

for (const version of readdirSync(FIXTURES)) {
  for (const end of ["stopped", "killed"]) {
    const folder = join(FIXTURES, version, end);

    test(`a log of ${version} that was ${end} opens with every message, key and state`, async () => {
      const content = JSON.parse(await readFile(`${folder}.json`, "utf8")) as Content;
      const disk = await diskOf(folder);
      const first = await openLog(disk);
      await expectContent(first.log, content);
      for (const { stream, index, messages } of content.partitions) {
        const partition = first.log.partition({ stream, index });
        expect(partition.offsetEnd).toBe(messages.length);
        const appended = partition.append([message("later")], { dedupeKeys: ["later"] });
        await appended.durable;
        expect(appended.receipt(0)).toMatchObject({ offset: messages.length, duplicate: false });
      }
      await first.log[Symbol.asyncDispose]();
      const second = await openLog(disk);
      await expectContent(second.log, content);
      expect((await readAll(second.log.partition({ stream: "orders", index: 1 }))).at(-1)?.id).toBe(
        "later",
      );
      await second.log[Symbol.asyncDispose]();
    });

    test(`a log of ${version} that was ${end} is verified without damage`, async () => {
      const disk = await diskOf(folder);
      for (const id of await listPartitions(disk, FOLDER)) {
        const { problems } = await verifyPartition(disk, FOLDER, id, { onBytes: () => undefined });
        expect(problems.map(({ kind }) => kind)).toEqual(
          end === "killed" && id.partition === 1 ? ["torn"] : [],
        );
      }
    });
  }
}
