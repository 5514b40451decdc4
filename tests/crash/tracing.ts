/**
 * The system calls of a running process by `strace`: attaching to it, making calls fail, and the
 * calls of a trace in the order in which the kernel saw them begin and end.
 */
import { readFile } from "node:fs/promises";
import { waitFor } from "../temporary.ts";

/** Whether this machine lets one process trace another. */
export const canTrace =
  Bun.which("strace") !== null && (await succeeds(["strace", "-o", "/dev/null", "true"]));

/** Why not, for the name of what is skipped. */
export const noTrace = canTrace ? "" : " (skipped: strace is not there, or may not trace)";

/** Runs a program to its end; whether it ended with 0. */
export async function succeeds(command: readonly string[]): Promise<boolean> {
  const child = Bun.spawn([...command], { stdout: "ignore", stderr: "ignore" });
  return (await child.exited) === 0;
}

/** Traces a running process; resolves once the tracer is attached. */
export async function trace(pid: number, options: readonly string[]): Promise<Bun.Subprocess> {
  const tracer = Bun.spawn(["strace", "-f", "-p", String(pid), ...options], {
    stdout: "ignore",
    stderr: "pipe",
  });
  const reader = tracer.stderr.getReader();
  let said = "";
  await waitFor("strace is attached", async () => {
    const { value, done } = await reader.read();
    said += new TextDecoder().decode(value ?? new Uint8Array());
    if (done) throw new Error(`strace ended: ${said}`);
    return said.includes("attached");
  });
  reader.releaseLock();
  return tracer;
}

/** One system call. `began` and `ended` are lines of the trace: what is less came first. */
export interface Call {
  readonly name: string;
  /** Arguments as strace writes them: strings with their quotes escaped. */
  readonly text: string;
  readonly began: number;
  readonly ended: number;
  readonly result: string;
}

/** The calls of a trace (made with `-f -o`), each with where it began and ended. */
export async function readCalls(path: string): Promise<readonly Call[]> {
  const calls: Call[] = [];
  const open = new Map<string, { name: string; text: string; began: number }>();
  const lines = (await readFile(path, "latin1")).split("\n");
  for (const [line, content] of lines.entries()) {
    const [, thread = "", rest = ""] = /^(\d+)\s+(.*)$/s.exec(content) ?? [];
    const resumed = /^<\.\.\. (\w+) resumed>(.*)$/s.exec(rest);
    const known = resumed === null ? undefined : open.get(thread);
    const begun = /^(\w+)\((.*)$/s.exec(rest);
    const [, name = "", text = ""] = begun ?? [];
    if (known !== undefined) {
      open.delete(thread);
      calls.push({ ...known, ended: line, result: resultOf(resumed?.[2] ?? "") });
    } else if (rest.endsWith("<unfinished ...>")) {
      open.set(thread, { name, text, began: line });
    } else if (begun !== null) {
      calls.push({ name, text, began: line, ended: line, result: resultOf(text) });
    }
  }
  return calls;
}

function resultOf(text: string): string {
  return text.slice(text.lastIndexOf(" = ") + 3);
}
