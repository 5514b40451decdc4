/** Lanes by key: what fails stops its own key only, waits out of the way, and comes back. */
import { afterEach, describe, expect, test } from "bun:test";
import type { Outgoing } from "../../src/bridge.ts";
import { laneMessagesMax, lanesMax, waitFinishesNoted } from "../../src/limits.ts";
import { decodeText, encodeText } from "../../src/message.ts";
import { ledgerWarnings } from "../../src/routing/status.ts";
import type { JsonObject } from "../../src/rules/document.ts";
import { message, openLog, readAll } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { waitFor } from "../temporary.ts";
import { type Revisions, type Rig, rig, Target } from "./support.ts";

const TO = { bridge: "b", place: "x" };
const QUICK = { delayMin: 1, delayMax: 2, attempts: 3 };
/** A first failure already waits longer than what is waited for in place. */
const SLOW = { delayMin: "1h", delayMax: "2h", attempts: 3 };
const rigs: Rig[] = [];

afterEach(async () => {
  for (const each of rigs.splice(0)) await each.stop();
});

async function setUp(options: Parameters<typeof rig>[1] & { disk?: MemoryDisk } = {}) {
  const disk = options.disk ?? new MemoryDisk();
  const { log } = await openLog(disk);
  const made = rig(log, { failure: "independent", ...options });
  rigs.push(made);
  /** Each name is a message whose key is its first letter. */
  const put = async (...names: string[]): Promise<void> => {
    const sent = names.map((name) =>
      message(name, { key: encodeText(name.slice(0, 1)), body: encodeText(name) }),
    );
    await made.streams.stream("in").append(sent).durable;
  };
  const status = () => {
    const [first] = made.routes.statuses();
    if (first === undefined) throw new Error("a route runs");
    return first;
  };
  return { ...made, log, disk, put, status };
}

type Run = Awaited<ReturnType<typeof setUp>>;

async function restarted(run: Run, revisions: Revisions, target: Target): Promise<Run> {
  await run.stop();
  await run.log[Symbol.asyncDispose]();
  return await setUp({ disk: run.disk, revisions, target });
}

function bodyOf({ message: { body } }: Outgoing): string {
  return decodeText(body ?? new Uint8Array());
}

/** A target that answers messages of some keys in a way of its own. */
function targetWith(answers: Record<string, "busy" | "refused" | "final">): Target {
  const target = new Target();
  target.answer = (outgoing) => {
    const answer = answers[bodyOf(outgoing).slice(0, 1)];
    if (answer === undefined) return null;
    if (answer === "busy") return { busyMs: 1 };
    return answer === "final" ? { refused: "never", final: true } : { refused: "no" };
  };
  return target;
}

const keyed: JsonObject = { from: "in", to: TO, order: "key", start: "earliest" };

