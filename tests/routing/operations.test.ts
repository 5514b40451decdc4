/** What operators do to routes, and what they send again: durable, once, and by the ledger. */
import { afterEach, expect, test } from "bun:test";
import { systemClock } from "../../src/clock.ts";
import { ConflictError, NotFoundError, OffsetError } from "../../src/errors.ts";
import { decodeText, encodeText } from "../../src/message.ts";
import type { JobRecord, JobWanted } from "../../src/routing/job.ts";
import type { Span } from "../../src/routing/letters.ts";
import { Operations } from "../../src/routing/operations.ts";
import { message, openLog, readAll } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { waitFor } from "../temporary.ts";
import { type Rig, type Revisions, rig, Target } from "./support.ts";

const TO = { bridge: "b", place: "x", name: "t" };
const QUICK = { delayMin: 1, delayMax: 2, attempts: 1 };
const ALL = { rule: "r", target: null };
const ends: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

async function setUp(
  options: Parameters<typeof rig>[1] & { disk?: MemoryDisk; revisions?: Revisions } = {},
) {
  const { log } = await openLog(options.disk ?? new MemoryDisk());
  const made = rig(log, options);
  const { routes, streams } = made;
  const operations = new Operations({
    routes,
    streams,
    states: log.states,
    clock: systemClock,
    random: Math.random,
    store: { current: () => ({ rules: new Map() }) },
    exclusively: (work) => work(),
    events: { info: () => undefined, warn: (text) => made.warnings.push(text) },
  });
  const stop = async (): Promise<void> => {
    await operations.jobs.stop();
    await made.stop();
  };
  ends.push(stop);
  const put = async (...bodies: string[]): Promise<void> => {
    const sent = bodies.map((body) =>
      message(`id-${body}`, { key: encodeText(body.slice(0, 1)), body: encodeText(body) }),
    );
    await made.streams.stream("in").append(sent).durable;
  };
  return { ...made, log, operations, put, stop };
}

type Run = Awaited<ReturnType<typeof setUp>>;

async function settled({ routes }: Pick<Rig, "routes">): Promise<void> {
  await waitFor("all is finished", () =>
    routes.statuses().every((each) => each.offset === each.end && each.counts.waiting === 0),
  );
}

function spans({ streams }: Rig, stream: string): Span[] {
  return streams
    .stream(stream)
    .partitions.map(({ epoch, offsetEnd }) => ({ epoch, next: 0, end: offsetEnd }));
}

function wanted(kind: JobWanted["kind"], stream: string, more: Partial<JobWanted> = {}): JobWanted {
  const none = { target: null, where: null, reason: null, set: null, again: false, rate: null };
  return { ...none, kind, stream, rule: "r", ...more };
}

async function done(run: Run, asked: JobWanted): Promise<JobRecord> {
  const { id } = await run.operations.jobs.begin(asked, spans(run, asked.stream), "me");
  await waitFor("the job has ended", () => run.operations.jobs.get(id).state !== "running");
  await settled(run);
  return run.operations.jobs.get(id);
}

function balance({ routes }: Rig): void {
  for (const { balanced, counts } of routes.statuses()) {
    const { taken, delivered, filtered, deadLettered, expired, waiting, parked } = counts;
    expect(taken).toBe(delivered + filtered + deadLettered + expired + waiting + parked);
    expect(balanced).toBe(true);
  }
}

const headersOf = (run: Rig, index: number): Record<string, string> =>
  Object.fromEntries(
    (run.target.taken[index]?.message.headers ?? []).map(({ name, value }) => [
      name,
      decodeText(value ?? new Uint8Array()),
    ]),
  );

