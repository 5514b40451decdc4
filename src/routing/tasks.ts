/** Work under way that nobody awaits one by one: it has an owner that awaits all of it at the end. */

/** The tasks of one owner. */
export class Tasks {
  readonly #running = new Set<Promise<void>>();
  readonly #onFailed: (error: unknown) => void;

  /** `onFailed` is told of a task that rejects, which is always a bug of ours. */
  constructor(onFailed: (error: unknown) => void) {
    this.#onFailed = onFailed;
  }

  /** Begins a task. */
  run(work: () => Promise<void>): void {
    const task = work()
      .catch(this.#onFailed)
      .finally(() => this.#running.delete(task));
    this.#running.add(task);
  }

  /** Resolves when none is under way, those that others began meanwhile included. */
  async ended(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }
}