describe("with order: key", () => {
  test("a key that is refused for long is passed by others, batch after batch", async () => {
    const answers: Record<string, "busy" | "refused"> = { k: "busy" };
    const target = targetWith(answers);
    const run = await setUp({ target });
    await run.rule({ ...keyed, retry: SLOW });
    await run.put("k0", "a0", "k1", "b0");
    await waitFor("others have passed", () => target.texts.length === 2);
    await run.put("a1", "k2", "c0");
    await waitFor("all is decided", () => run.status().offset === 7);
    expect(target.texts).toEqual(["a0", "b0", "a1", "c0"]);
    await waitFor("the key waits", () => run.status().counts.waiting === 3);
    expect(run.status()).toMatchObject({ waitingKeys: 1, balanced: true, lagMessages: 3 });
  });

  test("one that is refused for a short time is tried in place, in its order", async () => {
    const target = new Target();
    let refusals = 2;
    target.answer = (outgoing) =>
      bodyOf(outgoing) === "k0" && refusals-- > 0 ? { refused: "not yet" } : null;
    const run = await setUp({ target });
    await run.rule({ ...keyed, retry: { ...QUICK, attempts: 5 } });
    await run.put("k0", "k1", "a0", "k2");
    await waitFor("all are there", () => target.texts.length === 4);
    expect(target.texts.filter((text) => text.startsWith("k"))).toEqual(["k0", "k1", "k2"]);
    expect(target.texts[0]).toBe("a0");
    expect(run.streams.names().some((name) => name.startsWith("$wait.r."))).toBe(true);
    expect(run.status().counts).toMatchObject({ taken: 4, delivered: 4, waiting: 0 });
  });

  test("as many keys as there are lanes are under way at once, and no more", async () => {
    const target = new Target();
    const gate = Promise.withResolvers<void>();
    target.hold = gate.promise;
    const run = await setUp({ target });
    await run.rule(keyed);
    const sent = Array.from({ length: 3 * lanesMax }, (_, index) =>
      message(`m${index}`, { key: encodeText(`key ${index}`), body: encodeText(`m${index}`) }),
    );
    await run.streams.stream("in").append(sent).durable;
    await waitFor("all lanes are busy", () => target.underWay === lanesMax);
    gate.resolve();
    await waitFor("all are there", () => target.texts.length === sent.length);
    expect(target.underWayMost).toBe(lanesMax);
  });

  test("and onFailure: block a refused key stands, whatever the attempts, and others go on", async () => {
    const answers: Record<string, "refused"> = { k: "refused" };
    const target = targetWith(answers);
    const run = await setUp({ target });
    await run.rule({ ...keyed, retry: QUICK, onFailure: "block" });
    await run.put("k0", "a0", "k1");
    await waitFor("many attempts", () => run.status().attempts > 5);
    await run.put("a1");
    await waitFor("others go on", () => target.texts.length === 2);
    expect(run.status()).toMatchObject({ state: "blocked", offset: 0, error: "no" });
    delete answers["k"];
    await waitFor("the key goes on", () => target.texts.length === 4);
    expect(target.texts).toEqual(["a0", "a1", "k0", "k1"]);
  });

  test("a refused message gives up its place as a dead letter, and its key goes on", async () => {
    const target = new Target();
    target.answer = (outgoing) => (bodyOf(outgoing) === "k1" ? { refused: "it smells" } : null);
    const run = await setUp({ target });
    await run.rule({ ...keyed, retry: QUICK });
    await run.put("k0", "k1", "k2");
    await waitFor("all is finished", () => run.status().offset === 3);
    expect(target.texts).toEqual(["k0", "k2"]);
    expect(run.status().counts).toMatchObject({ taken: 3, delivered: 2, deadLettered: 1 });
  });
});

describe("onFailure: park", () => {
  test("holds the key, and lets it go in its order when it is released", async () => {
    const answers: Record<string, "final"> = { k: "final" };
    const target = targetWith(answers);
    const run = await setUp({ target });
    await run.rule({ ...keyed, onFailure: "park" });
    await run.put("k0", "a0", "k1");
    await waitFor("the key is parked", () => run.status().counts.parked === 2);
    await run.put("k2", "a1");
    await waitFor("all of it", () => run.status().counts.parked === 3);
    expect(target.texts).toEqual(["a0", "a1"]);
    expect(run.status()).toMatchObject({ parkedKeys: 1, error: "never", balanced: true });
    delete answers["k"];
    const [partition] = run.streams.stream("in").partitions;
    const route = run.routes.find("r", run.status().target, partition?.id.index ?? 0);
    expect(route?.parked()).toMatchObject([{ lane: "k:k", messages: 3, reason: "never" }]);
    expect(await route?.release("k:other")).toBe(0);
    expect(await route?.release("k:k")).toBe(1);
    await waitFor("they are there", () => target.texts.length === 5);
    expect(target.texts.slice(2)).toEqual(["k0", "k1", "k2"]);
    await run.put("k3");
    await waitFor("the key goes on", () => target.texts.at(-1) === "k3");
    expect(run.status().counts).toMatchObject({ taken: 6, delivered: 6, parked: 0, waiting: 0 });
  });

  test("in the partition's order lets others pass, and no message of the key", async () => {
    const answers: Record<string, "final"> = { k: "final" };
    const target = targetWith(answers);
    const run = await setUp({ target });
    await run.rule({ ...keyed, order: "partition", onFailure: "park" });
    await run.put("a0", "k0", "a1", "k1", "a2");
    await waitFor("all is decided", () => run.status().offset === 5);
    expect(target.texts).toEqual(["a0", "a1", "a2"]);
    delete answers["k"];
    const route = run.routes.find("r", run.status().target, 0);
    expect(await route?.release(null)).toBe(1);
    await waitFor("they are there", () => target.texts.length === 5);
    expect(target.texts.slice(3)).toEqual(["k0", "k1"]);
  });

  test("stays parked through a restart, with the revision that took it", async () => {
    const revisions: Revisions = new Map();
    const answers: Record<string, "final"> = { k: "final" };
    const target = targetWith(answers);
    const run = await setUp({ target, revisions });
    const to = { name: "t", ...TO };
    await run.rule({ ...keyed, to, onFailure: "park", set: { body: "${text} by 1" } });
    await run.put("k0", "k1", "a0");
    await waitFor("the key is parked", () => run.status().counts.parked === 2);
    const again = await restarted(run, revisions, target);
    await again.rule({ ...keyed, to, onFailure: "park", set: { body: "${text} by 2" } });
    await again.put("k2", "a1");
    await waitFor("all is decided", () => again.status().counts.taken === 5);
    await waitFor("it follows", () => again.status().counts.parked === 3);
    delete answers["k"];
    expect(await again.routes.find("r", "t", 0)?.release(null)).toBe(1);
    await waitFor("they are there", () => target.texts.length === 5);
    expect(target.texts).toEqual(["a0 by 1", "a1 by 2", "k0 by 1", "k1 by 1", "k2 by 2"]);
    expect(again.status()).toMatchObject({ balanced: true, counts: { taken: 5, delivered: 5 } });
  });
});

