/**
 * The damages of a log that are known: bytes that were synced and are not what was written. Each is
 * kept in DATA/damaged: a copy of its bytes, never overwritten, and an entry in `damages.json`,
 * both synced before a reader is told. An entry is remembered over restarts and keeps the gateway
 * from being ready until it is accepted, or its messages are no longer kept.
 */
import { dirname, join } from "node:path";
import { CorruptionError } from "../errors.ts";
import type { Disk } from "./disk.ts";
import type { Offset } from "./log.ts";
import type { Corruption } from "./recover.ts";
import { createDurably } from "./spare.ts";

/** Messages that can't be read any more, and what became of that. */
export interface Damage {
  readonly stream: string;
  readonly partition: number;
  /** Of the partition: a damage of another life of it is none of this one's. */
  readonly epoch: string;
  /** The file, from the streams' folder; where the bad bytes begin, and how many there are. */
  readonly path: string;
  readonly byte: number;
  readonly bytes: number;
  readonly from: Offset;
  /** Exclusive: where reading goes on. The same as `from`: a header was damaged, no message. */
  readonly to: Offset;
  /** What is lost beside messages, in words. */
  readonly lost?: string;
  /** Unix milliseconds. */
  readonly foundAtMs: number;
  /** An operator has seen it and wants to go on without these messages. */
  readonly acceptedAtMs: number | null;
  /** The file was made anew without the bad bytes. */
  readonly repairedAtMs: number | null;
  /** The copy of the bad bytes, in DATA/damaged; null when there were none to copy. */
  readonly copy: string | null;
}

/** Whose damage it is. */
export interface DamagedPartition {
  readonly stream: string;
  readonly partition: number;
  readonly epoch: string;
}

/** Offsets of one partition. */
export interface DamagedRange extends DamagedPartition {
  readonly from: Offset;
  readonly to: Offset;
}

/** The name of the list, beside the copies. */
export const DAMAGE_LIST = "damages.json";
const VERSION = 1;

/** The folder of the damages of a log whose streams are in `folder`. */
export function damageFolder(folder: string): string {
  return join(dirname(folder), "damaged");
}

/** What the log's damages are known by. One writer: the process that holds the data folder. */
export class Damages {
  readonly #disk: Disk;
  readonly #streams: string;
  readonly #folder: string;
  #all: readonly Damage[];
  /** Changes follow one another; each is on disk before the next begins. */
  #changing: Promise<unknown> = Promise.resolve();

  private constructor(disk: Disk, streams: string, all: readonly Damage[]) {
    this.#disk = disk;
    this.#streams = streams;
    this.#folder = damageFolder(streams);
    this.#all = all;
  }

  /**
   * Reads what is known of the log in `streams`. @throws CorruptionError the list itself is
   * damaged: `isthmus log repair` sets it aside. @throws StorageError the disk can't be read.
   */
  static async open(disk: Disk, streams: string): Promise<Damages> {
    const path = join(damageFolder(streams), DAMAGE_LIST);
    const names = await disk.list(damageFolder(streams));
    const text = names.includes(DAMAGE_LIST) ? await readText(disk, path) : null;
    return new Damages(disk, streams, text === null ? [] : parseDamages(text, path));
  }

  /** All of them, in the order in which they were found. */
  all(): readonly Damage[] {
    return this.#all;
  }

  /** Those that nobody has accepted. */
  pending(): readonly Damage[] {
    return this.#all.filter(({ acceptedAtMs }) => acceptedAtMs === null);
  }

  /** Whether every offset of the range lies in damages that were accepted. */
  isAccepted(range: DamagedRange): boolean {
    return covers(
      this.#all.filter(({ acceptedAtMs }) => acceptedAtMs !== null),
      range,
    );
  }

  /** The same for files that were made anew without the range. */
  isRepaired(range: DamagedRange): boolean {
    return covers(
      this.#all.filter(({ repairedAtMs }) => repairedAtMs !== null),
      range,
    );
  }

