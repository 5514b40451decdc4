/**
 * The log by itself, in this process and on the disk of the temporary folder: group commit, one
 * appender, large batches and reading, beside what fio reaches on the same disk in the same minute.
 */
import { realDisk } from "../../src/log/disk.ts";
import type { FileLog } from "../../src/log/files.ts";
import type { Partition } from "../../src/log/log.ts";
import { encodeText, type Message } from "../../src/message.ts";
import { message, openLog } from "../log/support.ts";
import { temporaryFolder } from "../temporary.ts";
import { inTurns, median, type Row, short } from "./table.ts";

const ROUNDS = 5;
const SECONDS = 1.5;
const BODY = new Uint8Array(1024).fill(120);
const LARGE_MESSAGES = 1000;
const READ_MESSAGES = 300_000;
const CURSORS = 400;
/** As often as the gateway gathers states. */
const TICK_MS = 50;

const MESSAGE: Message = message("01900000-0000-7000-8000-000000000000", {
  body: BODY,
  headers: ["one", "two", "three"].map((name) => ({ name, value: encodeText("value") })),
});
const LARGE = Array.from({ length: LARGE_MESSAGES }, () => MESSAGE);

/** Measures the rows of the log. */
export async function benchLog(): Promise<Row[]> {
  await using folder = await temporaryFolder("bench-log");
  const { log } = await openLog(realDisk, `${folder.path}/streams`);
  await using _ = log;
  return [
    await groupCommit(log),
    await oneAppender(log, folder.path),
    await largeBatches(log, folder.path),
    await sequentialRead(log),
    await movingCursors(log),
  ];
}

/** Messages a second of so many appenders that each wait for the disk. */
async function appendRate(
  partition: Partition,
  appenders: number,
  batch: readonly Message[] = [MESSAGE],
): Promise<number> {
  const startMs = performance.now();
  const endMs = startMs + SECONDS * 1000;
  let appended = 0;
  const append = async (): Promise<void> => {
    while (performance.now() < endMs) {
      await partition.append(batch).durable;
      appended += batch.length;
    }
  };
  await Promise.all(Array.from({ length: appenders }, append));
  return (appended / (performance.now() - startMs)) * 1000;
}

async function groupCommit(log: FileLog): Promise<Row> {
  const many = log.partition({ stream: "many", index: 0 });
  const rate = await inTurns(ROUNDS, () => appendRate(many, 256), synced);
  return {
    what: "group commit, 256 appenders / one write and sync each",
    value: rate.ratio,
    bound: 80,
    detail: `${short(rate.first)}/s, ${short(rate.second)}/s`,
  };
}

/** What group commit is compared with: each 1 KiB message written and synced before the next. */
async function synced(): Promise<number> {
  await using folder = await temporaryFolder("bench-sync");
  const file = await realDisk.open(`${folder.path}/file`, "create");
  const startMs = performance.now();
  const endMs = startMs + SECONDS * 1000;
  let count = 0;
  while (performance.now() < endMs) {
    file.write(BODY, count * BODY.length);
    await file.sync();
    count++;
  }
  const rate = (count / (performance.now() - startMs)) * 1000;
  await file.close();
  return rate;
}

async function oneAppender(log: FileLog, folder: string): Promise<Row> {
  const what = "one appender / fio fdatasync of 4 KiB overwrites";
  const alone = log.partition({ stream: "alone", index: 0 });
  const job = ["--rw=write", "--bs=4k", "--size=16m", "--overwrite=1"];
  const bound = 0.6;
  if (Bun.which("fio") === null) return { what, value: null, bound, detail: "fio is missing" };
  const rate = await inTurns(
    ROUNDS,
    () => appendRate(alone, 1),
    async () => (await fio(folder, job)).iops,
  );
  const detail = `${short(rate.first)}/s, ${short(rate.second)}/s`;
  return { what, value: rate.ratio, bound, detail };
}

