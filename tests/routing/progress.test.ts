/** The state record of a route: whatever is finished in which order, it is small and exact. */
import { expect, test } from "bun:test";
import {
  boundariesMax,
  stateBytesMax,
  waitFinishesMax,
  waitLoadedMax,
  windowOffsetsMax,
} from "../../src/limits.ts";
import { Progress } from "../../src/routing/progress.ts";

test("a full record fits its bound, and tells which offsets are finished", () => {
  const far = 2 ** 40;
  const boundaries = Array.from({ length: boundariesMax }, (_, index) => ({
    offset: far + index,
    revision: 1_000_000 + index,
  }));
  const progress = new Progress("0123456789abcdef0123456789abcdef", far, boundaries);
  const seen = Array.from({ length: windowOffsetsMax }, (_, index) => ({
    offset: far + index,
    appendedAtMs: 1,
  }));
  progress.take(seen, far + windowOffsetsMax);
  for (const { offset } of seen) if (offset % 2 === 1) progress.finish(offset, "delivered");
  for (let offset = far; offset < far + 100; offset++) {
    progress.setTrouble(offset, { attempts: 999_999, failures: 999_999, sinceMs: 1.7e12 });
  }
  progress.waitMark = () => ({
    epoch: "0123456789abcdef0123456789abcdef",
    next: far,
    noted: far,
    finished: Array.from({ length: waitFinishesMax + waitLoadedMax }, (_, at) => 99_000 + at),
  });
  const bytes = progress.encode();
  expect(bytes.length).toBeLessThanOrEqual(stateBytesMax);
  const offsetEnd = far + windowOffsetsMax;
  const read = Progress.decode(bytes, { epoch: progress.epoch, offsetEnd });
  for (const { offset } of seen) expect(read?.window.isDone(offset)).toBe(offset % 2 === 1);
  expect(read?.counts).toEqual(progress.counts);
});