  /**
   * Remembers a damage and sets its bytes aside, unless all of it is known. Both are on disk when
   * it resolves; true when it was new. @throws StorageError it is not remembered: try again.
   */
  note(whose: DamagedPartition, found: Corruption, nowMs: number): Promise<boolean> {
    const { from, to, byte, bytes } = found;
    return this.#change(async () => {
      const range = { ...whose, from, to };
      // A header that was made anew and is damaged again is another damage.
      const isKnown =
        to > from
          ? covers(this.#all, range)
          : this.pending().some((each) => isSamePlace(each, range));
      if (isKnown) return false;
      const copy = await this.#setAside(whose, found);
      const path = found.path.slice(this.#streams.length + 1);
      const times = { foundAtMs: nowMs, acceptedAtMs: null, repairedAtMs: null };
      const { stream, partition, epoch } = whose;
      const lost = found.lost === undefined ? {} : { lost: found.lost };
      const place = { stream, partition, epoch, path, byte, bytes, from, to };
      const damage = { ...place, ...lost, ...times, copy };
      // A wider finding takes the place of the pending ones that lie in it.
      const kept = this.#all.filter(
        (each) => each.acceptedAtMs !== null || each.from === each.to || !isWithin(each, damage),
      );
      await this.#store([...kept, damage]);
      return true;
    });
  }

  /** Accepts all that is pending, durably; those that were. @throws StorageError none is. */
  accept(nowMs: number): Promise<readonly Damage[]> {
    return this.#change(async () => {
      const pending = this.pending();
      if (pending.length === 0) return pending;
      const isPending = new Set(pending);
      await this.#store(
        this.#all.map((each) => (isPending.has(each) ? { ...each, acceptedAtMs: nowMs } : each)),
      );
      return pending;
    });
  }

  /** Says that the file no longer holds the bad bytes of a range, which is thereby accepted. */
  repaired(range: DamagedRange, nowMs: number): Promise<void> {
    return this.#change(async () => {
      const next = this.#all.map((each) =>
        isWithin(each, range)
          ? { ...each, acceptedAtMs: each.acceptedAtMs ?? nowMs, repairedAtMs: nowMs }
          : each,
      );
      await this.#store(next);
    });
  }

  /** Forgets those that no longer matter. @throws StorageError they are still remembered. */
  forget(isOver: (damage: Damage) => boolean): Promise<void> {
    return this.#change(async () => {
      const kept = this.#all.filter((damage) => !isOver(damage));
      if (kept.length < this.#all.length) await this.#store(kept);
    });
  }

  /** Keeps a copy of bytes beside the list; its name. What has the name already is the same. */
  async keep(name: string, bytes: Uint8Array): Promise<string> {
    await this.#disk.makeFolder(this.#folder);
    const known = await this.#disk.list(this.#folder);
    if (known.includes(name)) return name;
    const place = { folder: this.#folder, spare: "copy.tmp", name };
    await (await createDurably(this.#disk, place, [bytes])).close();
    return name;
  }

  #change<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#changing.then(work, work);
    this.#changing = done;
    // Whoever asked for the change is told by its own promise.
    return done;
  }

  async #setAside(whose: DamagedPartition, found: Corruption): Promise<string | null> {
    if (found.bytes <= 0) return null;
    const file = await this.#disk.open(found.path, "read");
    const bytes = Buffer.allocUnsafeSlow(found.bytes);
    let count: number;
    try {
      count = await file.read(bytes, found.byte);
    } finally {
      await file.close();
    }
    const kept = bytes.subarray(0, count);
    const place = `${whose.stream}-${whose.partition}-${found.from}-${found.byte}`;
    return await this.keep(`${place}-${crcText(kept)}.bin`, kept);
  }

  async #store(all: readonly Damage[]): Promise<void> {
    await this.#disk.makeFolder(this.#folder);
    const place = { folder: this.#folder, spare: "damages.tmp", name: DAMAGE_LIST };
    const file = await createDurably(this.#disk, place, [Buffer.from(listText(all))]);
    this.#all = all;
    await file.close();
  }
}

/** What a damage has cost, in words. */
export function damageText(
  damage: Omit<Damage, "epoch" | "copy" | "foundAtMs" | "acceptedAtMs" | "repairedAtMs">,
): string {
  const { stream, partition, path, byte, bytes } = damage;
  const place = `${path}, byte ${byte}, ${bytes} bytes`;
  return `${stream}/${partition}: ${lostText(damage)} (${place})`;
}

/** What is lost, in words. */
export function lostText({ from, to, lost }: Pick<Corruption, "from" | "to" | "lost">): string {
  const messages =
    to > from
      ? `messages ${from} to ${to - 1} are damaged`
      : `the header of segment ${from} was damaged and is made anew`;
  return lost === undefined ? messages : `${messages}; ${lost}`;
}

/** Moves a list that can't be read out of the way, as it is; its name beside the copies. */
export async function setListAside(disk: Disk, streams: string): Promise<string> {
  const folder = damageFolder(streams);
  const path = join(folder, DAMAGE_LIST);
  const name = `damages-${crcText(Buffer.from(await readText(disk, path)))}.unreadable`;
  await disk.rename(path, join(folder, name));
  await disk.syncFolder(folder);
  return name;
}

/** The CRC-32 of bytes as it stands in names. */
export function crcText(bytes: Uint8Array): string {
  return Bun.hash.crc32(bytes).toString(16).padStart(8, "0");
}

/** A list for a log whose partitions have other epochs; damages of none of them are left out. */
export function withOtherEpochs(
  damages: readonly Damage[],
  epochs: ReadonlyMap<string, string>,
): string {
  return listText(
    damages.flatMap((each) => {
      const epoch = epochs.get(each.epoch);
      return epoch === undefined ? [] : [{ ...each, epoch }];
    }),
  );
}

/** One line of JSON under one line with its checksum. */
function listText(damages: readonly Damage[]): string {
  const text = JSON.stringify({ version: VERSION, damages }, null, 1);
  return `${crcText(Buffer.from(text))}\n${text}`;
}

/** Reads a list's text. @throws CorruptionError it is damaged, or of another release. */
export function parseDamages(text: string, path: string): readonly Damage[] {
  const line = text.indexOf("\n");
  const content = text.slice(line + 1);
  if (line < 0 || text.slice(0, line) !== crcText(Buffer.from(content))) {
    const detail = "the list of known damages is damaged; isthmus log repair sets it aside";
    throw new CorruptionError(detail, { path, byte: 0 });
  }
  const { version, damages } = JSON.parse(content) as { version: number; damages: Damage[] };
  if (version === VERSION) return damages;
  const detail = `the list of known damages has version ${version}; this release reads ${VERSION}`;
  throw new CorruptionError(detail, { path, byte: line + 1 });
}

async function readText(disk: Disk, path: string): Promise<string> {
  const file = await disk.open(path, "read");
  try {
    const bytes = Buffer.alloc(await file.size());
    return bytes.toString("utf8", 0, await file.read(bytes, 0));
  } finally {
    await file.close();
  }
}

function isSamePartition(a: DamagedPartition, b: DamagedPartition): boolean {
  return a.stream === b.stream && a.partition === b.partition && a.epoch === b.epoch;
}

function isWithin(inner: DamagedRange, outer: DamagedRange): boolean {
  return isSamePartition(inner, outer) && inner.from >= outer.from && inner.to <= outer.to;
}

function isSamePlace(a: DamagedRange, b: DamagedRange): boolean {
  return isSamePartition(a, b) && a.from === b.from && a.to === b.to;
}

/** Whether the damages together hold every offset of a range. */
function covers(damages: readonly Damage[], range: DamagedRange): boolean {
  let from = range.from;
  const own = damages
    .filter((each) => isSamePartition(each, range))
    .toSorted((a, b) => a.from - b.from);
  for (const each of own) {
    if (each.from > from) break;
    from = Math.max(from, each.to);
  }
  return from >= range.to;
}