describe("what waits", () => {
  test("keeps its time, its attempts and its order through a restart", async () => {
    const revisions: Revisions = new Map();
    const target = targetWith({ k: "refused" });
    const run = await setUp({ target, revisions });
    await run.rule({ ...keyed, retry: SLOW });
    await run.put("k0", "k1");
    await waitFor("it waits", () => run.status().counts.waiting === 2);
    const again = await restarted(run, revisions, target);
    await again.rule({ ...keyed, retry: SLOW });
    await again.put("k2", "a0");
    await waitFor("the other passes", () => target.texts.includes("a0"));
    await waitFor("it follows", () => again.status().counts.waiting === 3);
    expect(target.texts).toEqual(["a0"]);
    expect(again.status().balanced).toBe(true);
    const name = again.streams.names().find((each) => each.startsWith("$wait."));
    const [partition] = again.streams.stream(name ?? "").partitions;
    if (partition === undefined) throw new Error("a stream has a partition");
    const held = await readAll(partition);
    expect(held.map(({ body }) => decodeText(body ?? new Uint8Array()))).toEqual([
      "k0",
      "k1",
      "k2",
    ]);
    expect(JSON.parse(held[0]?.origin?.address ?? "").s.t.slice(0, 2)).toEqual([1, 1]);
  });

  test("that was moved before a crash, and not saved, is neither sent twice nor lost", async () => {
    const revisions: Revisions = new Map();
    const answers: Record<string, "busy"> = { k: "busy" };
    const target = targetWith(answers);
    const first = await setUp({ target, revisions });
    const before = first.disk;
    await first.rule({ ...keyed, retry: SLOW });
    const [key] = first.log.stateNames("route/");
    const saved = await first.log.states.load(key ?? "");
    await first.put("k0", "a0", "k1");
    await waitFor("it waits", () => first.status().counts.waiting === 2);
    await first.stop();
    // As after a crash: the record of before is all there is.
    await first.log.states.save([[key ?? "", saved]]);
    await first.log[Symbol.asyncDispose]();
    const again = await setUp({ disk: before, revisions, target });
    await again.rule({ ...keyed, retry: SLOW });
    await waitFor("all is decided", () => again.status().offset === 3);
    expect(again.status()).toMatchObject({
      balanced: true,
      counts: { taken: 3, delivered: 1, waiting: 2 },
    });
    expect(target.texts).toEqual(["a0", "a0"]);
  });

  test("and is lost with its stream is told, and shown as a ledger that does not balance", async () => {
    const revisions: Revisions = new Map();
    const run = await setUp({ target: targetWith({ k: "final" }), revisions });
    await run.rule({ ...keyed, onFailure: "park" });
    await run.put("k0", "k1");
    await waitFor("it is parked", () => run.status().counts.parked === 2);
    await run.stop();
    await run.log[Symbol.asyncDispose]();
    for (const path of run.disk.paths()) if (path.includes("$wait.")) await run.disk.remove(path);
    const again = await setUp({ disk: run.disk, revisions });
    await again.rule({ ...keyed, onFailure: "park" });
    await waitFor("it is seen", () => !again.status().balanced);
    expect(again.warnings.join()).toContain("are gone");
    expect(ledgerWarnings([again.status()])).toMatchObject([{ code: "ledger" }]);
  });

  test("is thrown away from disk once it has gone", async () => {
    const answers: Record<string, "final"> = { k: "final" };
    const target = targetWith(answers);
    const run = await setUp({ target });
    await run.rule({ ...keyed, onFailure: "park" });
    await run.put("k0");
    await waitFor("it is parked", () => run.status().counts.parked === 1);
    const name = run.streams.names().find((each) => each.startsWith("$wait.")) ?? "";
    expect(run.routes.passed(name, 0)).toBe(0);
    delete answers["k"];
    await run.routes.find("r", run.status().target, 0)?.release(null);
    await waitFor("it is there", () => target.texts.length === 1);
    const end = run.streams.stream(name).partitions[0]?.offsetEnd ?? 0;
    await waitFor("nothing of it is needed", () => run.routes.passed(name, 0) === end);
  });
});

