/**
 * The log in segment files: DATA/streams/STREAM/PARTITION/. Opening it recovers every partition
 * before anything is served. One process owns the folder (lock.ts).
 */
import { dirname, join } from "node:path";
import type { Clock } from "../clock.ts";
import { errorText, InvalidError, type StorageError } from "../errors.ts";
import {
  fillAheadBytes,
  fillAheadGroupBytes,
  fillAheadGroups,
  openFilesMax,
  partitionsMax,
  segmentBytesMax,
  stateLogBytesMax,
  tailsBytesMax,
} from "../limits.ts";
import { type Damage, Damages, damageText } from "./damage.ts";
import type { Disk } from "./disk.ts";
import type { FillAheadBounds } from "./fill-ahead.ts";
import type { Log, Offset, PartitionId, States } from "./log.ts";
import { FilePartition } from "./partition.ts";
import type { PartitionContext } from "./partition-parts.ts";
import { TailMemory } from "./tail.ts";
import { OpenFiles } from "./open-files.ts";
import { emptyPartition, newSalt, openPartition } from "./open-partition.ts";
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
  /** Accept the damages that are known at the start, so that the log counts as whole without. */
  readonly acceptCorruption?: boolean;
  /** Where a segment is sealed, and where states are gathered anew, instead of the usual bounds. */
  readonly segmentBytes?: number;
  readonly stateLogBytes?: number;
  /** When a segment is filled with zeros ahead, instead of the usual bounds. */
  readonly fillAhead?: FillAheadBounds;
}

const FILL_AHEAD: FillAheadBounds = {
  groups: fillAheadGroups,
  groupBytesMax: fillAheadGroupBytes,
  bytes: fillAheadBytes,
};
const STREAM_NAME = /^\$?[A-Za-z0-9][A-Za-z0-9._-]{0,119}$/;

/** Opens the log and recovers it. @throws CorruptionError, StorageError: nothing can be served. */
export async function openFileLog(options: FileLogOptions): Promise<FileLog> {
  const { disk, folder } = options;
  await disk.makeFolder(folder);
  // A process that was killed may have left names that only the cache knows.
  await disk.syncFolder(dirname(folder));
  await disk.syncFolder(folder);
  const partitions = new Map<string, FilePartition>();
  const damages = await Damages.open(disk, folder);
  const context = contextOf(options, damages);
  for (const stream of await disk.list(folder)) {
    if (!STREAM_NAME.test(stream)) continue;
    await disk.syncFolder(join(folder, stream));
    for (const name of await disk.list(join(folder, stream))) {
      if (!/^\d{1,4}$/.test(name)) continue;
      const id = { stream, index: Number(name) };
      const own = { stream, partition: id.index };
      const nowMs = options.clock.nowMs();
      const parts = await openPartition(id, {
        ...options,
        files: context.files,
        folder: join(folder, keyOf(id)),
        note: (epoch, found) => damages.note({ ...own, epoch }, found, nowMs),
        mayLose: stream !== STATE_STREAM || options.acceptCorruption === true,
      });
      const whose = { ...own, epoch: parts.epoch };
      for (const found of parts.corruptions) await damages.note(whose, found, nowMs);
      partitions.set(keyOf(id), new FilePartition(id, parts, context));
    }
  }
  await forgetOutdated(damages, partitions);
  for (const known of damages.pending()) options.warn(damageText(known));
  const log = new FileLog(options, partitions, context, damages);
  await log.openStates();
  if (options.acceptCorruption === true) await acceptDamages(damages, options);
  return log;
}

type FileLogContext = PartitionContext & { readonly indexed: Set<string> };

function keyOf(id: PartitionId): string {
  return `${id.stream}/${id.index}`;
}

