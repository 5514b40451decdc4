/** Notes of deliveries: never behind the cursor, bounded, and never in the way. */
import { expect, test } from "bun:test";
import { systemClock } from "../../src/clock.ts";
import { LimitError } from "../../src/errors.ts";
import type { FileLog } from "../../src/log/files.ts";
import type { Partition } from "../../src/log/log.ts";
import { Streams } from "../../src/log/stream.ts";
import { encodeText } from "../../src/message.ts";
import { Journeys } from "../../src/routing/journey.ts";
import { JourneyLog } from "../../src/routing/journey-log.ts";
import { notesIn, type SavedNotes, SentRun } from "../../src/routing/journey-record.ts";
import { Progress } from "../../src/routing/progress.ts";
import { routeKey } from "../../src/routing/route-names.ts";
import { message, openLog } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { Random } from "../sim/random.ts";
import { waitFor } from "../temporary.ts";
import { rig, Target } from "./support.ts";

const TO = { name: "t", bridge: "b", place: "x" };

/** Routes of one rule that take notes, over a log. */
function noting(log: FileLog, target = new Target()) {
  const warnings: string[] = [];
  const streams = new Streams(log);
  const journey = new JourneyLog(streams, systemClock, (each) => warnings.push(each));
  const made = rig(log, { target, journey, streams });
  const put = async (count: number): Promise<void> => {
    const all = Array.from({ length: count }, (_, index) => message(`m${index}`));
    await made.streams.stream("in").append(all).durable;
  };
  const journeys = new Journeys({ ...made, clock: systemClock });
  return { ...made, journey, journeys, put, warnings };
}

async function passed({ routes }: ReturnType<typeof noting>): Promise<void> {
  await waitFor("the route has passed all", () =>
    routes.statuses().every(({ offset, end }) => offset === end),
  );
}

function inputOf(streams: Streams): Partition {
  const [partition] = streams.stream("in").partitions;
  if (partition === undefined) throw new Error("no partition");
  return partition;
}

/** The first offset that the route has not finished, as its state says. */
async function savedNext(log: FileLog, partition: Partition): Promise<number> {
  const saved = await log.states.load(routeKey("r", "t", partition));
  return saved === null ? 0 : (Progress.decode(saved, partition)?.next ?? 0);
}

test("a cursor on disk never passes a delivery that is not noted, wherever the power is cut", async () => {
  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 1e9));
  const random = new Random(seed);
  let checked = 0;
  for (let round = 0; round < 20; round++) {
    const where = `seed ${seed}, round ${round}: run again with SEED=${seed}`;
    const disk = new MemoryDisk();
    const { log } = await openLog(disk);
    const run = noting(log);
    await run.rule({ from: "in", to: TO });
    for (let left = 1 + random.below(5); left > 0; left--) {
      await run.put(1 + random.below(600));
      for (let turns = random.below(20); turns > 0; turns--) await Bun.sleep(0);
    }
    const running = inputOf(run.streams);
    // In every other round some progress is saved for sure before the power goes.
    if (round % 2 === 0) {
      await waitFor("progress is saved", async () => (await savedNext(log, running)) > 0);
      // What was handed over before is on disk with it.
      await log.states.save([["fence", encodeText("x")]]);
    }
    const cut = disk.crash(random);
    await run.stop();
    const after = (await openLog(cut)).log;
    const streams = new Streams(after);
    const next = await savedNext(after, inputOf(streams));
    const notes = new JourneyLog(streams, systemClock, () => undefined);
    for (let offset = 0; offset < next; offset += 1 + random.below(50)) {
      const found = await notes.notesOf({ stream: "in", partition: 0, offset }, 0);
      checked++;
      if (found.notes.some(({ event }) => event === "sent")) continue;
      throw new Error(`${where}: ${offset} of ${next} is not noted`);
    }
    await after[Symbol.asyncDispose]();
  }
  expect(checked).toBeGreaterThan(0);
});

test("what can't be noted is counted and told once, and holds up nothing", async () => {
  const { log } = await openLog(new MemoryDisk());
  const streams = new Streams(log);
  const warnings: string[] = [];
  const journey = new JourneyLog(streams, systemClock, (each) => warnings.push(each));
  streams.stream("$journey").guard = () => {
    throw new LimitError("rate-limited", "the disk is full");
  };
  const made = rig(log, { journey, streams });
  await made.rule({ from: "in", to: TO });
  for (const id of ["a", "b", "c"]) {
    await made.streams.stream("in").appendOne(message(id)).durable;
    await waitFor("it came", () => made.target.taken.some((each) => each.message.id === id));
  }
  await made.stop();
  expect(journey.dropped).toBe(3);
  expect(warnings).toEqual(["journeys are not noted for now: the disk is full"]);
  expect(made.routes.journey).toBe(journey);
});

