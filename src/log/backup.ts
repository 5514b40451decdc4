/**
 * A backup of a log that may be running: a folder that a restore can make a data folder from.
 *
 * What is known of damage is copied first, then saved progress, then the definitions, then of
 * every stream what was appended up to one moment: so no route's progress is ahead of the messages
 * that it speaks of, and no stream holds what came out of a message that is not in the backup.
 * Everything that was acked before the backup began is in it. The manifest is written last: without
 * it a backup is unfinished and is gone on with by the next call, which copies only what is missing
 * or has grown.
 */
import { dirname, join } from "node:path";
import { InvalidError, StorageError } from "../errors.ts";
import { backupListsMax } from "../limits.ts";
import { copyDamages, DAMAGED, writeGrown } from "./backup-files.ts";
import { isOtherLog } from "./backup-identity.ts";
import { BATCH_HEADER_BYTES, parseBatchHeader, payloadIsValid } from "./batch.ts";
import type { Disk } from "./disk.ts";
import {
  parseManifest,
  type Manifest,
  type ManifestFile,
  MANIFEST,
  sha256,
  type SmallFiles,
} from "./manifest.ts";
import { parseSegmentHeader, SEGMENT_HEADER_BYTES, segmentName, segmentOffset } from "./segment.ts";
import { STATE_STREAM } from "./states.ts";
import { listPartitions, readWhole, syncedFrom } from "./verify.ts";

/** The files beside the log without which a restored gateway could not read its definitions. */
export const SMALL_FILES = ["definitions.json", "secret-key", "admin-token"] as const;
/** The manifest of the backup before, while a later one is under way. */
const PARTIAL = "manifest.partial.json";

/** From where to where, and with what. */
export interface BackupOptions {
  readonly disk: Disk;
  /** Writes small files that only their owner can read. */
  readonly files: SmallFiles;
  readonly dataFolder: string;
  readonly target: string;
  /** The wall clock, Unix milliseconds: the one that the gateway uses. */
  readonly nowMs: () => number;
  /** Told of each file: its bytes, and how many of them were copied. */
  readonly onFile: (bytes: number, copied: number) => void;
}

/**
 * Makes or completes a backup. @throws InvalidError the target holds something else.
 * @throws StorageError it is unfinished: call again.
 */
export async function backupLog(options: BackupOptions): Promise<Manifest> {
  const { disk, files, dataFolder, target } = options;
  const createdAtMs = options.nowMs();
  const before = await beginBackup(options);
  const streams = join(dataFolder, "streams");
  const all = await listPartitions(disk, streams);
  const states = all.filter(({ stream }) => stream === STATE_STREAM);
  const entries: ManifestFile[] = [...(await copyDamages(options))];
  for (const id of states) entries.push(...(await copyPartition(id, { before }, options)));
  for (const name of SMALL_FILES) {
    const text = await files.read(join(dataFolder, name));
    if (text === null) continue;
    await files.replace(join(target, name), text);
    const bytes = Buffer.from(text);
    entries.push({ path: name, bytes: bytes.length, sha256: sha256(bytes), sealed: false });
  }
  const others = (await listPartitions(disk, streams)).filter(
    ({ stream }) => stream !== STATE_STREAM,
  );
  const cutMs = await momentOf(others, options);
  for (const id of others) entries.push(...(await copyPartition(id, { before, cutMs }, options)));
  const manifest: Manifest = { version: 1, createdAtMs, files: entries };
  await files.replace(join(target, MANIFEST), JSON.stringify(manifest, null, 1));
  await files.remove(join(target, PARTIAL));
  await removeOthers(entries, options);
  return manifest;
}

/** Looks at the target, and makes what is there an unfinished backup; its entries by path. */
async function beginBackup(options: BackupOptions): Promise<ReadonlyMap<string, ManifestFile>> {
  const { disk, files, target, dataFolder } = options;
  if (target === dataFolder || target.startsWith(`${dataFolder}/`)) {
    throw new InvalidError("a backup stands outside of the data folder; give another folder");
  }
  // A call that was cut off at its very beginning has left no more than that.
  const names = (await disk.list(target)).filter((name) => name !== `${PARTIAL}.tmp`);
  const isOurs = names.includes(MANIFEST) || names.includes(PARTIAL);
  if (names.length > 0 && !isOurs) {
    throw new InvalidError(`${target} holds something that is no backup; give an empty folder`);
  }
  if (await isOtherLog(disk, join(dataFolder, "streams"), join(target, "streams"))) {
    throw new InvalidError(`${target} holds the backup of another log; give another folder`);
  }
  await files.makeFolder(target);
  await disk.syncFolder(dirname(target));
  const whole = await files.read(join(target, MANIFEST));
  const partial = await files.read(join(target, PARTIAL));
  const text = whole ?? partial ?? JSON.stringify({ version: 1, createdAtMs: 0, files: [] });
  const known = parseManifest(text, target);
  if (partial === null || whole !== null) await files.replace(join(target, PARTIAL), text);
  await files.remove(join(target, MANIFEST));
  await disk.syncFolder(target);
  return new Map(known.files.map((entry) => [entry.path, entry]));
}

interface PartitionName {
  readonly stream: string;
  readonly partition: number;
}

/**
 * The moment up to which streams are copied: now, or what the newest batch says when the clock has
 * gone back since. What a message led to was appended after it was on disk.
 */