async function largeBatches(log: FileLog, folder: string): Promise<Row> {
  const what = "large batches MB/s / fio 1 MiB append with fdatasync";
  const large = log.partition({ stream: "large", index: 0 });
  // Appending, not overwriting: each round begins on a file that is not there.
  const job = ["--rw=write", "--bs=1m", "--size=512m", "--unlink=1", "--fallocate=none"];
  const bound = 0.6;
  if (Bun.which("fio") === null) return { what, value: null, bound, detail: "fio is missing" };
  const rate = await inTurns(
    ROUNDS,
    async () => ((await appendRate(large, 4, LARGE)) * BODY.length) / 1e6,
    async () => (await fio(folder, job)).bytes / 1e6,
  );
  const detail = `${short(rate.first)} MB/s of bodies, ${short(rate.second)} MB/s`;
  return { what, value: rate.ratio, bound, detail };
}

/** One job of fio: calls and bytes a second. */
async function fio(
  folder: string,
  job: readonly string[],
): Promise<{ iops: number; bytes: number }> {
  const name = `--name=bench-${Bun.randomUUIDv7()}`;
  const common = ["--ioengine=psync", "--fdatasync=1", "--output-format=json", "--time_based"];
  const time = [`--runtime=${SECONDS}`, `--directory=${folder}`, "--unlink=1"];
  const child = Bun.spawn(["fio", name, ...common, ...time, ...job], { stderr: "inherit" });
  const text = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error(`fio failed: ${text}`);
  const [found] = (JSON.parse(text) as { jobs: { write: { iops: number; bw_bytes: number } }[] })
    .jobs;
  return { iops: found?.write.iops ?? Number.NaN, bytes: found?.write.bw_bytes ?? Number.NaN };
}

async function sequentialRead(log: FileLog): Promise<Row> {
  const partition = log.partition({ stream: "read", index: 0 });
  while (partition.offsetEnd < READ_MESSAGES) await partition.append(LARGE).durable;
  const rates: number[] = [];
  for (let round = 0; round < ROUNDS; round++) rates.push(await readRate(partition));
  return {
    what: "sequential read with headers and checksum, messages/s",
    value: median(rates),
    bound: 1_000_000,
    detail: `${READ_MESSAGES / 1000} k messages of 1 KiB and 3 headers, from the page cache`,
  };
}

/** Reads all, decoding every header; each payload's checksum is compared on the way. */
async function readRate(partition: Partition): Promise<number> {
  const { signal } = new AbortController();
  const startMs = performance.now();
  let offset = 0;
  let headers = 0;
  while (offset < READ_MESSAGES) {
    const batch = await partition.read(offset, { messagesMax: 1000, signal });
    if (batch === null) break;
    for (const each of batch.messages) headers += each.headers.length;
    offset = batch.next;
  }
  if (headers < READ_MESSAGES * 3) throw new Error("not every header was read");
  return (offset / (performance.now() - startMs)) * 1000;
}

async function movingCursors(log: FileLog): Promise<Row> {
  const partition = log.partition({ stream: "cursors", index: 0 });
  const rate = await inTurns(
    ROUNDS,
    () => whileMoving(log, CURSORS, () => appendRate(partition, 64)),
    () => whileMoving(log, 1, () => appendRate(partition, 64)),
  );
  return {
    what: `intake while ${CURSORS} cursors move / while 1 does`,
    value: rate.ratio,
    bound: 0.9,
    detail: `${short(rate.first)}/s, ${short(rate.second)}/s, 64 appenders`,
  };
}

/** Saves so many cursors again and again, as routes do, while the work goes on. */
async function whileMoving<T>(log: FileLog, cursors: number, work: () => Promise<T>): Promise<T> {
  const done = new AbortController();
  const move = async (): Promise<void> => {
    for (let turn = 0; !done.signal.aborted; turn++) {
      const value = encodeText(JSON.stringify({ next: turn, counts: [turn, 0, 0, 0] }));
      const names = Array.from({ length: cursors }, (_, index) => `bench/${index}`);
      await log.states.save(names.map((name) => [name, value] as const));
      await Bun.sleep(TICK_MS);
    }
  };
  const moving = move();
  try {
    return await work();
  } finally {
    done.abort();
    await moving;
  }
}
