/**
 * The few files beside the log: the snapshot, the two key files, the embedded database's folder.
 * Whatever is written here is on disk when its promise resolves: written under a spare name,
 * synced, renamed, and the folder synced. Only this file of `rules/` touches the disk.
 */
import { type FileHandle, mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { errorText, StorageError } from "../../errors.ts";

/** What the store needs of a disk. Every method throws StorageError when the disk fails. */
export interface Files {
  /** The file's text; null when there is none. */
  read(path: string): Promise<string | null>;
  /** Puts `text` in the file's place: after a crash it holds the old text or the whole new one. */
  replace(path: string, text: string): Promise<void>;
  /** Makes a folder that only its owner can enter. */
  makeFolder(path: string): Promise<void>;
  exists(path: string): Promise<boolean>;
  /** Renames a file or folder; what stood at `to` is removed before. */
  move(from: string, to: string): Promise<void>;
  /** Removes a file or folder with all in it; nothing there is well. */
  remove(path: string): Promise<void>;
}

/** Secrets and hashes are in these files: nobody else reads them. */
const ownerOnlyFile = 0o600;
const ownerOnlyFolder = 0o700;

/** The real disk. */
export const systemFiles: Files = {
  read: (path) => guarded(`read ${path}`, async () => await readText(path)),
  replace: (path, text) => guarded(`write ${path}`, async () => await replaceFile(path, text)),
  makeFolder: (path) =>
    guarded(`make ${path}`, async () => {
      await mkdir(path, { recursive: true, mode: ownerOnlyFolder });
    }),
  exists: (path) => guarded(`look at ${path}`, async () => await fileExists(path)),
  move: (from, to) =>
    guarded(`move ${from}`, async () => {
      await rm(to, { recursive: true, force: true });
      await rename(from, to);
      await syncFolder(dirname(to));
    }),
  remove: (path) =>
    guarded(`remove ${path}`, async () => await rm(path, { recursive: true, force: true })),
};

async function guarded<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new StorageError(`cannot ${what}: ${errorText(error)}`, { cause: error });
  }
}

async function readText(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

async function fileExists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

async function replaceFile(path: string, text: string): Promise<void> {
  const spare = `${path}.tmp`;
  // A sync that failed once says yes the next time, so a file is never synced twice: each try
  // writes the whole text into a file of its own.
  await rm(spare, { force: true });
  await using file: FileHandle = await open(spare, "wx", ownerOnlyFile);
  await file.writeFile(text, "utf8");
  await file.sync();
  await rename(spare, path);
  await syncFolder(dirname(path));
}

async function syncFolder(path: string): Promise<void> {
  await using folder: FileHandle = await open(path, "r");
  await folder.sync();
}
