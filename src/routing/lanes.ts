/**
 * Lanes: messages of one key go one after another, keys go side by side, bounded. A key that fails
 * rests by itself; what has to wait long is handed to the owner with all that stands behind it.
 * A target that can't be reached rests as a whole, and is then asked with one call.
 */
import type { Outcome } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import { DisconnectedError } from "../errors.ts";
import {
  laneBytesMax,
  laneCallMessages,
  laneMessagesMax,
  lanesMax,
  reconnectDelayMaxMs,
  sleepMsMax,
  waitAfterMs,
} from "../limits.ts";
import { nextChange } from "./next-change.ts";
import type { Progress } from "./progress.ts";
import type { RunningRevision } from "./route-parts.ts";
import { Tasks } from "./tasks.ts";
import { type GivenUp, judge, type Judgement, outageMs, type Trouble } from "./trouble.ts";
import { brokenOutcome, isExpired, type Work } from "./work.ts";

/** The outcome of each message of a call, or why there are none; null when it was not made. */
export type Sent = readonly Outcome[] | DisconnectedError | null;

/** Why a lane waits elsewhere, and until when. */
export interface Hold {
  /** Unix milliseconds; null: until an operator releases it. */
  readonly dueMs: number | null;
  /** How the first of its messages has fared. */
  readonly trouble: Trouble | null;
  readonly reason: string;
}

/** What lanes work with: the route that owns them. */
export interface LanesParts {
  readonly clock: Clock;
  readonly random: () => number;
  readonly progress: Progress;
  /** Ends rests at once; nothing is begun after it. */
  readonly stop: AbortSignal;
  /** Every send goes through here. All works are of one revision and have something to send. */
  readonly send: (revision: RunningRevision, works: readonly Work[]) => Promise<Sent>;
  /** Called once for each message that was confirmed, in order of its lane. */
  readonly onSent: (work: Work) => void;
  readonly onExpired: (work: Work) => void;
  /** Resolves when it stands in the dead letters; false when stopped before that. */
  readonly bury: (work: Work, given: GivenUp) => Promise<boolean>;
  /** Whether another lane may wait elsewhere. */
  readonly canHold: (lane: string) => boolean;
  /** Takes over all messages of a lane, oldest first. */
  readonly onHold: (works: readonly Work[], hold: Hold) => void;
  readonly onTrouble: (work: Work, judgement: Judgement) => void;
  readonly onFailed: (error: unknown) => void;
}

interface Lane {
  readonly name: string;
  readonly queue: Work[];
  state: "ready" | "flying" | "resting";
  /** What it would be held for while it rests. */
  hold: Hold | null;
}

interface Flight {
  readonly lane: Lane;
  readonly works: readonly Work[];
}

interface Failed {
  readonly work: Work;
  readonly outcome: Exclude<Outcome, { readonly sent: unknown }>;
}

/** The lanes of one route. */
export class Lanes {
  readonly #parts: LanesParts;
  readonly #lanes = new Map<string, Lane>();
  readonly #ready = new Set<Lane>();
  readonly #tasks: Tasks;
  #changed = nextChange();
  #messages = 0;
  #bytes = 0;
  #calls = 0;
  /** Calls in a row that did not reach the target, and whether it is left alone. */
  #outages = 0;
  #isResting = false;

  constructor(parts: LanesParts) {
    this.#parts = parts;
    this.#tasks = new Tasks(parts.onFailed);
  }

  /** Messages that are held in memory. */
  get count(): number {
    return this.#messages;
  }

  /** Revisions of the messages that are held. */
  get revisions(): ReadonlySet<number> {
    const revisions = new Set<number>();
    for (const { queue } of this.#lanes.values()) {
      for (const { revision } of queue) revisions.add(revision.revision);
    }
    return revisions;
  }

  get hasRoom(): boolean {
    return this.#messages < laneMessagesMax && this.#bytes < laneBytesMax;
  }

  /** Takes messages; those of one lane in their order. */
  offer(works: readonly Work[]): void {
    for (const work of works) {
      let lane = this.#lanes.get(work.lane);
      if (lane === undefined) {
        lane = { name: work.lane, queue: [], state: "ready", hold: null };
        this.#lanes.set(work.lane, lane);
      }
      lane.queue.push(work);
      this.#messages++;
      this.#bytes += work.bytes;
      if (lane.state === "ready") this.#ready.add(lane);
    }
    this.#pump();
  }

