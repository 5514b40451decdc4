/**
 * A backup and a restore that are cut off at any call of the disk: the next one completes them, and
 * what comes out is what was backed up, message for message with keys, headers and saved progress.
 */
import { expect, test } from "bun:test";
import { GatewayError, StorageError } from "../../src/errors.ts";
import { backupLog } from "../../src/log/backup.ts";
import type { SmallFiles } from "../../src/log/manifest.ts";
import { restoreLog } from "../../src/log/restore.ts";
import type { StoredRecord } from "../../src/log/record.ts";
import { decodeText, encodeText } from "../../src/message.ts";
import { SimulatedClock } from "../sim/clock.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { message, openLog, readAll } from "./support.ts";

const PLACE = { stream: "orders", index: 0 };
const clock = new SimulatedClock();

/** Small files on the same disk. */
class FilesOf implements SmallFiles {
  readonly #disk: MemoryDisk;

  constructor(disk: MemoryDisk) {
    this.#disk = disk;
  }

  async read(path: string): Promise<string | null> {
    await Promise.resolve();
    return this.#disk.paths().includes(path) ? this.#disk.bytes(path).toString("utf8") : null;
  }

  async replace(path: string, text: string): Promise<void> {
    const spare = `${path}.tmp`;
    if (this.#disk.paths().includes(spare)) await this.#disk.remove(spare);
    const file = await this.#disk.open(spare, "create");
    try {
      file.write(encodeText(text), 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await this.#disk.rename(spare, path);
    await this.#disk.syncFolder(path.slice(0, path.lastIndexOf("/")));
  }

  makeFolder(path: string): Promise<void> {
    return this.#disk.makeFolder(path);
  }

  async remove(path: string): Promise<void> {
    if (this.#disk.paths().includes(path)) await this.#disk.remove(path);
  }
}

/** What a bridge keeps for its source; no text, let alone JSON. */
const ownBytes = new Uint8Array([0x7b, 0xff, 0, 1]);
async function written(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  await disk.makeFolder("/data");
  await disk.makeFolder("/store");
  const { log } = await openLog(disk, "/data/streams", { clock });
  const partition = log.partition(PLACE);
  for (let group = 0; group < 4; group++) {
    const messages = Array.from({ length: 3 }, (_, index) =>
      message(`m${group}-${index}`, {
        key: encodeText(`k${index}`),
        headers: [{ name: "x", value: index === 0 ? null : encodeText(String(group)) }],
        body: index === 2 ? null : encodeText(`body ${group} ${index}`),
      }),
    );
    await partition.append(messages, { dedupeKeys: messages.map(({ id }) => id) }).durable;
    if (group % 2 === 0) await partition.roll();
  }
  await log.states.save([
    ["route/a", encodeText(JSON.stringify({ epoch: partition.epoch }))],
    ["$source/s/b/own", ownBytes],
  ]);
  await new FilesOf(disk).replace("/data/definitions.json", '{"streams":{}}');
  await log[Symbol.asyncDispose]();
  // A damage that costs no message, so that there is a list of them.
  const first = "/data/streams/orders/0/00000000000000000000.log";
  const bytes = disk.bytes(first);
  bytes.writeUInt8(0, 0);
  disk.poke(first, bytes);
  const accepted = await openLog(disk, "/data/streams", { clock, acceptCorruption: true });
  await accepted.log[Symbol.asyncDispose]();
  return disk;
}

function backup(disk: MemoryDisk): Promise<unknown> {
  return backupLog({
    disk,
    files: new FilesOf(disk),
    dataFolder: "/data",
    target: "/store/copy",
    nowMs: () => clock.nowMs(),
    onFile: () => undefined,
  });
}

function restore(disk: MemoryDisk): Promise<unknown> {
  return restoreLog({
    disk,
    files: new FilesOf(disk),
    source: "/store/copy",
    dataFolder: "/other",
    random: (count) => crypto.getRandomValues(new Uint8Array(count)),
    onFile: () => undefined,
    open: async () => (await openLog(disk, "/other/streams", { clock })).log,
  });
}

/** What a log holds, but for its epoch. */
async function contentOf(disk: MemoryDisk, folder: string): Promise<unknown> {
  const { log } = await openLog(disk.kill(), `${folder}/streams`, { clock });
  const partition = log.partition(PLACE);
  const held = (await readAll(partition)) as StoredRecord[];
  const state = await log.states.load("route/a");
  const { epoch } = JSON.parse(state === null ? "{}" : decodeText(state)) as { epoch?: string };
  return {
    messages: held.map(({ id, offset, key, headers, body, dedupeKey, appendedAtMs }) => {
      return { id, offset, key, headers, body, dedupeKey, appendedAtMs };
    }),
    isOwnEpoch: epoch === partition.epoch,
    damages: log.damages().map((each) => ({ ...each, epoch: each.epoch === partition.epoch })),
    own: await log.states.load("$source/s/b/own"),
    definitions: disk.bytes(`${folder}/definitions.json`).toString("utf8"),
  };
}

/** Does a work whose `call`-th call of the disk fails; what a kill then leaves, and whether it did. */
async function cutOff(disk: MemoryDisk, call: number, work: (on: MemoryDisk) => Promise<unknown>) {
  disk.failAfter({ call: "any", after: call, code: "EIO" });
  try {
    await work(disk);
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error;
    expect(error).toBeInstanceOf(StorageError);
  }
  return { left: disk.kill(), wasCut: disk.mend() === 0 };
}

test("a backup that is cut off at any call is completed by the next one", async () => {
  const expected = await contentOf(await written(), "/data");
  for (let call = 1; call < 300; call++) {
    const { left, wasCut } = await cutOff(await written(), call, backup);
    await backup(left);
    await left.makeFolder("/other");
    await restore(left);
    expect(await contentOf(left, "/other"), `call ${call}`).toEqual(expected);
    if (!wasCut) return;
  }
  throw new Error("the backup never came to its end");
});

test("a restore that is cut off at any call is completed by the next one", async () => {
  const expected = await contentOf(await written(), "/data");
  for (let call = 1; call < 300; call++) {
    const disk = await written();
    await backup(disk);
    await disk.makeFolder("/other");
    const { left, wasCut } = await cutOff(disk, call, restore);
    // Without its marker all was done; only the sync of the marker's removal was told to fail.
    const files = left.paths().filter((path) => path.startsWith("/other/"));
    const isDone = files.length > 1 && !files.includes("/other/restore.json");
    if (!isDone) await restore(left);
    expect(await contentOf(left, "/other"), `call ${call}`).toEqual(expected);
    if (!wasCut) return;
  }
  throw new Error("the restore never came to its end");
});

test("a restored log knows the damages of the one that was backed up, and what was accepted", async () => {
  const disk = await written();
  const spoil = (text: string): string => {
    const path = disk.paths().find((each) => disk.bytes(each).includes(text)) ?? "";
    const bytes = disk.bytes(path);
    bytes.writeUInt8(0x21, bytes.indexOf(text));
    disk.poke(path, bytes);
    return path;
  };
  const opened = async (folder: string, acceptCorruption = false) =>
    (await openLog(disk, `${folder}/streams`, { clock, acceptCorruption })).log;
  spoil("body 0 1");
  const first = await opened("/data");
  await expect(readAll(first.partition(PLACE), 0)).rejects.toMatchObject({ to: 3 });
  await first[Symbol.asyncDispose]();
  await (await opened("/data", true))[Symbol.asyncDispose]();
  spoil("body 1 1");
  const second = await opened("/data");
  await expect(readAll(second.partition(PLACE), 3)).rejects.toMatchObject({ to: 6 });
  const known = second.damages();
  expect(known).toMatchObject([
    { from: 0, to: 0 },
    { from: 0, to: 3 },
    { from: 3, to: 6, acceptedAtMs: null },
  ]);
  await backup(disk);
  await second[Symbol.asyncDispose]();
  await disk.makeFolder("/other");
  await restore(disk);
  const restored = await opened("/other");
  const { epoch } = restored.partition(PLACE);
  expect(epoch).not.toBe(known[0]?.epoch ?? "");
  expect(restored.damages()).toEqual(known.map((each) => ({ ...each, epoch })));
  expect(restored.corruptions()).toMatchObject([{ from: 3, to: 6 }]);
  expect(known.map(({ copy }) => copy)).not.toContain(null);
  for (const { copy } of known) {
    expect(disk.bytes(`/other/damaged/${copy}`)).toEqual(disk.bytes(`/data/damaged/${copy}`));
  }
});

test("another log's backup is never mixed with this one's", async () => {
  const disk = await written();
  await backup(disk);
  const before = disk.paths().map((path) => disk.bytes(path).toString("hex"));
  const other = await written();
  for (const path of disk.paths().filter((each) => each.startsWith("/store/"))) {
    await other.makeFolder(path.slice(0, path.lastIndexOf("/")));
    const file = await other.open(path, "create");
    file.write(disk.bytes(path), 0);
    await file.close();
  }
  await expect(backup(other)).rejects.toThrow("holds the backup of another log");
  await backup(disk);
  expect(disk.paths().map((path) => disk.bytes(path).toString("hex")).length).toBe(before.length);
});