describe("many messages", () => {
  test("of a key that rests leave the way when nothing else fits beside them", async () => {
    const target = targetWith({ k: "busy" });
    const run = await setUp({ target });
    await run.rule({ ...keyed, retry: { delayMin: "4s", delayMax: "5s" } });
    const names = Array.from({ length: laneMessagesMax + 500 }, (_, index) => `k${index}`);
    await run.put(...names);
    await run.put("a0");
    await waitFor("the other passes", () => target.texts.length === 1);
    await waitFor("all is decided", () => run.status().lagMessages === names.length);
    await waitFor("the rest follows", () => run.status().offset === names.length + 1);
    expect(run.status()).toMatchObject({ balanced: true, counts: { waiting: names.length } });
  });

  test("that were released beside others that stay are counted right after a crash", async () => {
    const revisions: Revisions = new Map();
    const answers: Record<string, "final"> = { k: "final", j: "final" };
    const target = targetWith(answers);
    const run = await setUp({ target, revisions });
    await run.rule({ ...keyed, onFailure: "park" });
    const count = 3 * waitFinishesNoted;
    await run.put("j0", "j1");
    await run.put(...Array.from({ length: count }, (_, index) => `k${index}`));
    await waitFor("both keys are parked", () => run.status().counts.parked === count + 2);
    delete answers["k"];
    await run.routes.find("r", run.status().target, 0)?.release("k:k");
    await waitFor("they are there", () => target.texts.length === count);
    await waitFor("that is saved", async () => {
      const [key = ""] = run.log.stateNames("route/");
      const saved = await run.log.states.load(key);
      return decodeText(saved ?? new Uint8Array()).includes(`"delivered":${count}`);
    });
    // Resolves once everything that was saved before is on disk, too.
    await run.log.states.save([]);
    const disk = run.disk.kill();
    const again = await setUp({ disk, revisions, target });
    await again.rule({ ...keyed, onFailure: "park" });
    await again.put("a0");
    await waitFor("it goes on", () => target.texts.at(-1) === "a0");
    expect(target.texts).toHaveLength(count + 1);
    expect(again.status()).toMatchObject({
      balanced: true,
      counts: { taken: count + 3, delivered: count + 1, parked: 2 },
    });
  });
});

describe("time", () => {
  test("that has passed for a message finishes it as expired, unsent", async () => {
    for (const order of ["partition", "key", "none"]) {
      const run = await setUp();
      await run.rule({ ...keyed, order });
      const late = message("late", { properties: { expiresAtMs: 1000 } });
      const good = message("good", { properties: { expiresAtMs: 4e12 }, body: encodeText("good") });
      await run.streams.stream("in").append([late, good]).durable;
      await waitFor("all is decided", () => run.status().offset === 2);
      expect(run.target.texts).toEqual(["good"]);
      expect(run.status().counts).toMatchObject({ taken: 2, delivered: 1, expired: 1 });
    }
  });

  test("that a delay gives a message holds its key, and no other", async () => {
    const run = await setUp();
    await run.rule({
      ...keyed,
      notBefore: 'text == "k0" ? timestamp("2999-01-01T00:00:00Z") : null',
    });
    await run.put("k0", "a0", "k1", "a1");
    await waitFor("others pass", () => run.target.texts.length === 2);
    await waitFor("the key waits", () => run.status().counts.waiting === 2);
    expect(run.target.texts).toEqual(["a0", "a1"]);
  });

  test("of a short delay is waited for in the partition's order, too", async () => {
    for (const order of ["partition", "key"]) {
      const run = await setUp();
      const startedMs = Date.now();
      await run.rule({ ...keyed, order, delay: "50ms" });
      await run.put("a0", "a1");
      await waitFor("they are there", () => run.target.texts.length === 2);
      expect(Date.now() - startedMs).toBeGreaterThanOrEqual(50);
      expect(run.target.texts).toEqual(["a0", "a1"]);
    }
  });
});