function contextOf(options: FileLogOptions, damages: Damages): FileLogContext {
  const { disk, clock, onFatal, onCommit, random, warn } = options;
  const segmentBytes = options.segmentBytes ?? segmentBytesMax;
  const onDamage: PartitionContext["onDamage"] = async (id, epoch, found) => {
    const whose = { stream: id.stream, partition: id.index, epoch };
    if (!(await damages.note(whose, found, clock.nowMs()))) return;
    warn(`${damageText({ ...whose, ...found })}; a copy of the bytes was set aside`);
  };
  const salt = (): number => newSalt(random);
  const files = new OpenFiles(disk, openFilesMax);
  const indexed = new Set<string>();
  const { fillAhead = FILL_AHEAD } = options;
  const told = { onFatal, onCommit, onDamage };
  const tails = new TailMemory(tailsBytesMax);
  return { disk, files, tails, clock, indexed, ...told, segmentBytes, fillAhead, salt };
}

/** Damages whose messages are not kept any more, or that belong to another life, matter no more. */
function forgetOutdated(
  damages: Damages,
  partitions: ReadonlyMap<string, FilePartition>,
): Promise<void> {
  return damages.forget(({ stream, partition, epoch, from, to }) => {
    const own = partitions.get(keyOf({ stream, index: partition }));
    if (own?.epoch !== epoch) return true;
    // A header's damage has no messages, and is over with its segment.
    return to > from ? to <= own.offsetStart : to < own.offsetStart;
  });
}

async function acceptDamages(damages: Damages, options: FileLogOptions): Promise<void> {
  for (const accepted of await damages.accept(options.clock.nowMs())) {
    options.warn(`${damageText(accepted)}; accepted, it goes on without them`);
  }
}

/** The log of one machine. */
export class FileLog implements Log {
  readonly #options: FileLogOptions;
  readonly #partitions: Map<string, FilePartition>;
  readonly #context: FileLogContext;
  readonly #damages: Damages;
  #states: StateStore | null = null;

  constructor(
    options: FileLogOptions,
    partitions: Map<string, FilePartition>,
    context: FileLogContext,
    damages: Damages,
  ) {
    this.#options = options;
    this.#partitions = partitions;
    this.#context = context;
    this.#damages = damages;
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
    const { disk, random, folder } = this.#options;
    const { files } = this.#context;
    const parts = emptyPartition(id, { disk, files, random, folder: join(folder, key) });
    const made = new FilePartition(id, parts, this.#context);
    this.#partitions.set(key, made);
    return made;
  }

  keepIndex(stream: string, isWanted: boolean): void {
    if (isWanted) this.#context.indexed.add(stream);
    else this.#context.indexed.delete(stream);
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

  /** Synced messages that can't be read, and that nobody has accepted: ready it is not. */
  corruptions(): readonly Damage[] {
    const { folder } = this.#options;
    return this.#damages.pending().map((each) => ({ ...each, path: join(folder, each.path) }));
  }

  /** All that are known, the accepted ones too. */
  damages(): readonly Damage[] {
    return this.#damages.all();
  }

  /** The names of saved states that begin with a prefix. */
  stateNames(prefix: string): readonly string[] {
    return this.#states?.keys(prefix) ?? [];
  }

  /** Reads the states; once, before anything is served. */
  async openStates(): Promise<void> {
    const partition = this.partition({ stream: STATE_STREAM, index: 0 });
    const logBytes = this.#options.stateLogBytes ?? stateLogBytesMax;
    const { stream, index } = partition.id;
    const whose = { stream, partition: index, epoch: partition.epoch };
    const isAccepted = (from: Offset, to: Offset): boolean =>
      this.#options.acceptCorruption === true || this.#damages.isAccepted({ ...whose, from, to });
    const states = { logBytes, isAccepted };
    this.#states = await openStates(partition, this.#options.clock, states);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const saved = await Promise.allSettled([this.#states?.[Symbol.asyncDispose]()]);
    const closed = await Promise.allSettled(
      this.all().map((partition) => partition[Symbol.asyncDispose]()),
    );
    await this.#context.files[Symbol.asyncDispose]();
    const failed = [...saved, ...closed].find((result) => result.status === "rejected");
    if (failed !== undefined) this.#options.warn(`closing the log: ${errorText(failed.reason)}`);
  }
}
