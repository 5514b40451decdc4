/**
 * A disk in memory that behaves like a real one in the ways that hurt: what was not synced may be
 * kept, dropped or torn by sector when it crashes, in any order; names not synced may be lost; any
 * call can be made to fail, and what a failed sync should have written may never be written, though
 * the cache shows it and the next sync succeeds. Driven by one seed.
 */
import { StorageError } from "../../src/errors.ts";
import type { Disk, DiskFile } from "../../src/log/disk.ts";
import type { Random } from "./random.ts";

/** What a disk writes whole: of old disks, and of new ones. */
export type SectorBytes = 512 | 4096;

/** The calls that are counted and can fail. */
export type Call = "write" | "sync" | "open" | "rename" | "truncate" | "remove" | "read";

interface PendingWrite {
  readonly position: number;
  readonly bytes: Buffer;
}

/** One file's content: what is on the platter, and what only the cache knows. */
class Inode {
  synced = Buffer.alloc(0);
  cached = Buffer.alloc(0);
  pending: PendingWrite[] = [];
  pendingLength: number | null = null;
  /** A sync has failed: the cache holds what no later sync will write. */
  hasLost = false;

  write(bytes: Uint8Array, position: number): void {
    this.cached = applied(this.cached, bytes, position);
    this.pending.push({ position, bytes: Buffer.from(bytes) });
  }

  truncate(length: number): void {
    const before = this.cached;
    this.cached = Buffer.alloc(length);
    before.copy(this.cached, 0, 0, Math.min(length, before.length));
    this.pendingLength = length;
    this.pending = this.pending.filter(({ position }) => position < length);
  }

  sync(): void {
    this.synced = this.hasLost ? this.#written() : Buffer.from(this.cached);
    this.pending = [];
    this.pendingLength = null;
  }

  /** A sync fails: its pages count as written from now on, and are not. */
  loseSync(): void {
    this.pending = [];
    this.hasLost = true;
  }

  #written(): Buffer<ArrayBuffer> {
    let content = this.synced;
    if (this.pendingLength !== null) content = resized(content, this.pendingLength);
    for (const { position, bytes } of this.pending) content = applied(content, bytes, position);
    return content;
  }

  /** The same again, for a process that goes on where another one was killed. */
  copy(): Inode {
    const copy = new Inode();
    copy.synced = Buffer.from(this.synced);
    copy.cached = Buffer.from(this.cached);
    copy.pending = [...this.pending];
    copy.pendingLength = this.pendingLength;
    copy.hasLost = this.hasLost;
    return copy;
  }

  /** What a crash leaves: any sectors of any unsynced writes, in any order. */
  afterCrash(random: Random, sectorBytes: SectorBytes): Buffer {
    let content = Buffer.from(this.synced);
    if (this.pendingLength !== null && random.chance(0.5)) {
      content = resized(content, this.pendingLength);
    }
    for (const { position, bytes } of this.pending) {
      for (let at = 0; at < bytes.length; ) {
        // Sectors are those of the file, not of the write.
        const length = sectorBytes - ((position + at) % sectorBytes);
        const sector = bytes.subarray(at, at + length);
        if (!random.chance(0.4)) content = applied(content, sector, position + at);
        at += length;
      }
    }
    return content;
  }
}

function resized(content: Buffer, length: number): Buffer<ArrayBuffer> {
  const result = Buffer.alloc(length);
  content.copy(result, 0, 0, Math.min(content.length, length));
  return result;
}

function applied(content: Buffer, bytes: Uint8Array, position: number): Buffer<ArrayBuffer> {
  const result = Buffer.alloc(Math.max(content.length, position + bytes.length));
  content.copy(result);
  result.set(bytes, position);
  return result;
}

/** Which call fails next, and how. */
export interface Fault {
  /** Calls of these kinds are counted: 1 fails the next one. `any` is all but `read`. */
  readonly call: Call | "any";
  readonly after: number;
  /** Only calls for paths that hold this text. */
  readonly path?: string;
  readonly code: "EIO" | "ENOSPC" | "EDQUOT" | "EMFILE" | "EINTR";
}

