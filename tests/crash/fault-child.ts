/**
 * A process that writes to a log on the real disk and dies at a named point of it: before or after
 * the n-th call of a kind for a file of a kind. What it promises stands on its standard output, a
 * line each, written once it is true. Run by `fault-points.test.ts`:
 *
 *   bun tests/crash/fault-child.ts FOLDER '{"call":"sync","file":"\\.log$","when":"after","nth":2}'
 */
import { writeSync } from "node:fs";
import { systemClock } from "../../src/clock.ts";
import { type Disk, type DiskFile, realDisk } from "../../src/log/disk.ts";
import { openFileLog } from "../../src/log/files.ts";
import { encodeText } from "../../src/message.ts";
import { message } from "../log/support.ts";

/** Where the process dies. */
export interface FaultPoint {
  readonly call: "open" | "write" | "sync" | "rename" | "syncFolder" | "remove" | "truncate";
  /** A pattern of the path. */
  readonly file: string;
  readonly when: "before" | "after";
  readonly nth: number;
}

const SEGMENT_BYTES = 3000;
const STATE_LOG_BYTES = 3000;
/** A child that comes this far has never met its point. Rounds. */
const ROUNDS_MAX = 400;
const SEGMENTS_KEPT = 3;

/** A disk whose process ends, as by kill -9, at a point. */
function dyingDisk(point: FaultPoint): Disk {
  const pattern = new RegExp(point.file);
  let left = point.nth;
  const at = (call: FaultPoint["call"], path: string, when: FaultPoint["when"]): void => {
    if (call !== point.call || when !== point.when || !pattern.test(path)) return;
    left--;
    if (left === 0) process.kill(process.pid, "SIGKILL");
  };
  const around = async <T>(call: FaultPoint["call"], path: string, work: () => Promise<T>) => {
    at(call, path, "before");
    const result = await work();
    at(call, path, "after");
    return result;
  };
  // A file goes on under the name that it is given.
  const places = new Set<{ path: string }>();
  const wrap = (file: DiskFile, path: string): DiskFile => {
    const place = { path };
    places.add(place);
    return {
      write: (bytes, position) => {
        at("write", place.path, "before");
        file.write(bytes, position);
        at("write", place.path, "after");
      },
      read: (into, position) => file.read(into, position),
      sync: () => around("sync", place.path, () => file.sync()),
      truncate: (bytes) => around("truncate", place.path, () => file.truncate(bytes)),
      size: () => file.size(),
      close: () => file.close(),
    };
  };
  return {
    open: async (path, mode) => {
      const kind = mode === "create" ? "open" : null;
      const open = (): Promise<DiskFile> => realDisk.open(path, mode);
      return wrap(kind === null ? await open() : await around(kind, path, open), path);
    },
    rename: (from, to) =>
      around("rename", to, async () => {
        await realDisk.rename(from, to);
        for (const place of places) if (place.path === from) place.path = to;
      }),
    remove: (path) => around("remove", path, () => realDisk.remove(path)),
    list: (folder) => realDisk.list(folder),
    makeFolder: (folder) => realDisk.makeFolder(folder),
    syncFolder: (folder) => around("syncFolder", folder, () => realDisk.syncFolder(folder)),
  };
}

/** Says something that is true now, and stays so whatever happens to this process. */
function promise(line: string): void {
  writeSync(1, `${line}\n`);
}

async function live(folder: string, point: FaultPoint): Promise<void> {
  const log = await openFileLog({
    folder,
    disk: dyingDisk(point),
    clock: systemClock,
    random: (count) => crypto.getRandomValues(new Uint8Array(count)),
    onFatal: (error) => {
      throw error;
    },
    onCommit: () => undefined,
    warn: () => undefined,
    segmentBytes: SEGMENT_BYTES,
    stateLogBytes: STATE_LOG_BYTES,
  });
  const partition = log.partition({ stream: "orders", index: 0 });
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const base = `${Date.now()}-${process.pid}-${round}`;
    const messages = ["a", "b", "c"].map((each) =>
      message(`${base}-${each}`, { body: new Uint8Array(150) }),
    );
    for (const { id } of messages) promise(`sent ${id}`);
    const dedupeKeys = messages.map(({ id }) => `key of ${id}`);
    const appended = partition.append(messages, { dedupeKeys });
    await appended.durable;
    for (const [index, { id }] of messages.entries()) {
      promise(`acked ${appended.receipt(index).offset} ${id}`);
    }
    const saved = partition.offsetEnd;
    await log.states.save([["route/a", encodeText(String(saved).padStart(300))]]);
    promise(`saved ${saved}`);
    while (partition.segments.length > SEGMENTS_KEPT) {
      promise(`dropping ${partition.segments[1]?.baseOffset ?? 0}`);
      await partition.dropOldest();
    }
  }
  await log[Symbol.asyncDispose]();
  promise("the point was never met");
}

if (import.meta.main) {
  const [folder = "", point = ""] = process.argv.slice(2);
  await live(folder, JSON.parse(point) as FaultPoint);
}
