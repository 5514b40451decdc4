/** Telling a group how far a reader has come, where there is nothing that could be told. */
import { expect, test } from "bun:test";
import { Committer } from "../../../bridges/kafka/committer.ts";
import { Progress } from "../../../bridges/kafka/progress.ts";

const place = { topic: "orders", partition: 0 };

function committerOf(owned: readonly Progress[]): Committer {
  const failed = (error: unknown): never => {
    throw error;
  };
  return new Committer({ owned: () => owned, failed });
}

test("an ack that nothing can be told for leaves the event loop its turns, and ends with the partition", async () => {
  const progress = new Progress(place, 0n);
  const committer = committerOf([progress]);
  committer.use(() => Promise.resolve());
  const telling = committer.upTo(progress, 1n);
  // The timer never fires where the wait is a loop without a turn.
  await Bun.sleep(1);
  progress.revoke();
  await telling;
  await committer.idle();
});

test("an ack is told once its place can be told", async () => {
  const progress = new Progress(place, 0n);
  const committer = committerOf([progress]);
  const told: string[] = [];
  committer.use(async ({ topics }) => {
    told.push(...topics.flatMap(({ partitions }) => partitions.map(({ offset }) => offset)));
  });
  const open = progress.add(0n, 4n, 1);
  const telling = committer.upTo(progress, 5n);
  await Bun.sleep(1);
  expect(told).toEqual([]);
  open.state = "acked";
  await telling;
  expect(told).toEqual(["5"]);
});

test("an ack that waits fails with the reason of the source's end", async () => {
  const progress = new Progress(place, 0n);
  const committer = committerOf([progress]);
  const telling = committer.upTo(progress, 1n).catch((error: unknown) => error);
  await Bun.sleep(1);
  committer.stop(new Error("the source is closed"));
  expect(await telling).toEqual(new Error("the source is closed"));
  await committer.idle();
});