for (const order of ["partition", "key", "none"] as const) {
  test(`a paused route with order ${order} sends nothing until it is resumed, after a restart, too`, async () => {
    const disk = new MemoryDisk();
    const target = new Target();
    const revisions: Revisions = new Map();
    const first = await setUp({ disk, target, revisions });
    await first.rule({ from: "in", order, start: "earliest", to: TO });
    await first.put("a1");
    await settled(first);
    expect(await first.operations.setPaused(ALL, true, "me")).toBe(1);
    await first.put("a2", "b1");
    expect(first.routes.statuses()[0]?.state).toBe("paused");
    await ends.pop()?.();
    await first.log[Symbol.asyncDispose]();
    const second = await setUp({ disk, target, revisions: new Map() });
    await second.rule({ from: "in", order, start: "earliest", to: TO });
    await second.put("b2");
    expect(second.routes.statuses()[0]?.state).toBe("paused");
    expect(target.texts).toEqual(["a1"]);
    await second.operations.setPaused(ALL, false, "me");
    await settled(second);
    expect(target.texts.toSorted()).toEqual(["a1", "a2", "b1", "b2"]);
    balance(second);
  });
}

test("a pause ends no send that is under way, and its messages are not sent twice", async () => {
  const run = await setUp();
  const { promise, resolve } = Promise.withResolvers<void>();
  run.target.hold = promise;
  await run.rule({ from: "in", order: "key", start: "earliest", to: TO });
  await run.put("a1");
  await waitFor("it is under way", () => run.target.underWay === 1);
  await run.operations.setPaused(ALL, true, "me");
  resolve();
  await settled(run);
  await run.operations.setPaused(ALL, false, "me");
  await run.put("a2");
  await settled(run);
  expect(run.target.texts).toEqual(["a1", "a2"]);
});

test("seek says what it would repeat and skip, then does it; streams get repeats as well", async () => {
  const run = await setUp();
  await run.rule({ from: "in", start: "earliest", to: [TO, { stream: "out" }] });
  await run.put("a1", "a2", "a3", "a4");
  await settled(run);
  const back = { partition: 0, offset: 1 };
  const dry = await run.operations.seek(ALL, back, { dryRun: true, by: "me" });
  expect(dry.map(({ repeated, skipped }) => [repeated, skipped])).toEqual([
    [3, 0],
    [3, 0],
  ]);
  await run.put("a5");
  await settled(run);
  expect(run.target.texts).toHaveLength(5);
  await run.operations.seek(ALL, back, { dryRun: false, by: "me" });
  await settled(run);
  expect(run.target.texts).toEqual(["a1", "a2", "a3", "a4", "a5", "a2", "a3", "a4", "a5"]);
  expect(await readAll(run.log.partition({ stream: "out", index: 0 }))).toHaveLength(9);
  balance(run);
  await run.operations.setPaused(ALL, true, "me");
  await run.put("a6", "a7");
  const [step] = await run.operations.seek(ALL, "latest", { dryRun: false, by: "me" });
  expect(step?.skipped).toBe(2);
  await run.operations.setPaused(ALL, false, "me");
  await run.put("a8");
  await settled(run);
  expect(run.target.texts.at(-1)).toBe("a8");
  expect(run.target.texts).not.toContain("a6");
});

test("what waits survives a seek over it, and the ledger stays right through a restart", async () => {
  const disk = new MemoryDisk();
  const target = new Target();
  let isRefusing = true;
  target.answer = ({ message: { body } }) => {
    const isBad = isRefusing && decodeText(body ?? new Uint8Array()).startsWith("b");
    return isBad ? { refused: "no b" } : null;
  };
  const rule = {
    from: "in",
    order: "key",
    onFailure: "park",
    start: "earliest",
    retry: QUICK,
    to: TO,
  };
  const first = await setUp({ disk, target });
  await first.rule(rule);
  await first.put("a1", "b1", "b2", "a2");
  await waitFor("b is parked", () => first.routes.statuses()[0]?.counts.parked === 2);
  const how = { dryRun: false, by: "me" };
  await first.operations.seek(ALL, "earliest", how);
  await waitFor("a is repeated, b waits twice", () => {
    const counts = first.routes.statuses()[0]?.counts;
    return counts?.delivered === 4 && counts.parked === 4;
  });
  balance(first);
  await ends.pop()?.();
  await first.log[Symbol.asyncDispose]();
  const second = await setUp({ disk, target });
  await second.rule(rule);
  await waitFor("it has begun", () => second.operations.parked(ALL)[0]?.keys.length === 1);
  balance(second);
  expect(second.routes.statuses()[0]?.counts.parked).toBe(4);
  isRefusing = false;
  expect(await second.operations.release(ALL, null, "me")).toBe(1);
  await settled(second);
  const of = (key: string): string[] => target.texts.filter((text) => text.startsWith(key));
  expect(of("b")).toEqual(["b1", "b2", "b1", "b2"]);
  expect(of("a")).toEqual(["a1", "a2", "a1", "a2"]);
  balance(second);
});

