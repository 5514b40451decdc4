/**
 * How one route delivers: what becomes of each message that was read. It is finished (filtered,
 * sent, expired, or standing in the dead letters), or it waits; all ways to send meet in `#send`,
 * all ways to finish in `#finish`.
 */
import { assert } from "../assert.ts";
import type { Sink } from "../bridge.ts";
import { DisconnectedError, errorText, type GapError } from "../errors.ts";
import type { Offset } from "../log/log.ts";
import type { StoredMessage } from "../message.ts";
import type { Seat } from "./gate.ts";
import { HeldSinks } from "./held-sink.ts";
import { Lanes, type Sent } from "./lanes.ts";
import { LossTally } from "./losses.ts";
import { leaving, made } from "./made.ts";
import type { Finish } from "./progress.ts";
import type { RouteParts, RunningRevision } from "./route-parts.ts";
import { Sender } from "./sender.ts";
import type { RouteState } from "./status.ts";
import { type GivenUp, type Judgement, outageMs } from "./trouble.ts";
import { WaitRoom } from "./wait.ts";
import type { WaitMeta } from "./wait-record.ts";
import { isExpired, laneOf, partsOf, type WaitEntry, wholeOutcomes, type Work } from "./work.ts";

/** What a delivery works with: the route that owns it. */
export interface DeliveryParts extends Omit<RouteParts, "revision"> {
  /** Begin nothing more; waits end at once. */
  readonly stop: AbortSignal;
  /** Give up on what is under way. */
  readonly abort: AbortSignal;
  /** The revision of a message that waits, or the one that stands in for it. */
  readonly revision: (revision: number) => RunningRevision;
  /** Saves the state record soon. */
  readonly save: () => void;
}

/** The delivery of one route. */
export class Delivery {
  readonly sinks: HeldSinks;
  readonly wait: WaitRoom;
  readonly #parts: DeliveryParts;
  readonly #lanes: Lanes;
  readonly #sender: Sender;
  readonly #seats: readonly Seat[];
  readonly #losses = new LossTally();
  #isBegun = false;
  #state: "running" | "retrying" | "blocked" = "running";
  #error: string | null = null;

