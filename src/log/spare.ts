/**
 * Files that are there whole or not at all: written under a spare name, synced, renamed, and the
 * folder synced. A crash in between leaves a spare file, which the next one replaces.
 */
import { dirname, join } from "node:path";
import type { Disk, DiskFile } from "./disk.ts";

/** Where a file shall stand, and under which name until it is whole. */
export interface SparePlace {
  readonly folder: string;
  readonly spare: string;
  readonly name: string;
}

/**
 * Makes a file of `parts`, in place of one of the same name; resolves when content and name are on
 * disk. The file is open. @throws StorageError: no file is left open; when it is not fatal, the
 * name holds what it held before.
 */
export async function createDurably(
  disk: Disk,
  { folder, spare, name }: SparePlace,
  parts: readonly Uint8Array[],
): Promise<DiskFile> {
  const path = join(folder, spare);
  if ((await disk.list(folder)).includes(spare)) await disk.remove(path);
  const file = await disk.open(path, "create");
  try {
    let position = 0;
    for (const part of parts) {
      file.write(part, position);
      position += part.length;
    }
    await file.sync();
    await disk.rename(path, join(folder, name));
    await disk.syncFolder(folder);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * Makes a partition's folder; resolves when its name is on disk, and that of the stream's folder,
 * which another partition may just have made and not synced yet. @throws StorageError, fatal
 */
export async function makePartitionFolder(disk: Disk, folder: string): Promise<void> {
  await disk.makeFolder(folder);
  await disk.syncFolder(dirname(folder));
  await disk.syncFolder(dirname(dirname(folder)));
}
