/**
 * What waits, read anew at a start from the route's own stream: which messages are there, which of
 * them are finished, and when the first of each lane is due.
 */
import type { Clock } from "../clock.ts";
import { GapError } from "../errors.ts";
import { routeBatchBytes, routeBatchMessages } from "../limits.ts";
import type { Batch, Offset, Partition } from "../log/log.ts";
import type { StoredMessage } from "../message.ts";
import type { Hold } from "./lanes.ts";
import type { Progress } from "./progress.ts";
import { readWaitRecord, type WaitMeta } from "./wait-record.ts";
import type { WaitEntry, Work } from "./work.ts";

/** What a waiting room works with: the route that owns it. */
export interface WaitParts {
  /** The stream of waiting messages, which is the route's alone. */
  readonly partition: Partition;
  /** The partition that the route reads. */
  readonly source: Partition;
  readonly stateKey: string;
  readonly life: string;
  readonly progress: Progress;
  readonly clock: Clock;
  readonly random: () => number;
  readonly stop: AbortSignal;
  /** Makes a message ready to be sent by the revision that took it. */
  readonly workOf: (message: StoredMessage, meta: WaitMeta, entry: WaitEntry) => Work;
  /** Sends messages of one lane on their way. */
  readonly offer: (works: readonly Work[]) => void;
  readonly onChange: () => void;
  readonly onTrouble: (sentence: string) => void;
  readonly onGap: (gap: GapError) => void;
  readonly warn: (sentence: string) => void;
  readonly onFailed: (error: unknown) => void;
  /** Saves the route's state soon. */
  readonly save: () => void;
}

/** What was read. */
export interface ReadWaiting {
  /** Not finished, in the order of the stream. `hold`: that of the first of a lane. */
  readonly entries: readonly {
    readonly lane: string;
    readonly entry: WaitEntry;
    readonly hold: Hold;
  }[];
  /** Finished and not named by a note that counts. */
  readonly places: readonly Offset[];
  readonly noted: Offset;
}

interface Found {
  readonly at: Offset;
  readonly meta: WaitMeta;
}

const DUE_NOW: Hold = { dueMs: 0, trouble: null, reason: "after a restart" };

/** Reads what waits. @throws GatewayError it can't be read now. */
export async function readWaiting(parts: WaitParts): Promise<ReadWaiting> {
  const { partition, progress, life } = parts;
  const mark = progress.waitBefore;
  const end = partition.offsetEnd;
  if (mark !== null && mark.epoch !== partition.epoch) {
    parts.warn(`the messages that waited in ${partition.id.stream} are gone`);
  }
  const isKnown = mark !== null && mark.epoch === partition.epoch;
  const next = isKnown ? mark.next : partition.offsetStart;
  const noted = isKnown ? mark.noted : next;
  const unnoted = isKnown ? mark.finished.map((delta) => next + delta) : [];
  let finished = new Set(unnoted);
  const found: Found[] = [];
  const holds = new Map<Offset, Hold>();
  for await (const record of records(parts, next, end)) {
    const read = readWaitRecord(record);
    // What an earlier route of this name left behind is not this one's.
    if (read.life !== life) continue;
    if ("lane" in read) {
      found.push({ at: record.offset, meta: { ...read, origin: null } });
      if (read.schedule !== null) holds.set(read.offset, read.schedule);
    } else if ("finished" in read) {
      if (record.offset < noted) finished = finished.union(new Set(read.finished));
    } else holds.set(read.offset, read.schedule);
  }
  countNew(parts, found, isKnown ? (mark.end ?? 0) : 0);
  const open = found.filter(({ at }) => !finished.has(at));
  const entries = open.map(({ at, meta: { offset, appendedAtMs, lane } }) => ({
    lane,
    entry: { offset, appendedAtMs, at },
    hold: holds.get(offset) ?? DUE_NOW,
  }));
  return { entries, places: unnoted, noted };
}

/** Counts as taken what the state record does not know of: all from the place `counted` on. */
function countNew({ progress, source }: WaitParts, found: readonly Found[], counted: Offset): void {
  for (const { at, meta } of found) {
    if (at < counted) continue;
    if (meta.again !== null) progress.takeAgain();
    // A partition that lost its end gives those offsets to other messages.
    else if (meta.offset < source.offsetEnd) progress.move(meta.offset);
  }
}

async function* records(
  parts: WaitParts,
  from: Offset,
  end: Offset,
): AsyncGenerator<StoredMessage> {
  let offset = Math.max(from, parts.partition.offsetStart);
  while (offset < end) {
    const batch = await readOn(parts, offset);
    if (batch === null) return;
    yield* batch.messages;
    offset = batch.next;
  }
}

async function readOn(parts: WaitParts, offset: Offset): Promise<Batch | null> {
  const options = {
    messagesMax: routeBatchMessages,
    bytesMax: routeBatchBytes,
    signal: parts.stop,
  };
  try {
    return await parts.partition.read(offset, options);
  } catch (error) {
    if (!(error instanceof GapError)) throw error;
    parts.onGap(error);
    return { messages: [], next: error.to };
  }
}
