/** Cuts what was fetched of one partition into deliveries, and leaves out what is out already. */
import type { Batch } from "kafkajs";
import type { Clock } from "../../src/clock.ts";
import type { Message } from "../../src/message.ts";
import { decodeRecord, weightOf } from "./codec.ts";
import type { Progress } from "./progress.ts";
import { headersOf } from "./reader.ts";

/** One delivery: enough for a full commit group of the log. Count; bytes. */
const DELIVERY_MESSAGES_MAX = 500;
const DELIVERY_BYTES_MAX = 1024 * 1024;

/** Messages that follow one another, with the offsets of the first and the last. */
export interface Part {
  readonly first: bigint;
  last: bigint;
  bytes: number;
  readonly messages: Message[];
}

export interface PartsOptions {
  /** The bridge's name. */
  readonly bridge: string;
  readonly clock: Clock;
  readonly unsettledBytesMax: number;
}

/** The parts of a batch, in its order; records are decoded as they are asked for. */
export function* partsOf(
  { topic, partition, messages }: Batch,
  progress: Progress,
  { bridge, clock, unsettledBytesMax }: PartsOptions,
): Generator<Part> {
  const limit = Math.min(DELIVERY_BYTES_MAX, unsettledBytesMax / 2);
  const place = { bridge, topic };
  let part: Part | null = null;
  for (const record of messages) {
    const offset = BigInt(record.offset);
    const covered = progress.covers(offset);
    const timestampMs = Number(record.timestamp);
    const message = covered
      ? null
      : decodeRecord(
          {
            partition,
            offset: record.offset,
            timestampMs: timestampMs >= 0 ? timestampMs : clock.nowMs(),
            key: record.key,
            value: record.value,
            headers: headersOf(record.headers),
          },
          place,
        );
    const bytes = message === null ? 0 : weightOf(message);
    const isFull =
      part !== null &&
      (covered || part.messages.length >= DELIVERY_MESSAGES_MAX || part.bytes + bytes > limit);
    if (isFull && part !== null) {
      yield part;
      part = null;
    }
    if (message === null) continue;
    part ??= { first: offset, last: offset, bytes: 0, messages: [] };
    part.last = offset;
    part.bytes += bytes;
    part.messages.push(message);
  }
  if (part !== null) yield part;
}