test("operations name what is not there", async () => {
  const run = await setUp();
  await run.rule({ from: "in", to: TO });
  const other = { rule: "r", target: "nobody" };
  expect(run.operations.setPaused(other, true, "me")).rejects.toThrow('rule r has "t"');
  expect(run.operations.setPaused({ rule: "x", target: null }, true, "me")).rejects.toThrow(
    NotFoundError,
  );
  const far = { partition: 0, offset: 99 };
  const how = { dryRun: false, by: "me" };
  expect(run.operations.seek(ALL, far, how)).rejects.toThrow(OffsetError);
  const none = { partition: 7, offset: 0 };
  expect(run.operations.seek(ALL, none, how)).rejects.toThrow(NotFoundError);
  expect(ConflictError).toBeDefined();
});

test("dead letters go again to the target that failed, once, marked, and as the rule stands now", async () => {
  const run = await setUp();
  run.target.answer = ({ message: { body } }) =>
    decodeText(body ?? new Uint8Array()).includes("bad") ? { refused: "bad body" } : null;
  const to = [TO, { stream: "copy" }];
  await run.rule({ from: "in", start: "earliest", retry: QUICK, to });
  await run.put("a-bad", "b-bad", "c-fine");
  await settled(run);
  expect(run.target.texts).toEqual(["c-fine"]);
  const asked = wanted("redrive", "r.dead");
  const signal = new AbortController().signal;
  const dry = await run.operations.jobs.survey(asked, spans(run, "r.dead"), signal);
  expect(dry.counts).toMatchObject({ read: 2, sent: 2, skipped: 0 });
  expect(dry.samples.map(({ place, refused }) => [place, refused])).toEqual([
    ["0/0", null],
    ["0/1", null],
  ]);
  // Still bad: each fails again and is another dead letter.
  expect((await done(run, { ...asked, where: 'key == "a"' })).counts).toMatchObject({ sent: 1 });
  expect(await readAll(run.log.partition({ stream: "r.dead", index: 0 }))).toHaveLength(3);
  const fixed = { ...asked, set: { body: "${text.replace('bad', 'good')}" } };
  const job = await done(run, fixed);
  expect(job.counts).toMatchObject({ read: 3, sent: 2, skipped: 1 });
  expect(run.target.texts.toSorted()).toEqual(["a-good", "b-good", "c-fine"]);
  const marks = [1, 2].map((index) => headersOf(run, index)["isthmus-redriven"]);
  expect(marks).toEqual(["r.dead/0/1", "r.dead/0/2"]);
  expect(headersOf(run, 1)["isthmus-reason"]).toBeUndefined();
  expect(await readAll(run.log.partition({ stream: "copy", index: 0 }))).toHaveLength(3);
  expect((await done(run, fixed)).counts).toMatchObject({ sent: 0, skipped: 3 });
  expect(run.target.taken).toHaveLength(3);
  expect((await done(run, { ...fixed, again: true })).counts).toMatchObject({ sent: 3 });
  expect(run.target.taken).toHaveLength(6);
  balance(run);
});

