/**
 * What became of messages, noted beside their delivery in the internal stream `$journey`: each
 * send that was confirmed, each failure, each end. Notes are gathered and appended together before
 * a route's state record is saved, so a cursor never passes a delivery that is not noted. A note
 * that can't be kept is counted and told, and holds up nothing.
 *
 *     key  m/STREAM/PARTITION/EPOCH/BUCKET          body as journey-record.ts says
 *     key  r/RULE/TARGET/STREAM/PARTITION/EPOCH     body { o from this offset, v revision }
 */
import type { Outcome } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import { errorText, GapError, StorageError } from "../errors.ts";
import {
  journeyBucketOffsets,
  journeyFailuresFull,
  journeyPendingMax,
  journeyReadMax,
  journeySkewMs,
  reasonLengthMax,
  routeBatchMessages,
} from "../limits.ts";
import type { Batch, Offset, Partition } from "../log/log.ts";
import type { Stream, Streams } from "../log/stream.ts";
import { JOURNEY_STREAM } from "../log/retention.ts";
import { decodeText, encodeText, type Message } from "../message.ts";
import {
  type JourneyEvent,
  type JourneyNote,
  notesIn,
  type SavedItem,
  type SavedNotes,
  SentRun,
} from "./journey-record.ts";
import type { Judgement } from "./trouble.ts";
import type { Work } from "./work.ts";

/** A place in a stream. */
export interface Place {
  readonly stream: string;
  readonly partition: number;
  readonly offset: Offset;
}

/** Which route, on which partition. */
export interface RoutePlace {
  readonly rule: string;
  readonly target: string;
  readonly partition: Partition;
}

/** Detail, attempts, next try. */
type Said = readonly [] | readonly [string, number?, (number | null)?];

const NOTHING_SAID: Said = [];

interface SavedBoundary {
  readonly o: Offset;
  readonly v: number;
}

interface Group {
  readonly stream: string;
  readonly partition: number;
  readonly bucket: number;
  readonly revision: number;
  readonly event: JourneyEvent;
  readonly again: string | null;
  readonly atMs: number;
  readonly route: RoutePlace;
  readonly items: SavedItem[];
  /** Of which flush it is: a later one begins a group of its own. */
  readonly flush: number;
}

/** For reads that nobody aborts: they end below the partition's end. */
const NEVER = new AbortController().signal;

/** The notes of a process. */
export class JourneyLog {
  readonly #streams: Streams;
  readonly #clock: Clock;
  readonly #warn: (sentence: string) => void;
  readonly #stream: Stream;
  #groups: Group[] = [];
  #records: Message[] = [];
  #pending = 0;
  #flushes = 0;
  #dropped = 0;
  #isFailing = false;
  #writing: Promise<void> = Promise.resolve();

  constructor(streams: Streams, clock: Clock, warn: (sentence: string) => void) {
    this.#streams = streams;
    this.#clock = clock;
    this.#warn = warn;
    streams.define(JOURNEY_STREAM, 1, true);
    this.#stream = streams.stream(JOURNEY_STREAM);
  }

  /** Notes that could not be kept since the process started. Count. */
  get dropped(): number {
    return this.#dropped;
  }

  /** The notes of one route; keep the result. */
  of(route: RoutePlace): RouteNotes {
    return new RouteNotes(this, route);
  }

  /** Whether there is room for one more note, which is then counted. */
  admit(): boolean {
    if (this.#pending < journeyPendingMax) {
      this.#pending++;
      return true;
    }
    this.#lose(1, "more is delivered than can be noted");
    return false;
  }

  /** Whether a group may take more: it has not been written yet. */
  isOpen({ flush }: Group): boolean {
    return flush === this.#flushes;
  }

