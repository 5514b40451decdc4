/**
 * Which messages go out in one call, and whose fault it is when they are not taken: one message, or
 * where a failure stops what is behind it, many; a target's `batch` says how many. Where messages
 * go as one and it is refused, each is tried by itself, so that only those that are to blame fail.
 */
import type { Outcome } from "../bridge.ts";
import { laneCallMessages } from "../limits.ts";
import type { Offset } from "../log/log.ts";
import type { Failed, Flight, Lane } from "./flights.ts";
import type { Sent } from "./lanes.ts";
import type { RunningRevision } from "./route-parts.ts";
import type { Trouble } from "./trouble.ts";
import { isExpired, type Work } from "./work.ts";

/** What goes out in one call, and when: at once, unless its batch waits for more. */
export interface Gathered {
  readonly flights: readonly Flight[];
  /** By a clock that never goes back. Milliseconds. */
  readonly dueMs: number;
}

/** What came of each lane of a call: what is gone, and the first that failed by its own fault. */
export interface Landed {
  readonly lane: Lane;
  readonly gone: readonly Work[];
  readonly failed: Failed | null;
}

/** Puts calls together. */
export class Batching {
  readonly #progress: { trouble(offset: Offset): Trouble | null };
  /** Those of a batch that was refused as one. */
  readonly #alone = new WeakSet<Work>();

  constructor(progress: { trouble(offset: Offset): Trouble | null }) {
    this.#progress = progress;
  }

  /** What goes out in one call of these lanes, whose first messages may go out. */
  gather(lanes: Iterable<Lane>, revision: RunningRevision, nowMs: number): Gathered {
    const { batch } = revision.target.document;
    const isPrefix = revision.failure === "prefix";
    const fill = new Fill(batch?.messages ?? (isPrefix ? laneCallMessages : 1), batch?.bytes);
    const flights: Flight[] = [];
    let sinceMs = Number.POSITIVE_INFINITY;
    for (const lane of lanes) {
      const [head] = lane.queue;
      if (head === undefined || head.outgoing === null) continue;
      if (this.#isAlone(head)) {
        if (flights.length > 0) continue;
        return { flights: [{ lane, works: [head] }], dueMs: 0 };
      }
      const works = this.#run(lane.queue, fill, { isPrefix, nowMs });
      if (works.length > 0) flights.push({ lane, works });
      sinceMs = Math.min(sinceMs, lane.readyMs);
      if (fill.isFull) break;
    }
    const waitMs = batch === undefined || fill.isFull ? Number.NEGATIVE_INFINITY : batch.waitMs;
    return { flights, dueMs: sinceMs + waitMs };
  }

  /** The first messages, in the partition's order, that may go out together. */
  wave(works: readonly Work[]): readonly Work[] {
    const batch = works[0]?.revision.target.document.batch;
    if (batch === undefined) return works;
    const [first] = works;
    if (first !== undefined && this.#isAlone(first)) return [first];
    const fill = new Fill(batch.messages, batch.bytes);
    const alone = works.findIndex((work) => this.#isAlone(work) || !fill.takes(work));
    return alone < 0 ? works : works.slice(0, alone);
  }

  /** The outcomes by which messages are judged: null for one that is to be tried by itself. */
  outcomes(works: readonly Work[], sent: readonly Outcome[]): readonly (Outcome | null)[] {
    const isWhole = works[0]?.revision.target.document.batch?.as !== undefined;
    const refused = isWhole ? sent.filter(isRefusal).length : 0;
    if (refused < 2) return sent;
    return sent.map((outcome, index) => {
      const work = works[index];
      if (!isRefusal(outcome) || work === undefined) return outcome;
      this.#alone.add(work);
      return null;
    });
  }

  /** What came of each lane of a call. */
  judged(flights: readonly Flight[], sent: Sent): readonly Landed[] {
    const works = flights.flatMap((flight) => flight.works);
    const outcomes = Array.isArray(sent) ? this.outcomes(works, sent as readonly Outcome[]) : [];
    const isClear = isAllClear(outcomes);
    let at = 0;
    return flights.map(({ lane, works: own }) => {
      const gone: Work[] = [];
      let failed: Failed | null = null;
      let isOpen = true;
      for (const work of own) {
        const outcome = at < outcomes.length ? outcomes[at] : { unknown: true as const };
        at++;
        if (outcome === null || outcome === undefined) isOpen = false;
        else if ("sent" in outcome) gone.push(work);
        else if (isOpen) failed ??= { work, outcome };
      }
      // Behind a message that failed all are unsure: they go again, and it was not their fault.
      const isOwn = failed !== null && sent !== null && (isClear || !isUnsure(failed.outcome));
      return { lane, gone, failed: isOwn ? failed : null };
    });
  }

  /** Whether it was refused before: it is tried without others. */
  #isAlone(work: Work): boolean {
    if (work.revision.target.document.batch?.as === undefined) return false;
    const attempts = this.#progress.trouble(work.message.offset)?.attempts ?? 0;
    return attempts > 0 || this.#alone.has(work);
  }

  /** The first messages of a lane that may go out together. */
  #run(
    queue: readonly Work[],
    fill: Fill,
    { isPrefix, nowMs }: { readonly isPrefix: boolean; readonly nowMs: number },
  ): readonly Work[] {
    const [head] = queue;
    if (head === undefined || !fill.takes(head)) return [];
    let count = 1;
    for (; isPrefix && count < queue.length; count++) {
      const work = queue[count];
      if (work === undefined || work.outgoing === null || work.revision !== head.revision) break;
      if (work.notBeforeMs > nowMs || isExpired(work, nowMs) || this.#isAlone(work)) break;
      if (!fill.takes(work)) break;
    }
    return queue.slice(0, count);
  }
}

/** How full a call is. */
class Fill {
  #messages = 0;
  #bytes = 0;
  #isFull = false;
  readonly #messagesMax: number;
  readonly #bytesMax: number;

  constructor(messagesMax: number, bytesMax = Number.POSITIVE_INFINITY) {
    this.#messagesMax = messagesMax;
    this.#bytesMax = bytesMax;
  }

  get isFull(): boolean {
    return this.#isFull;
  }

  /** Whether one more fits, which is then counted; the first always does. */
  takes({ outgoing }: Work): boolean {
    const bytes = outgoing?.message.body?.length ?? 0;
    const isFitting = this.#messages === 0 || this.#bytes + bytes <= this.#bytesMax;
    if (this.#isFull || !isFitting) {
      this.#isFull = true;
      return false;
    }
    this.#messages++;
    this.#bytes += bytes;
    this.#isFull = this.#messages >= this.#messagesMax || this.#bytes >= this.#bytesMax;
    return true;
  }
}

function isRefusal(outcome: Outcome): boolean {
  return "refused" in outcome && outcome.final !== true;
}

function isUnsure(outcome: Outcome): boolean {
  return "unknown" in outcome;
}

/** Whether what is unsure is so by its own: nothing else of the call has failed. */
export function isAllClear(outcomes: readonly (Outcome | null)[]): boolean {
  return outcomes.every((each) => each !== null && ("sent" in each || isUnsure(each)));
}
