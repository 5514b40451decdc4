/**
 * The journey of one message, put together when somebody asks: from the message itself (how it was
 * received, what it was verified by), from the rules as they stood (whether they took it, and what
 * said no), from the routes as they stand (what waits), and from the notes of `$journey` (each
 * attempt, and where it is now). What was not noted is derived, and what is not known is said.
 */
import type { Clock } from "../clock.ts";
import { nextTurn } from "../clock.ts";
import { GapError, NotFoundError, StorageError } from "../errors.ts";
import {
  journeyIdAfterMs,
  journeyIdBeforeMs,
  journeySearchMessages,
  journeySearchMsMax,
  journeySearchNewest,
  journeysMax,
  routeBatchBytes,
  routeBatchMessages,
} from "../limits.ts";
import type { Offset, Partition } from "../log/log.ts";
import type { Stream, Streams } from "../log/stream.ts";
import type { Origin, StoredMessage } from "../message.ts";
import type { Definition, RuleDocument } from "../rules/document.ts";
import { explainCondition } from "../rules/explain.ts";
import { compileExpression } from "../rules/expression.ts";
import type { Place } from "./journey-log.ts";
import type { JourneyNote } from "./journey-record.ts";
import type { Whereabouts } from "./route.ts";
import type { Routes, RunningRoute } from "./routes.ts";

/** How a message came in. */
export interface Received {
  /** `http`: a hook or a client's call, which is not told apart; `unknown`: nothing was kept. */
  readonly by: "hook" | "api" | "http" | "socket" | "source" | "rule" | "unknown";
  /** The hook's, source bridge's or rule's name, and the address there. */
  readonly from: string | null;
  readonly address: string | null;
  /** The source's own place, in its words. */
  readonly sourcePartition: number | null;
  readonly sourceOffset: string | null;
  readonly principal: string | null;
  readonly remoteAddress: string | null;
  readonly verified: { readonly scheme: string; readonly keyId: string } | null;
  readonly redelivered: boolean;
  readonly hops: readonly string[];
}

/** What became of a message on one route. */
export type Fate =
  | "delivered"
  | "filtered"
  | "dead-lettered"
  | "expired"
  | "waiting"
  | "parked"
  | "retrying"
  | "pending"
  | "never-read"
  | "unknown";

/** The way of a message through one route. */
export interface RouteJourney {
  readonly rule: string;
  readonly target: string;
  /** Null: not known any more. */
  readonly revision: number | null;
  /** Whether the revision's `where` takes the message; null: the revision is not kept any more. */
  readonly matched: "yes" | "no" | "failed" | null;
  /** The parts of `where` that decided, with values. */
  readonly because: readonly string[];
  readonly fate: Fate;
  /** Where it is in the target, in its words (`partition 3 offset 42`); null: it does not say. */
  readonly position: string | null;
  /** The dead letter, `STREAM/PARTITION/OFFSET`. */
  readonly deadLetter: string | null;
  /** Why it waits, and until when (null: until an operator releases it). */
  readonly waiting: { readonly dueMs: number | null; readonly reason: string } | null;
  /** Failures at hand, noted or not. */
  readonly attempts: number;
  /** What was noted, oldest first. */
  readonly notes: readonly JourneyNote[];
}

/** The journey of one message. */
export interface Journey extends Place {
  readonly message: StoredMessage | null;
  readonly received: Received | null;
  readonly routes: readonly RouteJourney[];
  /** False: there are more notes than one look reads. */
  readonly complete: boolean;
}

/** What journeys are put together from. */
export interface JourneysParts {
  readonly routes: Routes;
  readonly streams: Streams;
  readonly clock: Clock;
}

const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;
const NEVER = new AbortController().signal;
const OURS: Readonly<Record<string, Received["by"]>> = { socket: "socket", rule: "rule" };

const NOTHING_KEPT: Received = {
  by: "unknown",
  from: null,
  address: null,
  sourcePartition: null,
  sourceOffset: null,
  principal: null,
  remoteAddress: null,
  verified: null,
  redelivered: false,
  hops: [],
};

/** Journeys of a process. */
export class Journeys {
  readonly #parts: JourneysParts;

  constructor(parts: JourneysParts) {
    this.#parts = parts;
  }

  /** Notes that could not be kept since the process started. Count. */
  get dropped(): number {
    return this.#parts.routes.journey?.dropped ?? 0;
  }

