/** What the notes of journeys cost deliveries: a route to a stream, the fastest target. */
import { systemClock } from "../../src/clock.ts";
import { realDisk } from "../../src/log/disk.ts";
import { Streams } from "../../src/log/stream.ts";
import { JourneyLog } from "../../src/routing/journey-log.ts";
import { message, openLog } from "../log/support.ts";
import { rig } from "../routing/support.ts";
import { temporaryFolder, waitFor } from "../temporary.ts";
import { inTurns, type Row, short } from "./table.ts";

const MESSAGES = 50_000;
const ROUNDS = 7;
const BATCH = 1000;

/** Measures deliveries with notes beside those without. */
export async function benchJourney(): Promise<Row> {
  let bytes = 0;
  await rate(true);
  const { first, second, ratio } = await inTurns(
    ROUNDS,
    () => rate(true, (noted) => (bytes = noted)),
    () => rate(false),
  );
  return {
    what: "deliveries with the notes of their journeys, share of those without",
    value: ratio,
    bound: 0.9,
    detail: `${short(first)} and ${short(second)} messages/s; ${(bytes / MESSAGES).toFixed(0)} bytes a delivery`,
  };
}

/** Messages a second through one route, from the first to the last. */
async function rate(isNoted: boolean, onBytes: (bytes: number) => void = () => undefined) {
  await using folder = await temporaryFolder("journey-bench");
  const { log } = await openLog(realDisk, folder.path);
  const journey = new JourneyLog(new Streams(log), systemClock, console.error);
  const run = rig(log, isNoted ? { journey } : {});
  const stream = run.streams.stream("in");
  const body = new Uint8Array(200);
  for (let at = 0; at < MESSAGES; at += BATCH) {
    const batch = Array.from({ length: BATCH }, (_, index) => message(`m${at + index}`, { body }));
    await stream.append(batch).durable;
  }
  const startedMs = performance.now();
  await run.rule({ from: "in", start: "earliest", to: { stream: "out" } });
  const isDone = (): boolean => run.routes.statuses().every(({ offset }) => offset === MESSAGES);
  await waitFor("all came", isDone, { timeoutMs: 60_000 });
  const value = MESSAGES / ((performance.now() - startedMs) / 1000);
  await run.stop();
  const noted = log.all().find(({ id }) => id.stream === "$journey")?.byteLength ?? 0;
  onBytes(noted);
  await log[Symbol.asyncDispose]();
  return value;
}