  /** Hands over the lanes that rest after a failure: they are in the way of others. */
  shed(): void {
    for (const lane of this.#lanes.values()) {
      if (lane.hold !== null && this.#parts.canHold(lane.name)) this.#handOver(lane, lane.hold);
    }
  }

  /** Resolves when `isTrue`, which is asked again after each change; or when stopped. */
  async until(isTrue: () => boolean): Promise<void> {
    const { stop } = this.#parts;
    while (!isTrue() && !stop.aborted) await this.#changed.wait(stop);
  }

  /** Goes on after a pause, and has `until` look again. */
  resume(): void {
    this.#pump();
    this.wake();
  }

  /** Has `until` look again. */
  wake(): void {
    const before = this.#changed;
    this.#changed = nextChange();
    before.happen();
  }

  /** Resolves when nothing is under way any more. Call it after `stop` was aborted. */
  async ended(): Promise<void> {
    await this.#tasks.ended();
  }

  #pump(): void {
    while (this.#canCall()) {
      const flights = this.#gather();
      if (flights.length === 0) return;
      for (const flight of flights) flight.lane.state = "flying";
      this.#calls++;
      this.#tasks.run(() => this.#call(flights));
    }
  }

  #canCall(): boolean {
    const { stop, progress } = this.#parts;
    if (stop.aborted || progress.isPaused || this.#isResting) return false;
    return this.#calls < (this.#outages > 0 ? 1 : lanesMax);
  }

  /** What goes out in one call: one message, or where a failure stops what is behind it, many. */
  #gather(): Flight[] {
    const flights: Flight[] = [];
    let room = 1;
    let revision: RunningRevision | null = null;
    for (const lane of this.#ready) {
      const head = this.#headOf(lane);
      if (head === null) continue;
      if (revision === null) {
        revision = head.revision;
        const takesMany = revision.failure === "prefix" && head.outgoing !== null;
        room = takesMany && this.#outages === 0 ? laneCallMessages : 1;
      }
      if (head.revision !== revision || (head.outgoing === null && flights.length > 0)) continue;
      const works = runOf(lane.queue, room, this.#parts.clock.nowMs());
      this.#ready.delete(lane);
      flights.push({ lane, works });
      room -= works.length;
      if (room <= 0) break;
    }
    return flights;
  }

