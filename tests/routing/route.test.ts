/** Routes: what matches arrives, in order; what fails waits or is buried; nothing is skipped. */
import { afterEach, describe, expect, test } from "bun:test";
import { decodeText, encodeText } from "../../src/message.ts";
import { message, openLog, readAll } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { waitFor } from "../temporary.ts";
import { type Rig, type Revisions, rig, Target } from "./support.ts";

const TO = { bridge: "b", place: "x" };
const QUICK = { delayMin: 1, delayMax: 2, attempts: 3 };
const rigs: Rig[] = [];

afterEach(async () => {
  for (const each of rigs.splice(0)) await each.stop();
});

async function setUp(options: Parameters<typeof rig>[1] & { disk?: MemoryDisk } = {}) {
  const { log } = await openLog(options.disk ?? new MemoryDisk());
  const made = rig(log, options);
  rigs.push(made);
  const put = async (...bodies: string[]): Promise<void> => {
    const sent = bodies.map((body) => message(body.slice(0, 40), { body: encodeText(body) }));
    await made.streams.stream("in").append(sent).durable;
  };
  return { ...made, log, put };
}

/** Waits until the rule's route has finished everything. */
async function drained({ routes }: Rig): Promise<void> {
  await waitFor("the route has passed all", () =>
    routes.statuses().every(({ offset, end }) => offset === end),
  );
}

test("what matches arrives in order, changed by set; the rest is counted as filtered", async () => {
  const run = await setUp();
  await run.rule({
    from: "in",
    where: "body.n % 2 == 0",
    set: { body: { twice: "${body.n * 2}" } },
    to: TO,
  });
  await run.put('{"n":1}', '{"n":2}', '{"n":3}', '{"n":4}', "not json");
  await drained(run);
  expect(run.target.texts).toEqual(['{"twice":4}', '{"twice":8}']);
  const [status] = run.routes.statuses();
  expect(status?.counts).toEqual({
    taken: 5,
    delivered: 2,
    filtered: 3,
    failed: 1,
    deadLettered: 0,
    expired: 0,
    waiting: 0,
    parked: 0,
  });
});

test("a rule made with start latest gets nothing older, with earliest everything", async () => {
  const late = await setUp();
  await late.put("old");
  await late.rule({ from: "in", to: TO });
  await late.put("new");
  await drained(late);
  expect(late.target.texts).toEqual(["new"]);
  const early = await setUp();
  await early.put("old");
  await early.rule({ from: "in", to: TO, start: "earliest" });
  await drained(early);
  expect(early.target.texts).toEqual(["old"]);
});

describe("a target that is down", () => {
  test("is waited for, and gets everything in order when it is back", async () => {
    const target = new Target();
    target.isDown = true;
    const run = await setUp({ target });
    await run.rule({ from: "in", to: TO });
    await run.put("a", "b");
    await waitFor("the route shows its trouble", () =>
      run.routes.statuses().some(({ error }) => error === "the target is down"),
    );
    await run.put("c");
    target.isDown = false;
    await drained(run);
    expect(target.texts).toEqual(["a", "b", "c"]);
  });

  test("does not hold up another target of the same rule", async () => {
    const target = new Target();
    target.isDown = true;
    const run = await setUp({ target });
    await run.rule({ from: "in", to: [TO, { stream: "copy" }] });
    await run.put("a", "b");
    const copy = run.streams.stream("copy").partitions[0];
    await waitFor("the copy is there", () => copy?.offsetEnd === 2);
    expect(target.taken).toEqual([]);
  });

  test("is given up after maxAge, into the dead letters", async () => {
    const target = new Target();
    target.answer = () => ({ busyMs: 1 });
    const run = await setUp({ target });
    await run.rule({ from: "in", to: TO, retry: { ...QUICK, maxAge: "20ms" } });
    await run.put("a");
    await drained(run);
    const dead = run.streams.stream("r.dead").partitions[0];
    expect(dead?.offsetEnd).toBe(1);
  });
});

