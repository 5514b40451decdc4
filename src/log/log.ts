/**
 * The log's port. Two engines are foreseen: segment files on one machine, and Kafka on many;
 * so nothing here speaks of files. Offsets may have holes: never compute `offset + 1`, go on at
 * the `next` that a read gave.
 */
import type { Message, StoredMessage } from "../message.ts";

/** A place within a partition, from 0. */
export type Offset = number;

/** An ordered part of a stream. */
export interface PartitionId {
  readonly stream: string;
  readonly index: number;
}

/** Proof of an append; true once `Appended.durable` has resolved. */
export interface Receipt {
  readonly id: string;
  readonly stream: string;
  readonly partition: number;
  readonly offset: Offset;
  /** The message had been appended before: this is the first one's receipt. */
  readonly duplicate: boolean;
}

/** What an append may ask for. */
export interface AppendOptions {
  /** For each message: appended only when the partition does not hold this key yet. */
  readonly dedupeKeys?: readonly (string | null)[];
  /** For each key whether it is looked up; one that is not is kept for later ones. Absent: all. */
  readonly isLookedUp?: readonly boolean[];
  /** The append happens only when this is the partition's end. @throws ConflictError with `end` */
  readonly expectedOffset?: Offset;
}

/** The result of an append. One promise for the whole commit group. */
export interface Appended {
  /**
   * Resolves once every message is written, checksummed and synced. Rejects with StorageError:
   * none of what the call appended was acked or will be read; take it as not appended.
   */
  readonly durable: Promise<void>;
  receipt(index: number): Receipt;
}

/** How to read. */
export interface ReadOptions {
  /** At most so many messages. */
  readonly messagesMax: number;
  /** Stop before the batch that would pass so many bytes; at least one message comes. */
  readonly bytesMax?: number;
  /** Messages of other keys may be left out, which is fast where the stream has an index. */
  readonly key?: Uint8Array | null;
  /** Ends a wait at the partition's end. */
  readonly signal: AbortSignal;
}

/** Who waits at the end of a partition; an object, for there may be many thousands that only wait. */
export interface Waiter {
  /** Something may be there to be read; true: the log has closed. */
  readable(isClosed: boolean): void;
}

/** The readers at a partition's end. */
export interface Waits {
  /**
   * Wakes `waiter` once when something may be there to be read at `offset`, at once when it is;
   * where the stream has an index, not for messages of other keys than `key`.
   */
  whenReadable(place: WaitPlace, waiter: Waiter): void;
  /** Ends a wait, of which it does not matter whether it was woken; `key` as it was given. */
  endWait(key: Uint8Array | null, waiter: Waiter): void;
}

/** Where a reader waits, and for what. */
export interface WaitPlace {
  readonly offset: Offset;
  readonly key: Uint8Array | null;
}

/** Messages in offset order, and where to go on. */
export interface Batch {
  readonly messages: readonly StoredMessage[];
  readonly next: Offset;
}

/** One ordered part of a stream, on this machine or not. */
export interface Partition {
  readonly id: PartitionId;
  /** Made with the partition; another epoch means other offsets. In every cursor. */
  readonly epoch: string;
  /** The oldest offset kept. */
  readonly offsetStart: Offset;
  /** The next offset to be written; everything below it is durable. */
  readonly offsetEnd: Offset;
  /**
   * How often appends have failed that were taken already. Those that stood behind one failed with
   * it, and this has changed before any `durable` tells: who keeps an order looks here before it
   * appends the next.
   */
  readonly failures: number;
  /**
   * Takes messages at once and in order; they are durable and readable when `durable` resolves.
   * @throws ConflictError `expectedOffset` is not the end. @throws LimitError wait, then again.
   * @throws StorageError the log takes nothing now.
   */
  append(messages: readonly Message[], options?: AppendOptions): Appended;
  /** Throws what `append` would throw now, and appends nothing. */
  check(messages: readonly Message[], options?: AppendOptions): void;
  /**
   * The messages from `offset` on; at the end it waits. Null when aborted.
   * @throws GapError go on at `to`. @throws OffsetError `offset` is past the end.
   */
  read(offset: Offset, options: ReadOptions): Promise<Batch | null>;
  readonly waits: Waits;
  /** The first offset appended at or after a time; the end when there is none. */
  offsetAt(timestampMs: number): Promise<Offset>;
}

/** Small records by name: routes' progress, durable client names. */
export interface States {
  load(key: string): Promise<Uint8Array | null>;
  /** The names that begin with a prefix. */
  keys(prefix: string): readonly string[];
  /**
   * Resolves when the entries are synced. Null removes. A crash before that may keep any of them.
   * @throws StorageError they may be lost; they are known to `load` all the same.
   */
  save(entries: Iterable<readonly [string, Uint8Array | null]>): Promise<void>;
}

/** All partitions, and the states beside them. */
export interface Log extends AsyncDisposable {
  /**
   * The partition, made when it is not there yet (it reaches the disk with its first append).
   * `count` is how many its stream has, which is kept with its first message.
   */
  partition(id: PartitionId, count?: number): Partition;
  /** Says whether a stream's messages are to be found by their keys (`index: [key]`). */
  keepIndex(stream: string, isWanted: boolean): void;
  /** How many partitions each stream has that holds or held messages. */
  streams(): ReadonlyMap<string, number>;
  readonly states: States;
}
