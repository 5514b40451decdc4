/**
 * What every engine of the log has to do, written against its port (src/log/log.ts) alone: order,
 * durability, duplicates, conditions, waiting at the end, times, states. An engine's own test file
 * calls it with a way to open it, and to open it again on what it left.
 */
import { expect, test } from "bun:test";
import { ConflictError, OffsetError } from "../../src/errors.ts";
import type { Log, Partition } from "../../src/log/log.ts";
import { encodeText } from "../../src/message.ts";
import { ids, message, readAll } from "../log/support.ts";

/** A place that an engine keeps a log in. */
export interface LogPlace extends AsyncDisposable {
  /** Opens the log; again after the one before was closed: with all that it held. */
  open(): Promise<Log>;
}

const PLACE = { stream: "s", index: 0 };
const NEVER = new AbortController().signal;

/** Runs the suite over an engine; each test gets a place of its own. */
export function testLog(engine: string, place: () => Promise<LogPlace>): void {
  const over = (name: string, work: (log: Log, again: () => Promise<Log>) => Promise<void>): void =>
    test(`${engine}: ${name}`, async () => {
      await using own = await place();
      let log = await own.open();
      const again = async (): Promise<Log> => {
        await log[Symbol.asyncDispose]();
        log = await own.open();
        return log;
      };
      await work(log, again);
      await log[Symbol.asyncDispose]();
    });
  testAppends(over);
  testReads(over);
  testStates(over);
}

type Over = (name: string, work: (log: Log, again: () => Promise<Log>) => Promise<void>) => void;

function testAppends(over: Over): void {
  over(
    "messages stand in the order of their appends, whole, after a restart too",
    async (log, again) => {
      const partition = log.partition(PLACE, 1);
      const sent = Array.from({ length: 200 }, (_, index) => `m${index}`);
      const appended = sent.map((id) => partition.append([message(id, FULL)]));
      await Promise.all(appended.map(({ durable }) => durable));
      const offsets = appended.map((each) => each.receipt(0).offset);
      expect(offsets).toEqual(offsets.toSorted((a, b) => a - b));
      expect(new Set(offsets).size).toBe(sent.length);
      const { epoch } = partition;
      const reopened = (await again()).partition(PLACE, 1);
      const all = await readAll(reopened);
      expect(ids(all)).toEqual(sent);
      expect(all.map(({ offset }) => offset)).toEqual(offsets);
      expect(reopened.epoch).toBe(epoch);
      const [first] = all;
      const { id, key, headers, body, properties, timestampMs } = first ?? message("");
      expect({ id, key, headers, body, properties, timestampMs }).toEqual({
        ...message("m0", FULL),
        origin: undefined,
      } as never);
    },
  );

  over("nothing is readable before it is durable, and then all of a call is", async (log) => {
    const partition = log.partition(PLACE, 1);
    const { durable } = partition.append([message("a"), message("b")]);
    expect(partition.offsetEnd).toBe(partition.offsetStart);
    await durable;
    expect(ids(await readAll(partition))).toEqual(["a", "b"]);
  });

  over(
    "a dedupe key is appended once: two at once, later, and after a restart",
    async (log, again) => {
      const partition = log.partition(PLACE, 1);
      const once = { dedupeKeys: ["key"] };
      const two = [partition.append([message("a")], once), partition.append([message("b")], once)];
      await Promise.all(two.map(({ durable }) => durable));
      const [first, second] = two.map((each) => each.receipt(0));
      expect([first?.duplicate, second?.duplicate]).toEqual([false, true]);
      expect(second?.offset).toBe(first?.offset as number);
      const reopened = (await again()).partition(PLACE, 1);
      const late = reopened.append([message("c"), message("d")], { dedupeKeys: ["key", null] });
      await late.durable;
      expect(late.receipt(0)).toMatchObject({ offset: first?.offset, duplicate: true });
      expect(late.receipt(1)).toMatchObject({ duplicate: false });
      expect(ids(await readAll(reopened))).toEqual(["a", "d"]);
    },
  );

  over(
    "a condition on the end holds or refuses, and its retry gets the first receipt",
    async (log) => {
      const partition = log.partition(PLACE, 1);
      const options = { expectedOffset: partition.offsetEnd, dedupeKeys: ["once"] };
      const first = partition.append([message("a")], options);
      await first.durable;
      const end = partition.offsetEnd;
      const late = (): unknown => partition.append([message("b")], { expectedOffset: end - 1 });
      expect(late).toThrow(ConflictError);
      expect(late).toThrow(expect.objectContaining({ members: { end } }));
      const again = partition.append([message("a")], options);
      await again.durable;
      expect(again.receipt(0)).toEqual({ ...first.receipt(0), duplicate: true });
      expect(ids(await readAll(partition))).toEqual(["a"]);
    },
  );

  over("a call with one message that can't be kept is refused whole", async (log) => {
    const partition = log.partition(PLACE, 1);
    const wrong = [message("a"), message("x".repeat(200))];
    expect(() => partition.check(wrong)).toThrow();
    expect(() => partition.append(wrong)).toThrow();
    await partition.append([message("b")]).durable;
    expect(ids(await readAll(partition))).toEqual(["b"]);
  });

  over("partitions of a stream are apart, and their count is kept", async (log, again) => {
    for (let index = 0; index < 3; index++) {
      await log.partition({ stream: "s", index }, 3).append([message(`p${index}`)]).durable;
    }
    const reopened = await again();
    expect(reopened.streams().get("s")).toBe(3);
    for (let index = 0; index < 3; index++) {
      const own = await readAll(reopened.partition({ stream: "s", index }, 3));
      expect(ids(own)).toEqual([`p${index}`]);
    }
  });
}

