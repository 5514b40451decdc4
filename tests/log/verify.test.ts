/** Looking through a log's files: what recovery would find, without changing a byte. */
import { expect, test } from "bun:test";
import { listPartitions, verifyPartition } from "../../src/log/verify.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { message, openLog } from "./support.ts";

const FOLDER = "/data/streams";
const PLACE = { stream: "orders", index: 0 };
const FIRST = `${FOLDER}/orders/0/00000000000000000000.log`;

async function written(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  await partition.append([message("a"), message("b")]).durable;
  await partition.append([message("c")]).durable;
  await partition.roll();
  await partition.append([message("d")]).durable;
  return disk;
}

async function verified(disk: MemoryDisk) {
  let bytes = 0;
  const id = { stream: "orders", partition: 0 };
  const events = {
    onBytes: (count: number): void => {
      bytes += count;
    },
  };
  const report = await verifyPartition(disk, FOLDER, id, events);
  expect(report.bytes).toBe(bytes);
  return report;
}

test("a healthy log has no problems and is described in numbers", async () => {
  const disk = await written();
  expect(await listPartitions(disk, FOLDER)).toContainEqual({ stream: "orders", partition: 0 });
  const before = disk.paths().map((path) => disk.bytes(path).toString("hex"));
  expect(await verified(disk)).toMatchObject({
    segments: 2,
    offsetStart: 0,
    offsetEnd: 4,
    problems: [],
  });
  expect(disk.paths().map((path) => disk.bytes(path).toString("hex"))).toEqual(before);
});

test("every flipped bit of a sealed segment is found, at its batch and with what is lost", async () => {
  const disk = await written();
  const whole = disk.bytes(FIRST);
  for (let at = 0; at < whole.length; at++) {
    const bytes = Buffer.from(whole);
    bytes.writeUInt8((bytes[at] ?? 0) ^ (1 << (at % 8)), at);
    disk.poke(FIRST, bytes);
    const { problems } = await verified(disk);
    // What stands behind a segment's last record is a mark, which holds no message.
    const isMark = at >= whole.length - 64 && problems.length === 0;
    expect(problems.length > 0 || isMark).toBe(true);
    for (const problem of problems) {
      expect(problem.kind).toBe("corrupt");
      expect(problem.path).toBe(FIRST);
      expect(problem.byte).toBeLessThanOrEqual(at);
    }
  }
});

test("a tail that was never synced is torn, not corrupt", async () => {
  const disk = await written();
  const path = disk.paths().findLast((each) => each.endsWith(".log") && each.includes("orders"));
  if (path === undefined) throw new Error("there is a newest segment");
  disk.poke(path, Buffer.concat([disk.bytes(path), Buffer.from("half a batch")]));
  const { problems, offsetEnd } = await verified(disk);
  expect(problems.map(({ kind }) => kind)).toEqual(["torn"]);
  expect(offsetEnd).toBe(4);
});

test("a missing segment is told with the offsets that are gone", async () => {
  const disk = await written();
  const { log } = await openLog(disk);
  const partition = log.partition(PLACE);
  await partition.roll();
  await partition.append([message("e")]).durable;
  const paths = disk.paths().filter((path) => path.includes("orders") && path.endsWith(".log"));
  await disk.remove(paths[1] ?? "");
  const { problems } = await verified(disk);
  expect(problems).toMatchObject([{ kind: "corrupt", from: 3, to: 4 }]);
});
