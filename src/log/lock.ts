/**
 * The lock of a data folder: an exclusive transaction of SQLite on DATA/lock, taken before
 * anything else is opened. The kernel gives it back the moment its owner is gone, so a dead
 * process never holds it; the pid in DATA/pid is only for the message.
 */
import { Database } from "bun:sqlite";
import { join } from "node:path";
import type { Clock } from "../clock.ts";
import { FencedError } from "../errors.ts";
import { lockWaitMs } from "../limits.ts";

const RETRY_MS = 100;

/**
 * Takes the folder's lock, waiting a little for an owner that is just ending.
 * @throws FencedError naming the owner's pid: another process uses the folder.
 */
export async function lockFolder(folder: string, clock: Clock): Promise<Disposable> {
  const pidPath = join(folder, "pid");
  const deadline = clock.monotonicMs() + lockWaitMs;
  for (;;) {
    const lock = tryLock(join(folder, "lock"));
    if (lock !== null) {
      await Bun.write(pidPath, `${process.pid}\n`);
      return lock;
    }
    if (clock.monotonicMs() >= deadline) break;
    await clock.sleep(RETRY_MS);
  }
  const pidFile = Bun.file(pidPath);
  const owner = (await pidFile.exists()) ? (await pidFile.text()).trim() : "unknown";
  throw new FencedError(`${folder} is in use by another isthmus process (pid ${owner})`);
}

function tryLock(path: string): Disposable | null {
  const database = new Database(path, { create: true });
  try {
    database.run("PRAGMA busy_timeout = 0");
    database.run("BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if ((error as { code?: unknown }).code !== "SQLITE_BUSY") throw error;
    return null;
  }
  return {
    [Symbol.dispose]() {
      database.run("ROLLBACK");
      database.close();
    },
  };
}
