/**
 * Files that are only read, opened when they are needed: at most so many stay open, the one used
 * longest ago is closed first. A file in use stays open whatever else is asked for, so that one
 * that is deleted meanwhile can still be read to the end.
 */
import { assert } from "../assert.ts";
import type { Disk, DiskFile } from "./disk.ts";

interface Entry {
  readonly path: string;
  readonly opening: Promise<DiskFile>;
  users: number;
  /** Its name is another file's now: closed as soon as nobody uses it. */
  isGone: boolean;
  readonly closed: () => void;
}

/** The files of one log that are open for reading. */
export class OpenFiles {
  readonly #disk: Disk;
  readonly #max: number;
  /** The one used longest ago first. */
  readonly #entries = new Map<string, Entry>();

  constructor(disk: Disk, max: number) {
    this.#disk = disk;
    this.#max = max;
  }

  /** How many are open. */
  get count(): number {
    return this.#entries.size;
  }

  /**
   * Runs work over an open file. `closed` is told when it is closed later, if this call opened it.
   * @throws StorageError it can't be opened or read.
   */
  async use<T>(
    path: string,
    work: (file: DiskFile) => Promise<T>,
    closed: () => void = () => undefined,
  ): Promise<T> {
    const entry = this.#entries.get(path) ?? this.#open(path, closed);
    // The newest stands last.
    this.#entries.delete(path);
    this.#entries.set(path, entry);
    entry.users++;
    try {
      return await work(await entry.opening);
    } finally {
      entry.users--;
      if (entry.isGone && entry.users === 0) await this.#close(entry);
      await this.#closeOldest();
    }
  }

  /** The file of this name is deleted or replaced: the next use opens what is there then. */
  async forget(path: string): Promise<void> {
    const entry = this.#entries.get(path);
    if (entry === undefined) return;
    this.#entries.delete(path);
    entry.isGone = true;
    if (entry.users === 0) await this.#close(entry);
  }

  /** Closes all; nobody may use them any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const path of this.#entries.keys()) await this.forget(path);
  }

  #open(path: string, closed: () => void): Entry {
    const opening = this.#disk.open(path, "read");
    const entry = { path, opening, users: 0, isGone: false, closed };
    opening.catch(() => {
      if (this.#entries.get(path) === entry) this.#entries.delete(path);
    });
    return entry;
  }

  async #closeOldest(): Promise<void> {
    for (const entry of this.#entries.values()) {
      if (this.#entries.size <= this.#max) return;
      if (entry.users > 0) continue;
      this.#entries.delete(entry.path);
      await this.#close(entry);
    }
  }

  async #close(entry: Entry): Promise<void> {
    const file = await entry.opening.catch(toldToUsers);
    entry.closed();
    await file?.close();
  }
}

/** A file that could not be opened was told of to those who used it. */
function toldToUsers(): null {
  return null;
}

/** A sealed segment's file: open while somebody reads, and for as long as there is room. */
export class SealedFile implements DiskFile {
  readonly #files: OpenFiles;
  readonly #path: string;
  readonly #bytes: number;
  /** Told when the file is closed to make room: what was kept beside it may go as well. */
  onClosed: () => void = () => undefined;

  constructor(files: OpenFiles, path: string, bytes: number) {
    this.#files = files;
    this.#path = path;
    this.#bytes = bytes;
  }

  /** Keeps the file open while work reads it several times. */
  hold<T>(work: () => Promise<T>): Promise<T> {
    return this.#files.use(this.#path, work, () => this.onClosed());
  }

  read(into: Uint8Array, position: number): Promise<number> {
    const closed = (): void => this.onClosed();
    return this.#files.use(this.#path, (file) => file.read(into, position), closed);
  }

  size(): Promise<number> {
    return Promise.resolve(this.#bytes);
  }

  close(): Promise<void> {
    return this.#files.forget(this.#path);
  }

  write(): void {
    assert(false, "a sealed segment is not written");
  }

  sync(): Promise<void> {
    assert(false, "a sealed segment is not synced");
  }

  truncate(): Promise<void> {
    assert(false, "a sealed segment is not cut");
  }
}
