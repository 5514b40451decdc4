/** The gate of a target: its limit, its concurrency, turns, and a target that is down. */
import { afterEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Outcome } from "../../src/bridge.ts";
import { DisconnectedError } from "../../src/errors.ts";
import { circuitFailures } from "../../src/rules/limits.ts";
import { DisabledRecord } from "../../src/routing/disabled.ts";
import { Gate, type Permit, type Seat } from "../../src/routing/gate.ts";
import { RateWindow } from "../../src/routing/rate-window.ts";
import type { TargetLoad } from "../../src/rules/load.ts";
import { openLog } from "../log/support.ts";
import { nextTurn } from "../../src/clock.ts";
import { VirtualClock } from "../sim/clock.ts";
import { MemoryDisk } from "../sim/disk.ts";

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

const sent: Outcome[] = [{ sent: null }];
const down = new DisconnectedError("nobody is there");
const busy = (busyMs: number): Outcome[] => [{ busyMs, reason: "the target answered 503" }];

/** A gate on a clock that stands until it is moved. */
async function setUp(load: TargetLoad = {}) {
  const { log } = await openLog(new MemoryDisk());
  const clock = new VirtualClock(1_700_000_000_000);
  const asked = { rule: 1, bridge: 1 };
  const disabled = await DisabledRecord.load(log.states, "disabled/r/t", asked);
  const warnings: string[] = [];
  const gate = new Gate({ clock, random: () => 0, disabled, warn: (text) => warnings.push(text) });
  gate.load = load;
  ends.push(async () => {
    await gate.close();
    await log[Symbol.asyncDispose]();
  });
  return { gate, clock, log, disabled, warnings };
}

/** Goes on for so long, and lets what wakes meanwhile do its work. */
async function pass(clock: VirtualClock, ms: number): Promise<void> {
  let isOver = false;
  const end = clock.sleep(ms).then(() => (isOver = true));
  while (!isOver) {
    clock.goOn();
    await nextTurn();
  }
  await end;
}

/** A seat, and how often it was called. */
function seatOf(gate: Gate) {
  const state = { calls: 0 };
  const seat = gate.seat(() => state.calls++);
  const leave = (permit: Permit, what: Outcome[] | DisconnectedError, name = "0/0/"): void =>
    seat.leave(permit, what, () => [name]);
  return { seat, state, leave };
}

function taken(seat: Seat, wanted = 1): Permit {
  const permit = seat.take(wanted);
  if (permit === null) throw new Error("nothing was let through");
  return permit;
}

