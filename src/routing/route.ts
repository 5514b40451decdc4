/**
 * A route: one rule and one of its targets on one partition. The loop of the way out:
 * read → where → set → send → save the cursor. The cursor moves only after the sink has confirmed,
 * or the message stands in the dead-letter stream; everything else follows from that.
 */
import type { Outgoing } from "../bridge.ts";
import { backoffMs } from "../backoff.ts";
import { nextTurn } from "../clock.ts";
import { DisconnectedError, errorText, GapError, LimitError, StorageError } from "../errors.ts";
import {
  reconnectDelayMaxMs,
  reconnectDelayMinMs,
  routeBatchBytes,
  routeBatchMessages,
  stopTimeoutMs,
} from "../limits.ts";
import type { Offset } from "../log/log.ts";
import type { StoredMessage } from "../message.ts";
import { HeldSink } from "./held-sink.ts";
import type { RouteParts, RunningRevision } from "./route-parts.ts";
import { Saver } from "./saver.ts";
import { type GivenUp, Sender, type Signals, type Work } from "./sender.ts";
import type { RouteStatus } from "./status.ts";
import { within } from "./within.ts";

interface Chosen {
  readonly work: readonly Work[];
  readonly broken: readonly { readonly message: StoredMessage; readonly reason: string }[];
}

/** A running route. Start it once, stop it once. */
export class Route {
  readonly #parts: RouteParts;
  readonly #revisions = new Map<number, RunningRevision>();
  readonly #stop = new AbortController();
  readonly #abort = new AbortController();
  readonly #sink: HeldSink;
  readonly #saver: Saver;
  #loop: Promise<void> = Promise.resolve();
  #warming: Promise<void> = Promise.resolve();
  #wakeDisabled: (() => void) | null = null;
  /** Swaps that were made, and how many of them are on disk. */
  #swaps = 0;
  #savedSwaps = 0;
  #state: RouteStatus["state"] = "running";
  #error: string | null = null;
  #attempts = 0;
  #oldestMs = 0;

  constructor(parts: RouteParts) {
    this.#parts = parts;
    const { states, stateKey: key, progress, events, clock } = parts;
    this.#sink = new HeldSink(clock);
    this.#saver = new Saver({ states, key, encode: () => progress.encode(), warn: events.warn });
    for (const revision of parts.revisions) this.#revisions.set(revision.revision, revision);
  }

  /** Begins to run and opens its target; a disabled one waits to be swapped. */
  start(): void {
    this.#loop = this.#run();
    this.#warming = this.#warmUp();
  }

  get status(): RouteStatus {
    const { progress, partition, ruleName, targetName, clock } = this.#parts;
    const isBehind = progress.next < partition.offsetEnd;
    return {
      rule: ruleName,
      target: targetName,
      stream: partition.id.stream,
      partition: partition.id.index,
      state: this.#revisions.get(progress.revision)?.enabled === false ? "disabled" : this.#state,
      revision: progress.revision,
      offset: progress.next,
      end: partition.offsetEnd,
      lagMs: isBehind && this.#oldestMs > 0 ? Math.max(0, clock.nowMs() - this.#oldestMs) : 0,
      attempts: this.#attempts,
      error: this.#error,
      counts: { ...progress.counts },
    };
  }