/** The disk. */
export class MemoryDisk implements Disk {
  readonly #names = new Map<string, Inode>();
  #durable = new Map<string, Inode>();
  readonly #folders = new Set<string>();
  /** Folders whose names are on the platter. */
  readonly #durableFolders = new Set<string>();
  #faults: { readonly fault: Fault; left: number }[] = [];
  /** How often each kind of call was made. */
  readonly calls: Record<Call, number> = {
    write: 0,
    sync: 0,
    open: 0,
    rename: 0,
    truncate: 0,
    remove: 0,
    read: 0,
  };
  /** Set to hold syncs, or reads, back until it resolves. */
  holdSync: Promise<void> | null = null;
  holdRead: Promise<void> | null = null;
  /** Told before each call but a write has any effect; what it gives is waited for. */
  before: ((call: Call, path: string) => Promise<void> | null) | null = null;
  /** Told of each write, which waits for nothing. */
  beforeWrite: ((path: string) => void) | null = null;
  /** What a crash keeps or loses as one. */
  sectorBytes: SectorBytes = 512;
  /** Files that are open now. */
  openFiles = 0;

  /** Makes a later call fail, beside those that were asked for before. */
  failAfter(fault: Fault): void {
    this.#faults.push({ fault, left: fault.after });
  }

  /** No call fails any more; how many of those asked for did not come to it. */
  mend(): number {
    return this.#faults.splice(0).length;
  }

  /** No call fails until what this gives is called. */
  pauseFaults(): () => void {
    const paused = this.#faults;
    this.#faults = [];
    return () => {
      this.#faults = paused;
    };
  }

