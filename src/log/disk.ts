/**
 * The disk as the log sees it. The only file of the gateway's data path that touches node:fs, so
 * that a simulated disk can stand in for it. Writes go to the page cache at once and are durable
 * only after `sync` has resolved; a new name only after its folder was synced.
 */
import * as fs from "node:fs";
import { dirname } from "node:path";
import { errorText, StorageError } from "../errors.ts";

/** An open file. */
export interface DiskFile {
  /** Writes all of the bytes at a position, into the page cache. @throws StorageError */
  write(bytes: Uint8Array, position: number): void;
  /** Fills `into` from a position as far as the file goes; the bytes read. @throws StorageError */
  read(into: Uint8Array, position: number): Promise<number>;
  /** Resolves when all that was written is on disk (fdatasync). @throws StorageError, fatal */
  sync(): Promise<void>;
  /** Cuts or extends to a length. @throws StorageError */
  truncate(bytes: number): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

/** Files and folders, by path. Every failure is a StorageError. */
export interface Disk {
  /** `create` fails when it is there; `write` and `read` when it is not. */
  open(path: string, mode: "read" | "write" | "create"): Promise<DiskFile>;
  /** @throws StorageError, fatal unless it is sure that nothing was renamed */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Names in a folder, sorted; empty when there is no such folder. */
  list(folder: string): Promise<readonly string[]>;
  /** Makes the folder and those above it, and syncs the names. */
  makeFolder(folder: string): Promise<void>;
  syncFolder(folder: string): Promise<void>;
}

/** Whether a failure means that space ran out: refuse for now, go on when there is space again. */
export function isFull(error: unknown): boolean {
  const cause = error instanceof StorageError ? error.cause : error;
  const code = (cause as { code?: unknown } | null | undefined)?.code;
  return code === "ENOSPC" || code === "EDQUOT";
}

function storageError(action: string, error: unknown, fatal = false): StorageError {
  return new StorageError(`${action}: ${errorText(error)}`, { fatal, cause: error });
}

async function attempt<T>(action: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw storageError(action, error);
  }
}

class RealFile implements DiskFile {
  readonly #path: string;
  readonly #descriptor: number;

  constructor(path: string, descriptor: number) {
    this.#path = path;
    this.#descriptor = descriptor;
  }

  write(bytes: Uint8Array, position: number): void {
    let done = 0;
    try {
      while (done < bytes.length) {
        const wrote = fs.writeSync(
          this.#descriptor,
          bytes,
          done,
          bytes.length - done,
          position + done,
        );
        if (wrote <= 0) throw new Error("the write made no progress");
        done += wrote;
      }
    } catch (error) {
      throw storageError(`can't write ${this.#path}`, error);
    }
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const { promise, resolve, reject } = Promise.withResolvers<number>();
      fs.read(this.#descriptor, into, done, into.length - done, position + done, (error, count) => {
        if (error === null) resolve(count);
        else reject(storageError(`can't read ${this.#path}`, error));
      });
      const count = await promise;
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  sync(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    fs.fdatasync(this.#descriptor, (error) => {
      if (error === null || error === undefined) resolve();
      else reject(storageError(`the sync of ${this.#path} failed`, error, true));
    });
    return promise;
  }

  truncate(bytes: number): Promise<void> {
    return attempt(`can't cut ${this.#path}`, () =>
      Promise.resolve(fs.ftruncateSync(this.#descriptor, bytes)),
    );
  }

  size(): Promise<number> {
    return attempt(`can't look at ${this.#path}`, () =>
      Promise.resolve(fs.fstatSync(this.#descriptor).size),
    );
  }

  close(): Promise<void> {
    return attempt(`can't close ${this.#path}`, () =>
      Promise.resolve(fs.closeSync(this.#descriptor)),
    );
  }
}

const FLAGS = { read: "r", write: "r+", create: "wx+" } as const;

async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await fs.promises.open(folder, "r");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw storageError(`the sync of folder ${folder} failed`, error, true);
  }
}

/** The machine's own disk. */
export const realDisk: Disk = {
  open: (path, mode) =>
    attempt(`can't open ${path}`, () =>
      Promise.resolve(new RealFile(path, fs.openSync(path, FLAGS[mode], 0o640))),
    ),
  async rename(from, to) {
    try {
      await fs.promises.rename(from, to);
    } catch (error) {
      throw storageError(`can't rename ${from}`, error, !isFull(error));
    }
  },
  remove: (path) => attempt(`can't remove ${path}`, () => fs.promises.unlink(path)),
  async list(folder) {
    try {
      return (await fs.promises.readdir(folder)).toSorted();
    } catch (error) {
      if ((error as { code?: unknown }).code === "ENOENT") return [];
      throw storageError(`can't list ${folder}`, error);
    }
  },
  async makeFolder(folder) {
    const first = await attempt(`can't make folder ${folder}`, () =>
      fs.promises.mkdir(folder, { recursive: true }),
    );
    if (first === undefined) return;
    for (let at = folder; at.length >= first.length; at = dirname(at)) await syncFolder(at);
    await syncFolder(dirname(first));
  },
  syncFolder,
};
