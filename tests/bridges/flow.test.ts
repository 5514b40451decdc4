/** The parts that bridges of push protocols share: inbox, settling order, turns and calls. */
import { describe, expect, test } from "bun:test";
import { Call, Turns } from "../../bridges/call.ts";
import { Inbox } from "../../bridges/inbox.ts";
import { Settling } from "../../bridges/settling.ts";
import { waitFor } from "../temporary.ts";

const never = new AbortController().signal;

describe("an inbox", () => {
  const inbox = (unsettledBytesMax: number) =>
    new Inbox<number>({ bytesOf: (item) => item, unsettledBytesMax });

  test("gives together what arrived together, as far as it may be unsettled", async () => {
    const box = inbox(10);
    for (const bytes of [4, 5, 3, 1]) box.push(bytes);
    const first = await box.take(never);
    expect(first).toEqual({ items: [4, 5], bytes: 9 });
    expect([box.heldBytes, box.heldCount]).toEqual([13, 4]);
    const waiting = box.take(never);
    if (first !== null) box.settled(first);
    expect(await waiting).toEqual({ items: [3, 1], bytes: 4 });
    expect([box.heldBytes, box.heldCount]).toEqual([4, 2]);
  });

  test("gives a message larger than the bound alone", async () => {
    const box = inbox(10);
    for (const bytes of [50, 1]) box.push(bytes);
    const first = await box.take(never);
    expect(first).toEqual({ items: [50], bytes: 50 });
    if (first !== null) box.settled(first);
    expect(await box.take(never)).toEqual({ items: [1], bytes: 1 });
  });

  test("lets go of what was taken, also when it is never empty", async () => {
    // So large that each comes alone.
    const size = 1024 * 1024;
    const box = new Inbox<object>({ bytesOf: () => size, unsettledBytesMax: 2 * size });
    const made: WeakRef<object>[] = [];
    const push = (): void => {
      const item = {};
      made.push(new WeakRef(item));
      box.push(item);
    };
    push();
    for (let round = 0; round < 1000; round += 1) {
      push();
      const taken = await box.take(never);
      if (taken !== null) box.settled(taken);
      expect(box.heldCount).toBe(1);
    }
    await waitFor("most are gone", () => {
      Bun.gc(true);
      return made.filter((one) => one.deref() !== undefined).length < made.length / 10;
    });
  });

  test("ends a wait by an abort with null and by a failure with its error", async () => {
    const box = inbox(10);
    const abort = new AbortController();
    const aborted = box.take(abort.signal);
    abort.abort();
    expect(await aborted).toBeNull();
    const failed = box.take(never);
    box.fail(new Error("gone"));
    await expect(failed).rejects.toThrow("gone");
    box.push(1);
    await expect(box.take(never)).rejects.toThrow("gone");
  });
});

describe("settling", () => {
  test("tells the acked ones in the order received, past those given back", () => {
    const settling = new Settling<string>();
    const [a, b, c, d] = ["a", "b", "c", "d"].map((item) => settling.add([item], 1));
    if (a === undefined || b === undefined || c === undefined || d === undefined) throw new Error();
    expect(settling.settle(c, "acked")).toEqual([]);
    expect(settling.settle(b, "nacked")).toEqual([]);
    expect(settling.settle(a, "acked")).toEqual([a, c]);
    expect(settling.settle(d, "acked")).toEqual([d]);
    expect(() => settling.settle(d, "acked")).toThrow(TypeError);
  });
});

describe("turns", () => {
  test("go in the order asked, also past one that was given up", async () => {
    const turns = new Turns();
    const order: string[] = [];
    const endFirst = await turns.take(never);
    const abort = new AbortController();
    const second = turns.take(abort.signal);
    const third = turns.take(never).then((end) => {
      order.push("third");
      end?.();
    });
    abort.abort();
    expect(await second).toBeNull();
    await Promise.resolve();
    order.push("first ends");
    endFirst?.();
    await third;
    expect(order).toEqual(["first ends", "third"]);
  });
});

describe("a call", () => {
  test("has an outcome for each message, unknown where none came before the abort", async () => {
    const call = new Call(3);
    const abort = new AbortController();
    const settled = call.allSettled(abort.signal);
    call.settle(1, { sent: null });
    call.settle(1, { refused: "twice" });
    abort.abort();
    await settled;
    call.settleRest(2, { busyMs: 5 });
    expect(call.outcomes()).toEqual([{ unknown: true }, { sent: null }, { busyMs: 5 }]);
  });
});
