/**
 * Where the messages of each key stand, for streams with `index: [key]`: those of the segment that
 * is written in memory, those of sealed ones in a sorted file beside each (the form of key-file.ts,
 * named `.index`). A hint, like the dedupe keys: made anew from the segment when it is missing or
 * damaged, and what it finds is compared with the message's own key.
 */
import { StorageError } from "../errors.ts";
import { type BatchHeader, decodeBatch } from "./batch.ts";
import type { Disk, DiskFile } from "./disk.ts";
import type { GroupBytes } from "./group-buffer.ts";
import { indexName, type KeyFileOwner, KeyList, searchKeys } from "./key-file.ts";
import { hashKey, type KeyHash } from "./key-filter.ts";
import { KeyWaiters } from "./key-waiters.ts";
import type { Offset, PartitionId } from "./log.ts";
import type { OpenFiles } from "./open-files.ts";
import { RecentKeys } from "./recent-keys.ts";
import { eachMessageKey } from "./segment-keys.ts";
import type { Segment } from "./segment.ts";
import { createDurably } from "./spare.ts";
import { join } from "node:path";

/** What an index is kept with. */
export interface KeyIndexParts {
  readonly id: PartitionId;
  readonly epoch: string;
  readonly folder: string;
  readonly disk: Disk;
  readonly files: OpenFiles;
  /** Shared with the partition; the last one is being written. */
  readonly segments: readonly Segment[];
  /** The partition's end. */
  readonly end: () => Offset;
  /** The streams that are to have an index: may change. */
  readonly indexed: ReadonlySet<string>;
}

/** A durable group: its memory and where its batches stand in it. */
interface Committed {
  readonly memory: GroupBytes;
  readonly batches: readonly { readonly header: BatchHeader; readonly start: number }[];
}

/** What is looked for: so many offsets of a key, between two. */
export interface KeySearch {
  readonly from: Offset;
  readonly end: Offset;
  readonly max: number;
}

/** The keys of a segment, and where messages are missing that a reader has to be told of. */
interface Rebuilt {
  readonly list: KeyList;
  readonly holes: readonly Offset[];
}

/** The index of one partition. */
export class KeyIndex {
  readonly waiters = new KeyWaiters();
  readonly #parts: KeyIndexParts;
  /** Not that of the dedupe keys: the files can't be taken for each other. */
  readonly #seed: number;
  #recent: RecentKeys | null = null;
  #filling: Promise<void> | null = null;
  /** The keys of a segment whose file is being written. */
  #sealing: { readonly segment: Segment; readonly list: KeyList } | null = null;
  readonly #rebuilding = new Map<Offset, Promise<Rebuilt | null>>();
  /** Of segments with holes: no file is written that would hide them. */
  readonly #holed = new Map<Offset, Rebuilt>();
  #writing: Promise<unknown> = Promise.resolve();

  constructor(parts: KeyIndexParts) {
    this.#parts = parts;
    this.#seed = (Bun.hash.crc32(parts.epoch) ^ 0x5bd1e995) >>> 0;
  }

  get isWanted(): boolean {
    return this.#parts.indexed.has(this.#parts.id.stream);
  }

