/**
 * Retention: whole segments are deleted from a partition's old end, by age, bytes and count, or
 * once every rule has passed them. Segments are rolled by age too, so that minutes mean minutes.
 * The segment being written is never deleted.
 */
import type { Clock } from "../clock.ts";
import { errorText } from "../errors.ts";
import { retentionTickMs, segmentAgeMinMs } from "../limits.ts";
import type { Offset } from "./log.ts";
import type { FilePartition } from "./partition.ts";

/** What to keep of a stream. A bound that is null does not apply. */
export interface RetentionPolicy {
  readonly ageMs: number | null;
  readonly bytes: number | null;
  readonly messages: number | null;
  /** Only what every rule has passed may go, and what has stood `keepMs`. */
  readonly afterRouted: boolean;
  readonly keepMs: number;
}

/** What a stream without a definition keeps: 7 days, 10 GiB. */
export const DEFAULT_RETENTION: RetentionPolicy = {
  ageMs: 7 * 24 * 3600 * 1000,
  bytes: 10 * 1024 ** 3,
  messages: null,
  afterRouted: false,
  keepMs: 0,
};

/** How old a segment may get before it is rolled: a tenth of what retention speaks of. */
function segmentAgeMaxMs(policy: RetentionPolicy): number {
  const ageMs = policy.afterRouted ? policy.keepMs : (policy.ageMs ?? Number.POSITIVE_INFINITY);
  return Math.max(segmentAgeMinMs, ageMs / 10);
}

/** How many of the oldest segments may go. Bytes and messages are of each partition. */
export function countToDrop(
  partition: FilePartition,
  policy: RetentionPolicy,
  at: { readonly nowMs: number; readonly passed: Offset },
): number {
  const { segments, offsetEnd } = partition;
  let bytes = partition.byteLength;
  let count = 0;
  for (const [index, segment] of segments.slice(0, -1).entries()) {
    const next = segments[index + 1];
    if (next === undefined) break;
    const isOver = policy.afterRouted
      ? next.baseOffset <= at.passed && next.createdAtMs + policy.keepMs <= at.nowMs
      : (policy.ageMs !== null && next.createdAtMs + policy.ageMs <= at.nowMs) ||
        (policy.bytes !== null && bytes > policy.bytes) ||
        (policy.messages !== null && offsetEnd - next.baseOffset >= policy.messages);
    if (!isOver) break;
    bytes -= segment.endPosition;
    count++;
  }
  return count;
}

/** Looks after all partitions, a tick at a time. */
export class Retention {
  readonly #partitions: () => readonly FilePartition[];
  readonly #clock: Clock;
  readonly #warn: (sentence: string) => void;
  readonly #policies = new Map<string, RetentionPolicy>();
  /** The lowest offset that some enabled rule has not passed. */
  #passed: (stream: string, partition: number) => Offset = () => 0;

  constructor(
    partitions: () => readonly FilePartition[],
    clock: Clock,
    warn: (sentence: string) => void,
  ) {
    this.#partitions = partitions;
    this.#clock = clock;
    this.#warn = warn;
  }

  /** Says what streams keep, and how far rules have come. */
  define(
    policies: ReadonlyMap<string, RetentionPolicy>,
    passed: (stream: string, partition: number) => Offset,
  ): void {
    this.#policies.clear();
    for (const [stream, policy] of policies) this.#policies.set(stream, policy);
    this.#passed = passed;
  }

  /** Runs until aborted. A failure is told and tried again at the next tick. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#clock.sleep(retentionTickMs, signal);
      for (const partition of this.#partitions()) {
        if (signal.aborted) return;
        try {
          await this.keep(partition);
        } catch (error) {
          const { stream, index } = partition.id;
          this.#warn(`retention of ${stream}/${index}: ${errorText(error)}`);
        }
      }
    }
  }

  /** Applies retention to one partition. The internal streams look after themselves. */
  async keep(partition: FilePartition): Promise<void> {
    const { stream, index } = partition.id;
    if (stream.startsWith("$")) return;
    const policy = this.#policies.get(stream) ?? DEFAULT_RETENTION;
    const nowMs = this.#clock.nowMs();
    const newest = partition.segments.at(-1);
    const isOld = newest !== undefined && newest.createdAtMs + segmentAgeMaxMs(policy) <= nowMs;
    // Sealing what no rule has reached frees nothing, and each segment is an open file.
    const isUseful = !policy.afterRouted || this.#passed(stream, index) > (newest?.baseOffset ?? 0);
    if (isOld && isUseful && partition.offsetEnd > newest.baseOffset) await partition.roll();
    const passed = this.#passed(stream, index);
    let count = countToDrop(partition, policy, { nowMs, passed });
    while (count-- > 0) await partition.dropOldest();
  }
}
