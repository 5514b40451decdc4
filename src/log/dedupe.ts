/**
 * Which dedupe keys a partition holds, and at which offset: written in the same batch as their
 * message, so they cannot be lost without it; found for as long as its segment lives. The newest
 * segment's keys stand in memory; those of sealed segments in sorted files (key-file.ts), which are
 * opened only when the filter (key-filter.ts) says that they may hold a key, and whose answer is
 * compared with the record itself: equal hashes never make a duplicate.
 */
import { StorageError } from "../errors.ts";
import { segmentKeysMax } from "../limits.ts";
import type { Disk, DiskFile } from "./disk.ts";
import { KeyFilter, type KeyHash, hashKey } from "./key-filter.ts";
import { KeyList, keysName, keysPath, readKeys, searchKeys } from "./key-file.ts";
import type { Offset, PartitionId } from "./log.ts";
import type { OpenFiles } from "./open-files.ts";
import { dedupeKeyAt, eachDedupeKey } from "./segment-keys.ts";
import type { Segment } from "./segment.ts";
import { createDurably } from "./spare.ts";

/** What the keys of a partition are kept with. */
export interface DedupeParts {
  readonly id: PartitionId;
  readonly epoch: string;
  readonly folder: string;
  readonly disk: Disk;
  readonly files: OpenFiles;
}

interface Sealed {
  readonly segment: Segment;
  /** Counts up; the filter knows segments by it. */
  readonly number: number;
  /** Where the next segment begins. */
  readonly end: Offset;
}

/** The keys of one partition. Segments are told of oldest first. */
export class Dedupe {
  readonly #parts: DedupeParts;
  /** Hashes are the partition's own: nobody can choose keys that meet. */
  readonly #seed: number;
  #newest = new Map<string, Offset>();
  /** The newest segment's keys in the order of their offsets. */
  #order: string[] = [];
  /** Those of a segment whose file is being written. */
  #sealing: ReadonlyMap<string, Offset> | null = null;
  #sealed: Sealed[] = [];
  #sealedCount = 0;
  readonly #filter = new KeyFilter();
  /** How many of the sealed segments, by number, are in the filter. */
  #filteredBelow = 0;
  #loading: Promise<void> | null = null;
  #writing: Promise<unknown> = Promise.resolve();

  /** `sealed` are the segments whose keys stand on disk already, oldest first. */
  constructor(parts: DedupeParts, sealed: readonly { segment: Segment; end: Offset }[] = []) {
    this.#parts = parts;
    this.#seed = Bun.hash.crc32(parts.epoch);
    for (const { segment, end } of sealed) this.#push(segment, end);
  }

  /** Whether the newest segment holds as many keys as stand in memory: it is to be sealed. */
  get isFull(): boolean {
    return this.#order.length >= segmentKeysMax;
  }

  /** Bytes of the filter. */
  get filterBytes(): number {
    return this.#filter.byteLength;
  }

  /** The offset of a key of the newest segment, or of one that is on its way into it; or null. */
  recent(key: string): Offset | null {
    return this.#newest.get(key) ?? this.#sealing?.get(key) ?? null;
  }

