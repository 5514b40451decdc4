/**
 * Where a group begins that Kafka does not know yet. The beginning is committed before the group
 * is joined: from then on "latest" means the end as it was at this moment, and not the end as it
 * is when a reader comes back that had acked nothing.
 */
import type { SourceOptions } from "../../src/bridge.ts";
import { InvalidError } from "../../src/errors.ts";
import type { KafkaAdmin } from "./clients.ts";
import type { SourceFields } from "./config.ts";
import { answerOf, disconnected } from "./failure.ts";

/** Kafka's names for the ends of a partition, as a timestamp. */
export const LATEST = -1n;
export const EARLIEST = -2n;
const NONE = -1n;

/** Answers that mean: the group has members, so it has begun. */
const begun: ReadonlySet<string> = new Set([
  "UNKNOWN_MEMBER_ID",
  "ILLEGAL_GENERATION",
  "REBALANCE_IN_PROGRESS",
  "NON_EMPTY_GROUP",
]);

export interface Beginning {
  readonly group: string;
  readonly topic: string;
  readonly partitions: number;
  readonly start: SourceOptions["start"];
  /** Offsets that the address names; they go before `start`. */
  readonly offset?: SourceFields["offset"];
  /** The brokers, for messages. */
  readonly place: string;
}

/**
 * Commits the beginning of a group that has no position in a topic. A group that has one goes on
 * from there, and a partition that was added later is read from its start.
 * @throws InvalidError a named offset is not there. @throws DisconnectedError try again later.
 */
export async function begin(admin: KafkaAdmin, beginning: Beginning): Promise<void> {
  const { group, topic, start, offset = null } = beginning;
  // The earliest needs no commit: it is where a reader without a position starts.
  if (start === "earliest" && offset === null) return;
  await unlessBegun(beginning.place, async () => {
    const partitions = indexes(beginning.partitions);
    const committed = await committedOffsets(admin, { group, topic, partitions });
    if (committed.size > 0) return;
    await commit(admin, beginning, await startOffsets(admin, beginning));
  });
}

/** A topic was made anew: a group whose position is of the old one begins again at its start. */
export async function beginAgain(
  admin: KafkaAdmin,
  beginning: Pick<Beginning, "group" | "topic" | "partitions" | "place">,
): Promise<void> {
  await unlessBegun(beginning.place, async () => {
    const { group, topic } = beginning;
    const partitions = indexes(beginning.partitions);
    const committed = await committedOffsets(admin, { group, topic, partitions });
    // Kafka itself forgets positions in a topic that is removed: then there is nothing to do.
    if (committed.size === 0) return;
    await commit(admin, beginning, await listOffsets(admin, topic, partitions, EARLIEST));
  });
}

async function unlessBegun(place: string, task: () => Promise<void>): Promise<void> {
  try {
    await task();
  } catch (error) {
    if (begun.has(answerOf(error)?.id ?? "")) return;
    if (error instanceof InvalidError) throw error;
    throw disconnected(error, place);
  }
}

function indexes(partitions: number): number[] {
  return Array.from({ length: partitions }, (_, index) => index);
}

/** The next offset to read of each partition that the group has a position in. */
export async function committedOffsets(
  admin: KafkaAdmin,
  at: { readonly group: string; readonly topic: string; readonly partitions: readonly number[] },
): Promise<Map<number, bigint>> {
  const topics = [{ name: at.topic, partitionIndexes: [...at.partitions] }];
  const groups = await admin.listConsumerGroupOffsets({ groups: [{ groupId: at.group, topics }] });
  const partitions = groups.flatMap((found) => found.topics.flatMap((item) => item.partitions));
  return new Map(
    partitions
      .filter(({ committedOffset }) => committedOffset > NONE)
      .map(({ partitionIndex, committedOffset }) => [partitionIndex, committedOffset]),
  );
}

/** The offset of each partition at a time, or at one of its ends. */
export async function listOffsets(
  admin: KafkaAdmin,
  topic: string,
  partitions: readonly number[],
  timestamp: bigint,
): Promise<Map<number, bigint>> {
  const wanted = partitions.map((partitionIndex) => ({ partitionIndex, timestamp }));
  const topics = await admin.listOffsets({ topics: [{ name: topic, partitions: wanted }] });
  const found = topics.flatMap((item) => item.partitions);
  return new Map(found.map(({ partitionIndex, offset }) => [partitionIndex, offset]));
}

async function startOffsets(admin: KafkaAdmin, beginning: Beginning): Promise<Map<number, bigint>> {
  const { topic, start, offset = null } = beginning;
  const partitions = indexes(beginning.partitions);
  const ends = await listOffsets(admin, topic, partitions, LATEST);
  const oldest = await listOffsets(admin, topic, partitions, EARLIEST);
  const begins = new Map(start === "earliest" ? oldest : ends);
  if (typeof start !== "string") {
    const from = BigInt(Math.max(0, start.timestampMs));
    const at = await listOffsets(admin, topic, partitions, from);
    // A partition with nothing that young begins at its end.
    for (const [partition, found] of at) if (found > NONE) begins.set(partition, found);
  }
  const named = offset === null ? [] : namedOffsets(offset, partitions);
  for (const [partition, wanted] of named) {
    const [first, end] = [oldest.get(partition), ends.get(partition)];
    if (first === undefined || end === undefined || wanted < first || wanted > end) {
      const held = first === undefined ? "is not there" : `has ${first} to ${end}`;
      const detail = `partition ${partition} of topic ${topic} ${held}, not ${wanted}`;
      throw new InvalidError(detail, [{ pointer: "/offset", detail }]);
    }
    begins.set(partition, wanted);
  }
  return begins;
}

function namedOffsets(
  offset: NonNullable<SourceFields["offset"]>,
  partitions: readonly number[],
): [number, bigint][] {
  if (typeof offset === "number") {
    return partitions.map((partition) => [partition, BigInt(offset)]);
  }
  return Object.entries(offset).map(([partition, at]) => [Number(partition), BigInt(at)]);
}

async function commit(
  admin: KafkaAdmin,
  { group, topic }: Pick<Beginning, "group" | "topic">,
  offsets: ReadonlyMap<number, bigint>,
): Promise<void> {
  const partitionOffsets = [...offsets].map(([partition, offset]) => ({ partition, offset }));
  await admin.alterConsumerGroupOffsets({
    groupId: group,
    topics: [{ name: topic, partitionOffsets }],
  });
}
