/**
 * Death at named points of the log: a process on the real disk is killed at exactly one call of an
 * append, a new segment, its key file, retention, a save and the snapshot of saves, on one folder
 * through many lives. After each: everything promised is there, nothing else is.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { realDisk } from "../../src/log/disk.ts";
import type { StoredRecord } from "../../src/log/record.ts";
import { verifyPartition } from "../../src/log/verify.ts";
import { decodeText } from "../../src/message.ts";
import { message, openLog, readAll } from "../log/support.ts";
import { temporaryFolder } from "../temporary.ts";
import type { FaultPoint } from "./fault-child.ts";

const ROUNDS = process.env["ISTHMUS_TEST_FULL"] === "1" ? 10 : 1;
const SEGMENT = "orders/0/\\d+\\.log$";
const SPARE = "orders/0/spare\\.tmp$";
const KEYS = "orders/0/\\d+\\.keys$";
const STATES = "\\$state/0/";

/** What the process does at each point, the call, and for which files. */
const POINTS: readonly (readonly [string, FaultPoint["call"], string])[] = [
  ["an append's write", "write", SEGMENT],
  ["an append's sync", "sync", SEGMENT],
  ["a new segment's file", "open", SPARE],
  ["a new segment's header", "write", SPARE],
  ["a new segment's sync", "sync", SPARE],
  ["a new segment's name", "rename", SEGMENT],
  ["the sync of that name", "syncFolder", "orders/0$"],
  ["a key file's name", "rename", KEYS],
  ["retention's delete of a key file", "remove", KEYS],
  ["retention's delete of a segment", "remove", SEGMENT],
  ["a save's sync", "sync", `${STATES}\\d+\\.log$`],
  ["the sync of a snapshot's segment", "sync", `${STATES}spare\\.tmp$`],
  ["the name of a snapshot's segment", "rename", `${STATES}\\d+\\.log$`],
  ["the delete of what a snapshot replaces", "remove", `${STATES}\\d+\\.log$`],
];

/** All that the lives so far have promised. */
class Promises {
  readonly sent = new Set<string>();
  readonly acked = new Map<string, number>();
  saved = 0;
  /** Segments below it were asked to go. */
  droppedBelow = 0;

  take(output: string): void {
    for (const line of output.split("\n")) {
      const [word, first = "", second = ""] = line.split(" ");
      if (word === "sent") this.sent.add(first);
      else if (word === "acked") this.acked.set(second, Number(first));
      else if (word === "saved") this.saved = Number(first);
      else if (word === "dropping") this.droppedBelow = Number(first);
    }
  }
}

/** One life that ends at a point; what it said. */
async function die(folder: string, point: FaultPoint): Promise<string> {
  const child = join(import.meta.dir, "fault-child.ts");
  const running = Bun.spawn([process.execPath, child, folder, JSON.stringify(point)], {
    stdout: "pipe",
    stderr: "pipe",
  });
  const [output, failure] = await Promise.all([
    new Response(running.stdout).text(),
    new Response(running.stderr).text(),
  ]);
  await running.exited;
  if (running.signalCode !== "SIGKILL") {
    throw new Error(`${JSON.stringify(point)}: it was to die, and did not: ${failure}`);
  }
  return output;
}

async function check(folder: string, promises: Promises): Promise<void> {
  const id = { stream: "orders", partition: 0 };
  const { problems } = await verifyPartition(realDisk, folder, id, { onBytes: () => undefined });
  expect(problems.filter(({ kind }) => kind !== "torn")).toEqual([]);
  const { log } = await openLog(realDisk, folder);
  expect(log.corruptions()).toEqual([]);
  const partition = log.partition({ stream: "orders", index: 0 });
  const held = (await readAll(partition)) as StoredRecord[];
  const offsets = new Map(held.map((each) => [each.id, each.offset] as const));
  expect(offsets.size).toBe(held.length);
  expect(held.filter(({ id }) => !promises.sent.has(id))).toEqual([]);
  expect(partition.offsetStart).toBeLessThanOrEqual(promises.droppedBelow);
  const lost = [...promises.acked].filter(([id, offset]) => {
    return offset >= partition.offsetStart && offsets.get(id) !== offset;
  });
  expect(lost).toEqual([]);
  for (const { id, offset } of [held.at(0), held.at(-1)].filter((each) => each !== undefined)) {
    const again = partition.append([message("again")], { dedupeKeys: [`key of ${id}`] });
    await again.durable;
    expect(again.receipt(0)).toMatchObject({ offset, duplicate: true });
  }
  const saved = await log.states.load("route/a");
  const next = saved === null ? 0 : Number(decodeText(saved));
  expect(next).toBeGreaterThanOrEqual(promises.saved);
  expect(next).toBeLessThanOrEqual(partition.offsetEnd);
  await log[Symbol.asyncDispose]();
}

/** Puts the point into the message of whatever fails. */
async function named(point: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new Error(`${point}: ${String(error)}`, { cause: error });
  }
}

test(`a process that dies at each of ${POINTS.length * 2} named points loses nothing`, async () => {
  await using place = await temporaryFolder("points");
  const folder = join(place.path, "streams");
  const promises = new Promises();
  let deaths = 0;
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, call, file] of POINTS) {
      for (const when of ["before", "after"] as const) {
        const point = { call, file, when, nth: 1 + (round % 3) * 2 + (deaths++ % 2) };
        promises.take(await die(folder, point));
        await named(`${when} ${name}, ${JSON.stringify(point)}`, () => check(folder, promises));
      }
    }
  }
  console.log(`fault points: ${deaths} deaths, ${promises.acked.size} acked, none lost`);
}, 900_000);
