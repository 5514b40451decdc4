/**
 * One life of a simulated process: its time, its randomness, its disk, and the event at which it
 * ends. When it has ended, nothing that it waits for ever comes: it can neither do nor say more.
 */
import type { Call, MemoryDisk } from "./disk.ts";
import { nextTurn } from "../../src/clock.ts";
import { VirtualClock } from "./clock.ts";
import type { Random } from "./random.ts";

/** What has happened, as one number: equal runs have equal ones. */
export class Trace {
  #hash = 0;
  /** Shown each line, when somebody looks. */
  onLine: ((line: string) => void) | null = null;

  note(line: string): void {
    this.#hash = Bun.hash.xxHash32(line, this.#hash);
    this.onLine?.(line);
  }

  get hash(): string {
    return this.#hash.toString(16).padStart(8, "0");
  }
}

/** Nothing takes so many turns, save what never ends. */
const TURNS_MAX = 20_000;

/** What a life begins with. */
export interface LifeParts {
  readonly disk: MemoryDisk;
  readonly random: Random;
  readonly wallMs: number;
  readonly trace: Trace;
  /** Ends with this event, counted from 1; infinity: with none. */
  readonly eventsMax: number;
}

/** One life. */
export class Life {
  readonly disk: MemoryDisk;
  readonly random: Random;
  readonly clock: VirtualClock;
  readonly #trace: Trace;
  /** Each life has its own: whoever waits on it is kept for as long as it is. */
  readonly #never = Promise.withResolvers<never>().promise;
  #eventsLeft: number;
  /** What the end left behind; null: it goes on. */
  remains: MemoryDisk | null = null;
  /** What must not have happened, and has. */
  readonly violations: string[] = [];

  constructor({ disk, random, wallMs, trace, eventsMax }: LifeParts) {
    this.disk = disk;
    this.random = random;
    this.clock = new VirtualClock(wallMs);
    this.#trace = trace;
    this.#eventsLeft = eventsMax;
    disk.before = (call, path) => this.#onCall(call, path);
    disk.beforeWrite = (path) => this.#count("write", path);
  }

  get isOver(): boolean {
    return this.remains !== null;
  }

  /** Resolves at once, or never when the life has ended. */
  async goOn(): Promise<void> {
    if (this.isOver) await this.#never;
  }

  /** Something that the outside can see is about to happen; never resolves when it can't any more. */
  async event(kind: string, detail: string): Promise<void> {
    this.#count(kind, detail);
    if (this.isOver) await this.#never;
  }

  /** The time that an outside call takes. */
  async latency(kind: string): Promise<void> {
    this.#count(kind, "");
    if (this.isOver) await this.#never;
    if (this.random.chance(0.6)) await this.clock.sleep(1 + this.random.below(40));
    if (this.isOver) await this.#never;
  }

  /** One turn of the event loop, and on to the next time at which something wakes. */
  async turn(): Promise<void> {
    await nextTurn();
    if (!this.isOver) this.clock.goOn();
  }

  /** What the work gives; null when the life ends before that. */
  async reach<T>(work: Promise<T>): Promise<T | null> {
    const done: { result: PromiseSettledResult<T> | null } = { result: null };
    const settled = Promise.allSettled([work]).then(([result]) => {
      done.result = result;
    });
    for (let turns = 0; done.result === null && !this.isOver; turns++) {
      if (turns > TURNS_MAX) throw new Error("it hangs");
      await this.turn();
    }
    if (done.result === null) return null;
    await settled;
    if (done.result.status === "rejected") throw done.result.reason;
    return done.result.value;
  }

  /** Does what is no part of the life: the disk does not fail meanwhile. */
  async unharmed<T>(work: () => Promise<T>): Promise<T> {
    const { before, beforeWrite } = this.disk;
    const resume = this.disk.pauseFaults();
    this.disk.before = null;
    this.disk.beforeWrite = null;
    try {
      return await work();
    } finally {
      this.disk.before = before;
      this.disk.beforeWrite = beforeWrite;
      resume();
    }
  }

  /** The process dies now, with the power or without. */
  end(why: string): void {
    if (this.isOver) return;
    const isPowerCut = this.random.chance(0.7);
    this.#trace.note(`${isPowerCut ? "power cut" : "killed"}: ${why}`);
    this.remains = isPowerCut ? this.disk.crash(this.random) : this.disk.kill();
    this.clock.stop();
  }

  #count(kind: string, detail: string): void {
    if (this.isOver) return;
    this.#trace.note(`${kind} ${detail}`);
    if (--this.#eventsLeft <= 0) this.end(`at ${kind} ${detail}`);
  }

  #onCall(call: Call, path: string): Promise<void> | null {
    if (call === "read") return this.isOver ? this.#never : null;
    this.#count(call, path);
    if (this.isOver) return this.#never;
    if (call !== "sync" || !this.random.chance(0.5)) return null;
    return this.#slowly();
  }

  async #slowly(): Promise<void> {
    await this.clock.sleep(1 + this.random.below(20));
    this.#count("synced", "");
    if (this.isOver) await this.#never;
  }
}
