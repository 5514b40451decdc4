/**
 * Lets work that a storm of clients brings (who is the caller, where does a name stand) in a few
 * at a time and in the order it came, with a turn of the event loop between, so that clients that
 * are connected already are served meanwhile.
 */
import { nextTurn } from "../clock.ts";

/** A door that so many can be inside of. What waits is bounded by who may wait. */
export class Admission {
  readonly #places: number;
  readonly #waiting: (() => void)[] = [];
  #inside = 0;

  constructor(places: number) {
    this.#places = places;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Does the work once there is a place; gives or throws what it does. */
  async run<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#inside < this.#places) this.#inside++;
    else {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      // Who leaves hands its place on, so it counts as taken all the time.
      await promise;
      await nextTurn();
    }
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#inside--;
      else next();
    }
  }
}

/** How far apart clients come back to a server that has so many of them. Milliseconds. */
export function spreadMs(
  clients: number,
  bounds: { readonly eachMs: number; readonly minMs: number; readonly maxMs: number },
): number {
  return Math.min(bounds.maxMs, Math.max(bounds.minMs, Math.ceil(clients * bounds.eachMs)));
}
