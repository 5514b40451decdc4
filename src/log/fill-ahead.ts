/**
 * Zeros ahead of a segment's end. A sync of blocks that are written already needs no entry in the
 * file system's journal and costs about two thirds of one that makes the file longer, so a segment
 * that takes one small group after another is filled with zeros a piece ahead. The zeros are no
 * promise: the end is found by checksum, salt and offset, and zeros are no batch. A failure here
 * fails nothing; the write of the group tells what is the matter.
 */
import { StorageError } from "../errors.ts";
import type { DiskFile } from "./disk.ts";

/** When a segment is filled ahead, and by how much. */
export interface FillAheadBounds {
  /** After so many small groups without a pause. Count. */
  readonly groups: number;
  /** A larger group is not small: writing its zeros first would cost more than it saves. Bytes. */
  readonly groupBytesMax: number;
  /** So much at a time. Bytes. */
  readonly bytes: number;
}

/** The zeros of one segment. */
export class FillAhead {
  #groups = 0;
  /** Zeros reach as far as this position; 0: there are none. */
  #end = 0;
  #hasFailed = false;

  /** Called before a group is written: fills ahead when that pays. @throws StorageError, fatal */
  prepare(
    file: DiskFile,
    group: { readonly position: number; readonly bytes: number },
    bounds: FillAheadBounds,
  ): void {
    this.#groups = group.bytes > bounds.groupBytesMax ? 0 : this.#groups + 1;
    if (this.#hasFailed || this.#groups <= bounds.groups) return;
    if (group.position + group.bytes <= this.#end) return;
    const from = Math.max(this.#end, group.position);
    try {
      file.write(zerosOf(bounds.bytes), from);
      this.#end = from + bounds.bytes;
    } catch (error) {
      this.#decide(error);
    }
  }

  /** There was a pause: it begins anew to be worth it. */
  rest(): void {
    this.#groups = 0;
  }

  /** The file was cut here. */
  forget(): void {
    this.#end = 0;
  }

  /** Cuts the zeros off behind `end`; a crash may leave them, and nobody minds. */
  async trim(file: DiskFile, end: number): Promise<void> {
    if (this.#end <= end) return;
    this.#end = 0;
    try {
      await file.truncate(end);
    } catch (error) {
      this.#decide(error);
    }
  }

  /** What could not be filled or cut costs time or room and nothing else, unless it is final. */
  #decide(error: unknown): void {
    if (!(error instanceof StorageError) || error.fatal) throw error;
    this.#hasFailed = true;
  }
}

let zeros: Buffer = Buffer.alloc(0);

function zerosOf(bytes: number): Buffer {
  if (zeros.length < bytes) zeros = Buffer.alloc(bytes);
  return zeros.subarray(0, bytes);
}
