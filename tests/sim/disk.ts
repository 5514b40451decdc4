/**
 * A disk in memory that behaves like a real one in the ways that hurt: what was not synced may be
 * kept, dropped or torn by sector when it crashes, in any order; names not synced may be lost; any
 * call can be made to fail. Driven by one seed.
 */
import { StorageError } from "../../src/errors.ts";
import type { Disk, DiskFile } from "../../src/log/disk.ts";
import type { Random } from "./random.ts";

const SECTOR_BYTES = 512;

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
    this.synced = Buffer.from(this.cached);
    this.pending = [];
    this.pendingLength = null;
  }

  /** What a crash leaves: any sectors of any unsynced writes, in any order. */
  afterCrash(random: Random): Buffer {
    let content = Buffer.from(this.synced);
    if (this.pendingLength !== null && random.chance(0.5)) {
      const cut = Buffer.alloc(this.pendingLength);
      content.copy(cut, 0, 0, Math.min(content.length, this.pendingLength));
      content = cut;
    }
    for (const { position, bytes } of this.pending) {
      for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
        if (random.chance(0.4)) continue;
        content = applied(content, bytes.subarray(at, at + SECTOR_BYTES), position + at);
      }
    }
    return content;
  }
}

function applied(content: Buffer, bytes: Uint8Array, position: number): Buffer<ArrayBuffer> {
  const result = Buffer.alloc(Math.max(content.length, position + bytes.length));
  content.copy(result);
  result.set(bytes, position);
  return result;
}

/** Which call fails next, and how. */
export interface Fault {
  /** Calls of these kinds are counted: 1 fails the next one. */
  readonly call: "write" | "sync" | "open" | "rename" | "any";
  readonly after: number;
  readonly code: "EIO" | "ENOSPC" | "EDQUOT" | "EMFILE";
}

/** The disk. */
export class MemoryDisk implements Disk {
  readonly #names = new Map<string, Inode>();
  #durable = new Map<string, Inode>();
  readonly #folders = new Set<string>();
  #fault: { call: Fault["call"]; left: number; code: string } | null = null;
  /** How often each kind of call was made. */
  readonly calls = { write: 0, sync: 0, open: 0, rename: 0 };
  /** Set to hold syncs back until it resolves. */
  holdSync: Promise<void> | null = null;

  /** Makes a later call fail. */
  failAfter(fault: Fault): void {
    this.#fault = { call: fault.call, left: fault.after, code: fault.code };
  }

  /** The disk that a power cut leaves behind. This one must not be used any more. */
  crash(random: Random): MemoryDisk {
    const next = new MemoryDisk();
    const names = new Map(this.#durable);
    for (const [path, inode] of this.#names) {
      if (names.get(path) !== inode && random.chance(0.5)) names.set(path, inode);
    }
    for (const path of this.#durable.keys()) {
      if (!this.#names.has(path) && random.chance(0.5)) names.delete(path);
    }
    for (const folder of this.#folders) next.#folders.add(folder);
    for (const [path, inode] of names) {
      const copy = new Inode();
      copy.cached = Buffer.from(inode.afterCrash(random));
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
    return this.#attempt("open", () => {
      const known = this.#names.get(path);
      if (mode === "create" && known !== undefined) throw failure("EEXIST", path);
      if (mode !== "create" && known === undefined) throw failure("ENOENT", path);
      const inode = known ?? new Inode();
      this.#names.set(path, inode);
      return new MemoryFile(this, inode, path);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.#attempt("rename", () => {
      const inode = this.#inode(from);
      this.#names.set(to, inode);
      this.#names.delete(from);
    });
  }

  remove(path: string): Promise<void> {
    this.#inode(path);
    this.#names.delete(path);
    return Promise.resolve();
  }

  list(folder: string): Promise<readonly string[]> {
    const prefix = `${folder}/`;
    const names = new Set<string>();
    for (const path of [...this.#names.keys(), ...this.#folders]) {
      if (path.startsWith(prefix)) names.add(path.slice(prefix.length).split("/")[0] ?? "");
    }
    return Promise.resolve([...names].toSorted());
  }

  makeFolder(folder: string): Promise<void> {
    this.#folders.add(folder);
    return Promise.resolve();
  }

  syncFolder(folder: string): Promise<void> {
    return this.#attempt("sync", () => {
      const isIn = (path: string): boolean => path.slice(0, path.lastIndexOf("/")) === folder;
      for (const path of this.#durable.keys()) {
        if (isIn(path) && !this.#names.has(path)) this.#durable.delete(path);
      }
      for (const [path, inode] of this.#names) if (isIn(path)) this.#durable.set(path, inode);
    });
  }

  /** Counts a call and fails it when its turn has come. */
  check(call: keyof MemoryDisk["calls"], path: string): void {
    this.calls[call]++;
    const fault = this.#fault;
    if (fault === null || (fault.call !== "any" && fault.call !== call)) return;
    fault.left--;
    if (fault.left > 0) return;
    this.#fault = null;
    throw failure(fault.code, path, call === "sync");
  }

  #attempt<T>(call: keyof MemoryDisk["calls"], work: () => T): Promise<T> {
    try {
      this.check(call, "");
      return Promise.resolve(work());
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #inode(path: string): Inode {
    const inode = this.#names.get(path);
    if (inode === undefined) throw failure("ENOENT", path);
    return inode;
  }
}

function failure(code: string, path: string, fatal = false): StorageError {
  const cause = Object.assign(new Error(`${code}: injected`), { code });
  return new StorageError(`${path}: ${code}`, { cause, fatal });
}

class MemoryFile implements DiskFile {
  readonly #disk: MemoryDisk;
  readonly #inode: Inode;
  readonly #path: string;

  constructor(disk: MemoryDisk, inode: Inode, path: string) {
    this.#disk = disk;
    this.#inode = inode;
    this.#path = path;
  }

  write(bytes: Uint8Array, position: number): void {
    try {
      this.#disk.check("write", this.#path);
    } catch (error) {
      // A failing write may have got half-way.
      this.#inode.write(bytes.subarray(0, bytes.length >> 1), position);
      throw error;
    }
    this.#inode.write(bytes, position);
  }

  read(into: Uint8Array, position: number): Promise<number> {
    const source = this.#inode.cached.subarray(position, position + into.length);
    into.set(source);
    return Promise.resolve(source.length);
  }

  async sync(): Promise<void> {
    await this.#disk.holdSync;
    this.#disk.check("sync", this.#path);
    this.#inode.sync();
  }

  truncate(bytes: number): Promise<void> {
    this.#inode.truncate(bytes);
    return Promise.resolve();
  }

  size(): Promise<number> {
    return Promise.resolve(this.#inode.cached.length);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
