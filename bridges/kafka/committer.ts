/**
 * Tells the group how far this reader has come: one commit at a time, for all partitions at once,
 * again and again while there is something to tell. What a change of the group makes impossible is
 * tried again in the new one, or given up with the partition: its new owner reads it again.
 */
import { type Clock, systemClock } from "../../src/clock.ts";
import type { Progress } from "./progress.ts";

/** Between two tries of a commit, and for all of them. Milliseconds. */
const RETRY_MS = 100;
const COMMIT_MS_MAX = 30_000;

/** The next offset to read of each partition, as kafkajs takes them. */
export type Commit = (offsets: {
  topics: { topic: string; partitions: { partition: number; offset: string }[] }[];
}) => Promise<void>;

interface Waiter {
  readonly progress: Progress;
  readonly next: bigint;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export interface CommitterParts {
  readonly owned: () => Iterable<Progress>;
  /** Called when the group could not be told for too long. */
  readonly failed: (error: unknown) => void;
  readonly clock?: Clock;
}

/** The commits of one reader. */
export class Committer {
  readonly #parts: CommitterParts;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  #waiters: Waiter[] = [];
  #commit: Commit | null = null;
  #running: Promise<void> | null = null;
  #failure: Error | null = null;

  constructor(parts: CommitterParts) {
    this.#parts = parts;
    this.#clock = parts.clock ?? systemClock;
  }

  /** How to commit within the group as it is now; bound to it, it fails once the group changes. */
  use(commit: Commit): void {
    this.#commit = commit;
  }

  /** Resolves when the group knows, or when the partition is another's. @throws what `stop` got */
  async upTo(progress: Progress, next: bigint): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiters.push({ progress, next, resolve, reject });
    this.#running ??= this.#run().finally(() => {
      this.#running = null;
    });
    await promise;
  }

  /** Resolves when nothing is being told. Never rejects. */
  async idle(): Promise<void> {
    await this.#running;
  }

  /** Gives up: every waiting ack fails. */
  stop(reason: Error): void {
    this.#failure ??= reason;
    this.#stop.abort();
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#failure);
  }

  async #run(): Promise<void> {
    let since = this.#clock.monotonicMs();
    while (this.#waiters.length > 0) {
      let isTold = false;
      try {
        isTold = await this.#tell();
        since = this.#clock.monotonicMs();
      } catch (error) {
        if (this.#clock.monotonicMs() - since > COMMIT_MS_MAX) this.#parts.failed(error);
      }
      this.#settle();
      // Something else has to happen first, for which the event loop needs its turns.
      if (!isTold && this.#waiters.length > 0) {
        await this.#clock.sleep(RETRY_MS, this.#stop.signal);
      }
    }
  }

  /** False: nothing could be told. */
  async #tell(): Promise<boolean> {
    const ahead = [...this.#parts.owned()].flatMap((progress) => {
      const next = progress.owned ? progress.committable() : null;
      return next === null ? [] : [{ progress, next }];
    });
    const commit = this.#commit;
    if (ahead.length === 0 || commit === null) return false;
    const topics = new Map<string, { partition: number; offset: string }[]>();
    for (const { progress, next } of ahead) {
      const partitions = topics.get(progress.topic) ?? [];
      topics.set(progress.topic, partitions);
      partitions.push({ partition: progress.partition, offset: String(next) });
    }
    await commit({ topics: [...topics].map(([topic, partitions]) => ({ topic, partitions })) });
    for (const { progress, next } of ahead) progress.commit(next);
    return true;
  }

  #settle(): void {
    this.#waiters = this.#waiters.filter((waiter) => {
      const done = !waiter.progress.owned || waiter.progress.committed >= waiter.next;
      if (done) waiter.resolve();
      return !done;
    });
  }
}
