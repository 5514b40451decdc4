/**
 * Where a group begins that Kafka does not know yet. The beginning is committed before the group
 * is joined: from then on "latest" means the end as it was at this moment, and not the end as it
 * is when a reader comes back that had acked nothing.
 */
import type { SourceOptions } from "../../src/bridge.ts";
import type { KafkaAdmin } from "./clients.ts";
import { answerOf, disconnected } from "./failure.ts";

/** Kafka's names for the ends of a partition, as a timestamp. */
const LATEST = -1n;
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
  /** The brokers, for messages. */
  readonly place: string;
}

/**
 * Commits the beginning of a group that has no position in a topic. A group that has one goes on
 * from there, and a partition that was added later is read from its start.
 * @throws DisconnectedError try again later.
 */
export async function begin(admin: KafkaAdmin, beginning: Beginning): Promise<void> {
  // The earliest needs no commit: it is where a reader without a position starts.
  if (beginning.start === "earliest") return;
  try {
    if (await hasPosition(admin, beginning)) return;
    await commit(admin, beginning, await startOffsets(admin, beginning));
  } catch (error) {
    if (begun.has(answerOf(error)?.id ?? "")) return;
    throw disconnected(error, beginning.place);
  }
}

function indexes(partitions: number): number[] {
  return Array.from({ length: partitions }, (_, index) => index);
}

async function hasPosition(admin: KafkaAdmin, { group, topic, partitions }: Beginning) {
  const topics = [{ name: topic, partitionIndexes: indexes(partitions) }];
  const groups = await admin.listConsumerGroupOffsets({ groups: [{ groupId: group, topics }] });
  return groups.some((found) =>
    found.topics.some((item) => item.partitions.some((at) => at.committedOffset > NONE)),
  );
}

async function listOffsets(
  admin: KafkaAdmin,
  { topic, partitions }: Beginning,
  timestamp: bigint,
): Promise<Map<number, bigint>> {
  const wanted = indexes(partitions).map((partitionIndex) => ({ partitionIndex, timestamp }));
  const topics = await admin.listOffsets({ topics: [{ name: topic, partitions: wanted }] });
  const found = topics.flatMap((item) => item.partitions);
  return new Map(found.map(({ partitionIndex, offset }) => [partitionIndex, offset]));
}

async function startOffsets(admin: KafkaAdmin, beginning: Beginning): Promise<Map<number, bigint>> {
  const ends = await listOffsets(admin, beginning, LATEST);
  if (typeof beginning.start === "string") return ends;
  const at = await listOffsets(admin, beginning, BigInt(Math.max(0, beginning.start.timestampMs)));
  // A partition with nothing that young begins at its end.
  for (const [partition, offset] of at) if (offset > NONE) ends.set(partition, offset);
  return ends;
}

async function commit(
  admin: KafkaAdmin,
  { group, topic }: Beginning,
  offsets: ReadonlyMap<number, bigint>,
): Promise<void> {
  const partitionOffsets = [...offsets].map(([partition, offset]) => ({ partition, offset }));
  await admin.alterConsumerGroupOffsets({
    groupId: group,
    topics: [{ name: topic, partitionOffsets }],
  });
}
