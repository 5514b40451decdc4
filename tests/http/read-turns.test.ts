/** Those who catch up take turns, a few in each turn of the event loop. */
import { expect, test } from "bun:test";
import { nextTurn } from "../../src/clock.ts";
import { ReadTurns } from "../../src/http/read-turns.ts";

test("a hundred readers go on four in a turn, each as often as the others, in their order", async () => {
  const turns = new ReadTurns(4);
  const steps: number[] = [];
  let isOver = false;
  const readers = Array.from({ length: 100 }, async (_, reader) => {
    while (!isOver) {
      await turns.next();
      steps.push(reader);
    }
  });
  let most = 0;
  for (let turn = 0; turn < 75; turn++) {
    const before = steps.length;
    await nextTurn();
    most = Math.max(most, steps.length - before);
  }
  expect(most).toBeLessThanOrEqual(4);
  expect(steps.length).toBeGreaterThanOrEqual(290);
  expect(steps.slice(0, 200)).toEqual([...Array(200).keys()].map((step) => step % 100));
  isOver = true;
  await Promise.all(readers);
});