describe("a message that is refused", () => {
  test("goes to the dead letters with the reason, the rule, its place and the attempts", async () => {
    const target = new Target();
    target.answer = ({ message: { body } }) =>
      decodeText(body ?? new Uint8Array()) === "bad" ? { refused: "it smells" } : null;
    const run = await setUp({ target });
    await run.rule({ from: "in", to: { name: "t", ...TO }, retry: QUICK });
    await run.put("a", "bad", "c");
    await drained(run);
    expect(target.texts).toEqual(["a", "c"]);
    const dead = run.streams.stream("r.dead").partitions[0];
    if (dead === undefined) throw new Error("there is a partition of dead letters");
    const [letter] = await readAll(dead);
    expect(decodeText(letter?.body ?? new Uint8Array())).toBe("bad");
    const headers = Object.fromEntries(
      (letter?.headers ?? []).map(({ name, value }) => [
        name,
        decodeText(value ?? new Uint8Array()),
      ]),
    );
    expect(headers).toEqual({
      "isthmus-reason": "it smells",
      "isthmus-rule": "r",
      "isthmus-target": "t",
      "isthmus-revision": "1",
      "isthmus-attempts": "3",
      "isthmus-position": "in/0/1",
      "isthmus-timestamp": "1700000000000",
    });
    expect(letter?.origin).toMatchObject({ bridge: "rule", address: "r", offset: "1" });
  });

  test("for good is not tried again", async () => {
    const target = new Target();
    let attempts = 0;
    target.answer = () => {
      attempts++;
      return { refused: "never", final: true };
    };
    const run = await setUp({ target });
    await run.rule({ from: "in", to: TO, retry: QUICK });
    await run.put("a");
    await drained(run);
    expect(attempts).toBe(1);
  });

  test("stops the route when it blocks, and goes on when the rule is mended later", async () => {
    const target = new Target();
    target.answer = () => ({ refused: "no" });
    const run = await setUp({ target });
    await run.rule({ from: "in", to: TO, retry: QUICK, onFailure: "block" });
    await run.put("a", "b");
    await waitFor("many attempts", () => run.routes.statuses().some((each) => each.attempts > 5));
    expect(run.routes.statuses()[0]).toMatchObject({ offset: 0, error: "no" });
    target.answer = () => null;
    await drained(run);
    expect(target.texts).toEqual(["a", "b"]);
  });

  test("because its set fails is buried at once", async () => {
    const run = await setUp();
    await run.rule({ from: "in", set: { body: "${body.missing}" }, to: TO });
    await run.put('{"a":1}', '{"missing":"x"}');
    await drained(run);
    expect(run.target.texts).toEqual(["x"]);
    expect(run.streams.stream("r.dead").partitions[0]?.offsetEnd).toBe(1);
  });
});

test("with independent failures one message of a key is unconfirmed at a time", async () => {
  const target = new Target();
  let hasFailed = false;
  target.answer = ({ message: { body } }) => {
    if (decodeText(body ?? new Uint8Array()) !== "k0" || hasFailed) return null;
    hasFailed = true;
    return { refused: "once" };
  };
  const run = await setUp({ target, failure: "independent" });
  await run.rule({ from: "in", to: TO, retry: QUICK, start: "earliest" });
  const keyed = ["k0", "j0", "k1", "j1", "k2"].map((name) =>
    message(name, { key: encodeText(name.slice(0, 1)), body: encodeText(name) }),
  );
  await run.streams.stream("in").append(keyed).durable;
  await drained(run);
  expect(target.texts.filter((text) => text.startsWith("k"))).toEqual(["k0", "k1", "k2"]);
  expect(target.texts.filter((text) => text.startsWith("j"))).toEqual(["j0", "j1"]);
});

