/**
 * Finds what a broker no longer has and the group has not read: records purged or expired, a topic
 * made anew, an end cut by an election. The reading library passes over all of these in silence.
 * Reads that go on where the last one ended cost nothing; only a jump asks the broker, in the
 * background. A jump alone is no gap: compaction and transactions leave holes in the offsets.
 */
import type { SourceGap } from "../../src/bridge.ts";
import type { KafkaAdmin } from "./clients.ts";
import { committedOffsets, EARLIEST, LATEST, listOffsets } from "./positions.ts";
import type { Topic } from "./topics.ts";

/** Partitions by topic. */
export type Assignment = Readonly<Record<string, readonly number[]>>;

export interface GapsParts {
  readonly admin: KafkaAdmin;
  readonly group: string;
  readonly report: (gap: SourceGap) => void;
  /** Called when the broker could not be asked: the source is opened anew, and looks again. */
  readonly failed: (error: unknown) => void;
}

/** The gaps that one source has met. */
export class Gaps {
  readonly #parts: GapsParts;
  readonly #looking = new Set<Promise<void>>();
  /** For each partition the offset that was missing last: a gap is told once. */
  readonly #told = new Map<string, bigint>();
  /** Where the group was when the partition became this reader's, until its first read. */
  readonly #positions = new Map<string, bigint>();

  constructor(parts: GapsParts) {
    this.#parts = parts;
  }

  /** What the group wants next of all topics, before anything is read. @throws the broker's error */
  async opened(topics: readonly Topic[]): Promise<void> {
    for (const { name, partitions } of topics) {
      await this.#compare(
        name,
        Array.from({ length: partitions }, (_, index) => index),
      );
    }
  }

  /** These partitions are this reader's now: is what the group wants next still there? */
  joined(assignment: Assignment): void {
    this.#positions.clear();
    this.#look(async () => {
      for (const [topic, partitions] of Object.entries(assignment)) {
        if (partitions.length > 0) await this.#compare(topic, partitions);
      }
    });
  }

  /** A read began here; `expected` is where the one before it ended, null when there was none. */
  read(at: { topic: string; partition: number }, from: bigint, expected: bigint | null): void {
    const place = placeOf(at.topic, at.partition);
    const position = this.#positions.get(place) ?? null;
    this.#positions.delete(place);
    const wanted = expected ?? position;
    if (wanted === null || wanted === from) return;
    if (from < wanted) {
      // Without a read before it, own acks may have moved the group's position since.
      if (expected !== null) this.#tellAnew(place, wanted, from);
      return;
    }
    this.#look(async () => {
      const oldest = await listOffsets(this.#parts.admin, at.topic, [at.partition], EARLIEST);
      this.#tellPurged(place, wanted, smaller(oldest.get(at.partition) ?? wanted, from));
    });
  }

  /** Resolves when nothing is being looked for. Never rejects. */
  async idle(): Promise<void> {
    await Promise.all(this.#looking);
  }

  async #compare(topic: string, partitions: readonly number[]): Promise<void> {
    const { admin, group } = this.#parts;
    const wanted = await committedOffsets(admin, { group, topic, partitions });
    const oldest = await listOffsets(admin, topic, partitions, EARLIEST);
    const ends = await listOffsets(admin, topic, partitions, LATEST);
    for (const [partition, position] of wanted) {
      const place = placeOf(topic, partition);
      this.#positions.set(place, position);
      this.#tellPurged(place, position, oldest.get(partition) ?? position);
      const end = ends.get(partition) ?? position;
      if (position > end) this.#tellAnew(place, position, end);
    }
  }

  #tellPurged(place: string, from: bigint, to: bigint): void {
    if (to <= from) return;
    this.#tell(place, from, `offsets ${from} to ${to - 1n} were removed before they were read`);
  }

  #tellAnew(place: string, wanted: bigint, found: bigint): void {
    const what = "its end was cut or it was made anew, and what it had is gone";
    this.#tell(place, wanted, `the next offset was ${wanted} and is ${found}: ${what}`);
  }

  #tell(place: string, from: bigint, reason: string): void {
    if (this.#told.get(place) === from) return;
    this.#told.set(place, from);
    this.#parts.report({ place, reason });
  }

  #look(task: () => Promise<void>): void {
    const looking = task()
      .catch((error: unknown) => this.#parts.failed(error))
      .finally(() => this.#looking.delete(looking));
    this.#looking.add(looking);
  }
}

/** A partition, as people are told of it. */
function placeOf(topic: string, partition: number): string {
  return `topic ${topic} partition ${partition}`;
}

function smaller(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}
