/**
 * Retention: whole segments are deleted from a partition's old end, by age, bytes and count, or
 * once every rule has passed them. Segments are rolled by age too, so that minutes mean minutes.
 * The segment being written is never deleted. A stream that is kept until it is routed, and full
 * of what a rule has yet to pass, takes nothing more, or loses its oldest: as it was defined.
 */
import type { Clock } from "../clock.ts";
import { errorText, StreamFullError } from "../errors.ts";
import {
  auditAgeMs,
  auditBytes,
  fullSegmentsMin,
  journeyAgeMs,
  journeyBytes,
  retentionTickMs,
  segmentAgeMinMs,
} from "../limits.ts";
import type { Offset } from "./log.ts";
import type { FilePartition } from "./partition.ts";
import type { Segment } from "./segment.ts";

/** Streams whose names begin so hold what waits for one route, and are emptied as it drains. */
export const WAIT_STREAM_PREFIX = "$wait.";
/** What became of messages, and what was changed by whom. */
export const JOURNEY_STREAM = "$journey";
export const AUDIT_STREAM = "$audit";

const WAIT_RETENTION: RetentionPolicy = {
  ageMs: null,
  bytes: null,
  messages: null,
  afterRouted: true,
  keepMs: 0,
  whenFull: "block",
};

/** What to keep of a stream. A bound that is null does not apply. */
export interface RetentionPolicy {
  readonly ageMs: number | null;
  readonly bytes: number | null;
  readonly messages: number | null;
  /** Only what every rule has passed may go, and what has stood `keepMs`. */
  readonly afterRouted: boolean;
  readonly keepMs: number;
  /** With `afterRouted`, once more than `bytes` or `messages` waits for rules. */
  readonly whenFull: "block" | "dropOldest";
}

/** How far rules have come on the partitions of streams. */
export interface Passed {
  /** The lowest offset that some enabled rule has not passed; 0 while nobody knows. */
  readonly passed: (stream: string, partition: number) => Offset;
  /** The rule that is furthest behind; null when no enabled rule reads the partition. */
  readonly slowest: (
    stream: string,
    partition: number,
  ) => { readonly rule: string; readonly next: Offset } | null;
}

/** What has become of messages of a stream that was full. Counts of messages and of refused calls. */
export interface FullCounts {
  readonly stream: string;
  readonly refusedCalls: number;
  readonly droppedMessages: number;
}

/** What a stream without a definition keeps: 7 days, 10 GiB. */
export const DEFAULT_RETENTION: RetentionPolicy = {
  ageMs: 7 * 24 * 3600 * 1000,
  bytes: 10 * 1024 ** 3,
  messages: null,
  afterRouted: false,
  keepMs: 0,
  whenFull: "block",
};

/** What the internal streams keep that nobody else looks after. */
const INTERNAL_RETENTION: ReadonlyMap<string, RetentionPolicy> = new Map([
  [JOURNEY_STREAM, { ...DEFAULT_RETENTION, ageMs: journeyAgeMs, bytes: journeyBytes }],
  [AUDIT_STREAM, { ...DEFAULT_RETENTION, ageMs: auditAgeMs, bytes: auditBytes }],
]);

/** How old a segment may get before it is rolled: a tenth of what retention speaks of. */
function segmentAgeMaxMs(policy: RetentionPolicy): number {
  const ageMs = policy.afterRouted ? policy.keepMs : (policy.ageMs ?? Number.POSITIVE_INFINITY);
  return Math.max(segmentAgeMinMs, ageMs / 10);
}

/** Whether bytes or messages are over what a partition may hold. */
function isOver(policy: RetentionPolicy, held: { bytes: number; messages: number }): boolean {
  return (
    (policy.bytes !== null && held.bytes > policy.bytes) ||
    (policy.messages !== null && held.messages >= policy.messages)
  );
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
    const sinceMs = at.nowMs - next.createdAtMs;
    const isLarge = isOver(policy, { bytes, messages: offsetEnd - next.baseOffset });
    const isOld = policy.ageMs !== null && policy.ageMs <= sinceMs;
    const isRouted = next.baseOffset <= at.passed;
    const mayGo = !policy.afterRouted
      ? isLarge || isOld
      : (isRouted && (isLarge || policy.keepMs <= sinceMs)) ||
        (policy.whenFull === "dropOldest" && (isLarge || isOld));
    if (!mayGo) break;
    bytes -= segment.endPosition;
    count++;
  }
  return count;
}

/** What of a partition some rule has yet to pass; of a segment half passed its share. */
export function heldBack(
  { segments, offsetEnd }: Pick<FilePartition, "segments" | "offsetEnd">,
  passed: Offset,
): { readonly bytes: number; readonly messages: number } {
  let bytes = 0;
  let end = offsetEnd;
  for (const { baseOffset, endPosition } of segments.toReversed()) {
    if (end <= passed) break;
    const share = (end - Math.max(passed, baseOffset)) / Math.max(1, end - baseOffset);
    bytes += endPosition * share;
    end = baseOffset;
  }
  return { bytes, messages: Math.max(0, offsetEnd - Math.max(passed, end)) };
}