  /** Begins a group of notes, which goes with the next flush. */
  begin(noted: Omit<Group, "items" | "atMs" | "flush">): Group {
    const atMs = this.#clock.nowMs();
    const group: Group = { ...noted, items: [], atMs, flush: this.#flushes };
    this.#groups.push(group);
    return group;
  }

  /** Unix milliseconds. */
  nowMs(): number {
    return this.#clock.nowMs();
  }

  /** Notes from which offset on a route's messages belong to a revision. */
  begins({ rule, target, partition }: RoutePlace, offset: Offset, revision: number): void {
    const saved: SavedBoundary = { o: offset, v: revision };
    this.#records.push(this.#record(boundaryKey(rule, target, partition), saved));
  }

  /** Resolves when all that was noted before is durable, or was given up; in order of the calls. */
  flush(): Promise<void> {
    const groups = this.#groups;
    if (groups.length > 0 || this.#records.length > 0) {
      const records = this.#records;
      const count = this.#pending;
      this.#groups = [];
      this.#records = [];
      this.#pending = 0;
      this.#flushes++;
      for (const group of groups) records.push(this.#record(this.#keyOf(group), savedOf(group)));
      const before = this.#writing;
      const written = this.#write(records, count);
      this.#writing = before.then(() => written);
    }
    return this.#writing;
  }

  /**
   * The notes of one message, oldest first, of `sinceMs` and later; `complete: false`: there are
   * more than are read. @throws StorageError they can't be read now.
   */
  async notesOf(place: Place, sinceMs: number) {
    await this.flush();
    const key = messageKey(place, this.#epochOf(place.stream, place.partition));
    const notes: JourneyNote[] = [];
    const complete = await this.#read(key, sinceMs, (text) => {
      notes.push(...notesIn(text, place.offset));
    });
    return { notes, complete };
  }

  /**
   * The revision that a route's message belonged to; null: not known any more; `"none"`: the route
   * was made later and began behind it. @throws StorageError they can't be read now.
   */
  async revisionAt(
    { rule, target, partition }: RoutePlace,
    offset: Offset,
  ): Promise<number | "none" | null> {
    await this.flush();
    let found: number | null = null;
    let isBehind = false;
    const complete = await this.#read(boundaryKey(rule, target, partition), 0, (text) => {
      const { o, v } = JSON.parse(text) as SavedBoundary;
      if (o <= offset) found = v;
      isBehind = true;
    });
    if (found !== null) return found;
    const isWhole = complete && this.#partition.offsetStart === 0;
    return isBehind && isWhole ? "none" : null;
  }

  get #partition(): Partition {
    const [only] = this.#stream.partitions;
    if (only === undefined) throw new StorageError("the stream of journeys has no partition");
    return only;
  }

  #record(key: string, saved: SavedNotes | SavedBoundary): Message {
    return {
      id: "note",
      key: encodeText(key),
      properties: {},
      headers: [],
      body: encodeText(JSON.stringify(saved)),
      timestampMs: this.#clock.nowMs(),
      origin: null,
    };
  }

  #keyOf(group: Group): string {
    const { stream, partition, bucket } = group;
    const offset = bucket * journeyBucketOffsets;
    return messageKey({ stream, partition, offset }, this.#epochOf(stream, partition));
  }

  #epochOf(stream: string, partition: number): string {
    return this.#streams.find(stream)?.partitions[partition]?.epoch ?? "";
  }

  async #write(records: readonly Message[], count: number): Promise<void> {
    try {
      await this.#stream.append(records).durable;
      this.#isFailing = false;
    } catch (error) {
      this.#lose(count, errorText(error));
    }
  }

  #lose(count: number, reason: string): void {
    this.#dropped += count;
    if (!this.#isFailing) this.#warn(`journeys are not noted for now: ${reason}`);
    this.#isFailing = true;
  }

  async #read(key: string, sinceMs: number, take: (text: string) => void): Promise<boolean> {
    const partition = this.#partition;
    const end = partition.offsetEnd;
    const wanted = encodeText(key);
    const from = Math.max(0, sinceMs - journeySkewMs);
    let offset = from === 0 ? partition.offsetStart : await partition.offsetAt(from);
    let count = 0;
    while (offset < end && count < journeyReadMax) {
      const batch = await readKey(partition, offset, wanted);
      for (const record of batch.messages) {
        if (record.key === null || Buffer.compare(record.key, wanted) !== 0) continue;
        count++;
        take(decodeText(record.body ?? new Uint8Array()));
      }
      offset = batch.next;
    }
    return offset >= end;
  }
}

