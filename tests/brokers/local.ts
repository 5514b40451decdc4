/**
 * A broker as processes on this machine. Each kind gives a recipe: its processes in the order of
 * their start and the question that tells when it is ready; everything else is the same for all.
 */
import { rm } from "node:fs/promises";
import { guardFolder } from "./guard.ts";
import { isReady, type Probe } from "./probe.ts";
import { ManagedProcess, type ProcessSpec } from "./process.ts";

/** Far above what a busy machine needs: a dead process is noticed at once, not by this. */
const readyMsMax = 120_000;
const readyStepMs = 50;
const graceMs = 20_000;

/** How to run one broker; the same recipe started again has the same ports and data. */
export interface Recipe {
  readonly name: string;
  readonly url: string;
  /** Owned by the broker: removed when it is stopped. */
  readonly folder: string;
  /** Started in this order, each once the one before it is ready. */
  readonly steps: readonly RecipeStep[];
  /** Ends it for good; the data are thrown away, so the quickest that leaves nothing behind. */
  readonly endSignal: NodeJS.Signals;
}

/** One process of a broker. */
export interface RecipeStep {
  readonly process: ProcessSpec;
  readonly ready: Probe;
}

/** A broker of this machine. */
export class LocalBroker {
  readonly url: string;
  readonly #recipe: Recipe;
  #processes: ManagedProcess[] = [];

  constructor(recipe: Recipe) {
    this.url = recipe.url;
    this.#recipe = recipe;
    guardFolder(recipe.folder);
  }

  /** Resolves when it is ready. @throws Error with the last lines of a process that died. */
  async start(): Promise<void> {
    for (const step of this.#recipe.steps) {
      const running = new ManagedProcess(step.process);
      this.#processes.push(running);
      await this.#untilReady(running, step.ready);
    }
  }

  /** As a power cut: nothing of it gets to run another line. */
  async kill(): Promise<void> {
    await Promise.all(this.#processes.map((each) => each.kill()));
    this.#processes = [];
  }

  /** Ends it in its own good way when it still runs, and starts it with the same ports and data. */
  async restart(): Promise<void> {
    for (const each of this.#processes.toReversed()) await each.stop("SIGTERM", graceMs);
    this.#processes = [];
    await this.start();
  }

  /** Stops every process of it in its tracks: connections stay open and nothing answers. */
  pause(): Promise<void> {
    for (const each of this.#processes) each.signalAll("SIGSTOP");
    return Promise.resolve();
  }

  resume(): Promise<void> {
    for (const each of this.#processes) each.signalAll("SIGCONT");
    return Promise.resolve();
  }

  /** Ends it and removes its folder. May be called again. */
  async stop(): Promise<void> {
    await this.resume();
    for (const each of this.#processes.toReversed()) {
      await each.stop(this.#recipe.endSignal, graceMs);
    }
    this.#processes = [];
    await rm(this.#recipe.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  async #untilReady(running: ManagedProcess, probe: Probe): Promise<void> {
    const startMs = performance.now();
    while (!(await isReady(probe))) {
      const isLate = performance.now() - startMs > readyMsMax;
      if (running.running && !isLate) {
        await running.endedWithin(readyStepMs);
        continue;
      }
      const what = isLate
        ? `${running.name} was not ready within ${readyMsMax / 1000} s`
        : (await running.ended).sentence;
      await this.stop();
      throw new Error(`${what}; its last lines:\n${running.lastLines()}`);
    }
  }
}