  /** The first message of a ready lane that may go out; null: the lane is not ready after all. */
  #headOf(lane: Lane): Work | null {
    const { clock, progress, onExpired } = this.#parts;
    for (;;) {
      const head = lane.queue[0];
      if (head === undefined) {
        this.#free(lane);
        return null;
      }
      const nowMs = clock.nowMs();
      if (isExpired(head, nowMs)) {
        this.#leave(lane, head);
        onExpired(head);
        this.wake();
        continue;
      }
      const delayMs = head.notBeforeMs - nowMs;
      if (delayMs <= 0) return head;
      this.#ready.delete(lane);
      const trouble = progress.trouble(head.message.offset);
      this.#delay(lane, delayMs, {
        dueMs: head.notBeforeMs,
        trouble,
        reason: "not before its time",
      });
      return null;
    }
  }

  async #call(flights: readonly Flight[]): Promise<void> {
    const works = flights.flatMap((flight) => flight.works);
    let sent: Sent = null;
    try {
      const [first] = works;
      if (first === undefined) return;
      sent =
        first.outgoing === null
          ? [brokenOutcome(first)]
          : await this.#parts.send(first.revision, works);
    } finally {
      this.#calls--;
      this.#settle(flights, sent);
      this.#pump();
      this.wake();
    }
  }

  #settle(flights: readonly Flight[], sent: Sent): void {
    const lost = sent instanceof DisconnectedError ? sent : null;
    if (lost === null && sent !== null) this.#outages = 0;
    if (lost !== null || sent === null) this.#rest();
    for (const { lane, gone, failed } of landed(flights, sent)) {
      for (const work of gone) {
        this.#leave(lane, work);
        this.#parts.onSent(work);
      }
      if (failed === null) this.#free(lane);
      else this.#tasks.run(() => this.#failed(lane, failed, lost));
    }
  }

  /** Leaves the whole target alone for a while. */
  #rest(): void {
    if (this.#isResting || this.#parts.stop.aborted) return;
    const { clock, random, stop } = this.#parts;
    this.#isResting = true;
    this.#outages++;
    this.#tasks.run(async () => {
      await clock.sleep(outageMs(this.#outages, random), stop);
      this.#isResting = false;
      this.#pump();
    });
  }

  async #failed(lane: Lane, { work, outcome }: Failed, lost: Error | null): Promise<void> {
    const { clock, random, progress } = this.#parts;
    const { retry } = work.revision.target.document;
    const { offset } = work.message;
    const judgement = judge({
      outcome,
      lost,
      before: progress.trouble(offset),
      retry,
      blocks: work.revision.onFailure === "block",
      nowMs: clock.nowMs(),
      random,
    });
    const { trouble, reason, isOver, delayMs } = judgement;
    progress.setTrouble(offset, trouble);
    this.#parts.onTrouble(work, judgement);
    if (isOver && work.revision.onFailure === "dead-letter") {
      const given = { reason, attempts: Math.max(1, trouble.attempts) };
      if (await this.#parts.bury(work, given)) this.#leave(lane, work);
      this.#free(lane);
    } else if (isOver || delayMs === null) {
      this.#park(lane, { dueMs: null, trouble, reason });
    } else if (lost !== null) {
      // The target rests as a whole.
      this.#free(lane);
    } else {
      this.#delay(lane, delayMs, { dueMs: clock.nowMs() + delayMs, trouble, reason });
    }
    this.#pump();
    this.wake();
  }

  #park(lane: Lane, hold: Hold): void {
    if (this.#parts.canHold(lane.name)) this.#handOver(lane, hold);
    else this.#restLane(lane, reconnectDelayMaxMs, hold);
  }

  #delay(lane: Lane, ms: number, hold: Hold): void {
    if (ms > waitAfterMs && this.#parts.canHold(lane.name)) this.#handOver(lane, hold);
    else this.#restLane(lane, ms, hold);
  }

  #restLane(lane: Lane, ms: number, hold: Hold): void {
    lane.state = "resting";
    lane.hold = hold;
    this.#tasks.run(async () => {
      await this.#parts.clock.sleep(Math.min(ms, sleepMsMax), this.#parts.stop);
      if (lane.hold === hold) this.#free(lane);
      this.#pump();
    });
  }

  #handOver(lane: Lane, hold: Hold): void {
    const works = [...lane.queue];
    for (const work of works) this.#leave(lane, work);
    this.#free(lane);
    this.#parts.onHold(works, hold);
  }

  /** A message is not the lanes' any more. */
  #leave(lane: Lane, work: Work): void {
    const at = lane.queue.indexOf(work);
    if (at < 0) return;
    lane.queue.splice(at, 1);
    this.#messages--;
    this.#bytes -= work.bytes;
  }

  /** What a lane holds may go out; an empty lane goes. */
  #free(lane: Lane): void {
    lane.state = "ready";
    lane.hold = null;
    if (lane.queue.length > 0) {
      this.#ready.add(lane);
      return;
    }
    this.#ready.delete(lane);
    if (this.#lanes.get(lane.name) === lane) this.#lanes.delete(lane.name);
  }
}

/** The first messages of a lane that may go out together. */
function runOf(queue: readonly Work[], countMax: number, nowMs: number): readonly Work[] {
  const head = queue[0];
  if (head === undefined || head.outgoing === null) return queue.slice(0, 1);
  let count = 1;
  for (; count < Math.min(queue.length, countMax); count++) {
    const work = queue[count];
    if (work === undefined || work.outgoing === null || work.revision !== head.revision) break;
    if (work.notBeforeMs > nowMs || isExpired(work, nowMs)) break;
  }
  return queue.slice(0, count);
}

/** What came of each lane of a call: what is gone, and the first that failed by its own fault. */
function landed(flights: readonly Flight[], sent: Sent) {
  const outcomes = Array.isArray(sent) ? (sent as readonly Outcome[]) : [];
  const isClear = outcomes.every((outcome) => "sent" in outcome || "unknown" in outcome);
  let at = 0;
  return flights.map(({ lane, works }) => {
    const gone: Work[] = [];
    let failed: Failed | null = null;
    for (const work of works) {
      const outcome = outcomes[at++] ?? { unknown: true };
      if ("sent" in outcome) gone.push(work);
      else failed ??= { work, outcome };
    }
    // Behind a message that failed all are unsure: they go again, and it was not their fault.
    const isOwn = failed !== null && sent !== null && (isClear || !("unknown" in failed.outcome));
    return { lane, gone, failed: isOwn ? failed : null };
  });
}