test("a replay sends a window by the rule as it stands, marked, and moves no cursor", async () => {
  const run = await setUp();
  await run.rule({
    from: "in",
    start: "latest",
    where: 'text != "a2"',
    to: [TO, { stream: "out" }],
  });
  await run.put("a1", "a2", "b1", "c1");
  await settled(run);
  const before = run.routes.statuses().map(({ offset }) => offset);
  const job = await done(
    run,
    wanted("replay", "in", { where: 'key != "c"', rate: { count: 500, perMs: 1000 } }),
  );
  expect(job).toMatchObject({ state: "done", error: null });
  expect(job.counts).toEqual({ read: 4, sent: 2, skipped: 1, filtered: 1, failed: 0 });
  expect(run.target.texts).toEqual(["a1", "b1", "c1", "a1", "b1"]);
  expect(headersOf(run, 3)["isthmus-replayed"]).toBe(`${job.id}/in/0/0`);
  expect(headersOf(run, 0)["isthmus-replayed"]).toBeUndefined();
  expect(await readAll(run.log.partition({ stream: "out", index: 0 }))).toHaveLength(5);
  expect(run.routes.statuses().map(({ offset }) => offset)).toEqual(before);
  balance(run);
});

test("a replay keeps to its rate, and without one takes many messages a step", async () => {
  const run = await setUp();
  await run.rule({ from: "in", start: "latest", to: TO });
  await run.put(...Array.from({ length: 600 }, (_, n) => `${n % 10} ${n}`));
  await settled(run);
  const taken = run.target.taken.length;
  const saved: string[] = [];
  const save = run.log.states.save.bind(run.log.states);
  run.log.states.save = (entries) => {
    const all = [...entries];
    saved.push(...all.map(([name]) => name).filter((name) => name.startsWith("job/")));
    return save(all);
  };
  expect((await done(run, wanted("replay", "in"))).counts).toMatchObject({ sent: 600 });
  // When it begins, where it has come to, and its end.
  expect(saved).toHaveLength(3);
  const startedMs = performance.now();
  await done(run, wanted("replay", "in", { rate: { count: 1000, perMs: 1000 } }));
  expect(performance.now() - startedMs).toBeGreaterThan(490);
  expect(run.target.taken).toHaveLength(taken + 1200);
  balance(run);
});

test("another stream can be replayed to a rule, whose messages know where they stood", async () => {
  const run = await setUp();
  run.streams.define("old", 3);
  await run.rule({
    from: "in",
    set: { headers: { at: "${stream}/${partition}/${offset}" } },
    to: TO,
  });
  const sent = ["x", "y", "z"].map((body) =>
    message(body, { key: encodeText(body), body: encodeText(body) }),
  );
  await run.streams.stream("old").append(sent).durable;
  await done(run, wanted("replay", "old"));
  expect(run.target.texts.toSorted()).toEqual(["x", "y", "z"]);
  const places = [0, 1, 2].map((index) => headersOf(run, index)["at"] ?? "");
  expect(places.every((place) => /^old\/[0-2]\/0$|^old\/[0-2]\/[12]$/.test(place))).toBe(true);
});

test("a replay waits while its rule is disabled or paused, and ends when it is cancelled", async () => {
  const run = await setUp();
  await run.rule({ from: "in", to: TO });
  await run.put("a1", "a2");
  await settled(run);
  await run.rule({ from: "in", to: TO, enabled: false });
  const asked = wanted("replay", "in");
  const { id } = await run.operations.jobs.begin(asked, spans(run, "in"), "me");
  await waitFor("it says why", () => run.operations.jobs.get(id).error !== null);
  await run.rule({ from: "in", to: TO });
  await waitFor("it is done", () => run.operations.jobs.get(id).state === "done");
  await settled(run);
  expect(run.target.texts).toEqual(["a1", "a2", "a1", "a2"]);
  const slow = { ...asked, rate: { count: 1, perMs: 3_600_000 } };
  const second = await run.operations.jobs.begin(slow, spans(run, "in"), "me");
  await waitFor("one is sent", () => run.target.taken.length === 5);
  expect((await run.operations.jobs.cancel(second.id, "me")).state).toBe("cancelled");
  expect(run.operations.jobs.list().map(({ state }) => state)).toEqual(["cancelled", "done"]);
});