  /** The disk that a killed process leaves behind: the cache is whole, and still not on disk. */
  kill(): MemoryDisk {
    const next = new MemoryDisk();
    next.sectorBytes = this.sectorBytes;
    const copies = new Map<Inode, Inode>();
    const copyOf = (inode: Inode): Inode => {
      const copy = copies.get(inode) ?? inode.copy();
      copies.set(inode, copy);
      return copy;
    };
    for (const [path, inode] of this.#names) next.#names.set(path, copyOf(inode));
    for (const [path, inode] of this.#durable) next.#durable.set(path, copyOf(inode));
    for (const folder of this.#folders) next.#folders.add(folder);
    for (const folder of this.#durableFolders) next.#durableFolders.add(folder);
    return next;
  }

  /** The disk that a power cut leaves behind. This one must not be used any more. */
  crash(random: Random): MemoryDisk {
    const next = new MemoryDisk();
    next.sectorBytes = this.sectorBytes;
    const names = new Map(this.#durable);
    for (const [path, inode] of this.#names) {
      if (names.get(path) !== inode && random.chance(0.5)) names.set(path, inode);
    }
    for (const path of this.#durable.keys()) {
      if (!this.#names.has(path) && random.chance(0.5)) names.delete(path);
    }
    const lost = new Set<string>();
    for (const folder of [...this.#folders].toSorted()) {
      const isKept = this.#durableFolders.has(folder) || random.chance(0.5);
      if (!isKept || lost.has(parentOf(folder))) lost.add(folder);
      else next.#folders.add(folder);
    }
    for (const folder of next.#folders) next.#durableFolders.add(folder);
    for (const [path, inode] of names) {
      if (lost.has(parentOf(path))) continue;
      const copy = new Inode();
      copy.cached = Buffer.from(inode.afterCrash(random, this.sectorBytes));
      copy.sync();
      next.#names.set(path, copy);
    }
    next.#durable = new Map(next.#names);
    return next;
  }

  /** The bytes of a file as a reader sees them; for changing them in tests use `poke`. */
  bytes(path: string): Buffer {
    return Buffer.from(this.#inode(path).cached);
  }

  /** Replaces a file's content, as bit rot would. */
  poke(path: string, bytes: Buffer): void {
    const inode = this.#inode(path);
    inode.cached = Buffer.from(bytes);
    inode.sync();
  }

  paths(): readonly string[] {
    return [...this.#names.keys()].toSorted();
  }

  open(path: string, mode: "read" | "write" | "create"): Promise<DiskFile> {
    return this.#attempt("open", path, () => {
      const known = this.#names.get(path);
      if (mode === "create" && known !== undefined) throw failure("EEXIST", path);
      if (mode !== "create" && known === undefined) throw failure("ENOENT", path);
      const inode = known ?? new Inode();
      this.#names.set(path, inode);
      this.openFiles++;
      return new MemoryFile(this, inode, path);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.#attempt("rename", from, () => {
      const inode = this.#inode(from);
      this.#names.set(to, inode);
      this.#names.delete(from);
    });
  }

  remove(path: string): Promise<void> {
    return this.#attempt("remove", path, () => {
      this.#inode(path);
      this.#names.delete(path);
    });
  }

  list(folder: string): Promise<readonly string[]> {
    const prefix = `${folder}/`;
    const names = new Set<string>();
    for (const path of [...this.#names.keys(), ...this.#folders]) {
      if (path.startsWith(prefix)) names.add(path.slice(prefix.length).split("/")[0] ?? "");
    }
    return Promise.resolve([...names].toSorted());
  }

  /** As on a real disk, the names of folders that were there already are not synced. */
  async makeFolder(folder: string): Promise<void> {
    const made: string[] = [];
    for (let at = folder; at !== "" && !this.#folders.has(at); at = parentOf(at)) made.push(at);
    for (const each of made) this.#folders.add(each);
    for (const each of made) await this.syncFolder(parentOf(each));
  }

  syncFolder(folder: string): Promise<void> {
    return this.#attempt("sync", folder, () => {
      const isIn = (path: string): boolean => parentOf(path) === folder;
      for (const path of this.#durable.keys()) {
        if (isIn(path) && !this.#names.has(path)) this.#durable.delete(path);
      }
      for (const [path, inode] of this.#names) if (isIn(path)) this.#durable.set(path, inode);
      for (const each of this.#folders) if (isIn(each)) this.#durableFolders.add(each);
    });
  }

  /** Counts a call and fails it when its turn has come. */
  check(call: Call, path: string): void {
    this.calls[call]++;
    const counted = this.#faults.filter(
      ({ fault }) =>
        (fault.call === call || (fault.call === "any" && call !== "read")) &&
        path.includes(fault.path ?? ""),
    );
    for (const each of counted) each.left--;
    const due = counted.find(({ left }) => left <= 0);
    if (due === undefined) return;
    this.#faults = this.#faults.filter((each) => each !== due);
    const { code } = due.fault;
    throw failure(code, path, isFinal(call, code));
  }

  async #attempt<T>(call: Call, path: string, work: () => T): Promise<T> {
    const wait = this.before?.(call, path);
    if (wait !== undefined && wait !== null) await wait;
    this.check(call, path);
    return work();
  }

  #inode(path: string): Inode {
    const inode = this.#names.get(path);
    if (inode === undefined) throw failure("ENOENT", path);
    return inode;
  }
}

/** What the real disk says of a failure: nobody knows what a failed sync or rename has done. */
function isFinal(call: Call, code: string): boolean {
  return call === "sync" || (call === "rename" && code !== "ENOSPC" && code !== "EDQUOT");
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}

function failure(code: string, path: string, fatal = false): StorageError {
  const cause = Object.assign(new Error(`${code}: injected`), { code });
  return new StorageError(`${path}: ${code}`, { cause, fatal });
}

class MemoryFile implements DiskFile {
  readonly #disk: MemoryDisk;
  readonly #inode: Inode;
  readonly #path: string;
  #isOpen = true;

  constructor(disk: MemoryDisk, inode: Inode, path: string) {
    this.#disk = disk;
    this.#inode = inode;
    this.#path = path;
  }

  write(bytes: Uint8Array, position: number): void {
    this.#checkOpen();
    this.#disk.beforeWrite?.(this.#path);
    try {
      this.#disk.check("write", this.#path);
    } catch (error) {
      // A failing write may have got half-way.
      this.#inode.write(bytes.subarray(0, bytes.length >> 1), position);
      throw error;
    }
    this.#inode.write(bytes, position);
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    this.#checkOpen();
    await (this.#disk.before?.("read", this.#path) ?? this.#disk.holdRead);
    this.#disk.check("read", this.#path);
    this.#checkOpen();
    const source = this.#inode.cached.subarray(position, position + into.length);
    into.set(source);
    return source.length;
  }

  async sync(): Promise<void> {
    this.#checkOpen();
    await (this.#disk.before?.("sync", this.#path) ?? this.#disk.holdSync);
    try {
      this.#disk.check("sync", this.#path);
    } catch (error) {
      this.#inode.loseSync();
      throw error;
    }
    this.#inode.sync();
  }

  async truncate(bytes: number): Promise<void> {
    this.#checkOpen();
    await this.#disk.before?.("truncate", this.#path);
    this.#disk.check("truncate", this.#path);
    this.#inode.truncate(bytes);
    await Promise.resolve();
  }

  size(): Promise<number> {
    return Promise.resolve(this.#inode.cached.length);
  }

  async close(): Promise<void> {
    this.#checkOpen();
    this.#isOpen = false;
    this.#disk.openFiles--;
    await Promise.resolve();
  }

  #checkOpen(): void {
    if (!this.#isOpen) throw failure("EBADF", this.#path);
  }
}
