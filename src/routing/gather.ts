/**
 * A batch that waits, where the partition's order holds: what was read, and what comes behind it in
 * the time that the batch may wait. Nothing is taken here: a gap or a failure behind what was read
 * is met again by the next read.
 */
import type { Clock } from "../clock.ts";
import { GatewayError } from "../errors.ts";
import { routeBatchBytes } from "../limits.ts";
import type { Batch, Partition } from "../log/log.ts";
import type { StoredMessage } from "../message.ts";
import type { RunningRevision } from "./route-parts.ts";

/** For what, from where and how much. */
export interface GatherParts {
  /** The revision of the first message. */
  readonly revision: RunningRevision;
  readonly clock: Clock;
  readonly partition: Partition;
  readonly stop: AbortSignal;
  /** Messages that the route may read in all. */
  readonly room: number;
}

/** What was read with what has come in time. */
export async function gather(read: Batch, parts: GatherParts): Promise<Batch> {
  const { revision, clock, partition, stop, room } = parts;
  const { batch } = revision.target.document;
  if (batch === undefined || batch.waitMs === 0) return read;
  const ending = new AbortController();
  const signal = AbortSignal.any([stop, ending.signal]);
  const late = clock.sleep(batch.waitMs, signal).then(() => ending.abort());
  const isWanted = (message: StoredMessage): boolean => revision.rule.matches(message) === "yes";
  const messages: StoredMessage[] = [];
  let { next } = read;
  let count = 0;
  let bytes = 0;
  const add = (more: readonly StoredMessage[]): void => {
    for (const message of more) {
      messages.push(message);
      if (!isWanted(message)) continue;
      count++;
      bytes += message.body?.length ?? 0;
    }
  };
  add(read.messages);
  try {
    while (!signal.aborted && count < batch.messages && bytes < batch.bytes) {
      const messagesMax = room - messages.length;
      if (messagesMax <= 0) break;
      const more = await partition.read(next, { messagesMax, bytesMax: routeBatchBytes, signal });
      if (more === null) break;
      add(more.messages);
      next = more.next;
    }
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error;
  } finally {
    ending.abort();
    await late;
  }
  return { ...read, messages, next };
}