/** Looks after all partitions, a tick at a time. */
export class Retention {
  readonly #partitions: () => readonly FilePartition[];
  readonly #clock: Clock;
  readonly #warn: (sentence: string) => void;
  readonly #policies = new Map<string, RetentionPolicy>();
  #passed: Passed = { passed: () => 0, slowest: () => null };
  readonly #counts = new Map<string, { refusedCalls: number; droppedMessages: number }>();
  /** Partitions of which it has been told that they are full. */
  readonly #full = new Set<string>();

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
  define(policies: ReadonlyMap<string, RetentionPolicy>, passed: Passed): void {
    this.#policies.clear();
    for (const [stream, policy] of policies) this.#policies.set(stream, policy);
    this.#passed = passed;
  }

  /** What was refused or lost of streams that were full, since the start. */
  counts(): readonly FullCounts[] {
    return [...this.#counts].map(([stream, counts]) => ({ stream, ...counts }));
  }

  /**
   * Whether a stream's partitions may come to refuse what is appended: only then `admit` has to be
   * asked.
   */
  guards(stream: string): boolean {
    const policy = this.#policies.get(stream);
    if (policy?.afterRouted !== true || policy.whenFull !== "block") return false;
    return policy.bytes !== null || policy.messages !== null;
  }

  /** Asked before an append. @throws StreamFullError a rule holds as much as the partition may. */
  admit(partition: FilePartition): void {
    const { stream, index } = partition.id;
    const holder = this.#holderOf(partition);
    if (holder === null) return;
    this.#countsOf(stream).refusedCalls++;
    const error = new StreamFullError(stream, holder.rule, partition.offsetEnd - holder.next);
    const name = `${stream}/${index}`;
    if (!this.#full.has(name)) this.#warn(error.message);
    this.#full.add(name);
    throw error;
  }

  /** The rule that holds as much of a partition as that may; null: it takes more. */
  #holderOf(partition: FilePartition): { readonly rule: string; readonly next: Offset } | null {
    const { id, byteLength: bytes, offsetEnd, offsetStart } = partition;
    const policy = this.#policies.get(id.stream);
    if (policy === undefined || !this.guards(id.stream)) return null;
    if (!isOver(policy, { bytes, messages: offsetEnd - offsetStart })) return null;
    const slowest = this.#passed.slowest(id.stream, id.index);
    if (slowest === null || !isOver(policy, heldBack(partition, slowest.next))) return null;
    return slowest;
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

  /** Applies retention to one partition. The other internal streams look after themselves. */
  async keep(partition: FilePartition): Promise<void> {
    const { stream, index } = partition.id;
    const policy = this.#policyOf(stream);
    if (policy === null) return;
    const nowMs = this.#clock.nowMs();
    const passed = this.#passed.passed(stream, index);
    const newest = partition.segments.at(-1);
    const isDue = newest !== undefined && isToBeSealed(newest, policy, nowMs);
    // Sealing what no rule has reached frees nothing, and each segment is a file more.
    const isUseful =
      !policy.afterRouted || policy.whenFull === "dropOldest" || passed > (newest?.baseOffset ?? 0);
    if (isDue && isUseful && partition.offsetEnd > newest.baseOffset) await partition.roll();
    let count = countToDrop(partition, policy, { nowMs, passed });
    while (count-- > 0) await this.#dropOldest(partition, policy, passed);
    if (this.#holderOf(partition) === null) this.#full.delete(`${stream}/${index}`);
  }

  /** Null: the stream looks after itself. */
  #policyOf(stream: string): RetentionPolicy | null {
    if (stream.startsWith(WAIT_STREAM_PREFIX)) return WAIT_RETENTION;
    if (stream.startsWith("$")) return INTERNAL_RETENTION.get(stream) ?? null;
    return this.#policies.get(stream) ?? DEFAULT_RETENTION;
  }

  async #dropOldest(partition: FilePartition, policy: RetentionPolicy, passed: Offset) {
    const { stream, index } = partition.id;
    const from = partition.offsetStart;
    await partition.dropOldest();
    const to = partition.offsetStart;
    if (!policy.afterRouted || to <= passed) return;
    const lost = to - Math.max(from, passed);
    this.#countsOf(stream).droppedMessages += lost;
    const slowest = this.#passed.slowest(stream, index);
    const whom = slowest === null ? "" : ` that rule ${slowest.rule} had yet to pass`;
    this.#warn(
      `stream ${stream} is full: ${lost} messages of partition ${index}${whom} were dropped`,
    );
  }

  #countsOf(stream: string): { refusedCalls: number; droppedMessages: number } {
    let counts = this.#counts.get(stream);
    if (counts === undefined) {
      counts = { refusedCalls: 0, droppedMessages: 0 };
      this.#counts.set(stream, counts);
    }
    return counts;
  }
}

/** By age; and one that is kept until it is routed by size, so that what it held can go in parts. */
function isToBeSealed(newest: Segment, policy: RetentionPolicy, nowMs: number): boolean {
  if (newest.createdAtMs + segmentAgeMaxMs(policy) <= nowMs) return true;
  return (
    policy.afterRouted &&
    policy.bytes !== null &&
    newest.endPosition > policy.bytes / fullSegmentsMin
  );
}
