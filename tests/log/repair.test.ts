/** Repair: damaged files become whole without what is lost, and nothing is thrown away. */
import { expect, test } from "bun:test";
import { GapError } from "../../src/errors.ts";
import { damageFolder, Damages } from "../../src/log/damage.ts";
import { planRepair, repairPartition } from "../../src/log/repair.ts";
import { verifyPartition } from "../../src/log/verify.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { ids, message, openLog, readAll } from "./support.ts";

const FOLDER = "/data/streams";
const PLACE = { stream: "orders", index: 0 };
const ID = { stream: "orders", partition: 0 };
const FIRST = `${FOLDER}/orders/0/00000000000000000000.log`;
const NEWEST = `${FOLDER}/orders/0/00000000000000000003.log`;

/** Three sealed messages, each a batch, and three in the newest segment. */
async function written(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  for (const id of ["a", "b", "c"]) await partition.append([message(id)]).durable;
  await partition.roll();
  for (const id of ["d", "e", "f"]) await partition.append([message(id)]).durable;
  await log[Symbol.asyncDispose]();
  return disk;
}

function spoil(disk: MemoryDisk, path: string, text: string | number): void {
  const bytes = disk.bytes(path);
  const at = typeof text === "number" ? text : bytes.indexOf(text);
  bytes.writeUInt8((bytes[at] ?? 0) ^ 1, at);
  disk.poke(path, bytes);
}

async function verified(disk: MemoryDisk, damages: Damages) {
  const isRepaired: Damages["isRepaired"] = (range) => damages.isRepaired(range);
  return await verifyPartition(disk, FOLDER, ID, { onBytes: () => undefined, isRepaired });
}

async function repaired(disk: MemoryDisk): Promise<Damages> {
  const damages = await Damages.open(disk, FOLDER);
  const report = await verified(disk, damages);
  const epoch = (): string => "0123456789abcdef";
  const tools = { disk, folder: FOLDER, damages, nowMs: 1, epoch };
  await repairPartition(report, planRepair(report), tools);
  return damages;
}

function gapOnly(error: unknown): null {
  if (error instanceof GapError) return null;
  throw error;
}

test.each([
  ["a sealed segment", FIRST, "body of b", ["a", "c", "d", "e", "f"]],
  ["the newest segment", NEWEST, "body of e", ["a", "b", "c", "d", "f"]],
  ["the newest segment's end", NEWEST, "body of f", ["a", "b", "c", "d", "e"]],
])("a damaged batch of %s is given up, and the rest is whole", async (_, path, text, left) => {
  const disk = await written();
  spoil(disk, path, text);
  const original = disk.bytes(path).toString("hex");
  const damages = await repaired(disk);
  const after = await verified(disk, damages);
  expect(after.problems.filter(({ kind }) => kind !== "gap")).toEqual([]);
  expect(planRepair(after)).toEqual([]);
  const kept = disk.paths().filter((each) => each.startsWith(damageFolder(FOLDER)));
  expect(kept.map((each) => disk.bytes(each).toString("hex"))).toContain(original);
  const { log } = await openLog(disk);
  expect(log.corruptions()).toEqual([]);
  const partition = log.partition(PLACE);
  const read: string[] = [];
  const { signal } = new AbortController();
  for (let from = 0; from < partition.offsetEnd; from++) {
    const found = await partition.read(from, { messagesMax: 1, signal }).catch(gapOnly);
    read.push(...ids(found?.messages ?? []));
  }
  expect(read).toEqual(left);
  expect(partition.offsetEnd).toBe(6);
  await partition.append([message("g")]).durable;
  expect(ids(await readAll(partition, 6))).toEqual(["g"]);
});

test.each([FIRST, NEWEST])(
  "a damaged header of %s is made anew and loses nothing",
  async (path) => {
    const disk = await written();
    spoil(disk, path, 20);
    const damages = await repaired(disk);
    expect((await verified(disk, damages)).problems.map(({ kind }) => kind)).not.toContain(
      "corrupt",
    );
    const { log } = await openLog(disk);
    expect(ids(await readAll(log.partition(PLACE)))).toEqual(["a", "b", "c", "d", "e", "f"]);
  },
);

test("a repair that is cut off at any call is completed by the next one", async () => {
  for (let call = 1; call < 80; call++) {
    const disk = await written();
    spoil(disk, FIRST, "body of b");
    disk.failAfter({ call: "any", after: call, code: "EIO" });
    const isDone = await repaired(disk).then(
      () => true,
      () => false,
    );
    const left = disk.kill();
    const damages = await repaired(left);
    const { problems } = await verified(left, damages);
    expect(problems.filter(({ kind }) => kind !== "gap")).toEqual([]);
    const { log } = await openLog(left);
    expect(ids(await readAll(log.partition(PLACE), 2))).toEqual(["c", "d", "e", "f"]);
    if (isDone) return;
  }
  throw new Error("the repair never came to its end");
});
