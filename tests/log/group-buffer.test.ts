/** Memory of commit groups: used again once nobody can see it, and never before. */
import { expect, test } from "bun:test";
import { poolBytesMax } from "../../src/limits.ts";
import { BufferPool } from "../../src/log/group-buffer.ts";
import { encodeText } from "../../src/message.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { message, openLog } from "./support.ts";

test("what a reader holds does not change while the groups behind it use memory again", async () => {
  const { log } = await openLog(new MemoryDisk());
  await using _ = log;
  const partition = log.partition({ stream: "s", index: 0 });
  const { signal } = new AbortController();
  const held: { body: Uint8Array | null; text: string }[] = [];
  for (let round = 0; round < 60; round++) {
    const text = `${round}`.padStart(200_000, "x");
    await partition.append([message(`m${round}`, { body: encodeText(text) })]).durable;
    // Only some groups are looked at: the others' memory goes round.
    if (round % 5 !== 0) continue;
    const batch = await partition.read(round, { messagesMax: 1, signal });
    held.push({ body: batch?.messages[0]?.body ?? null, text });
  }
  for (const { body, text } of held) expect(Buffer.from(body ?? []).toString()).toBe(text);
});

test("a buffer that was given back is the next one of its length, and none of another length", () => {
  const pool = new BufferPool();
  const small = pool.take(5000);
  const large = pool.take(100_000);
  pool.give(large);
  pool.give(small);
  expect(pool.take(4097)).toBe(small);
  expect(pool.take(3000)).not.toBe(large);
  expect(pool.take(70_000)).toBe(large);
});

test("a full pool lets go of the buffer that has waited longest", () => {
  const pool = new BufferPool();
  const many = Array.from({ length: poolBytesMax / 65_536 + 1 }, () => pool.take(65_536));
  for (const each of many) pool.give(each);
  const again = new Set(many.map(() => pool.take(65_536)));
  expect(many.map((each) => again.has(each))).toEqual(many.map((_, index) => index > 0));
});
