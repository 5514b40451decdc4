/** What becomes of a message that its target was too busy for: when, and with which words. */
import { expect, test } from "bun:test";
import type { Outcome } from "../../src/bridge.ts";
import { judge } from "../../src/routing/trouble.ts";

const retry = { maxAgeMs: 60_000, attempts: 3, delayMinMs: 100, delayMaxMs: 10_000 };

function judged(outcome: Exclude<Outcome, { readonly sent: unknown }>) {
  const rest = { before: null, lost: null, retry, blocks: false, nowMs: 0, random: () => 0.5 };
  return judge({ outcome, ...rest });
}

test("a target is left alone for as long as it asks, but no longer than delayMax", () => {
  expect(judged({ busyMs: 7000 }).delayMs).toBe(7000);
  expect(judged({ busyMs: 24 * 3_600_000 }).delayMs).toBe(10_000);
  expect(judged({ busyMs: 0 }).delayMs).toBeLessThanOrEqual(100);
});

test("what a busy target said is the reason, and counts as no attempt", () => {
  const { reason, trouble, isOver } = judged({ busyMs: 1, reason: "the target answered 503" });
  expect([reason, trouble.attempts, isOver]).toEqual(["the target answered 503", 0, false]);
  expect(judged({ busyMs: 1 }).reason).toBe("the target is busy");
  expect(judged({ unknown: true }).reason).toBe("the target did not confirm");
});