  hash(key: Uint8Array): KeyHash {
    return hashKey(key, this.#seed);
  }

  /** Notes the keys of a durable group, and wakes who waits for one of them. */
  committed({ memory, batches }: Committed): void {
    if (!this.isWanted) {
      // What is not noted is read from the segment when it is wanted again.
      this.#recent = null;
      if (this.waiters.size > 0) this.waiters.wakeAll(false);
      return;
    }
    const base = this.#parts.segments.at(-1)?.baseOffset ?? 0;
    for (const { header, start } of batches) {
      if (this.#recent?.baseOffset !== base) this.#recent = new RecentKeys(base, header.baseOffset);
      for (const { key, offset } of decodeBatch(memory.bytes, start, header, this.#parts.id)) {
        if (key === null) continue;
        const hash = this.hash(key);
        this.#recent.add(hash, offset);
        this.waiters.wake(hash);
      }
    }
  }

  /**
   * The offsets of messages that may have the key, ascending, and where the search has come to.
   * @throws StorageError it can't be told now.
   */
  async find(
    key: Uint8Array,
    { from, end, max }: KeySearch,
  ): Promise<{ readonly offsets: readonly Offset[]; readonly next: Offset }> {
    const hash = this.hash(key);
    const offsets: Offset[] = [];
    // Segments may be sealed and deleted meanwhile: this list is ours.
    const segments = [...this.#parts.segments];
    for (const [index, segment] of segments.entries()) {
      const segmentEnd = segments[index + 1]?.baseOffset ?? end;
      if (segmentEnd <= from || segment.baseOffset >= end) continue;
      const search = { from, end: segmentEnd, max: max - offsets.length };
      const found = await this.#findIn(segment, hash, search);
      for (const offset of found) if (offset < end) offsets.push(offset);
      const last = offsets.at(-1);
      if (last !== undefined && offsets.length >= max) return { offsets, next: last + 1 };
    }
    return { offsets, next: end };
  }

  async #findIn(segment: Segment, hash: KeyHash, search: KeySearch): Promise<Offset[]> {
    if (this.#parts.segments.at(-1) === segment) {
      const recent = await this.#fill(segment);
      if (recent !== null) return recent.find(hash, search.from).slice(0, search.max);
    }
    const owner = this.#ownerOf(segment);
    const path = this.#path(segment.baseOffset);
    const found =
      this.#sealing?.segment === segment
        ? this.#sealing.list.find(hash, search)
        : await this.#read(path, (file) => searchKeys(file, owner, hash, search));
    const offsets = found ?? (await this.#findRebuilt(segment, hash, search));
    return offsets.filter((offset) => offset < search.end);
  }

  /** What is missing may have any key: it is found with each, and whoever reads it is told. */
  async #findRebuilt(segment: Segment, hash: KeyHash, search: KeySearch): Promise<Offset[]> {
    const known = this.#holed.get(segment.baseOffset);
    const rebuilt = known ?? (await this.#rebuild(segment, search.end));
    if (rebuilt === null) return [];
    const offsets = rebuilt.list.find(hash, search);
    const holes = rebuilt.holes.filter((offset) => offset >= search.from);
    if (holes.length === 0) return offsets;
    return [...offsets, ...holes].sort((a, b) => a - b).slice(0, search.max);
  }

  /** All keys of the newest segment; null when it has been sealed meanwhile. */
  async #fill(segment: Segment): Promise<RecentKeys | null> {
    const { id } = this.#parts;
    for (;;) {
      if (this.#recent?.baseOffset !== segment.baseOffset) {
        this.#recent = new RecentKeys(segment.baseOffset, this.#parts.end());
      }
      const recent = this.#recent;
      if (recent.isWhole) return recent;
      this.#filling ??= eachMessageKey(segment, { id, below: recent.noted }, (key, offset) => {
        recent.add(this.hash(key), offset);
      })
        .then(() => {
          recent.isWhole = true;
        })
        .finally(() => {
          this.#filling = null;
        });
      await this.#filling;
      if (this.#parts.segments.at(-1) !== segment) return null;
    }
  }

  /** The newest segment is sealed and ends at `end`. @throws StorageError, fatal */
  async seal(segment: Segment, end: Offset): Promise<void> {
    const recent = this.#recent;
    this.#recent = null;
    const isOwn = recent !== null && recent.baseOffset === segment.baseOffset && recent.isWhole;
    if (!isOwn || !this.isWanted || end === segment.baseOffset) return;
    const { list } = recent;
    list.sort();
    this.#sealing = { segment, list };
    try {
      await this.#write(segment, list);
    } catch (error) {
      // It is made anew when somebody looks for a key.
      if (!(error instanceof StorageError) || error.fatal) throw error;
    } finally {
      this.#sealing = null;
    }
  }

  /** Removes a segment's file before the segment itself goes. @throws StorageError */
  async removeFile(baseOffset: Offset): Promise<void> {
    const { disk, folder, files } = this.#parts;
    await this.#writing;
    this.#holed.delete(baseOffset);
    const path = this.#path(baseOffset);
    await files.forget(path);
    if ((await disk.list(folder)).includes(indexName(baseOffset))) await disk.remove(path);
  }

  /** What a file says; null when it is missing or says nothing that counts. */
  async #read<T>(path: string, work: (file: DiskFile) => Promise<T | null>): Promise<T | null> {
    try {
      return await this.#parts.files.use(path, work);
    } catch (error) {
      const cause = error instanceof StorageError ? error.cause : null;
      if ((cause as { code?: unknown } | null)?.code === "ENOENT") return null;
      throw error;
    }
  }

  /** The keys of a sealed segment from its messages, written anew; once for all who wait. */
  #rebuild(segment: Segment, end: Offset): Promise<Rebuilt | null> {
    const known = this.#rebuilding.get(segment.baseOffset);
    if (known !== undefined) return known;
    const rebuilt = this.#rebuildOne(segment, end).finally(() => {
      this.#rebuilding.delete(segment.baseOffset);
    });
    this.#rebuilding.set(segment.baseOffset, rebuilt);
    return rebuilt;
  }

  /** Null when the segment was deleted meanwhile. */
  async #rebuildOne(segment: Segment, end: Offset): Promise<Rebuilt | null> {
    const { id, segments } = this.#parts;
    const list = new KeyList(segment.baseOffset);
    let holes: readonly Offset[] = [];
    try {
      holes = await eachMessageKey(segment, { id, below: end }, (key, offset) => {
        list.add(this.hash(key), offset);
      });
      list.sort();
      if (holes.length > 0) this.#holed.set(segment.baseOffset, { list, holes });
      else if (segments.includes(segment)) await this.#write(segment, list);
    } catch (error) {
      if (!(error instanceof StorageError) || error.fatal) throw error;
      if (!segments.includes(segment)) return null;
      if (!list.isSorted) throw error;
    }
    return segments.includes(segment) ? { list, holes } : null;
  }

  #ownerOf({ baseOffset, salt }: Segment): KeyFileOwner {
    return { baseOffset, salt, seed: this.#seed };
  }

  #path(baseOffset: Offset): string {
    return join(this.#parts.folder, indexName(baseOffset));
  }

  /** One at a time: they share a spare name. @throws StorageError */
  #write(segment: Segment, list: KeyList): Promise<void> {
    const { disk, folder, files } = this.#parts;
    const place = { folder, spare: "index.tmp", name: indexName(segment.baseOffset) };
    const written = this.#writing.then(async () => {
      const bytes = list.encode(this.#ownerOf(segment));
      await (await createDurably(disk, place, [bytes])).close();
      await files.forget(this.#path(segment.baseOffset));
    });
    this.#writing = written.catch(toldToWriter);
    return written;
  }
}

/** A failed write is told to whoever asked for it. */
function toldToWriter(): void {}
