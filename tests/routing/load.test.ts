/** `limit`, `concurrency` and `batch` of routes over a real log: shared by partitions, in order. */
import { afterEach, describe, expect, test } from "bun:test";
import { encodeText } from "../../src/message.ts";
import type { JsonObject } from "../../src/rules/document.ts";
import { message, openLog } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { waitFor } from "../temporary.ts";
import { type Revisions, rig, Target } from "./support.ts";

const TO = { bridge: "b", place: "x" };
const ends: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

interface Options {
  readonly failure?: "prefix" | "independent";
  readonly partitions?: number;
  readonly target?: Target;
  readonly disk?: MemoryDisk;
  readonly revisions?: Revisions;
}

async function setUp({ partitions = 1, disk = new MemoryDisk(), ...options }: Options) {
  const { log } = await openLog(disk);
  const run = rig(log, options);
  const end = async (): Promise<void> => {
    await run.stop();
    await log[Symbol.asyncDispose]();
  };
  ends.push(end);
  run.streams.define("in", partitions);
  /** Each name is a message; its key is what stands before the dot. */
  const put = async (...names: string[]): Promise<void> => {
    const sent = names.map((name) =>
      message(name, { key: encodeText(name.split(".")[0] ?? ""), body: encodeText(name) }),
    );
    await run.streams.stream("in").append(sent).durable;
  };
  const delivered = (): number =>
    run.routes.statuses().reduce((sum, { counts }) => sum + counts.delivered, 0);
  return { ...run, log, disk, put, delivered, end };
}

const many = (count: number): string[] =>
  Array.from({ length: count }, (_, index) => `k${index % 40}.${index}`);
const ruleOf = (more: JsonObject): JsonObject => ({ from: "in", start: "earliest", ...more });

/** Messages of each key stand in their order. */
function expectOrder(texts: readonly string[]): void {
  const last = new Map<string, number>();
  for (const text of texts) {
    const [key = "", number = ""] = text.split(".");
    expect(Number(number)).toBeGreaterThan(last.get(key) ?? -1);
    last.set(key, Number(number));
  }
}

for (const order of ["partition", "key", "none"] as const) {
  for (const failure of ["prefix", "independent"] as const) {
    const shape = `order ${order}, ${failure}`;

    test(`four partitions share a target's concurrency (${shape})`, async () => {
      const target = new Target();
      const run = await setUp({ partitions: 4, failure, target });
      let underWay = 0;
      let most = 0;
      target.delay = async (outgoing) => {
        underWay += outgoing.length;
        most = Math.max(most, underWay);
        await Bun.sleep(1);
        underWay -= outgoing.length;
      };
      await run.rule(ruleOf({ order, concurrency: 3, to: TO }));
      await run.put(...many(200));
      await waitFor("all are delivered", () => run.delivered() === 200);
      expect(most).toBe(3);
      if (order !== "none") expectOrder(target.texts);
      expect(run.routes.statuses()[0]?.circuit).toMatchObject({ state: "closed", underWay: 0 });
    });

    test(`four partitions share a target's limit (${shape})`, async () => {
      const target = new Target();
      const run = await setUp({ partitions: 4, failure, target });
      const times: number[] = [];
      target.delay = (outgoing) => {
        for (let each = 0; each < outgoing.length; each++) times.push(performance.now());
        return Promise.resolve();
      };
      await run.rule(ruleOf({ order, to: { ...TO, limit: "20/100ms" } }));
      await run.put(...many(90));
      await waitFor("all are delivered", () => run.delivered() === 90);
      for (const [index, fromMs] of times.entries()) {
        // What is let through reaches the target in the same turn, or little later.
        const inWindow = times.slice(index).filter((at) => at < fromMs + 95);
        expect(inWindow.length).toBeLessThanOrEqual(20);
      }
      expect((times.at(-1) ?? 0) - (times[0] ?? 0)).toBeGreaterThan(390);
      if (order !== "none") expectOrder(target.texts);
    });
  }
}

