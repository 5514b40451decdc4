/**
 * A route: one rule and one of its targets on one partition. The loop of the way out:
 * read → where → set → send → save the cursor. A message is finished when the sink has confirmed
 * it, or when it stands durably among the dead letters or those that wait; the cursor passes only
 * what is finished. Everything else follows from that.
 *
 * `order: partition` sends batch by batch (sender.ts), the others by lanes (lanes.ts); what waits
 * long stands in the route's own stream (wait.ts).
 */
import { backoffMs } from "../backoff.ts";
import { nextTurn } from "../clock.ts";
import { errorText, GapError, LimitError, StorageError } from "../errors.ts";
import {
  reconnectDelayMaxMs,
  reconnectDelayMinMs,
  routeBatchBytes,
  routeBatchMessages,
  stopTimeoutMs,
  windowOffsetsMax,
} from "../limits.ts";
import type { Batch, Offset } from "../log/log.ts";
import type { StoredMessage } from "../message.ts";
import { EvaluationError } from "../rules/failure.ts";
import { Delivery } from "./delivery.ts";
import { gather } from "./gather.ts";
import type { RouteParts, RunningRevision } from "./route-parts.ts";
import { Saver } from "./saver.ts";
import { type ParkedKey, type RouteStatus, statusOf } from "./status.ts";
import { within } from "./within.ts";
import { laneOf } from "./work.ts";

/** Where a message stands on a route. `done`: passed; `waiting` with no time: parked. */
export type Whereabouts =
  | { readonly state: "done" | "pending"; readonly attempts: number }
  | {
      readonly state: "waiting";
      readonly attempts: number;
      readonly dueMs: number | null;
      readonly reason: string;
    };

/** A running route. Start it once, stop it once. */
export class Route {
  readonly #parts: RouteParts;
  readonly #revisions = new Map<number, RunningRevision>();
  readonly #stop = new AbortController();
  readonly #abort = new AbortController();
  readonly #saver: Saver;
  readonly #delivery: Delivery;
  #loop: Promise<void> = Promise.resolve();
  #warming: Promise<void> = Promise.resolve();
  #wakeDisabled: (() => void) | null = null;
  /** Ends the wait of a batch for messages. */
  #gathering = new AbortController();
  /** The revision whose messages are on their way; null before the first. */
  #current: number | null = null;
  /** Swaps that were made, and how many of them are on disk. */
  #swaps = 0;
  #savedSwaps = 0;

