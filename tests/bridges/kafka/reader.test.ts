/** The reading library as this bridge uses it, where its own ways would stop the process. */
import { expect, test } from "bun:test";
import { createRequire } from "node:module";
import { createConsumer, Sockets } from "../../../bridges/kafka/reader.ts";
import { waitFor } from "../../temporary.ts";

/** A group whose brokers, and whose answers to a fetch, are the test's. */
class Group {
  brokers = ["1", "2"];
  fetches = 0;
  readonly #answers: (() => void)[] = [];

  connect = (): Promise<void> => Promise.resolve();
  joinAndSync = (): Promise<void> => Promise.resolve();
  leave = (): Promise<void> => Promise.resolve();
  heartbeat = (): Promise<void> => Promise.resolve();
  getNodeIds = (): readonly string[] => this.brokers;

  async fetch(): Promise<readonly never[]> {
    this.fetches += 1;
    await new Promise<void>((resolve) => this.#answers.push(resolve));
    return [];
  }

  answer(): void {
    this.#answers.shift()?.();
  }
}

interface Runner {
  start(): Promise<void>;
  stop(): Promise<void>;
}

function runnerOf(group: Group): Runner {
  const silent = { info() {}, debug() {}, warn() {}, error() {}, namespace: () => silent };
  const Made = createRequire(import.meta.url)("kafkajs/src/consumer/runner") as new (
    parts: object,
  ) => Runner;
  return new Made({
    logger: silent,
    consumerGroup: group,
    instrumentationEmitter: { emit() {} },
    concurrency: 1,
    onCrash: (error: unknown) => {
      throw error;
    },
    retry: { retries: 0 },
  });
}

test("a reader that is stopped while its brokers change ends, and leaves the event loop its turns", async () => {
  // Whoever reads has the library with its methods replaced.
  expect(createConsumer).toBeFunction();
  expect(new Sockets()).toBeDefined();
  const group = new Group();
  const runner = runnerOf(group);
  await runner.start();
  await waitFor("both brokers are asked", () => group.fetches === 2);
  // One broker is gone: the reader of the other one finds out, and all begin anew once the
  // reader of the lost one has ended; the consumer is stopped before that.
  group.brokers = ["1"];
  group.answer();
  await Bun.sleep(1);
  const stopped = runner.stop();
  group.answer();
  // The timer never fires where the new readers ask a stopped consumer without end.
  await Bun.sleep(1);
  await stopped;
  expect(group.fetches).toBe(2);
});
