/** A stream with `index: [key]`: a phone's own messages among a million, and what it costs intake. */
import { realDisk } from "../../src/log/disk.ts";
import { encodeText, type Message } from "../../src/message.ts";
import { message, openLog } from "../log/support.ts";
import { temporaryFolder } from "../temporary.ts";
import { inTurns, type Row, short } from "./table.ts";

const MESSAGES = 1_000_000;
const KEYS = 50_000;
const CHUNK = 1000;
const ROUNDS = 5;
const SECONDS = 1.5;
const BODY = new Uint8Array(256).fill(120);

/** Measures both rows. */
export async function benchKeys(): Promise<Row[]> {
  await using folder = await temporaryFolder("bench-keys");
  return [await ownMessages(`${folder.path}/own`), await liveKeys(`${folder.path}/live`)];
}

function of(key: number): Message {
  return message("01900000-0000-7000-8000-000000000000", {
    key: encodeText(`phone-${key}`),
    body: BODY,
  });
}

/** The first read after a start: no index of places in memory, key files on the disk. */
async function ownMessages(folder: string): Promise<Row> {
  const { log } = await openLog(realDisk, folder);
  log.keepIndex("inbox", true);
  const partition = log.partition({ stream: "inbox", index: 0 });
  for (let base = 0; base < MESSAGES; base += CHUNK) {
    const chunk = Array.from({ length: CHUNK }, (_, n) => of((base + n) % KEYS));
    await partition.append(chunk).durable;
  }
  await partition.roll();
  await log[Symbol.asyncDispose]();
  const { log: again } = await openLog(realDisk, folder);
  await using _ = again;
  again.keepIndex("inbox", true);
  const later = again.partition({ stream: "inbox", index: 0 });
  const startMs = performance.now();
  const options = { messagesMax: 100, signal: new AbortController().signal };
  const batch = await later.read(0, { ...options, key: encodeText("phone-77") });
  const ms = performance.now() - startMs;
  return {
    what: "20 own messages of 1 M, first keyed read of a process, ms",
    value: ms,
    bound: 50,
    isAtMost: true,
    detail: `${batch?.messages.length ?? 0} messages, ${later.segments.length} segments`,
  };
}

/** Appends while so many readers wait, each for its own key, and are woken by it. */
async function liveKeys(folder: string): Promise<Row> {
  const { log } = await openLog(realDisk, folder);
  await using _ = log;
  const partition = log.partition({ stream: "live", index: 0 });
  let woken = 0;
  const wait = (key: Uint8Array): void => {
    const again = (): void => {
      partition.waits.whenReadable({ offset: partition.offsetEnd, key }, waiter);
    };
    const waiter = {
      readable: (isClosed: boolean): void => {
        woken++;
        if (!isClosed) queueMicrotask(again);
      },
    };
    again();
  };
  log.keepIndex("live", true);
  for (let key = 0; key < KEYS; key++) wait(encodeText(`phone-${key}`));
  const plain = log.partition({ stream: "plain", index: 0 });
  const rate = await inTurns(
    ROUNDS,
    () => intake((batch) => partition.append(batch).durable),
    () => intake((batch) => plain.append(batch).durable),
  );
  return {
    what: `intake with ${KEYS / 1000} k readers of a key each / with none`,
    value: rate.ratio,
    bound: 0.8,
    detail: `${short(rate.first)}/s, ${short(rate.second)}/s, ${short(woken)} woken`,
  };
}

/** 256 appenders of one message each, as publishers are. */
async function intake(append: (batch: readonly Message[]) => Promise<void>): Promise<number> {
  const startMs = performance.now();
  const endMs = startMs + SECONDS * 1000;
  let count = 0;
  const one = async (): Promise<void> => {
    while (performance.now() < endMs) {
      await append([of(count++ % KEYS)]);
    }
  };
  await Promise.all(Array.from({ length: 256 }, one));
  return (count / (performance.now() - startMs)) * 1000;
}
