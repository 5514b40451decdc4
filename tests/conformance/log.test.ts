/** The log in segment files keeps to the port: on a real disk, on one in memory, in small segments. */
import { realDisk } from "../../src/log/disk.ts";
import { openLog } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { temporaryFolder } from "../temporary.ts";
import { testLog } from "./log.ts";

testLog("segment files", async () => {
  const folder = await temporaryFolder("log");
  return {
    open: async () => (await openLog(realDisk, `${folder.path}/data/streams`)).log,
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
});

testLog("segment files of few messages, on the simulated disk", () => {
  const disk = new MemoryDisk();
  return Promise.resolve({
    open: async () => (await openLog(disk, "/data/streams", { segmentBytes: 1000 })).log,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
});
