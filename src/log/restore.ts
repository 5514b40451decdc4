/**
 * A data folder from a backup. The folder has to be empty, or hold the same restore unfinished.
 * `restore.json` stands in it from the first file to the last: a gateway refuses such a folder.
 *
 * Each partition gets another epoch: offsets behind the backup's end will hold other messages than
 * they did, so a cursor from before must meet a gap and not the wrong message. Progress that is in
 * the backup itself (routes, durable names) fits to its messages and is carried over.
 */
import { dirname, join } from "node:path";
import { CorruptionError, InvalidError, StorageError } from "../errors.ts";
import { decodeText, encodeText } from "../message.ts";
import { DAMAGED } from "./backup-files.ts";
import { decodeCursor, encodeCursor, shortEpoch } from "./cursor.ts";
import { DAMAGE_LIST, parseDamages, withOtherEpochs } from "./damage.ts";
import type { Disk } from "./disk.ts";
import type { FileLog } from "./files.ts";
import {
  type Manifest,
  type ManifestFile,
  MANIFEST,
  parseManifest,
  sha256,
  type SmallFiles,
} from "./manifest.ts";
import { encodeSegmentHeader, parseSegmentHeader, SEGMENT_HEADER_BYTES } from "./segment.ts";
import { createDurably } from "./spare.ts";
import { readWhole } from "./verify.ts";

const MARKER = "restore.json";
/** What a data folder may hold that is empty: the lock of whoever restores. */
const BESIDE = new Set(["lock", "pid", "lock-journal", `${MARKER}.tmp`]);

/** From where to where, and with what. The data folder has to be locked by the caller. */
export interface RestoreOptions {
  readonly disk: Disk;
  readonly files: SmallFiles;
  readonly source: string;
  readonly dataFolder: string;
  readonly random: (count: number) => Uint8Array;
  readonly onFile: (bytes: number, copied: number) => void;
  /** Opens the restored log, whose recovery is thereby done, to carry the progress over. */
  readonly open: () => Promise<FileLog>;
}

/** @throws InvalidError a restore of this folder is unfinished: a gateway must not begin in it. */
export async function refuseHalfRestored(disk: Disk, dataFolder: string): Promise<void> {
  if (!(await disk.list(dataFolder)).includes(MARKER)) return;
  throw new InvalidError(`${dataFolder} is half restored; call isthmus log restore again`);
}

/**
 * Restores all of a backup. @throws InvalidError the source is no finished backup, or the data
 * folder is not empty. @throws CorruptionError a file is not what was backed up. @throws
 * StorageError the disk fails. After either, call it again once the cause is gone; that a folder
 * without the marker is then refused says that all of it was done.
 */
export async function restoreLog(options: RestoreOptions): Promise<Manifest> {
  const { disk, files, source, dataFolder } = options;
  const text = await files.read(join(source, MANIFEST));
  if (text === null) {
    throw new InvalidError(`${source} holds no finished backup: there is no ${MANIFEST}`);
  }
  const manifest = parseManifest(text, source);
  const id = await beginRestore(sha256(encodeText(text)), options);
  const epochs = new Map<string, string>();
  for (const entry of manifest.files) {
    const { path } = entry;
    if (path.startsWith("streams/")) await restoreSegment(entry, { id, epochs }, options);
    else if (!path.startsWith(`${DAMAGED}/`)) await restoreSmall(entry, options);
  }
  await restoreDamages(manifest, epochs, options);
  await using log = await options.open();
  await carryOver(log, epochs);
  await log[Symbol.asyncDispose]();
  await files.remove(join(dataFolder, MARKER));
  await disk.syncFolder(dataFolder);
  return manifest;
}

/** Marks the folder as half restored; what the new epochs are made from. */
async function beginRestore(digest: string, options: RestoreOptions): Promise<string> {
  const { disk, files, dataFolder, random } = options;
  const path = join(dataFolder, MARKER);
  const known = await files.read(path);
  if (known !== null) {
    const marker = JSON.parse(known) as { manifest: string; id: string };
    if (marker.manifest === digest) return marker.id;
    throw new InvalidError(`${dataFolder} is half restored from another backup; empty it first`);
  }
  const held = (await disk.list(dataFolder)).filter((name) => !BESIDE.has(name));
  if (held.length > 0) {
    throw new InvalidError(`${dataFolder} is not empty (${held[0]}); restore into an empty folder`);
  }
  const id = Buffer.from(random(16)).toString("hex");
  await files.replace(path, JSON.stringify({ manifest: digest, id }));
  return id;
}