describe("a batch", () => {
  for (const order of ["partition", "key"] as const) {
    test(`goes when it is full, order ${order}`, async () => {
      const run = await setUp({ failure: "prefix" });
      await run.put(...many(100));
      await run.rule(ruleOf({ order, batch: { messages: 10, wait: "1m" }, to: TO }));
      await waitFor("all are delivered", () => run.delivered() === 100);
      expect(run.target.sizes).toEqual(Array.from({ length: 10 }, () => 10));
      expectOrder(run.target.texts);
    });

    test(`waits for others so long and no longer, order ${order}`, async () => {
      const run = await setUp({ failure: "prefix" });
      await run.rule(ruleOf({ order, batch: { messages: 10, wait: "300ms" }, to: TO }));
      const startMs = performance.now();
      await run.put("a.0");
      await Bun.sleep(100);
      await run.put("b.1", "a.2");
      await waitFor("they are delivered", () => run.delivered() === 3);
      expect(run.target.sizes).toEqual([3]);
      expect(performance.now() - startMs).toBeGreaterThanOrEqual(290);
    });

    test(`is bounded in bytes, and a larger message goes by itself, order ${order}`, async () => {
      const run = await setUp({ failure: "prefix" });
      const long = `l.${"x".repeat(50)}`;
      await run.put("a.0", "b.1", "c.2", long, "d.3", "e.4");
      await run.rule(ruleOf({ order, batch: { bytes: 6, wait: "10ms" }, to: TO }));
      await waitFor("all are delivered", () => run.delivered() === 6);
      expect(run.target.sizes).toEqual([2, 1, 1, 2]);
    });

    test(`that waits is given up by a stop, and goes after it, order ${order}`, async () => {
      const revisions: Revisions = new Map();
      const run = await setUp({ failure: "prefix", revisions });
      await run.rule(ruleOf({ order, batch: { messages: 10, wait: "1m" }, to: TO }));
      await run.put("a.0", "b.1", "a.2");
      await Bun.sleep(50);
      const startMs = performance.now();
      await run.end();
      ends.pop();
      expect(performance.now() - startMs).toBeLessThan(2000);
      expect(run.target.taken).toEqual([]);
      const again = await setUp({ failure: "prefix", revisions, disk: run.disk });
      await again.rule(ruleOf({ order, to: TO }));
      await waitFor("all are delivered", () => again.delivered() === 3);
      expectOrder(again.target.texts);
    });

    test(`that waits goes at once when the rule changes, order ${order}`, async () => {
      const run = await setUp({ failure: "prefix" });
      await run.rule(ruleOf({ order, batch: { messages: 10, wait: "20s" }, to: TO }));
      await run.put("a.0", "b.1");
      await Bun.sleep(50);
      await run.rule(ruleOf({ order, to: TO }));
      await run.put("a.2");
      await waitFor("all are delivered", () => run.delivered() === 3, { timeoutMs: 5000 });
      expect(run.target.sizes[0]).toBe(2);
      expect(run.target.texts).toEqual(["a.0", "b.1", "a.2"]);
    });

    test(`counts as one for limit and concurrency, order ${order}`, async () => {
      const run = await setUp({ failure: "prefix", partitions: 2 });
      await run.put(...many(100));
      const to = { ...TO, batch: { messages: 10 }, concurrency: 1, limit: "100/s" };
      await run.rule(ruleOf({ order, to }));
      await waitFor("all are delivered", () => run.delivered() === 100);
      expect(run.target.underWayMost).toBe(1);
      expect(run.routes.statuses()[0]?.circuit.waits).toBeGreaterThan(0);
    });
  }

  test("is of messages that the rule takes, not of those that it leaves out", async () => {
    const run = await setUp({ failure: "prefix" });
    const where = 'text.startsWith("k1.")';
    await run.rule(ruleOf({ where, batch: { messages: 3, wait: "20s" }, to: TO }));
    for (const name of many(100)) await run.put(name);
    await waitFor("three are delivered", () => run.delivered() === 3);
    expect(run.target.sizes).toEqual([3]);
  });

  test("of a target that answers for each holds one message a key, many keys", async () => {
    const run = await setUp({ failure: "independent" });
    await run.put("a.0", "a.1", "b.2", "c.3", "a.4", "b.5");
    await run.rule(ruleOf({ order: "key", batch: { messages: 50, wait: "20ms" }, to: TO }));
    await waitFor("all are delivered", () => run.delivered() === 6);
    expectOrder(run.target.texts);
    expect(run.target.sizes).toEqual([3, 2, 1]);
  });
});

describe("a target that is down", () => {
  test("is asked by one partition, one message at a time, while the others wait", async () => {
    const target = new Target();
    const run = await setUp({ partitions: 4, failure: "independent", target });
    await run.rule(ruleOf({ order: "key", to: TO }));
    let asked = 0;
    let isUp = false;
    target.answer = () => {
      asked++;
      return isUp ? null : { busyMs: 0, reason: "the target answered 503" };
    };
    await run.put(...many(200));
    await waitFor("it is left alone", () => {
      return run.routes.statuses().every(({ circuit }) => circuit.state === "open");
    });
    for (const status of run.routes.statuses()) {
      expect(status.state).toBe("retrying");
      expect(status.error).toContain("left alone for a while: the target answered 503");
    }
    await Bun.sleep(20);
    const before = asked;
    const openings = run.routes.statuses()[0]?.circuit.openings ?? 0;
    await waitFor("it was asked again", () => {
      return (run.routes.statuses()[0]?.circuit.openings ?? 0) >= openings + 2;
    });
    expect(asked - before).toBe(2);
    isUp = true;
    await waitFor("all are delivered", () => run.delivered() === 200);
    expectOrder(target.texts);
    expect(run.routes.statuses()[0]).toMatchObject({ state: "running", error: null });
  }, 60_000);
});
