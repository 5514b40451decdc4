/**
 * What a backup holds beside the segments of a log: the list of known damages with the copies of
 * their bytes, so that a restored log knows what this one knows. Files of a backup only grow: each
 * is written from where it differs.
 */
import { dirname, join } from "node:path";
import { DAMAGE_LIST, damageFolder, parseDamages } from "./damage.ts";
import type { Disk } from "./disk.ts";
import { type ManifestFile, sha256 } from "./manifest.ts";
import { readWhole } from "./verify.ts";

/** Where the known damages lie in a data folder, and in a backup. */
export const DAMAGED = "damaged";

/** From where to where. */
export interface CopyPlace {
  readonly disk: Disk;
  readonly dataFolder: string;
  readonly target: string;
  readonly onFile: (bytes: number, copied: number) => void;
}

/**
 * Copies the list of damages and the bytes that it speaks of; their entries, the list last. It is
 * called before any segment is copied: what is found later is found by the restored log as well.
 * @throws CorruptionError the list can't be read. @throws StorageError
 */
export async function copyDamages(place: CopyPlace): Promise<readonly ManifestFile[]> {
  const { disk, dataFolder } = place;
  const folder = damageFolder(join(dataFolder, "streams"));
  const held = new Set(await disk.list(folder));
  if (!held.has(DAMAGE_LIST)) return [];
  const list = await readWhole(disk, join(folder, DAMAGE_LIST));
  const damages = parseDamages(list.toString("utf8"), join(folder, DAMAGE_LIST));
  const copies = new Set(damages.map(({ copy }) => copy));
  const entries: ManifestFile[] = [];
  for (const name of copies) {
    if (name === null || !held.has(name)) continue;
    entries.push(
      await copyOne(join(DAMAGED, name), await readWhole(disk, join(folder, name)), place),
    );
  }
  entries.push(await copyOne(join(DAMAGED, DAMAGE_LIST), list, place));
  return entries;
}

async function copyOne(
  path: string,
  source: Buffer,
  { disk, target, onFile }: CopyPlace,
): Promise<ManifestFile> {
  const copied = await writeGrown(disk, join(target, path), source);
  onFile(source.length, copied);
  return { path, bytes: source.length, sha256: sha256(source), sealed: false };
}

/** Makes a file hold `source`, writing only from where it differs; the bytes written. */
export async function writeGrown(disk: Disk, path: string, source: Buffer): Promise<number> {
  const folder = dirname(path);
  const isThere = (await disk.list(folder)).includes(path.slice(folder.length + 1));
  if (!isThere) await disk.makeFolder(folder);
  const held = isThere ? await readWhole(disk, path) : Buffer.alloc(0);
  const file = await disk.open(path, isThere ? "write" : "create");
  try {
    const same = commonBytes(held, source);
    if (held.length > same) await file.truncate(same);
    if (source.length > same) file.write(source.subarray(same), same);
    await file.sync();
    return source.length - same;
  } finally {
    await file.close();
  }
}

function commonBytes(a: Buffer, b: Buffer): number {
  const length = Math.min(a.length, b.length);
  if (a.compare(b, 0, length, 0, length) === 0) return length;
  let at = 0;
  while (a[at] === b[at]) at++;
  return at;
}