  constructor(parts: RouteParts) {
    this.#parts = parts;
    const { states, stateKey: key, progress, events, journey } = parts;
    this.#saver = new Saver({
      states,
      key,
      encode: () => progress.encode(),
      place: () => this.#delivery.nextWaiting,
      before: () => journey?.flush() ?? Promise.resolve(),
      warn: events.warn,
    });
    this.#delivery = new Delivery({
      ...parts,
      stop: this.#stop.signal,
      abort: this.#abort.signal,
      revision: (number) => this.#revision(number) ?? this.#revisionAt(progress.next),
      save: () => this.#saver.soon(),
    });
  }

  /** Begins to run and opens its target; a disabled one waits to be swapped. */
  start(): void {
    this.#loop = this.#run();
    this.#warming = this.#warmUp();
  }

  get status(): RouteStatus {
    const isDisabled = this.#revision(this.#parts.progress.revision)?.enabled === false;
    return statusOf(this.#parts, { ...this.#delivery.state, isDisabled });
  }

  /** The first offset that the route has not finished. */
  get next(): Offset {
    return this.#parts.progress.next;
  }

  /** The first place of its waiting messages that it needs, after a crash, too. */
  get nextWaiting(): Offset {
    return this.#saver.savedPlace;
  }

  /** Keys that wait for an operator. */
  parked(): readonly ParkedKey[] {
    return this.#delivery.wait.parked();
  }

  /**
   * Lets the parked messages of one lane (of `parked`), or of all, be tried again from their first
   * attempt, in their order. Resolves with the number of keys once that is durable.
   */
  release(lane: string | null): Promise<number> {
    return this.#delivery.wait.release(lane);
  }

  /**
   * Pauses it, or lets it go on, which asks a disabled target again; resolves when that is on disk.
   * @throws StorageError
   */
  async setPaused(isPaused: boolean): Promise<void> {
    this.#parts.progress.isPaused = isPaused;
    if (!isPaused) await this.#parts.gate.enable();
    this.#delivery.lookAgain();
    await this.#saver.now();
  }

  /** Where a message of its partition stands. */
  whereabouts(offset: Offset): Whereabouts {
    const { window } = this.#parts.progress;
    const hold = this.#delivery.wait.holdOf(offset);
    const attempts = this.#parts.progress.trouble(offset)?.failures ?? 0;
    if (hold === null) return { state: window.isDone(offset) ? "done" : "pending", attempts };
    const { dueMs, reason, trouble } = hold;
    return { state: "waiting", attempts: trouble?.failures ?? attempts, dueMs, reason };
  }

  /** The revision of a message that it has not passed; null: it has. */
  revisionAt(offset: Offset): number | null {
    const { progress } = this.#parts;
    return offset < progress.next ? null : progress.revisionAt(offset);
  }

  /** Whether what waits is known: nothing can be sent again, nor the cursor be moved, before. */
  get isBegun(): boolean {
    return this.#delivery.isBegun;
  }

  /** How many messages between two offsets have been finished, as an upper bound. */
  get doneAbove(): number {
    return this.#parts.progress.window.doneCount;
  }

  /** The newest revision. */
  get revision(): RunningRevision {
    return this.#revisionAt(this.#parts.partition.offsetEnd);
  }

  /**
   * Sends a message (again) by the newest revision, behind those of its key that wait. Resolves
   * once it stands durably among those that wait; false: it had been taken in by this `again`;
   * null: there is no room now, or the route stops.
   */
  async takeAgain(message: StoredMessage, again: string): Promise<boolean | null> {
    const { wait } = this.#delivery;
    const { revision, order, target, enabled } = this.revision;
    const lane = laneOf(order, keyOf(target, message), message.offset);
    const isOpen = enabled && this.isBegun && !this.#stop.signal.aborted;
    if (!isOpen || !wait.hasRoom || !wait.canHold(lane)) return null;
    return await wait.takeAgain(message, { lane, revision }, again);
  }

  /** Whether another revision fits before the route has come to the latest ones. */
  get canSwap(): boolean {
    return this.#parts.progress.canSwap;
  }

  /**
   * From the partition's end on, messages belong to `revision`; older ones keep theirs. Resolves
   * when that is on disk, which is before the first send by it. @throws LimitError
   */
  async swap(revision: RunningRevision): Promise<void> {
    const { progress, partition, ruleName } = this.#parts;
    if (progress.revision === revision.revision) return;
    if (!progress.canSwap) {
      const message = `rule ${ruleName} has too many changes that its target has not seen yet`;
      throw new LimitError("rate-limited", message);
    }
    const skipped = new Set<number>();
    for (const { revision: number } of progress.boundaries) {
      if (this.#revision(number)?.enabled === false) skipped.add(number);
    }
    this.#revisions.set(revision.revision, revision);
    progress.swap(partition.offsetEnd, revision.revision, skipped);
    const begin = progress.boundaries.at(-1)?.offset ?? partition.offsetEnd;
    this.#parts.journey?.begins(begin, revision.revision);
    this.#swaps++;
    this.#wakeDisabled?.();
    this.#gathering.abort();
    this.#delivery.lookAgain();
    this.#warming = this.#warming.then(() => this.#warmUp());
    await this.#saveSwap();
  }

  /**
   * Ends the loop: what is under way is finished, or given up after a grace; then saved. A target
   * that answers to nothing is left behind, and what can't be saved is told: it is sent again.
   */
  async stop(): Promise<void> {
    this.#stop.abort();
    const { clock, events, ruleName } = this.#parts;
    const ending = this.#loop.then(() => this.#delivery.ended());
    try {
      await within(ending, { clock, ms: stopTimeoutMs }).catch(() => {
        this.#abort.abort();
        return within(ending, { clock, ms: stopTimeoutMs });
      });
      await this.#warming;
      await this.#delivery.sinks.keepOnly(new Set());
    } catch (error) {
      events.warn(`a route of rule ${ruleName} did not end: ${errorText(error)}`);
    }
    this.#delivery.leave();
    await this.#saver.close();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const { clock, random, events, progress } = this.#parts;
    const bounds = { delayMinMs: reconnectDelayMinMs, delayMaxMs: reconnectDelayMaxMs };
    let failures = 0;
    while (!signal.aborted) {
      try {
        await this.#delivery.begin();
        await this.#step();
        failures = 0;
      } catch (error) {
        // A gap is passed and told; anything else is tried again, with what it said on show.
        if (error instanceof GapError) {
          events.onGap(error);
          progress.skipTo(error.to);
          continue;
        }
        failures++;
        this.#delivery.show("blocked", errorText(error));
        await clock.sleep(backoffMs(failures, bounds, random), signal);
      }
    }
  }

  /** One batch of one revision. */
  async #step(): Promise<void> {
    const { progress, partition } = this.#parts;
    const { window } = progress;
    await this.#delivery.opened();
    if (this.#stop.signal.aborted) return;
    if (!this.#revisionAt(window.readAt).enabled) {
      await this.#waitDisabled();
      return;
    }
    await this.#delivery.room();
    const read = await partition.read(window.readAt, {
      messagesMax: Math.max(1, Math.min(routeBatchMessages, window.room)),
      bytesMax: routeBatchBytes,
      signal: this.#stop.signal,
    });
    if (this.#stop.signal.aborted) return;
    if (read === null) throw new StorageError("the log is closed");
    const batch = await this.#gathered(read);
    if (this.#stop.signal.aborted) return;
    if (this.#savedSwaps < this.#swaps) await this.#saveSwap();
    const { messages, next } = this.#ofOneRevision(batch);
    const [first] = messages;
    if (first === undefined) {
      await this.#delivery.drained();
      progress.skipTo(next);
      return;
    }
    const revision = this.#revisionAt(first.offset);
    await this.#change(revision);
    if (this.#stop.signal.aborted) return;
    if (!revision.enabled) {
      progress.skipTo(first.offset);
      return;
    }
    progress.take(messages, next);
    if (revision.order === "partition") await this.#delivery.inOrder(messages, revision);
    else this.#delivery.byLanes(messages, revision);
    await nextTurn();
  }

  /** What was read, and where the partition's order holds, what its target's batch waits for. */
  async #gathered(read: Batch): Promise<Batch> {
    const [first] = read.messages;
    const { clock, partition, progress } = this.#parts;
    const revision = first === undefined ? null : this.#revisionAt(first.offset);
    if (revision === null || revision.order !== "partition") return read;
    // Of an older revision hardly any more come.
    if (revision.revision !== progress.revision) return read;
    this.#gathering = new AbortController();
    const stop = AbortSignal.any([this.#stop.signal, this.#gathering.signal]);
    const { room } = progress.window;
    return await gather(read, { revision, clock, partition, stop, room });
  }

  /** Before a revision's first message is sent, those of the one before it are finished. */
  async #change({ revision }: RunningRevision): Promise<void> {
    if (this.#current === revision) return;
    await this.#delivery.drained();
    if (this.#stop.signal.aborted) return;
    this.#current = revision;
    const named = new Set(this.#parts.progress.boundaries.map((each) => each.revision));
    for (const known of this.#revisions.keys()) {
      if (!named.has(known)) this.#revisions.delete(known);
    }
    await this.#delivery.sinks.keepOnly(named.union(this.#delivery.revisionsUnderWay));
  }

  #revision(revision: number): RunningRevision | null {
    const known = this.#revisions.get(revision) ?? this.#parts.revision(revision);
    if (known !== null) this.#revisions.set(revision, known);
    return known;
  }

  #revisionAt(offset: Offset): RunningRevision {
    const found = this.#revision(this.#parts.progress.revisionAt(offset));
    if (found === null) throw new LimitError("too-large", "a revision of the rule is missing");
    return found;
  }

  /**
   * The first messages of a batch that belong to one revision and fit into the window, and where
   * the rest begins. None: what comes lies beyond the window, which has to be drained first.
   */
  #ofOneRevision({ messages, next }: Batch): {
    readonly messages: readonly StoredMessage[];
    readonly next: Offset;
  } {
    const { progress } = this.#parts;
    const [first] = messages;
    if (first === undefined) return { messages, next };
    const end = Math.min(progress.next + windowOffsetsMax, progress.revisionEnd(first.offset));
    if ((messages.at(-1)?.offset ?? 0) < end) return { messages, next };
    const cut = messages.find(({ offset }) => offset >= end);
    if (cut === undefined) return { messages, next };
    return { messages: messages.filter(({ offset }) => offset < cut.offset), next: cut.offset };
  }

  async #waitDisabled(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wakeDisabled = resolve;
    this.#stop.signal.addEventListener("abort", () => resolve(), { once: true });
    if (this.#stop.signal.aborted) resolve();
    await promise;
    this.#wakeDisabled = null;
  }

  async #warmUp(): Promise<void> {
    const revision = this.#revisionAt(this.#parts.progress.next);
    if (!revision.enabled) return;
    try {
      await this.#delivery.sinks.get(revision, this.#stop.signal);
    } catch (error) {
      // Shown here, and met again by the first message.
      this.#delivery.show("retrying", errorText(error));
    }
  }

  async #saveSwap(): Promise<void> {
    const swaps = this.#swaps;
    await this.#saver.now();
    this.#savedSwaps = Math.max(this.#savedSwaps, swaps);
  }
}

/** The key that goes out; of a message that can't be made, its own. */
function keyOf(target: RunningRevision["target"], message: StoredMessage): Uint8Array | null {
  if (target.renderAll !== null) return message.key;
  try {
    return target.render(message).message.key;
  } catch (error) {
    if (!(error instanceof EvaluationError)) throw error;
    return message.key;
  }
}
