/**
 * Lanes: messages of one key go one after another, keys go side by side, bounded. A key that fails
 * rests by itself; what has to wait long is handed to the owner with all that stands behind it.
 * Each call passes the target's gate, which leaves alone a target that is down.
 */
import type { Outcome } from "../bridge.ts";
import type { Clock } from "../clock.ts";
import { DisconnectedError } from "../errors.ts";
import {
  laneBytesMax,
  laneMessagesMax,
  lanesMax,
  reconnectDelayMaxMs,
  sleepMsMax,
  waitAfterMs,
} from "../limits.ts";
import { Batching } from "./batching.ts";
import { type Failed, fitting, type Flight, type Lane, unitsOf } from "./flights.ts";
import type { Permit, Seat } from "./gate.ts";
import { nextChange } from "./next-change.ts";
import type { Progress } from "./progress.ts";
import type { RunningRevision } from "./route-parts.ts";
import { Tasks } from "./tasks.ts";
import { type GivenUp, judge, type Judgement, type Trouble } from "./trouble.ts";
import { brokenOutcome, isExpired, nameOf, type Work } from "./work.ts";

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
  /** Its place at the target's gate. */
  readonly seat: Seat;
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
  readonly #batching: Batching;
  /** Whether a batch is waiting for its time. */
  #isRipening = false;
  #isHurried = false;

  constructor(parts: LanesParts) {
    this.#parts = parts;
    this.#batching = new Batching(parts.progress);
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
        lane = { name: work.lane, queue: [], state: "ready", readyMs: 0, hold: null };
        this.#lanes.set(work.lane, lane);
      }
      lane.queue.push(work);
      this.#messages++;
      this.#bytes += work.bytes;
      if (lane.state === "ready") this.#makeReady(lane);
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

  /** The gate has room. */
  called(): void {
    this.#pump();
    this.#parts.seat.withdraw();
  }

  /** Nothing more comes for now, or something may: batches wait for nobody, or for others again. */
  set isHurried(isHurried: boolean) {
    if (this.#isHurried === isHurried) return;
    this.#isHurried = isHurried;
    if (isHurried) this.#pump();
  }

  /** Resolves when nothing is under way any more. Call it after `stop` was aborted. */
  async ended(): Promise<void> {
    await this.#tasks.ended();
  }

  #pump(): void {
    while (this.#canCall()) {
      const flights = this.#next();
      const [first] = flights;
      if (first === undefined) return;
      const isBroken = first.works[0]?.outgoing === null;
      const permit = isBroken ? null : this.#parts.seat.take(unitsOf(flights));
      if (permit === null && !isBroken) return;
      this.#begin(permit === null ? flights : fitting(flights, permit.units), permit);
    }
  }

  #canCall(): boolean {
    const { stop, progress } = this.#parts;
    return !stop.aborted && !progress.isPaused && this.#calls < lanesMax;
  }

  /** What may go out in one call; none: nothing may for now. */
  #next(): readonly Flight[] {
    for (const lane of this.#ready) {
      const head = this.#headOf(lane);
      if (head === null) continue;
      if (head.outgoing === null) return [{ lane, works: [head] }];
      const { clock, progress } = this.#parts;
      const heads = this.#heads(head.revision);
      const { flights, dueMs } = this.#batching.gather(heads, head.revision, clock.nowMs());
      const leftMs = dueMs - clock.monotonicMs();
      // Of an older revision hardly any more come.
      const isOld = head.revision.revision !== progress.revision;
      if (leftMs <= 0 || isOld || this.#isHurried) return flights;
      this.#ripen(leftMs);
      return [];
    }
    return [];
  }

  /** The ready lanes whose first message is of a revision. */
  *#heads(revision: RunningRevision): Generator<Lane> {
    for (const lane of this.#ready) if (this.#headOf(lane)?.revision === revision) yield lane;
  }

  /** Looks again when the batch has waited long enough. */
  #ripen(ms: number): void {
    if (this.#isRipening) return;
    this.#isRipening = true;
    this.#tasks.run(async () => {
      await this.#parts.clock.sleep(ms, this.#parts.stop);
      this.#isRipening = false;
      this.#pump();
    });
  }

  #begin(flights: readonly Flight[], permit: Permit | null): void {
    for (const { lane } of flights) {
      this.#ready.delete(lane);
      lane.state = "flying";
    }
    this.#calls++;
    this.#tasks.run(() => this.#call(flights, permit));
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

  async #call(flights: readonly Flight[], permit: Permit | null): Promise<void> {
    const works = flights.flatMap((flight) => flight.works);
    let sent: Sent = null;
    try {
      const [first] = works;
      if (first === undefined) return;
      sent =
        permit === null ? [brokenOutcome(first)] : await this.#parts.send(first.revision, works);
    } finally {
      this.#calls--;
      if (permit !== null) this.#parts.seat.leave(permit, sent, () => works.map(nameOf));
      this.#settle(flights, sent);
      this.#pump();
      this.wake();
    }
  }

  #settle(flights: readonly Flight[], sent: Sent): void {
    const lost = sent instanceof DisconnectedError ? sent : null;
    // Those that failed together are tried together again.
    const share = this.#parts.random();
    const judged = this.#batching.judged(flights, sent);
    for (const { lane, gone, failed } of judged) {
      for (const work of gone) {
        this.#leave(lane, work);
        this.#parts.onSent(work);
      }
      if (failed === null) this.#free(lane);
      else this.#tasks.run(() => this.#failed(lane, failed, { lost, random: () => share }));
    }
  }

  async #failed(
    lane: Lane,
    { work, outcome }: Failed,
    { lost, random }: { readonly lost: Error | null; readonly random: () => number },
  ): Promise<void> {
    const { clock, progress } = this.#parts;
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
      // The gate leaves the target alone.
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
    if (lane.queue.length > 0) return this.#makeReady(lane);
    this.#ready.delete(lane);
    if (this.#lanes.get(lane.name) === lane) this.#lanes.delete(lane.name);
  }

  #makeReady(lane: Lane): void {
    if (this.#ready.has(lane)) return;
    lane.readyMs = this.#parts.clock.monotonicMs();
    this.#ready.add(lane);
  }
}