async function momentOf(all: readonly PartitionName[], options: BackupOptions): Promise<number> {
  const { disk, dataFolder, nowMs } = options;
  let momentMs = nowMs();
  for (const { stream, partition } of all) {
    const own = join(dataFolder, "streams", stream, String(partition));
    const newest = (await disk.list(own)).findLast((name) => segmentOffset(name) !== null);
    if (newest === undefined) continue;
    const path = join(own, newest);
    momentMs = Math.max(momentMs, used(await readWhole(disk, path), path).appendedAtMs);
  }
  return momentMs;
}

/** What is known of a backup's files, and the moment up to which batches are taken. */
interface Cut {
  readonly before: ReadonlyMap<string, ManifestFile>;
  readonly cutMs?: number;
}

async function copyPartition(
  id: PartitionName,
  cut: Cut,
  options: BackupOptions,
): Promise<readonly ManifestFile[]> {
  const { disk, dataFolder } = options;
  const own = join("streams", id.stream, String(id.partition));
  for (let list = 0; list < backupListsMax; list++) {
    const names = await disk.list(join(dataFolder, own));
    const bases = names.map(segmentOffset).filter((base) => base !== null);
    try {
      const entries = await copySegments(own, { bases, cut }, options);
      if (entries.length > 0) await disk.syncFolder(join(options.target, own));
      return entries;
    } catch (error) {
      const now = await disk.list(join(dataFolder, own));
      const hasGone = bases.some((base) => !now.includes(segmentName(base)));
      // Retention deletes the oldest at any time: what is there then is copied.
      if (!(error instanceof StorageError) || error.fatal || !hasGone) throw error;
    }
  }
  throw new StorageError(`${own} changes faster than it can be copied; call again`);
}

/** Copies a partition's segments, up to the one that the cut goes through. */
async function copySegments(
  own: string,
  { bases, cut }: { readonly bases: readonly number[]; readonly cut: Cut },
  options: BackupOptions,
): Promise<readonly ManifestFile[]> {
  const entries: ManifestFile[] = [];
  for (const [index, base] of bases.entries()) {
    const place = { path: join(own, segmentName(base)), sealed: index < bases.length - 1 };
    const { entry, isCut } = await copySegment(place, cut, options);
    entries.push(entry);
    if (isCut) break;
  }
  return entries;
}

async function copySegment(
  { path, sealed }: { readonly path: string; readonly sealed: boolean },
  { before, cutMs }: Cut,
  options: BackupOptions,
): Promise<{ readonly entry: ManifestFile; readonly isCut: boolean }> {
  const { disk, dataFolder, target, onFile } = options;
  const known = before.get(path);
  const from = join(dataFolder, path);
  const to = join(target, path);
  if (sealed && known?.sealed === true && (await isSame(disk, from, { to, known }))) {
    onFile(known.bytes, 0);
    return { entry: known, isCut: false };
  }
  const { bytes: source, isCut } = used(await readWhole(disk, from), from, cutMs);
  const copied = await writeGrown(disk, to, source);
  onFile(source.length, copied);
  const entry = { path, bytes: source.length, sha256: sha256(source), sealed: sealed && !isCut };
  return { entry, isCut };
}

/** A sealed segment never changes: its header tells that it is the same one. */
async function isSame(
  disk: Disk,
  from: string,
  { to, known }: { readonly to: string; readonly known: ManifestFile },
): Promise<boolean> {
  if (!(await disk.list(dirname(to))).includes(to.slice(dirname(to).length + 1))) return false;
  const heads: Buffer[] = [];
  for (const path of [from, to]) {
    const file = await disk.open(path, "read");
    try {
      const head = Buffer.alloc(SEGMENT_HEADER_BYTES);
      await file.read(head, 0);
      heads.push(head);
      if (path === to && (await file.size()) !== known.bytes) return false;
    } finally {
      await file.close();
    }
  }
  return heads[0]?.equals(heads[1] ?? Buffer.alloc(0)) === true;
}

/**
 * A segment without what lies behind its last whole batch, when that was never synced or is zeros;
 * with everything when synced bytes are damaged: a backup hides nothing. What was appended after
 * `cutMs` is left out.
 */
function used(
  content: Buffer,
  path: string,
  cutMs = Number.POSITIVE_INFINITY,
): { readonly bytes: Buffer; readonly isCut: boolean; readonly appendedAtMs: number } {
  const { salt, baseOffset } = parseSegmentHeader(content, path);
  let at = SEGMENT_HEADER_BYTES;
  let offset = baseOffset;
  let appendedAtMs = 0;
  for (;;) {
    const batch = parseBatchHeader(content, at, salt);
    if (batch === null || !payloadIsValid(content, at, batch)) break;
    if (batch.count > 0 && batch.appendedAtMs > cutMs) {
      return { bytes: content.subarray(0, at), isCut: true, appendedAtMs };
    }
    at += BATCH_HEADER_BYTES + batch.payloadBytes;
    offset = batch.baseOffset + batch.count;
    appendedAtMs = batch.appendedAtMs;
  }
  const isDamaged = offset < syncedFrom(content, at, { salt, atLeast: 0 });
  return { bytes: isDamaged ? content : content.subarray(0, at), isCut: false, appendedAtMs };
}

/** Removes what the log does not hold any more; the manifest does not name it. */
async function removeOthers(
  entries: readonly ManifestFile[],
  { disk, target }: BackupOptions,
): Promise<void> {
  const named = new Set(entries.map(({ path }) => path));
  const partitions = await listPartitions(disk, join(target, "streams"));
  const folders = partitions.map(({ stream, partition }) =>
    join("streams", stream, String(partition)),
  );
  for (const own of [DAMAGED, ...folders]) {
    for (const name of await disk.list(join(target, own))) {
      if (!named.has(join(own, name))) await disk.remove(join(target, own, name));
    }
  }
}