function testReads(over: Over): void {
  over("a read at the end waits for the next message, and an abort ends it", async (log) => {
    const partition = log.partition(PLACE, 1);
    await partition.append([message("a")]).durable;
    const waiting = partition.read(partition.offsetEnd, { messagesMax: 10, signal: NEVER });
    await partition.append([message("b")]).durable;
    expect(ids((await waiting)?.messages ?? [])).toEqual(["b"]);
    const stop = new AbortController();
    const ended = partition.read(partition.offsetEnd, { messagesMax: 1, signal: stop.signal });
    stop.abort();
    expect(await ended).toBeNull();
  });

  over("a read past the end is refused with the range", async (log) => {
    const partition = log.partition(PLACE, 1);
    await partition.append([message("a")]).durable;
    const past = partition.read(partition.offsetEnd + 1, { messagesMax: 1, signal: NEVER });
    await expect(past).rejects.toThrow(OffsetError);
  });

  over("reads are bounded in messages and bytes, and go on at next", async (log) => {
    const partition = log.partition(PLACE, 1);
    const body = encodeText("x".repeat(10_000));
    await append(partition, 40, (index) => message(`m${index}`, { body }));
    const start = partition.offsetStart;
    const few = await partition.read(start, { messagesMax: 7, signal: NEVER });
    expect(few?.messages).toHaveLength(7);
    const rest = await partition.read(few?.next ?? 0, { messagesMax: 1, signal: NEVER });
    expect(ids(rest?.messages ?? [])).toEqual(["m7"]);
    const bounded = { messagesMax: 40, bytesMax: 1, signal: NEVER };
    expect((await partition.read(start, bounded))?.messages.length).toBeGreaterThan(0);
    expect(ids(await readAll(partition))).toHaveLength(40);
  });

  over("a time finds the first message appended at or after it", async (log) => {
    const partition = log.partition(PLACE, 1);
    await append(partition, 30, (index) => message(`m${index}`));
    const all = await readAll(partition);
    for (const { appendedAtMs } of all) {
      const first = all.find((each) => each.appendedAtMs >= appendedAtMs);
      expect(await partition.offsetAt(appendedAtMs)).toBe(first?.offset as number);
    }
    expect(await partition.offsetAt(0)).toBe(partition.offsetStart);
    expect(await partition.offsetAt(8e15)).toBe(partition.offsetEnd);
  });
}

function testStates(over: Over): void {
  over("states are kept by name, replaced, removed, and found again", async (log, again) => {
    const { states } = log;
    await states.save([
      ["a/1", encodeText("one")],
      ["a/2", encodeText("two")],
      ["b", encodeText("other")],
    ]);
    await states.save([
      ["a/1", encodeText("anew")],
      ["b", null],
    ]);
    for (const each of [states, (await again()).states]) {
      expect(each.keys("a/").toSorted()).toEqual(["a/1", "a/2"]);
      expect(Buffer.from((await each.load("a/1")) ?? []).toString()).toBe("anew");
      expect(await each.load("b")).toBeNull();
      expect(await each.load("none")).toBeNull();
    }
  });
}

const FULL = {
  key: encodeText("key"),
  properties: { contentType: "text/plain", correlationId: "c" },
  headers: [
    { name: "h", value: encodeText("1") },
    { name: "h", value: null },
  ],
  body: null,
};

async function append(
  partition: Partition,
  count: number,
  make: (index: number) => ReturnType<typeof message>,
): Promise<void> {
  for (let index = 0; index < count; index++) await partition.append([make(index)]).durable;
}
