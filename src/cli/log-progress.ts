/** What `isthmus log …` shows while it works, and how it tells a damage in one line. */
import type { PartitionReport, Problem } from "../log/verify.ts";
import type { Output } from "./output.ts";

const MIB = 1024 * 1024;
const BAR_CELLS = 24;
/** Plain lines come no more often. Milliseconds. */
const PLAIN_EVERY_MS = 5_000;

/** Numbers of a work that is done. */
export interface WorkNumbers {
  readonly bytes: number;
  readonly copiedBytes: number;
  readonly seconds: number;
  readonly text: string;
}

/** Where progress is shown, and by which clock. */
export interface ProgressPlace {
  readonly isTerminal: boolean;
  /** Monotonic milliseconds. */
  readonly nowMs: () => number;
  readonly write: (text: string) => void;
}

const standardError: ProgressPlace = {
  isTerminal: process.stderr.isTTY === true,
  nowMs: () => performance.now(),
  write: (text) => process.stderr.write(text),
};

/**
 * Counts bytes, and shows them on a terminal as a bar (with a total) or a number; elsewhere as a
 * plain line every few seconds. With --json nothing is shown.
 */
export function progressOf(
  verb: string,
  output: Pick<Output, "json">,
  totalBytes: number | null = null,
  place: ProgressPlace = standardError,
): { onFile: (bytes: number, copied: number) => void; end: () => WorkNumbers } {
  const { nowMs } = place;
  const isBar = place.isTerminal && !output.json;
  const startedMs = nowMs();
  let toldMs = startedMs;
  let bytes = 0;
  let copiedBytes = 0;
  const seconds = (): number => Math.max(0.001, (nowMs() - startedMs) / 1000);
  const rate = (): string => `${(bytes / MIB / seconds()).toFixed(0)} MiB/s`;
  const far = (): string => {
    const done = (bytes / MIB).toFixed(0);
    if (totalBytes === null) return `${done} MiB, ${rate()}`;
    const share = Math.floor(Math.min(1, bytes / Math.max(1, totalBytes)) * 100);
    return `${done} of ${(totalBytes / MIB).toFixed(0)} MiB (${share} %), ${rate()}`;
  };
  return {
    onFile: (count, copied) => {
      bytes += count;
      copiedBytes += copied;
      if (isBar) {
        const bar = totalBytes === null ? "" : `${barText(bytes / Math.max(1, totalBytes))} `;
        place.write(`\r${bar}${far()}   `);
      } else if (!output.json && nowMs() - toldMs >= PLAIN_EVERY_MS) {
        toldMs = nowMs();
        place.write(`${verb} ${far()}\n`);
      }
    },
    end: () => {
      if (isBar) place.write("\r\u001b[K");
      const size = `${(copiedBytes / MIB).toFixed(1)} of ${(bytes / MIB).toFixed(1)} MiB`;
      const shown = verb === "checked" ? `${(bytes / MIB).toFixed(1)} MiB` : size;
      const text = `${verb} ${shown}, ${rate()}`;
      return { bytes, copiedBytes, seconds: seconds(), text };
    },
  };
}

function barText(share: number): string {
  const full = Math.round(Math.min(1, share) * BAR_CELLS);
  return `[${"#".repeat(full)}${".".repeat(BAR_CELLS - full)}]`;
}

/** A problem in one line: what, where, and what is lost. */
export function damageSentence(report: PartitionReport, problem: Problem): string {
  const { kind, path, byte, from, to, detail } = problem;
  const lost = to === null ? `from ${from} on` : `${from} to ${to - 1}`;
  const what = kind === "torn" ? "nothing that was acked" : `messages ${lost}`;
  const name = `${report.stream}/${report.partition}`;
  return `${kind} ${name}: ${path}, byte ${byte}: ${detail}; lost: ${what}`;
}