  /** @throws NotFoundError there is neither message nor note. @throws StorageError */
  async at(place: Place): Promise<Journey> {
    const { routes, streams } = this.#parts;
    const partition = streams.find(place.stream)?.partitions[place.partition];
    const message = partition === undefined ? null : await messageAt(partition, place.offset);
    const noted = await routes.journey?.notesOf(place, message?.appendedAtMs ?? 0);
    const notes = noted?.notes ?? [];
    if (message === null && notes.length === 0) {
      const { stream, partition: index, offset } = place;
      throw new NotFoundError(`there is no message at ${stream}/${index}/${offset}`);
    }
    const running = routes.reading(place.stream, place.partition);
    const ways: RouteJourney[] = [];
    for (const each of running) ways.push(await this.#onRoute(each, place, { message, notes }));
    ways.push(...goneRoutes(notes, running));
    return {
      ...place,
      message,
      received: message === null ? null : receivedOf(message),
      routes: ways,
      complete: noted?.complete ?? true,
    };
  }

  /** What was noted of a message on one route, oldest first. @throws StorageError */
  async notesOf(
    place: Place,
    of: { readonly rule: string; readonly target: string },
  ): Promise<readonly JourneyNote[]> {
    const { routes, streams } = this.#parts;
    const partition = streams.find(place.stream)?.partitions[place.partition];
    const message = partition === undefined ? null : await messageAt(partition, place.offset);
    const noted = await routes.journey?.notesOf(place, message?.appendedAtMs ?? 0);
    return (noted?.notes ?? []).filter(
      ({ rule, target }) => rule === of.rule && target === of.target,
    );
  }

  /**
   * The places of an id, oldest first: searched by the time in it when it is one of ours (a UUID of
   * version 7), else among the newest messages. `complete: false`: the bounds ended the search.
   * @throws StorageError the log can't be read now.
   */
  async find(id: string, among: readonly Stream[], signal: AbortSignal) {
    const found: (Place & { readonly appendedAtMs: number })[] = [];
    const untilMs = this.#parts.clock.monotonicMs() + journeySearchMsMax;
    let left = journeySearchMessages;
    let complete = true;
    for (const partition of among.flatMap(({ partitions }) => partitions)) {
      const { from, to, isWhole } = await windowOf(id, partition);
      complete &&= isWhole;
      let offset = from;
      while (offset < to && found.length < journeysMax) {
        const isOver = left <= 0 || this.#parts.clock.monotonicMs() > untilMs || signal.aborted;
        if (isOver) return { places: found, complete: false, searched: searchedOf(left) };
        const batch = await readOver(partition, offset);
        const { stream, index } = partition.id;
        for (const { offset: at, appendedAtMs } of ofId(batch.messages, id, to)) {
          found.push({ stream, partition: index, offset: at, appendedAtMs });
        }
        left -= batch.messages.length;
        offset = batch.next;
        await nextTurn();
      }
    }
    const places = found.toSorted((left, right) => left.appendedAtMs - right.appendedAtMs);
    return { places, complete, searched: searchedOf(left) };
  }

  async #onRoute(
    { rule, target, route }: RunningRoute,
    place: Place,
    known: { readonly message: StoredMessage | null; readonly notes: readonly JourneyNote[] },
  ): Promise<RouteJourney> {
    const { routes, streams } = this.#parts;
    const { message } = known;
    const notes = known.notes.filter((note) => note.rule === rule && note.target === target);
    const partition = streams.find(place.stream)?.partitions[place.partition];
    const where = route.whereabouts(place.offset);
    const first = notes.find(({ again }) => again === null);
    const revision =
      first?.revision ??
      (partition === undefined
        ? null
        : ((await routes.journey?.revisionAt({ rule, target, partition }, place.offset)) ??
          route.revisionAt(place.offset)));
    const isRead = revision !== "none" || notes.length > 0 || where.state !== "done";
    const number = typeof revision === "number" ? revision : null;
    const verdict = isRead ? verdictOf(routes, { rule, revision: number }, message) : UNJUDGED;
    return {
      rule,
      target,
      revision: number,
      ...verdict,
      ...endOf(notes),
      fate: isRead ? fateOf(where, notes, verdict.matched) : "never-read",
      waiting: where.state === "waiting" ? { dueMs: where.dueMs, reason: where.reason } : null,
      attempts: where.attempts,
      notes,
    };
  }
}

interface Verdict {
  readonly matched: RouteJourney["matched"];
  readonly because: readonly string[];
}

const UNJUDGED: Verdict = { matched: null, because: [] };

function verdictOf(
  routes: Routes,
  { rule, revision }: { readonly rule: string; readonly revision: number | null },
  message: StoredMessage | null,
): Verdict {
  const kept: Definition<RuleDocument> | null =
    revision === null ? null : routes.revision(rule, revision);
  if (kept === null || message === null) return UNJUDGED;
  const { where } = kept.parsed;
  if (where === null) return { matched: "yes", because: [] };
  return {
    matched: compileExpression(where).test(message),
    because: explainCondition(where, message),
  };
}