describe("a limit", () => {
  test("lets no more through than its count in any window of its time", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 50 }),
        fc.integer({ min: 1, max: 2000 }),
        fc.array(fc.tuple(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 1, max: 80 })), {
          maxLength: 200,
        }),
        (count, perMs, steps) => {
          const window = new RateWindow({ count, perMs });
          const passed: number[] = [];
          let nowMs = 0;
          for (const [afterMs, wanted] of steps) {
            nowMs += afterMs;
            const through = Math.min(wanted, window.room(nowMs));
            if (through === 0) continue;
            window.take(through, nowMs);
            for (let each = 0; each < through; each++) passed.push(nowMs);
          }
          for (const [index, fromMs] of passed.entries()) {
            const inWindow = passed.slice(index).filter((at) => at < fromMs + perMs);
            expect(inWindow.length).toBeLessThanOrEqual(count);
          }
        },
      ),
    );
  });

  test("is used whole: what waits comes as soon as there is room, within a part of its time", () => {
    const window = new RateWindow({ count: 10, perMs: 1000 });
    let passed = 0;
    for (let nowMs = 0; nowMs < 10_000; nowMs++) {
      const through = Math.min(3, window.room(nowMs));
      if (through > 0) window.take(through, nowMs);
      passed += through;
    }
    expect(passed).toBeGreaterThanOrEqual(98);
    expect(window.roomAtMs(10_000)).toBeGreaterThanOrEqual(10_000);
  });

  test("is shared by all who send, and each is called in its turn", async () => {
    const { gate, clock } = await setUp({ limit: { count: 2, perMs: 1000 } });
    const [a, b, c] = [seatOf(gate), seatOf(gate), seatOf(gate)];
    expect(taken(a.seat, 5).units).toBe(2);
    expect(b.seat.take(1)).toBeNull();
    expect(c.seat.take(1)).toBeNull();
    expect(a.seat.take(1)).toBeNull();
    await pass(clock, 1000);
    await pass(clock, 1);
    expect([b.state.calls, c.state.calls, a.state.calls]).toEqual([1, 1, 0]);
    taken(b.seat);
    taken(c.seat);
    await pass(clock, 1001);
    expect(a.state.calls).toBe(1);
    expect(gate.status.waits).toBe(3);
  });

  test("is the newest one's when it changes", async () => {
    const { gate } = await setUp({ limit: { count: 1, perMs: 60_000 } });
    const { seat, state, leave } = seatOf(gate);
    leave(taken(seat), sent);
    expect(seat.take(1)).toBeNull();
    gate.load = { limit: { count: 3, perMs: 1000 } };
    expect(state.calls).toBe(1);
    expect(taken(seat, 9).units).toBe(3);
    gate.load = {};
    expect(taken(seat, 9).units).toBe(9);
  });
});

describe("concurrency", () => {
  test("is how much is under way at once, whoever sends it", async () => {
    const { gate } = await setUp({ concurrency: 3 });
    const [a, b] = [seatOf(gate), seatOf(gate)];
    const first = taken(a.seat, 2);
    const second = taken(b.seat, 2);
    expect([first.units, second.units, gate.status.underWay]).toEqual([2, 1, 3]);
    expect(a.seat.take(1)).toBeNull();
    b.leave(second, sent);
    expect(a.state.calls).toBe(1);
    expect(taken(a.seat, 5).units).toBe(1);
  });

  test("gets back what one who leaves had under way, once", async () => {
    const { gate } = await setUp({ concurrency: 2 });
    const { seat, leave } = seatOf(gate);
    const permit = taken(seat, 2);
    const next = seatOf(gate);
    expect(next.seat.take(1)).toBeNull();
    seat.close();
    expect([gate.status.underWay, next.state.calls]).toEqual([0, 1]);
    leave(permit, sent);
    expect(gate.status.underWay).toBe(0);
  });

  test("one who is called and wants nothing gives the turn to the next", async () => {
    const { gate } = await setUp({ concurrency: 1 });
    const [a, b, c] = [seatOf(gate), seatOf(gate), seatOf(gate)];
    const permit = taken(a.seat);
    expect(b.seat.take(1)).toBeNull();
    expect(c.seat.take(1)).toBeNull();
    a.leave(permit, sent);
    expect([b.state.calls, c.state.calls]).toEqual([1, 0]);
    b.seat.withdraw();
    expect(c.state.calls).toBe(1);
    taken(c.seat);
  });
});

