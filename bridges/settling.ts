/**
 * Deliveries that are not settled yet, in the order in which they were received. Callers settle in
 * any order; the broker is told in the order received, since an ack that covers several, or one
 * that overtakes another, would tell it something untrue.
 */

/** One delivery's place in the order. */
export interface Entry<Item> {
  readonly items: readonly Item[];
  readonly bytes: number;
  state: "open" | "acked" | "nacked";
}

/** The unsettled deliveries of one source. */
export class Settling<Item> {
  readonly #entries = new Set<Entry<Item>>();

  /** Adds a delivery behind all earlier ones. */
  add(items: readonly Item[], bytes: number): Entry<Item> {
    const entry: Entry<Item> = { items, bytes, state: "open" };
    this.#entries.add(entry);
    return entry;
  }

  /**
   * Settles one and returns the acked ones that the broker may be told of, oldest first. An acked
   * one behind an open one is held until then: to the broker it is unsettled.
   */
  settle(entry: Entry<Item>, state: "acked" | "nacked"): readonly Entry<Item>[] {
    if (entry.state !== "open") throw new TypeError("a delivery is settled once");
    entry.state = state;
    const acked: Entry<Item>[] = [];
    for (const oldest of this.#entries) {
      if (oldest.state === "open") break;
      this.#entries.delete(oldest);
      if (oldest.state === "acked") acked.push(oldest);
    }
    return acked;
  }
}