  /** The first offset that the route has not finished. */
  get next(): Offset {
    return this.#parts.progress.next;
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
    for (const each of this.#revisions.values()) if (!each.enabled) skipped.add(each.revision);
    this.#revisions.set(revision.revision, revision);
    progress.swap(partition.offsetEnd, revision.revision, skipped);
    this.#dropOldRevisions();
    this.#swaps++;
    this.#wakeDisabled?.();
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
    const loop = this.#loop;
    try {
      await within(loop, { clock, ms: stopTimeoutMs }).catch(() => {
        this.#abort.abort();
        return within(loop, { clock, ms: stopTimeoutMs });
      });
      await this.#warming;
      await this.#sink.drop();
    } catch (error) {
      events.warn(`a route of rule ${ruleName} did not end: ${errorText(error)}`);
    }
    await this.#saver.close();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    let failures = 0;
    while (!signal.aborted) {
      try {
        await this.#step();
        failures = 0;
      } catch (error) {
        // A gap is passed and told; anything else is tried again, with what it said on show.
        if (error instanceof GapError) {
          this.#parts.events.onGap(error);
          this.#parts.progress.skipTo(error.to);
          continue;
        }
        failures++;
        this.#show("blocked", errorText(error));
        const bounds = { delayMinMs: reconnectDelayMinMs, delayMaxMs: reconnectDelayMaxMs };
        await this.#parts.clock.sleep(backoffMs(failures, bounds, this.#parts.random), signal);
      }
    }
  }

  /** One batch of one revision. */
  async #step(): Promise<void> {
    const { progress, partition } = this.#parts;
    const revision = this.#revisionAt(progress.next);
    if (!revision.enabled) {
      await this.#waitDisabled();
      return;
    }
    const batch = await partition.read(progress.next, {
      messagesMax: routeBatchMessages,
      bytesMax: routeBatchBytes,
      signal: this.#stop.signal,
    });
    if (batch === null) {
      if (this.#stop.signal.aborted) return;
      throw new StorageError("the log is closed");
    }
    if (this.#savedSwaps < this.#swaps) await this.#saveSwap();
    const { messages, next } = this.#ofOneRevision(batch.messages, batch.next);
    const first = messages[0];
    if (first === undefined) return;
    this.#oldestMs = first.appendedAtMs;
    const current = this.#revisionAt(first.offset);
    if (!current.enabled) {
      progress.skipTo(first.offset);
      return;
    }
    progress.begin(
      messages.map((message) => message.offset),
      next,
    );
    try {
      await this.#finishBatch(messages, current);
    } finally {
      // Stopped or failed half-way: what is not finished is read again.
      progress.abandon();
    }
    this.#show("running", null);
    await nextTurn();
  }

  async #finishBatch(messages: readonly StoredMessage[], revision: RunningRevision): Promise<void> {
    const { progress } = this.#parts;
    const signals: Signals = { stop: this.#stop.signal, abort: this.#abort.signal };
    let isFirst = true;
    while (!signals.stop.aborted) {
      const open = messages.filter((message) => !progress.isDone(message.offset));
      const { work, broken } = this.#choose(open, revision);
      const isBlocked = revision.blocks && broken.length > 0;
      if (!isBlocked) await this.#giveUpAll(broken, revision);
      const sender = this.#sender(revision);
      if (isFirst && progress.failingSinceMs > 0) {
        const { attempts, failingSinceMs } = progress;
        sender.resume(progress.next, { attempts, sinceMs: failingSinceMs });
      }
      isFirst = false;
      // Nothing passes a message that keeps its place.
      const barrier = isBlocked ? (broken[0]?.message.offset ?? 0) : Number.POSITIVE_INFINITY;
      const free = work.filter(({ message }) => message.offset < barrier);
      const isOver = await sender.deliver(free, signals);
      this.#saver.soon();
      if (!isOver && !signals.stop.aborted)
        throw new DisconnectedError("the target was not opened");
      if (isBlocked) await this.#giveUpAll(broken.slice(0, 1), revision);
      if (messages.every((message) => progress.isDone(message.offset))) return;
    }
  }

  async #giveUpAll(broken: Chosen["broken"], revision: RunningRevision): Promise<void> {
    for (const { message, reason } of broken) {
      await this.#giveUp({ message, revision }, { reason, attempts: 1 });
    }
  }

  /** Which messages go out and how; what `where` leaves out is finished here. */
  #choose(messages: readonly StoredMessage[], revision: RunningRevision): Chosen {
    const work: Work[] = [];
    const broken: { message: StoredMessage; reason: string }[] = [];
    for (const message of messages) {
      const matched = revision.rule.matches(message);
      if (matched !== "yes") {
        this.#finish(message.offset, matched === "no" ? "filtered" : "failed");
        continue;
      }
      try {
        work.push({ message, outgoing: this.#render(message, revision) });
      } catch (error) {
        broken.push({ message, reason: errorText(error) });
      }
    }
    return { work, broken };
  }

  #render(message: StoredMessage, revision: RunningRevision): Outgoing {
    return revision.target.render(message);
  }

  #sender(revision: RunningRevision): Sender {
    const { clock, random, events } = this.#parts;
    return new Sender({
      clock,
      random,
      failure: revision.failure,
      retry: revision.target.document.retry,
      blocks: revision.blocks,
      sink: (signal) => this.#sink.get(revision.revision, revision.openSink, signal),
      dropSink: () => this.#sink.drop(),
      onSent: ({ message }) => this.#finish(message.offset, "delivered"),
      onGivenUp: ({ message }, given) => this.#giveUp({ message, revision }, given),
      onTrouble: ({ message }, reason, { attempts, sinceMs }) => {
        events.onRetry();
        this.#show("retrying", reason);
        if (message.offset !== this.#parts.progress.next) return;
        this.#attempts = attempts;
        this.#parts.progress.attempts = attempts;
        this.#parts.progress.failingSinceMs = sinceMs;
        this.#saver.soon();
      },
    });
  }

  /** A message that will not be sent goes to the dead letters, or stops the route. */
  async #giveUp(
    { message, revision }: { message: StoredMessage; revision: RunningRevision },
    given: GivenUp,
  ): Promise<void> {
    const { bury, ruleName, targetName, clock, random, stateKey, progress } = this.#parts;
    const cause = { rule: ruleName, target: targetName, revision: revision.revision, ...given };
    const bounds = { delayMinMs: reconnectDelayMinMs, delayMaxMs: reconnectDelayMaxMs };
    for (let failures = 1; !this.#abort.signal.aborted; failures++) {
      if (revision.blocks) {
        this.#show("blocked", given.reason);
        await clock.sleep(reconnectDelayMaxMs, this.#stop.signal);
        return;
      }
      try {
        await bury(message, cause, `${stateKey}/${progress.life}/${message.offset}/dead`);
        this.#finish(message.offset, "deadLettered");
        return;
      } catch (error) {
        this.#show("retrying", `the dead letter can't be kept: ${errorText(error)}`);
        await clock.sleep(backoffMs(failures, bounds, random), this.#stop.signal);
        if (this.#stop.signal.aborted) return;
      }
    }
  }

  #finish(offset: Offset, how: "delivered" | "filtered" | "failed" | "deadLettered"): void {
    this.#parts.progress.finish(offset, how);
    this.#attempts = this.#parts.progress.attempts;
    this.#parts.events.onFinished(how);
  }

  #revisionAt(offset: Offset): RunningRevision {
    const found = this.#revisions.get(this.#parts.progress.revisionAt(offset));
    if (found === undefined) throw new LimitError("too-large", "a revision of the rule is missing");
    return found;
  }

  /** The first messages of a batch that belong to one revision, and where the rest begins. */
  #ofOneRevision(messages: readonly StoredMessage[], batchNext: Offset) {
    const { progress } = this.#parts;
    const first = messages[0];
    if (first === undefined) return { messages, next: batchNext };
    const revision = progress.revisionAt(first.offset);
    const cut = messages.findIndex(({ offset }) => progress.revisionAt(offset) !== revision);
    if (cut < 0) return { messages, next: batchNext };
    return { messages: messages.slice(0, cut), next: messages[cut]?.offset ?? batchNext };
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
    const { revision, enabled, openSink } = this.#revisionAt(this.#parts.progress.next);
    if (!enabled) return;
    try {
      await this.#sink.prepare(revision, openSink, this.#stop.signal);
    } catch (error) {
      // Shown here, and met again by the first message.
      this.#show("retrying", errorText(error));
    }
  }

  #show(state: RouteStatus["state"], error: string | null): void {
    this.#state = state;
    this.#error = error;
  }

  async #saveSwap(): Promise<void> {
    const swaps = this.#swaps;
    await this.#saver.now();
    this.#savedSwaps = Math.max(this.#savedSwaps, swaps);
  }

  #dropOldRevisions(): void {
    const named = new Set(this.#parts.progress.boundaries.map(({ revision }) => revision));
    for (const revision of this.#revisions.keys()) {
      if (!named.has(revision)) this.#revisions.delete(revision);
    }
  }
}