describe("a target that is down", () => {
  test("is left alone, then asked with one call, and longer each time that fails", async () => {
    const { gate, clock } = await setUp();
    const [a, b] = [seatOf(gate), seatOf(gate)];
    const [first, second] = [taken(a.seat, 64), taken(b.seat, 64)];
    const startMs = clock.nowMs();
    a.leave(first, down);
    expect(gate.status).toMatchObject({ state: "open", reason: "nobody is there", openings: 1 });
    const until = gate.status.untilMs ?? 0;
    expect(until).toBeGreaterThan(clock.nowMs());
    // What was under way at that moment says nothing more.
    b.leave(second, down);
    expect(gate.status).toMatchObject({ state: "open", untilMs: until, openings: 1 });
    expect(a.seat.take(64)).toBeNull();
    expect(b.seat.take(64)).toBeNull();
    await pass(clock, until - clock.nowMs() + 1);
    expect([a.state.calls, b.state.calls]).toEqual([1, 0]);
    const probe = taken(a.seat, 64);
    expect([probe.units, gate.status.state]).toEqual([1, "probing"]);
    expect(b.state.calls).toBe(0);
    a.leave(probe, down);
    expect((gate.status.untilMs ?? 0) - clock.nowMs()).toBeGreaterThan(until - startMs);
    await pass(clock, 60_000);
    const again = taken(b.seat, 64);
    expect([again.units, again.isProbe]).toEqual([1, true]);
    b.leave(again, sent);
    expect(gate.status).toMatchObject({ state: "closed", reason: null });
    expect(taken(a.seat, 64).units).toBe(64);
  });

  test("is one that takes none of so many messages, and Retry-After is how long it rests", async () => {
    const { gate, clock } = await setUp();
    const { seat, leave } = seatOf(gate);
    for (let each = 0; each < circuitFailures; each++) {
      expect(gate.status.state).toBe("closed");
      leave(taken(seat), busy(90_000), `0/${each}/`);
    }
    expect(gate.status).toMatchObject({ state: "open", reason: "the target answered 503" });
    expect(gate.status.untilMs).toBe(clock.nowMs() + 90_000);
    expect(seat.take(1)).toBeNull();
  });

  test("is not one where one message fails, however often, or others are taken between", async () => {
    const { gate } = await setUp();
    const { seat, leave } = seatOf(gate);
    for (let each = 0; each < 100; each++) leave(taken(seat), busy(0), "0/7/");
    expect(gate.status.state).toBe("closed");
    for (let each = 0; each < 100; each++) {
      leave(taken(seat), busy(0), `0/${each}/`);
      if (each % 5 === 0) leave(taken(seat), sent);
    }
    leave(taken(seat), [{ refused: "no" }]);
    expect(gate.status).toMatchObject({ state: "closed", openings: 0 });
  });

  test("is asked by another when the one that asked gives up without an answer", async () => {
    const { gate, clock } = await setUp();
    const [a, b] = [seatOf(gate), seatOf(gate)];
    a.leave(taken(a.seat), down);
    expect(a.seat.take(1)).toBeNull();
    expect(b.seat.take(1)).toBeNull();
    await pass(clock, 60_000);
    taken(a.seat);
    a.seat.close();
    expect(b.state.calls).toBe(1);
    expect(taken(b.seat).isProbe).toBe(true);
  });
});

describe("a target that is disabled", () => {
  test("lets nothing through, after a restart neither, until it is enabled", async () => {
    const { gate, log, disabled } = await setUp();
    const { seat, state } = seatOf(gate);
    gate.disable("the target answered 410");
    // Not on disk yet: nothing passes, and it is not said to be disabled.
    expect(gate.status).toMatchObject({ state: "open", reason: "the target answered 410" });
    expect(seat.take(1)).toBeNull();
    await gate.close();
    expect(gate.status).toMatchObject({ state: "disabled", reason: "the target answered 410" });
    const asked = { rule: 1, bridge: 1 };
    const again = await DisabledRecord.load(log.states, "disabled/r/t", asked);
    expect(again.reason).toBe("the target answered 410");
    await gate.enable();
    expect([state.calls, disabled.reason]).toEqual([1, null]);
    expect((await DisabledRecord.load(log.states, "disabled/r/t", asked)).reason).toBeNull();
  });

  test("is asked again by another revision of its rule or its bridge", async () => {
    const { log, disabled } = await setUp();
    await disabled.set("gone");
    const key = "disabled/r/t";
    expect((await DisabledRecord.load(log.states, key, { rule: 1, bridge: 2 })).reason).toBeNull();
    await disabled.set("gone");
    expect((await DisabledRecord.load(log.states, key, { rule: 2, bridge: 1 })).reason).toBeNull();
  });
});
