/** What a partition of segment files is made from, and what it needs of its surroundings. */
import type { Clock } from "../clock.ts";
import type { StorageError } from "../errors.ts";
import type { Dedupe } from "./dedupe.ts";
import type { Disk } from "./disk.ts";
import type { FillAheadBounds } from "./fill-ahead.ts";
import type { Offset, PartitionId } from "./log.ts";
import type { OpenFiles } from "./open-files.ts";
import type { Corruption } from "./recover.ts";
import type { Segment } from "./segment.ts";
import type { TailMemory } from "./tail.ts";

/** What a partition is made from: what recovery found, or nothing yet. */
export interface PartitionParts {
  readonly folder: string;
  readonly epoch: string;
  /** Of its stream, as the newest segment says; 0 when that is not known. */
  readonly partitions: number;
  readonly segments: Segment[];
  readonly endOffset: Offset;
  readonly appendedAtMs: number;
  readonly dedupe: Dedupe;
  readonly corruptions: Corruption[];
}

/** What a partition needs of its surroundings. */
export interface PartitionContext {
  readonly disk: Disk;
  /** Sealed segments and key files that are open. */
  readonly files: OpenFiles;
  /** The memory of all partitions' newest groups. */
  readonly tails: TailMemory;
  readonly clock: Clock;
  /** Streams whose messages are to be found by their keys. */
  readonly indexed: ReadonlySet<string>;
  /** The size at which a segment is sealed. */
  readonly segmentBytes: number;
  /** When a segment is filled with zeros ahead of its end. */
  readonly fillAhead: FillAheadBounds;
  /** A random 32-bit number for a segment. */
  readonly salt: () => number;
  /** Told of a failed sync, once: the process must end with code 70. */
  readonly onFatal: (error: StorageError) => void;
  /**
   * Told of synced messages that a reader can't read, before the reader is: resolves once that is
   * remembered.
   */
  readonly onDamage: (id: PartitionId, epoch: string, found: Corruption) => Promise<void>;
  /** Told after each commit: how long the sync took and how much it made durable. */
  readonly onCommit: (commit: { syncMs: number; messages: number; bytes: number }) => void;
}