describe("a changed rule", () => {
  test("applies to what is appended from then on; older messages keep theirs", async () => {
    const target = new Target();
    const { promise, resolve } = Promise.withResolvers<void>();
    target.hold = promise;
    const run = await setUp({ target });
    const to = { name: "t", ...TO };
    await run.rule({ from: "in", set: { body: "1:${text}" }, to });
    await run.put("a", "b");
    await run.rule({ from: "in", set: { body: "2:${text}" }, to });
    await run.put("c");
    await run.rule({ from: "in", set: { body: "3:${text}" }, to });
    await run.put("d");
    resolve();
    await drained(run);
    expect(target.texts).toEqual(["1:a", "1:b", "2:c", "3:d"]);
  });

  test("that was disabled handles what came meanwhile once it is enabled again", async () => {
    const run = await setUp();
    await run.rule({ from: "in", to: TO });
    await run.put("a");
    await drained(run);
    await run.rule({ from: "in", to: TO, enabled: false });
    await run.put("b");
    expect(run.routes.statuses()[0]?.state).toBe("disabled");
    await run.rule({ from: "in", to: TO, set: { body: "x${text}" } });
    await run.put("c");
    await drained(run);
    expect(run.target.texts).toEqual(["a", "xb", "xc"]);
  });

  test("keeps its cursor; a target that was removed and added starts anew", async () => {
    const run = await setUp();
    await run.rule({ from: "in", to: TO });
    await run.put("a");
    await drained(run);
    await run.rule({ from: "in", to: { stream: "other" } });
    await run.put("b");
    await drained(run);
    await run.rule({ from: "in", to: TO });
    await run.put("c");
    await drained(run);
    expect(run.target.texts).toEqual(["a", "c"]);
  });
});

describe("after a restart", () => {
  test("a route goes on behind what was confirmed, with its counts", async () => {
    const disk = new MemoryDisk();
    const revisions: Revisions = new Map();
    const first = await setUp({ disk, revisions });
    await first.rule({ from: "in", to: TO });
    await first.put("a", "b");
    await drained(first);
    await first.stop();
    await first.log[Symbol.asyncDispose]();
    const second = await setUp({ disk, revisions });
    await second.rule({ from: "in", to: TO });
    await second.put("c");
    await drained(second);
    expect(second.target.texts).toEqual(["c"]);
    expect(second.routes.statuses()[0]?.counts).toMatchObject({ taken: 3, delivered: 3 });
  });

  test("messages that belong to an older revision are handled by it", async () => {
    const disk = new MemoryDisk();
    const revisions: Revisions = new Map();
    const target = new Target();
    target.isDown = true;
    const to = { name: "t", ...TO };
    const first = await setUp({ disk, revisions, target });
    await first.rule({ from: "in", set: { body: "1:${text}" }, to });
    await first.put("a");
    await first.rule({ from: "in", set: { body: "2:${text}" }, to });
    await first.put("b");
    await first.stop();
    await first.log[Symbol.asyncDispose]();
    const second = await setUp({ disk, revisions });
    await second.rule({ from: "in", set: { body: "3:${text}" }, to });
    await drained(second);
    expect(second.target.texts).toEqual(["1:a", "2:b"]);
  });

  test("without a saved cursor repeats no append to a stream", async () => {
    const disk = new MemoryDisk();
    const revisions: Revisions = new Map();
    const first = await setUp({ disk, revisions });
    await first.rule({ from: "in", to: { stream: "copy" }, start: "earliest" });
    await first.put("a", "b");
    await drained(first);
    await first.stop();
    await first.log[Symbol.asyncDispose]();
    const second = await setUp({ disk, revisions: new Map() });
    for (const name of second.log.stateNames("route/")) {
      await second.log.states.save([[name, null]]);
    }
    await second.rule({ from: "in", to: { stream: "copy" }, start: "earliest" });
    await drained(second);
    expect(second.streams.stream("copy").partitions[0]?.offsetEnd).toBe(2);
  });
});

test("messages that retention took are told as a gap, and the route goes on", async () => {
  const run = await setUp();
  await run.put("a");
  const partition = run.log.partition({ stream: "in", index: 0 });
  await partition.roll();
  await run.put("b");
  await run.rule({ from: "in", to: TO, enabled: false, start: "earliest" });
  await partition.dropOldest();
  await run.rule({ from: "in", to: TO });
  await drained(run);
  expect(run.gaps).toEqual([{ from: 0, to: 1, reason: "retention" }]);
  expect(run.target.texts).toEqual(["b"]);
});
