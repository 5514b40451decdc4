/** The one rule of a partition: a commit never passes what is open, waiting or given back. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Progress, type Range } from "../../../bridges/kafka/progress.ts";

function given(progress: Progress, first: number, last: number): Range {
  const range = progress.add(BigInt(first), BigInt(last), 1);
  range.state = "given";
  return range;
}

/** A partition read one offset at a time by a careless caller, checked at every step. */
class Reader {
  readonly #progress = new Progress({ topic: "t", partition: 0 }, 0n);
  readonly #out: Range[] = [];
  readonly #acked = new Set<bigint>();
  #next = 0n;

  read(count: number): void {
    const start = this.#progress.seek() ?? this.#next;
    this.#progress.sought(start);
    const end = start + BigInt(count);
    for (let at = start; at < end; at += 1n) {
      if (this.#progress.covers(at)) continue;
      expect(this.#acked.has(at)).toBe(false);
      this.#out.push(given(this.#progress, Number(at), Number(at)));
    }
    if (end > this.#next) this.#next = end;
  }

  settle(which: number, how: "ack" | "nack"): void {
    const [range] = this.#out.splice(which % Math.max(1, this.#out.length), 1);
    if (range === undefined) return;
    if (how === "nack") {
      this.#progress.giveBack(range);
      return;
    }
    range.state = "acked";
    this.#acked.add(range.first);
  }

  commit(): void {
    const commit = this.#progress.committable();
    if (commit === null) return;
    for (let at = 0n; at < commit; at += 1n) expect(this.#acked.has(at)).toBe(true);
    this.#progress.commit(commit);
  }
}

describe("a partition's progress", () => {
  test("commits in order, whatever the order of acks", () => {
    const progress = new Progress({ topic: "t", partition: 0 }, 10n);
    const [a, b, c] = [given(progress, 10, 12), given(progress, 13, 13), given(progress, 20, 25)];
    c.state = "acked";
    expect(progress.committable()).toBeNull();
    b.state = "acked";
    expect(progress.committable()).toBeNull();
    a.state = "acked";
    expect(progress.committable()).toBe(26n);
    progress.commit(26n);
    expect(progress.committable()).toBeNull();
  });

  test("never commits past what was given back until it is read again and acked", () => {
    const progress = new Progress({ topic: "t", partition: 0 }, 0n);
    const [a, b] = [given(progress, 0, 4), given(progress, 5, 9)];
    b.state = "acked";
    progress.giveBack(a);
    expect(progress.committable()).toBeNull();
    expect(progress.seek()).toBe(0n);
    expect(progress.covers(3n)).toBe(false);
    expect(progress.covers(7n)).toBe(true);
    const first = given(progress, 0, 2);
    first.state = "acked";
    expect(progress.committable()).toBe(3n);
    const rest = given(progress, 3, 4);
    expect(progress.committable()).toBe(3n);
    rest.state = "acked";
    expect(progress.committable()).toBe(10n);
  });

  test("seeks to the first of all that were given back", () => {
    const progress = new Progress({ topic: "t", partition: 0 }, 0n);
    const [a, b] = [given(progress, 0, 4), given(progress, 5, 9)];
    progress.giveBack(a);
    expect(progress.seek()).toBe(0n);
    progress.giveBack(b);
    expect(progress.seek()).toBe(0n);
    expect(progress.seeking).toBe(true);
    progress.sought(0n);
    expect(progress.seeking).toBe(false);
  });

  test("drops what waits behind what was given back, so that order is kept", () => {
    const progress = new Progress({ topic: "t", partition: 0 }, 0n);
    const a = given(progress, 0, 4);
    const waiting = progress.add(5n, 9n, 7);
    expect(progress.giveBack(a)).toEqual([waiting]);
    expect(progress.covers(6n)).toBe(false);
  });

  test("forgets what was given back and has been removed from the topic since", () => {
    const progress = new Progress({ topic: "t", partition: 0 }, 0n);
    const [a, b] = [given(progress, 0, 4), given(progress, 5, 9)];
    progress.giveBack(a);
    b.state = "acked";
    progress.read(0n, 20n);
    expect(progress.committable()).toBe(10n);
  });

  test("knows after a change of the group whether another reader was at it", () => {
    const kept = new Progress({ topic: "t", partition: 0 }, 5n);
    given(kept, 5, 9);
    kept.rejoined();
    expect(kept.continues(5n)).toBe(true);
    expect(kept.continues(10n)).toBe(true);
    kept.rejoined();
    expect(kept.continues(7n)).toBe(false);
  });

  test("knows a topic that was made anew by its offsets", () => {
    const progress = new Progress({ topic: "t", partition: 0 }, 100n);
    expect(progress.continues(100n)).toBe(true);
    expect(progress.continues(0n)).toBe(false);
  });

  test("gives each offset once for each time that it was given back, and commits only acked ones", () => {
    const step = fc.record({
      what: fc.constantFrom("ack" as const, "nack" as const, "read" as const),
      which: fc.nat(20),
      length: fc.integer({ min: 1, max: 6 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const reader = new Reader();
        for (const { what, which, length } of steps) {
          if (what === "read") reader.read(length);
          else reader.settle(which, what);
          reader.commit();
        }
      }),
      { numRuns: 500 },
    );
  });
});