function fateOf(
  where: Whereabouts,
  notes: readonly JourneyNote[],
  matched: RouteJourney["matched"],
): Fate {
  if (where.state === "waiting") return where.dueMs === null ? "parked" : "waiting";
  // What was confirmed a moment ago may not be passed yet.
  const fates = { sent: "delivered", dead: "dead-lettered", expired: "expired" } as const;
  const end = notes.findLast(({ event }) => event !== "failed")?.event;
  if (end !== undefined && end !== "failed") return fates[end];
  if (where.state === "pending") return where.attempts > 0 ? "retrying" : "pending";
  return matched === "no" || matched === "failed" ? "filtered" : "unknown";
}

function endOf(notes: readonly JourneyNote[]): Pick<RouteJourney, "position" | "deadLetter"> {
  return {
    position: notes.findLast(({ event }) => event === "sent")?.detail ?? null,
    deadLetter: notes.findLast(({ event }) => event === "dead")?.detail ?? null,
  };
}

/** Routes that have handled the message and do not run any more. */
function goneRoutes(
  notes: readonly JourneyNote[],
  running: readonly RunningRoute[],
): RouteJourney[] {
  const isGone = ({ rule, target }: JourneyNote): boolean =>
    !running.some((each) => each.rule === rule && each.target === target);
  const gone = Map.groupBy(notes.filter(isGone), ({ rule, target }) => `${rule}\n${target}`);
  return [...gone.values()].flatMap((own) => {
    const [first] = own;
    if (first === undefined) return [];
    const { rule, target, revision } = first;
    const end = endOf(own);
    const where = { state: "done", attempts: 0 } as const;
    const fate = fateOf(where, own, "yes");
    const rest = { fate, waiting: null, attempts: 0, notes: own } as const;
    return [{ rule, target, revision, matched: "yes" as const, because: [], ...end, ...rest }];
  });
}

/** How a message came in, from what is kept of it. */
function receivedOf({ origin, stream }: StoredMessage): Received {
  if (origin === null) return NOTHING_KEPT;
  const { bridge, address, partition, offset, hops, http } = origin;
  return {
    by: waysIn(origin, stream),
    from: bridge === "http" || bridge === "socket" ? null : bridge,
    address,
    sourcePartition: partition,
    sourceOffset: offset,
    principal: origin.principal ?? null,
    remoteAddress: http?.remoteAddress ?? null,
    verified: http === undefined ? null : { scheme: http.scheme, keyId: http.keyId },
    redelivered: origin.redelivered === true,
    hops,
  };
}

function waysIn({ bridge, address, http, principal }: Origin, stream: string): Received["by"] {
  if (bridge !== "http") return OURS[bridge] ?? "source";
  // A call to publish names the stream, a hook itself.
  if (http !== undefined || address !== stream) return "hook";
  return principal === undefined ? "http" : "api";
}

function ofId(messages: readonly StoredMessage[], id: string, end: Offset) {
  return messages.filter((message) => message.id === id && message.offset < end);
}

function searchedOf(left: number): number {
  return journeySearchMessages - left;
}

/** Where an id may stand in a partition. */
async function windowOf(id: string, partition: Partition) {
  const { offsetStart, offsetEnd } = partition;
  if (!UUID_V7.test(id)) {
    const from = Math.max(offsetStart, offsetEnd - journeySearchNewest);
    return { from, to: offsetEnd, isWhole: from === offsetStart };
  }
  const madeAtMs = Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
  const from = await partition.offsetAt(madeAtMs - journeyIdBeforeMs);
  const to = await partition.offsetAt(madeAtMs + journeyIdAfterMs);
  return { from, to, isWhole: true };
}

async function readOver(partition: Partition, offset: Offset) {
  try {
    const limits = {
      messagesMax: routeBatchMessages,
      bytesMax: routeBatchBytes,
      signal: NEVER,
    };
    const batch = await partition.read(offset, limits);
    if (batch === null) throw new StorageError("the log is closed");
    return batch;
  } catch (error) {
    if (!(error instanceof GapError)) throw error;
    return { messages: [], next: error.to };
  }
}

async function messageAt(partition: Partition, offset: Offset): Promise<StoredMessage | null> {
  if (offset >= partition.offsetEnd) return null;
  try {
    const batch = await partition.read(offset, { messagesMax: 1, signal: NEVER });
    const message = batch?.messages[0];
    return message?.offset === offset ? message : null;
  } catch (error) {
    if (error instanceof GapError) return null;
    throw error;
  }
}
