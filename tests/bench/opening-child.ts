/** One step of the bench of opening: writes a log, opens it, or loads it until it is killed. */
import { realDisk } from "../../src/log/disk.ts";
import type { FileLog } from "../../src/log/files.ts";
import { message, openLog } from "../log/support.ts";

const PARTITIONS = 4;
const GROUP = 4096;
const LOAD_GROUPS = 20;
const [what, streams = "", gib = "0"] = process.argv.slice(2);
const one = message("01900000-0000-7000-8000-000000000000", { body: new Uint8Array(1024) });
const group = Array.from({ length: GROUP }, () => one);

const startedMs = performance.now();
const { log } = await openLog(realDisk, streams);
const ms = performance.now() - startedMs;
if (what === "write") await write(log, Number(gib) * 2 ** 30);
if (what === "load") {
  for (let groups = 0; ; groups++) {
    await append(log, groups);
    if (groups === LOAD_GROUPS) console.log("loaded");
  }
}
const rssMb = Math.round(process.memoryUsage.rss() / 1e6);
let messages = 0;
for (let index = 0; index < PARTITIONS; index++) messages += partition(log, index).offsetEnd;
await log[Symbol.asyncDispose]();
console.log(JSON.stringify({ ms, messages, rssMb }));

function partition(of: FileLog, index: number) {
  return of.partition({ stream: "large", index }, PARTITIONS);
}

async function append(to: FileLog, groups: number): Promise<void> {
  await partition(to, groups % PARTITIONS).append(group).durable;
}

async function write(to: FileLog, bytes: number): Promise<void> {
  for (let groups = 0; groups * GROUP * 1024 < bytes; groups++) await append(to, groups);
}
