/**
 * A commit group: all that is appended while the group before it is being synced. Records are
 * encoded straight into the bytes that are written; everybody in the group waits on one promise.
 */
import { batchBytesTarget } from "../limits.ts";
import type { Message } from "../message.ts";
import { BATCH_HEADER_BYTES, type BatchHeader, sealBatch } from "./batch.ts";
import { type BufferPool, GroupBuffer, type GroupBytes } from "./group-buffer.ts";
import type { Offset } from "./log.ts";
import { encodeRecord } from "./record.ts";

interface OpenBatch {
  readonly start: number;
  readonly baseOffset: Offset;
  count: number;
  end: number;
}

/** A place in a group that is being filled. */
export interface GroupMark {
  readonly count: number;
  readonly byteLength: number;
}

/** A batch of a sealed group: its header, and where it begins in the group's bytes. */
export interface SealedBatch {
  readonly header: BatchHeader;
  readonly start: number;
}

/** A sealed group: what is written to disk, and the memory that it stands in. */
export interface SealedGroup {
  readonly memory: GroupBytes;
  readonly bytes: Buffer;
  readonly batches: readonly SealedBatch[];
}

/** One group. Filled by appends, then sealed and written once. */
export class Group {
  readonly baseOffset: Offset;
  readonly durable: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  readonly #pool: BufferPool;
  readonly #buffer: GroupBuffer;
  readonly #batches: OpenBatch[] = [];
  #count = 0;

  /** `expectedBytes` is what it will probably hold; 0 when nothing is known. */
  constructor(baseOffset: Offset, pool: BufferPool, expectedBytes = 0) {
    this.baseOffset = baseOffset;
    this.#pool = pool;
    this.#buffer = new GroupBuffer(pool, expectedBytes);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.durable = promise;
    this.resolve = resolve;
    this.reject = reject;
  }

  /** The group behind it, which will probably hold as many bytes. */
  next(): Group {
    return new Group(this.endOffset, this.#pool, this.byteLength);
  }

  get count(): number {
    return this.#count;
  }

  get byteLength(): number {
    return this.#buffer.length;
  }

  get endOffset(): Offset {
    return this.baseOffset + this.#count;
  }

  /** Where the group stands, to come back to when an append fails half-way. */
  mark(): GroupMark {
    return { count: this.#count, byteLength: this.#buffer.length };
  }

  /** Takes back all that was added since a mark. */
  rewind(mark: GroupMark): void {
    let last = this.#batches.at(-1);
    while (last !== undefined && last.start >= mark.byteLength) {
      this.#batches.pop();
      last = this.#batches.at(-1);
    }
    if (last !== undefined) {
      last.count = mark.count - (last.baseOffset - this.baseOffset);
      last.end = mark.byteLength;
    }
    this.#count = mark.count;
    this.#buffer.rewind(mark.byteLength);
  }

  /**
   * Adds a message as the next offset. @throws LimitError, InvalidError: the group is unchanged.
   */
  add(message: Message, dedupeKey: string | null): Offset {
    const byteLength = this.#buffer.length;
    const batch = this.#batchWithRoom();
    try {
      encodeRecord(this.#buffer, message, dedupeKey);
    } catch (error) {
      this.rewind({ count: this.#count, byteLength });
      throw error;
    }
    const offset = this.endOffset;
    batch.count++;
    batch.end = this.#buffer.length;
    this.#count++;
    return offset;
  }

  /** Fills in the batches' headers. Nothing may be added afterwards. */
  seal(segment: { salt: number; knownSynced: Offset; appendedAtMs: number }): SealedGroup {
    const memory = this.#buffer.fitted();
    const { bytes } = memory;
    const batches = this.#batches.map(({ start, baseOffset, count, end }) => {
      const header = {
        ...segment,
        payloadBytes: end - start - BATCH_HEADER_BYTES,
        baseOffset,
        count,
        payloadCrc: 0,
      };
      sealBatch(bytes, start, header);
      return { header, start };
    });
    return { memory, bytes: bytes.subarray(0, this.#buffer.length), batches };
  }

  #batchWithRoom(): OpenBatch {
    const last = this.#batches.at(-1);
    if (last !== undefined && last.end - last.start < batchBytesTarget) return last;
    const start = this.#buffer.reserve(BATCH_HEADER_BYTES);
    const batch = { start, baseOffset: this.endOffset, count: 0, end: this.#buffer.length };
    this.#batches.push(batch);
    return batch;
  }
}