async function restoreSmall(entry: ManifestFile, options: RestoreOptions): Promise<void> {
  const { files, source, dataFolder, onFile } = options;
  const text = await files.read(join(source, entry.path));
  check(entry, text === null ? null : encodeText(text), source);
  await files.replace(join(dataFolder, entry.path), text ?? "");
  onFile(entry.bytes, entry.bytes);
}

async function restoreSegment(
  entry: ManifestFile,
  made: { readonly id: string; readonly epochs: Map<string, string> },
  options: RestoreOptions,
): Promise<void> {
  const { disk, source, dataFolder, onFile } = options;
  const folder = dirname(join(dataFolder, entry.path));
  const name = entry.path.slice(dirname(entry.path).length + 1);
  const content = await readIfThere(disk, join(source, entry.path));
  check(entry, content, source);
  const header = parseSegmentHeader(content, join(source, entry.path));
  const epoch = sha256(encodeText(`${made.id}/${dirname(entry.path)}`)).slice(0, 16);
  made.epochs.set(header.epoch, epoch);
  encodeSegmentHeader({ ...header, epoch }).copy(content, 0, 0, SEGMENT_HEADER_BYTES);
  await disk.makeFolder(folder);
  const isThere = (await disk.list(folder)).includes(name);
  const isDone = isThere && (await readWhole(disk, join(folder, name))).equals(content);
  const place = { folder, spare: "restore.tmp", name };
  if (!isDone) await (await createDurably(disk, place, [content])).close();
  onFile(entry.bytes, isDone ? 0 : entry.bytes);
}

/** The damages that were known, under the partitions' new epochs, with the copies of their bytes. */
async function restoreDamages(
  { files: entries }: Manifest,
  epochs: ReadonlyMap<string, string>,
  { disk, source, dataFolder, onFile }: RestoreOptions,
): Promise<void> {
  for (const entry of entries.filter(({ path }) => path.startsWith(`${DAMAGED}/`))) {
    const content = await readIfThere(disk, join(source, entry.path));
    check(entry, content, source);
    const folder = join(dataFolder, DAMAGED);
    await disk.makeFolder(folder);
    const name = entry.path.slice(DAMAGED.length + 1);
    const isList = name === DAMAGE_LIST;
    const damages = isList ? parseDamages(content.toString("utf8"), entry.path) : [];
    const bytes = isList ? encodeText(withOtherEpochs(damages, epochs)) : content;
    await (await createDurably(disk, { folder, spare: "restore.tmp", name }, [bytes])).close();
    onFile(entry.bytes, entry.bytes);
  }
}

async function readIfThere(disk: Disk, path: string): Promise<Buffer | null> {
  const folder = dirname(path);
  const isThere = (await disk.list(folder)).includes(path.slice(folder.length + 1));
  return isThere ? await readWhole(disk, path) : null;
}

function check(
  entry: ManifestFile,
  bytes: Uint8Array | null,
  source: string,
): asserts bytes is Uint8Array {
  const path = join(source, entry.path);
  if (bytes === null) throw new StorageError(`${path} is missing in the backup`);
  if (bytes.length === entry.bytes && sha256(bytes) === entry.sha256) return;
  throw new CorruptionError("this file is not what was backed up", { path, byte: 0 });
}

/** Gives the saved progress the partitions' new epochs. Done again it changes nothing. */
async function carryOver(log: FileLog, epochs: ReadonlyMap<string, string>): Promise<void> {
  const changed: [string, Uint8Array][] = [];
  for (const name of log.stateNames("")) {
    const value = await log.states.load(name);
    const moved = value === null ? null : withEpochs(value, epochs);
    if (moved !== null) changed.push([name, moved]);
  }
  if (changed.length > 0) await log.states.save(changed);
}

/**
 * The gateway's states are JSON: `epoch` names a partition's, `cursor` holds those of a stream's
 * partitions. What bridges keep for their sources are bytes of their own, and name no partition.
 */
function withEpochs(bytes: Uint8Array, epochs: ReadonlyMap<string, string>): Uint8Array | null {
  const value = membersOf(bytes);
  const { epoch, cursor } = value;
  if (typeof epoch === "string") {
    const next = epochs.get(epoch);
    if (next === undefined) return null;
    return encodeText(JSON.stringify({ ...value, epoch: next }));
  }
  const places = typeof cursor === "string" ? decodeCursor(cursor) : null;
  if (places === null) return null;
  const short = new Map([...epochs].map(([from, to]) => [shortEpoch(from), shortEpoch(to)]));
  if (!places.some((place) => short.has(place.epoch))) return null;
  const moved = places.map(({ epoch: from, offset }) => ({
    epoch: short.get(from) ?? from,
    offset,
  }));
  return encodeText(JSON.stringify({ ...value, cursor: encodeCursor(moved) }));
}

function membersOf(bytes: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(decodeText(bytes));
    return typeof value === "object" && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}
