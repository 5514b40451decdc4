/**
 * How long a log of 10 GiB takes to open, after a clean stop and after a kill -9 under load, and
 * the memory of the process that has opened it. Each step is a process of its own. The page cache
 * holds what was written last.
 */
import { join } from "node:path";
import { temporaryFolder } from "../temporary.ts";
import type { Row } from "./table.ts";

const GIB = 10;
const SCRIPT = join(import.meta.dir, "opening-child.ts");

/** Writes the log and opens it; needs as much disk in the temporary folder. */
export async function benchOpening(): Promise<Row[]> {
  await using folder = await temporaryFolder("bench-opening");
  const streams = join(folder.path, "streams");
  await step("write", streams);
  const clean = await step("open", streams);
  await killedUnderLoad(streams);
  const killed = await step("open", streams);
  const detail = ({ messages, rssMb }: Opened): string =>
    `${(messages / 1e6).toFixed(1)} M messages of 1 KiB in 4 partitions, ${rssMb} MB resident`;
  return [
    row(`opening ${GIB} GiB after a clean stop, s`, clean.ms / 1000, 1, detail(clean)),
    row(`opening ${GIB} GiB after a kill -9, s`, killed.ms / 1000, 3, detail(killed)),
  ];
}

interface Opened {
  readonly ms: number;
  readonly messages: number;
  readonly rssMb: number;
}

function row(what: string, value: number, bound: number, detail: string): Row {
  return { what, value, bound, isAtMost: true, detail };
}

async function step(what: "write" | "open", streams: string): Promise<Opened> {
  const child = Bun.spawn([process.execPath, SCRIPT, what, streams, String(GIB)], {
    stderr: "inherit",
  });
  const text = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error(`the step ${what} failed`);
  return JSON.parse(text) as Opened;
}

/** Appends until some MiB are on disk, and dies there. */
async function killedUnderLoad(streams: string): Promise<void> {
  const child = Bun.spawn([process.execPath, SCRIPT, "load", streams, String(GIB)], {
    stderr: "inherit",
  });
  for await (const _ of child.stdout as ReadableStream<Uint8Array>) break;
  child.kill("SIGKILL");
  await child.exited;
}