  constructor(parts: DeliveryParts) {
    this.#parts = parts;
    const { clock, random, progress, stop, partition, waiting, stateKey, events, save } = parts;
    this.sinks = new HeldSinks(clock);
    const onFailed = (error: unknown): void => {
      events.warn(`rule ${parts.ruleName}: ${errorText(error)}`);
      this.show("blocked", errorText(error));
    };
    const laneSeat = parts.gate.seat(() => this.#lanes.called());
    const senderSeat = parts.gate.seat(() => this.#sender.called());
    this.#seats = [laneSeat, senderSeat];
    const shared = {
      clock,
      random,
      progress,
      stop,
      onFailed,
      send: (revision: RunningRevision, works: readonly Work[]) => this.#send(revision, works),
      onSent: (work: Work) => this.#sent(work),
      opened: () => this.opened(),
      onTrouble: (work: Work, judgement: Judgement) => this.#onTrouble(work, judgement),
    };
    this.#lanes = new Lanes({
      ...shared,
      seat: laneSeat,
      onExpired: (work) => this.#finish(work, "expired"),
      bury: (work, given) => this.#bury(work, given),
      canHold: (lane) => this.wait.canHold(lane),
      onHold: (works, hold) => this.wait.hold(works, hold),
    });
    this.#sender = new Sender({
      ...shared,
      seat: senderSeat,
      divert: (work) => this.#divert(work),
      giveUp: (work, given) => this.#giveUp(work, given),
    });
    this.wait = new WaitRoom({
      clock,
      random,
      progress,
      stop,
      onFailed,
      stateKey,
      save,
      partition: waiting,
      source: partition,
      life: progress.life,
      workOf: (message, meta, entry) =>
        this.#workOf(message, parts.revision(meta.revision), { ...meta, entry }),
      offer: (works) => this.#lanes.offer(works),
      onChange: () => this.#lanes.wake(),
      onTrouble: (sentence) => this.show("retrying", sentence),
      onGap: (gap: GapError) => events.onGap(gap),
      warn: (sentence) => events.warn(`rule ${parts.ruleName}: ${sentence}`),
    });
  }

  /** What is told of it. */
  get state(): RouteState {
    const { progress } = this.#parts;
    const { wait } = this;
    // What waits is counted before it is known by its keys.
    const tally = this.#isBegun ? wait.tally : { ...wait.tally, waiting: progress.openCount };
    const parked = tally.parkedKeys > 0 ? (wait.parked()[0]?.reason ?? null) : null;
    return {
      ...tally,
      state: this.#state,
      error: this.#error ?? parked,
      oldestWaitingMs: wait.oldestMs,
      losses: this.#losses.counts,
      balanced: !this.#isBegun || progress.openCount === wait.count,
    };
  }

  /** The first place in the stream of waiting messages that is still needed. */
  get nextWaiting(): Offset {
    return this.#isBegun ? this.wait.next : 0;
  }

  /** Revisions with messages on their way. */
  get revisionsUnderWay(): ReadonlySet<number> {
    return this.#lanes.revisions;
  }

  show(state: "running" | "retrying" | "blocked", error: string | null): void {
    this.#state = state;
    this.#error = error;
  }

  /** Takes up what waited when the process ended; once. @throws GatewayError try again later. */
  async begin(): Promise<void> {
    if (this.#isBegun) return;
    await this.wait.load();
    this.#isBegun = true;
    this.#parts.progress.waitMark = () => this.wait.mark();
    this.wait.start();
  }

  /** Resolves when there is room for more messages, or when stopped. */
  async room(): Promise<void> {
    const { window } = this.#parts.progress;
    const hasRoom = (): boolean => window.room > 0 && this.#lanes.hasRoom && this.wait.hasRoom;
    await this.#lanes.until(() => {
      const isRoom = hasRoom();
      this.#lanes.isHurried = !isRoom;
      // What rests after a failure is in the way of the others.
      if (!isRoom && this.wait.hasRoom) this.#lanes.shed();
      return isRoom;
    });
  }

  /** Resolves when all that was read is finished or waits durably, or when stopped. */
  async drained(): Promise<void> {
    await this.#lanes.until(() => {
      const { isEmpty } = this.#parts.progress.window;
      this.#lanes.isHurried = !isEmpty;
      return isEmpty;
    });
  }

  /** Resolves when nothing is under way any more. Call it after `stop` was aborted. */
  async ended(): Promise<void> {
    await this.#lanes.ended();
    await this.wait.ended();
  }

  /** Leaves the target's gate: what is still under way is left behind. */
  leave(): void {
    for (const seat of this.#seats) seat.close();
  }

  /** Delivers messages side by side by key; returns at once. */
  byLanes(messages: readonly StoredMessage[], revision: RunningRevision): void {
    const works = this.#choose(messages, revision).filter((work) => {
      if (!this.wait.has(work.lane)) return true;
      this.wait.follow(work);
      return false;
    });
    this.#lanes.offer(works);
  }

  /** Delivers messages in their order; resolves when all are finished, or when stopped. */
  async inOrder(messages: readonly StoredMessage[], revision: RunningRevision): Promise<void> {
    const { progress, stop, clock, random } = this.#parts;
    try {
      const works = this.#choose(messages, revision);
      for (let failures = 1; !stop.aborted; failures++) {
        const open = works.filter(({ message }) => !progress.window.isDone(message.offset));
        if (open.length === 0) break;
        await this.#sender.deliver(open);
        await this.wait.written();
        const isDone = open.every(({ message }) => progress.window.isDone(message.offset));
        if (!isDone) await clock.sleep(outageMs(failures, random), stop);
      }
    } finally {
      // Stopped or failed half-way: what is not finished is read again.
      progress.window.letGo();
    }
    if (!stop.aborted) this.show("running", null);
  }

  /** Resolves when the route is not paused (any more), or when stopped. */
  async opened(): Promise<void> {
    await this.#lanes.until(() => !this.#parts.progress.isPaused);
  }

  /** Whether what waits is known: nothing may be sent again before. */
  get isBegun(): boolean {
    return this.#isBegun;
  }

  /** Looks again at whether anything may go out: the route was paused, or is not any more. */
  lookAgain(): void {
    this.#lanes.resume();
  }

  /** Which messages go out and how; what `where` leaves out is finished here. */
  #choose(messages: readonly StoredMessage[], revision: RunningRevision): Work[] {
    const works: Work[] = [];
    for (const message of messages) {
      if (this.#parts.progress.window.isDone(message.offset)) continue;
      const matched = revision.rule.matches(message);
      const work = matched === "yes" ? this.#workOf(message, revision, null) : null;
      if (work !== null && work.parts?.length !== 0) works.push(work);
      else if (work !== null) this.#finishRead(message.offset, "filtered");
      else this.#finishRead(message.offset, matched === "no" ? "filtered" : "failed");
    }
    return works;
  }

  #workOf(
    message: StoredMessage,
    revision: RunningRevision,
    waited: (Pick<WaitMeta, "lane" | "again"> & { readonly entry: WaitEntry }) | null,
  ): Work {
    const again = waited?.again ?? null;
    const { outgoing, parts, broken, notBeforeMs } = made(message, revision, again);
    const key = (parts === null ? outgoing?.message.key : null) ?? message.key;
    return {
      message,
      revision,
      outgoing,
      parts,
      broken,
      notBeforeMs,
      lane: waited?.lane ?? laneOf(revision.order, key, message.offset),
      bytes: (message.body?.length ?? 0) + 512,
      entry: waited?.entry ?? null,
      again,
    };
  }

  /** The one way out. */
  async #send(revision: RunningRevision, works: readonly Work[]): Promise<Sent> {
    const { stop, abort } = this.#parts;
    const outgoing = works.flatMap((work) => leaving(work, revision));
    assert(outgoing.length >= works.length, "what is sent was made");
    try {
      const sink = await this.sinks.get(revision, stop);
      if (sink === null) return null;
      try {
        const outcomes = await sink.send(outgoing, abort);
        assert(outcomes.length === outgoing.length, "a sink answers for each message");
        const whole = wholeOutcomes(works, outcomes);
        this.#parts.journey?.sent(works, whole);
        await this.#seeDisabled(revision, sink);
        return whole;
      } catch (error) {
        await this.sinks.drop(revision.revision, sink);
        throw error;
      }
    } catch (error) {
      if (error instanceof DisconnectedError) return error;
      return new DisconnectedError(errorText(error), { cause: error });
    }
  }

  /** A target that wants nothing more is asked no more; once it is again, by another sink. */
  async #seeDisabled({ revision }: RunningRevision, sink: Sink): Promise<void> {
    const { disabled } = sink;
    if (disabled === undefined || disabled === null) return;
    this.#parts.gate.disable(disabled);
    await this.sinks.drop(revision, sink);
  }

  /** Whether a message of the partition's order leaves it without being sent. */
  #divert(work: Work): boolean {
    if (isExpired(work, this.#parts.clock.nowMs())) this.#finish(work, "expired");
    else if (this.wait.has(work.lane)) this.wait.follow(work);
    else return false;
    return true;
  }

  async #giveUp(work: Work, given: GivenUp): Promise<boolean> {
    if (work.revision.onFailure === "dead-letter") return await this.#bury(work, given);
    if (!this.wait.hasRoom || !this.wait.canHold(work.lane)) return false;
    const trouble = this.#parts.progress.trouble(work.message.offset);
    this.wait.hold([work], { dueMs: null, trouble, reason: given.reason });
    return true;
  }

  /** Puts a message into the dead letters. */
  async #bury(work: Work, given: GivenUp): Promise<boolean> {
    const { bury, ruleName, targetName, clock, random, stateKey, progress, stop } = this.#parts;
    const { message, revision } = work;
    // What was sent again and fails again is another dead letter.
    const again = work.again === null ? "" : `${work.again}/`;
    const cause = { rule: ruleName, target: targetName, revision: revision.revision, ...given };
    for (let failures = 1; !this.#parts.abort.aborted; failures++) {
      try {
        const key = `${stateKey}/${progress.run}/${again}${message.offset}/dead`;
        const place = await bury(message, cause, key);
        this.#parts.journey?.ended(work, "dead", place);
        this.#finish(work, "deadLettered");
        return true;
      } catch (error) {
        this.show("retrying", `the dead letter can't be kept: ${errorText(error)}`);
        await clock.sleep(outageMs(failures, random), stop);
        if (stop.aborted) return false;
      }
    }
    return false;
  }

  #sent(work: Work): void {
    for (const outgoing of partsOf(work)) {
      const losses = work.revision.lossesOf(outgoing);
      if (losses.length === 0) continue;
      this.#losses.add(losses);
      this.#parts.events.onLost(losses);
    }
    this.#finish(work, "delivered");
  }

  #finish(work: Work, how: Finish): void {
    if (how === "expired") this.#parts.journey?.ended(work, "expired", null);
    if (work.entry === null) this.#finishRead(work.message.offset, how);
    else {
      this.#parts.events.onFinished(how);
      this.wait.finish(work, how);
      this.#parts.save();
    }
    if (this.#error !== null && !this.#parts.progress.hasTroubles) this.show("running", null);
  }

  #finishRead(offset: Offset, how: Finish): void {
    this.#parts.progress.finish(offset, how);
    this.#parts.events.onFinished(how);
    this.#parts.save();
  }

  #onTrouble(work: Work, judgement: Judgement): void {
    const { revision } = work;
    const { trouble, reason, delayMs } = judgement;
    const { retry } = revision.target.document;
    this.#parts.journey?.failed(work, judgement);
    const isSpent = delayMs === null || trouble.attempts >= retry.attempts;
    this.#parts.events.onRetry();
    this.show(revision.onFailure === "block" && isSpent ? "blocked" : "retrying", reason);
    this.#parts.save();
  }
}