/** The notes of one route. */
export class RouteNotes {
  readonly #log: JourneyLog;
  readonly #route: RoutePlace;
  #last: Group | null = null;
  #run: SentRun | null = null;

  constructor(log: JourneyLog, route: RoutePlace) {
    this.#log = log;
    this.#route = route;
  }

  /** As `JourneyLog.begins`. */
  begins(offset: Offset, revision: number): void {
    this.#log.begins(this.#route, offset, revision);
  }

  /** As `JourneyLog.flush`. */
  flush(): Promise<void> {
    return this.#log.flush();
  }

  /** Notes what a target has confirmed. */
  sent(works: readonly Work[], outcomes: readonly Outcome[]): void {
    const nowMs = this.#log.nowMs();
    for (const [index, work] of works.entries()) {
      const outcome = outcomes[index];
      if (outcome !== undefined && "sent" in outcome) this.#sent(work, outcome.sent, nowMs);
    }
  }

  /** Notes a failure: the first ones each, then at powers of two, for an outage has many. */
  failed(work: Work, { trouble, reason, isOver, delayMs }: Judgement): void {
    const { attempts, failures } = trouble;
    const nextMs = isOver || delayMs === null ? null : Math.round(delayMs);
    if (failures > journeyFailuresFull && (failures & (failures - 1)) !== 0) return;
    this.#add(work, "failed", [reason.slice(0, reasonLengthMax), attempts, nextMs]);
  }

  /** Notes that it is over; `detail`: the place of the dead letter. */
  ended(work: Work, event: "dead" | "expired", detail: string | null): void {
    this.#add(work, event, detail === null ? NOTHING_SAID : [detail]);
  }

  #sent(work: Work, place: string | null, nowMs: number): void {
    const group = this.#group(work, "sent");
    const { offset } = work.message;
    const ms = nowMs - group.atMs;
    if (group.items.at(-1) === this.#run?.item && this.#run?.take(offset, ms, place)) return;
    if (!this.#log.admit()) return;
    this.#run = new SentRun(offset, ms, place);
    group.items.push(this.#run.item);
  }

  #add(work: Work, event: JourneyEvent, said: Said): void {
    if (!this.#log.admit()) return;
    const group = this.#group(work, event);
    const { offset } = work.message;
    group.items.push([offset, this.#log.nowMs() - group.atMs, ...said]);
  }

  /** The group of a message: nearly always that of the one before it. */
  #group({ message, revision, again }: Work, event: JourneyEvent): Group {
    const { stream, partition, offset } = message;
    const bucket = Math.floor(offset / journeyBucketOffsets);
    const last = this.#last;
    const isSame =
      last !== null &&
      last.bucket === bucket &&
      last.event === event &&
      last.revision === revision.revision &&
      last.again === again &&
      last.partition === partition &&
      last.stream === stream;
    if (isSame && this.#log.isOpen(last)) return last;
    const route = this.#route;
    const noted = { stream, partition, bucket, revision: revision.revision, event, again, route };
    this.#last = this.#log.begin(noted);
    return this.#last;
  }
}

function savedOf({ route, revision, event, again, atMs, items }: Group): SavedNotes {
  const { rule: r, target: t } = route;
  const by = again === null ? {} : { g: again };
  return { r, t, v: revision, e: event, ...by, b: atMs, m: items };
}

function messageKey({ stream, partition, offset }: Place, epoch: string): string {
  const bucket = Math.floor(offset / journeyBucketOffsets);
  return `m/${stream}/${partition}/${epoch.slice(0, 8)}/${bucket}`;
}

function boundaryKey(rule: string, target: string, { id, epoch }: Partition): string {
  return `r/${rule}/${target}/${id.stream}/${id.index}/${epoch.slice(0, 8)}`;
}

async function readKey(partition: Partition, offset: Offset, key: Uint8Array): Promise<Batch> {
  try {
    const options = { key, messagesMax: routeBatchMessages, signal: NEVER };
    const batch = await partition.read(offset, options);
    if (batch === null) throw new StorageError("the log is closed");
    return batch;
  } catch (error) {
    if (!(error instanceof GapError)) throw error;
    return { messages: [], next: error.to };
  }
}