test("failures are noted one by one at first, then at powers of two", async () => {
  const { log } = await openLog(new MemoryDisk());
  const target = new Target();
  let failures = 0;
  target.answer = () => (++failures <= 40 ? { busyMs: 0, reason: "not now" } : null);
  const run = noting(log, target);
  await run.rule({ from: "in", to: TO, retry: { delayMin: 1, delayMax: 1 } });
  await run.put(1);
  await passed(run);
  const { notes } = await run.journey.notesOf({ stream: "in", partition: 0, offset: 0 }, 0);
  expect(notes.map(({ event }) => event)).toEqual([
    ...Array.from({ length: 17 }, () => "failed" as const),
    "sent",
  ]);
  expect(notes[0]).toMatchObject({ detail: "not now", attempts: 0, revision: 1 });
  await run.stop();
});

test("a message is told by the revision that it belonged to, also when nothing was sent", async () => {
  const { log } = await openLog(new MemoryDisk());
  const run = noting(log);
  await run.rule({ from: "in", where: "body.n > 1", to: TO });
  const put = async (body: string): Promise<void> => {
    const sent = message(body, { body: encodeText(body) });
    await run.streams.stream("in").appendOne(sent).durable;
  };
  for (let n = 0; n < 10; n++) {
    await put(`{"n":${n % 3}}`);
    if (n % 2 === 1) await run.rule({ from: "in", where: `body.n > ${n % 4}`, to: TO });
  }
  await passed(run);
  const told: (string | number | null | undefined)[][] = [];
  // Revisions of the test's rules are not kept by a store: what decided is asked of the notes.
  for (let offset = 0; offset < 10; offset++) {
    const { routes } = await run.journeys.at({ stream: "in", partition: 0, offset });
    told.push([routes[0]?.revision, routes[0]?.matched, routes[0]?.fate]);
  }
  expect(told.map(([revision]) => revision)).toEqual([1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
  expect(
    told.filter(([, matched, fate]) => (matched === "yes") !== (fate === "delivered")),
  ).toEqual([]);
  await run.stop();
});

test("an id is found by the time in it, or among the newest", async () => {
  const { log } = await openLog(new MemoryDisk());
  const run = noting(log);
  const ids = [Bun.randomUUIDv7(), "own-id", Bun.randomUUIDv7()];
  for (const id of ids) await run.streams.stream("in").appendOne(message(id)).durable;
  const { signal } = new AbortController();
  for (const [offset, id] of ids.entries()) {
    const found = await run.journeys.find(id, [run.streams.stream("in")], signal);
    expect(found).toMatchObject({
      places: [{ stream: "in", partition: 0, offset }],
      complete: true,
    });
  }
  const old = await run.journeys.find(
    "018bcfe5-6800-7000-8000-000000000000",
    [run.streams.stream("in")],
    signal,
  );
  expect(old).toMatchObject({ places: [], searched: 0, complete: true });
  await run.stop();
});

test("confirmations in a row are one item, and each is read back as it was", () => {
  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 1e9));
  const random = new Random(seed);
  for (let round = 0; round < 300; round++) {
    const sent: { offset: number; ms: number; place: string | null }[] = [];
    let [offset, ms, number] = [0, 0, random.below(1000)];
    for (let left = random.below(40); left > 0; left--) {
      offset += random.chance(0.8) ? 1 : 1 + random.below(3);
      ms += random.chance(0.9) ? 0 : 1;
      number += random.chance(0.8) ? 1 : random.below(3);
      const places = [`partition 0 offset ${number}`, "status 200", null];
      sent.push({ offset, ms, place: places[random.below(10) < 7 ? 0 : random.below(3)] ?? null });
    }
    const runs: SentRun[] = [];
    for (const { offset: at, ms: when, place } of sent) {
      if (runs.at(-1)?.take(at, when, place) !== true) runs.push(new SentRun(at, when, place));
    }
    const saved: SavedNotes = {
      r: "r",
      t: "t",
      v: 1,
      e: "sent",
      b: 1000,
      m: runs.map(({ item }) => item),
    };
    const text = JSON.stringify(saved);
    const read = sent.map(({ offset: at }) =>
      notesIn(text, at).map(({ atMs, detail }) => ({ offset: at, ms: atMs - 1000, place: detail })),
    );
    const where = `seed ${seed}, round ${round}: run again with SEED=${seed}`;
    expect({ where, read }).toEqual({ where, read: sent.map((each) => [each]) });
    expect(notesIn(text, offset + 1)).toEqual([]);
  }
});
