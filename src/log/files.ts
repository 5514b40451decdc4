/**
 * The log in segment files: DATA/streams/STREAM/PARTITION/. Opening it recovers every partition
 * before anything is served. One process owns the folder (lock.ts).
 */
import { dirname, join } from "node:path";
import type { Clock } from "../clock.ts";
import { errorText, InvalidError, type StorageError } from "../errors.ts";
import { partitionsMax, segmentBytesMax, stateLogBytesMax } from "../limits.ts";
import type { Disk } from "./disk.ts";
import type { Log, PartitionId, States } from "./log.ts";
import { FilePartition } from "./partition.ts";
import type { PartitionContext } from "./partition-parts.ts";
import { emptyPartition, newSalt, openPartition } from "./open-partition.ts";
import type { Corruption } from "./recover.ts";
import { openStates, STATE_STREAM, type StateStore } from "./states.ts";

/** What the log needs of its surroundings. */
export interface FileLogOptions {
  /** The folder of the streams. */
  readonly folder: string;
  readonly disk: Disk;
  readonly clock: Clock;
  /** Random bytes, for epochs and salts. */
  readonly random: (count: number) => Uint8Array;
  readonly onFatal: (error: StorageError) => void;
  readonly onCommit: PartitionContext["onCommit"];
  /** Told in a sentence what recovery found. */
  readonly warn: (sentence: string) => void;
  /** Where a segment is sealed, and where states are gathered anew, instead of the usual bounds. */
  readonly segmentBytes?: number;
  readonly stateLogBytes?: number;
}

const STREAM_NAME = /^\$?[A-Za-z0-9][A-Za-z0-9._-]{0,119}$/;

/** Opens the log and recovers it. @throws CorruptionError, StorageError: nothing can be served. */
export async function openFileLog(options: FileLogOptions): Promise<FileLog> {
  const { disk, folder } = options;
  await disk.makeFolder(folder);
  // A process that was killed may have left names that only the cache knows.
  await disk.syncFolder(dirname(folder));
  await disk.syncFolder(folder);
  const partitions = new Map<string, FilePartition>();
  const context = contextOf(options);
  for (const stream of await disk.list(folder)) {
    if (!STREAM_NAME.test(stream)) continue;
    await disk.syncFolder(join(folder, stream));
    for (const name of await disk.list(join(folder, stream))) {
      if (!/^\d{1,4}$/.test(name)) continue;
      const id = { stream, index: Number(name) };
      const parts = await openPartition(id, {
        ...options,
        folder: join(folder, keyOf(id)),
      });
      partitions.set(keyOf(id), new FilePartition(id, parts, context));
    }
  }
  const log = new FileLog(options, partitions);
  await log.openStates();
  return log;
}

function keyOf(id: PartitionId): string {
  return `${id.stream}/${id.index}`;
}

function contextOf(options: FileLogOptions): PartitionContext {
  const { disk, clock, onFatal, onCommit, random } = options;
  const segmentBytes = options.segmentBytes ?? segmentBytesMax;
  return { disk, clock, onFatal, onCommit, segmentBytes, salt: () => newSalt(random) };
}

/** The log of one machine. */
export class FileLog implements Log {
  readonly #options: FileLogOptions;
  readonly #partitions: Map<string, FilePartition>;
  #states: StateStore | null = null;

  constructor(options: FileLogOptions, partitions: Map<string, FilePartition>) {
    this.#options = options;
    this.#partitions = partitions;
  }

  get states(): States {
    if (this.#states === null) throw new InvalidError("the log is not open yet");
    return this.#states;
  }

  partition(id: PartitionId, count?: number): FilePartition {
    const key = keyOf(id);
    const known = this.#partitions.get(key) ?? this.#make(id, key);
    if (count !== undefined && known.segments.length === 0) known.streamPartitions = count;
    return known;
  }

  #make(id: PartitionId, key: string): FilePartition {
    if (!STREAM_NAME.test(id.stream)) {
      const detail = "letters, digits, '.', '_' and '-', at most 100, the first a letter or digit";
      throw new InvalidError(`"${id.stream}" can't be a stream's name: ${detail}`);
    }
    if (!Number.isInteger(id.index) || id.index < 0 || id.index >= partitionsMax) {
      throw new InvalidError(`a stream has at most ${partitionsMax} partitions`);
    }
    const parts = emptyPartition(join(this.#options.folder, key), this.#options.random);
    const made = new FilePartition(id, parts, contextOf(this.#options));
    this.#partitions.set(key, made);
    return made;
  }

  streams(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>();
    for (const { id, segments, streamPartitions } of this.#partitions.values()) {
      if (segments.length === 0 || id.stream === STATE_STREAM) continue;
      const known = Math.max(counts.get(id.stream) ?? 0, id.index + 1);
      counts.set(id.stream, Math.max(known, streamPartitions));
    }
    return counts;
  }

  /** Every partition that is open. */
  all(): readonly FilePartition[] {
    return [...this.#partitions.values()];
  }

  /** Bytes in all segments. */
  get byteLength(): number {
    return this.all().reduce((sum, partition) => sum + partition.byteLength, 0);
  }

  /** Synced messages that recovery could not read. */
  corruptions(): readonly (Corruption & { readonly stream: string; readonly partition: number })[] {
    return this.all().flatMap(({ id, corruptions }) =>
      corruptions.map((found) => ({ ...found, stream: id.stream, partition: id.index })),
    );
  }

  /** The names of saved states that begin with a prefix. */
  stateNames(prefix: string): readonly string[] {
    return this.#states?.keys(prefix) ?? [];
  }

  /** Reads the states; once, before anything is served. */
  async openStates(): Promise<void> {
    const partition = this.partition({ stream: STATE_STREAM, index: 0 });
    const logBytes = this.#options.stateLogBytes ?? stateLogBytesMax;
    this.#states = await openStates(partition, this.#options.clock, logBytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const saved = await Promise.allSettled([this.#states?.[Symbol.asyncDispose]()]);
    const closed = await Promise.allSettled(
      this.all().map((partition) => partition[Symbol.asyncDispose]()),
    );
    const failed = [...saved, ...closed].find((result) => result.status === "rejected");
    if (failed !== undefined) this.#options.warn(`closing the log: ${errorText(failed.reason)}`);
  }
}