  /** The offset of the message with the key, or null; undefined when only `lookUp` can tell. */
  find(key: string): Offset | null | undefined {
    const recent = this.recent(key);
    if (recent !== null || this.#sealed.length === 0) return recent;
    if (this.#filteredBelow < this.#sealedCount) return undefined;
    return this.#filter.find(hashKey(key, this.#seed)) === null ? null : undefined;
  }

  /** As `find`, from the disk where needed. @throws StorageError it can't be told now. */
  async lookUp(key: string): Promise<Offset | null> {
    while (this.#filteredBelow < this.#sealedCount) await this.#load();
    const hash = hashKey(key, this.#seed);
    const recent = this.recent(key);
    const tags = recent === null ? this.#filter.find(hash) : null;
    if (tags === null) return recent;
    for (const sealed of this.#sealed.toReversed()) {
      if (!KeyFilter.matches(tags, sealed.number)) continue;
      for (const offset of await this.#search(sealed, hash)) {
        if ((await dedupeKeyAt(sealed.segment, offset, this.#parts.id)) === key) return offset;
      }
    }
    return null;
  }

  /** Notes a key of the newest segment, or of the one that will be begun for it. */
  note(key: string, offset: Offset): void {
    this.#newest.set(key, offset);
    this.#order.push(key);
  }

  /** Forgets the keys at or above an offset: their messages were not written. */
  forgetFrom(offset: Offset): void {
    for (const key of this.#takeFrom(offset)) this.#newest.delete(key);
  }

  /**
   * The newest segment is sealed and ends at `end`; the keys of messages that are on their way into
   * the next one are that one's. Its own are written beside it: a crash before that, or a full
   * disk, costs one scan of the segment, and no key. @throws StorageError, fatal
   */
  async seal(segment: Segment, end: Offset): Promise<void> {
    const own = this.#newest;
    const order = this.#order;
    this.#order = this.#takeFrom(end);
    this.#newest = new Map();
    for (const key of this.#order) this.#newest.set(key, own.get(key) ?? end);
    this.#sealing = own;
    const list = new KeyList(segment.baseOffset);
    for (const key of order) {
      // A key that was not looked up can stand twice, its later message not written.
      const offset = own.get(key);
      if (offset !== undefined) list.add(hashKey(key, this.#seed), offset);
    }
    list.sort();
    const sealed = this.#push(segment, end);
    // Before the write: who looks for a key meanwhile would scan the segment for what stands here.
    if (this.#filteredBelow === sealed.number) this.#take(sealed, list);
    try {
      await this.#write(segment, list);
    } catch (error) {
      if (!(error instanceof StorageError) || error.fatal) throw error;
    }
    this.#sealing = null;
  }

  /** Forgets a deleted segment's keys. */
  forgetSegment(baseOffset: Offset): void {
    this.#sealed = this.#sealed.filter(({ segment }) => segment.baseOffset !== baseOffset);
    this.#filter.dropBelow(this.#sealed[0]?.number ?? this.#sealedCount);
  }

  /** Removes a segment's key file. What it held is found by a scan of the segment while that is. */
  async removeFile(baseOffset: Offset): Promise<void> {
    const { disk, folder, files } = this.#parts;
    await this.#writing;
    const path = keysPath(folder, baseOffset);
    await files.forget(path);
    if ((await disk.list(folder)).includes(keysName(baseOffset))) await disk.remove(path);
  }

  #push(segment: Segment, end: Offset): Sealed {
    const sealed = { segment, end, number: this.#sealedCount++ };
    this.#sealed.push(sealed);
    return sealed;
  }

  /** Puts the keys of sealed segments into the filter; the first look of a process waits for it. */
  #load(): Promise<void> {
    this.#loading ??= this.#loadAll().finally(() => {
      this.#loading = null;
    });
    return this.#loading;
  }

  async #loadAll(): Promise<void> {
    while (this.#filteredBelow < this.#sealedCount) {
      const sealed = this.#sealed.find(({ number }) => number >= this.#filteredBelow);
      if (sealed === undefined) {
        this.#filteredBelow = this.#sealedCount;
        return;
      }
      const list = await this.#listOf(sealed);
      if (list === null) continue;
      if (this.#filteredBelow <= sealed.number) this.#take(sealed, list);
    }
  }

  #take(sealed: Sealed, list: KeyList): void {
    for (let at = 0; at < list.count; at++) this.#filter.add(list.hashAt(at), sealed.number);
    this.#filteredBelow = sealed.number + 1;
  }

  /** The keys of a sealed segment; null when it was deleted meanwhile. */
  async #listOf(sealed: Sealed): Promise<KeyList | null> {
    const owner = this.#ownerOf(sealed.segment);
    const list = await this.#read(sealed, (file) => readKeys(file, owner));
    return list ?? (await this.#rebuild(sealed));
  }

  async #search(sealed: Sealed, hash: KeyHash): Promise<readonly Offset[]> {
    const owner = this.#ownerOf(sealed.segment);
    const found = await this.#read(sealed, (file) => searchKeys(file, owner, hash));
    if (found !== null) return found.filter((offset) => offset < sealed.end);
    return (await this.#rebuild(sealed))?.find(hash) ?? [];
  }

  /** What a key file says; null when it is missing or says nothing that counts. */
  async #read<T>(
    { segment }: Sealed,
    work: (file: DiskFile) => Promise<T | null>,
  ): Promise<T | null> {
    const { files, folder } = this.#parts;
    try {
      return await files.use(keysPath(folder, segment.baseOffset), work);
    } catch (error) {
      const cause = error instanceof StorageError ? error.cause : null;
      if ((cause as { code?: unknown } | null)?.code === "ENOENT") return null;
      throw error;
    }
  }

  /** The keys of a segment from its records, written anew; null when it was deleted meanwhile. */
  async #rebuild(sealed: Sealed): Promise<KeyList | null> {
    const { segment, end } = sealed;
    const list = new KeyList(segment.baseOffset);
    try {
      await eachDedupeKey(segment, this.#parts.id, (key, offset) => {
        if (offset < end) list.add(hashKey(key, this.#seed), offset);
      });
      list.sort();
      if (this.#sealed.includes(sealed)) await this.#write(segment, list);
    } catch (error) {
      if (!(error instanceof StorageError) || error.fatal) throw error;
      // One that is deleted holds nothing; of one that can't be read nobody knows.
      if (!this.#sealed.includes(sealed)) return null;
      if (!list.isSorted) throw error;
    }
    return this.#sealed.includes(sealed) ? list : null;
  }

  #ownerOf({ baseOffset, salt }: Segment) {
    return { baseOffset, salt, seed: this.#seed };
  }

  /** One at a time: they share a spare name. @throws StorageError */
  #write(segment: Segment, list: KeyList): Promise<void> {
    const { disk, folder, files } = this.#parts;
    const place = { folder, spare: "keys.tmp", name: keysName(segment.baseOffset) };
    const written = this.#writing.then(async () => {
      const bytes = list.encode(this.#ownerOf(segment));
      await (await createDurably(disk, place, [bytes])).close();
      await files.forget(keysPath(folder, segment.baseOffset));
    });
    this.#writing = written.catch(toldToWriter);
    return written;
  }

  /** Takes the keys at or above an offset out of the newest segment's, in order. */
  #takeFrom(offset: Offset): string[] {
    let keep = this.#order.length;
    while (keep > 0 && (this.#newest.get(this.#order[keep - 1] ?? "") ?? 0) >= offset) keep--;
    return this.#order.splice(keep);
  }
}

/** A failed write is told to whoever asked for it. */
function toldToWriter(): void {}
