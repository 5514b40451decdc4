/**
 * A program that a test runs beside itself: in a process group of its own, its last lines kept for
 * the error that tells of its death, signalled and ended by pid together with its descendants.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { guardProcess, releaseProcess } from "./guard.ts";

const linesKeptDefault = 40;
const lineCharsMax = 2_000;
const goneStepMs = 5;
/** Of what stands in /proc/PID/stat after the name; the first is the state. */
const threadCountField = 17;

/** What to run. */
export interface ProcessSpec {
  /** For errors, such as `Kafka`. */
  readonly name: string;
  readonly command: readonly [string, ...string[]];
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  /** How many of its last lines are kept. */
  readonly linesKeptMax?: number;
  /** Another user to run as; only root can. */
  readonly user?: { readonly uid: number; readonly gid: number } | null;
}

/** How a program ended. */
export interface ProcessEnd {
  /** By itself with exit code 0. */
  readonly ok: boolean;
  /** What happened, such as `Kafka ended with SIGKILL`. */
  readonly sentence: string;
}

/** One running program. */
export class ManagedProcess {
  readonly name: string;
  /** Resolves when it has ended or could not be started; never rejects. */
  readonly ended: Promise<ProcessEnd>;
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #linesKeptMax: number;
  #running = true;

  constructor(spec: ProcessSpec) {
    this.name = spec.name;
    this.#linesKeptMax = spec.linesKeptMax ?? linesKeptDefault;
    const [command, ...args] = spec.command;
    this.#child = spawn(command, args, {
      cwd: spec.cwd,
      env: { ...process.env, ...spec.env },
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      ...spec.user,
    });
    this.#keepLines(this.#child.stdout);
    this.#keepLines(this.#child.stderr);
    const { promise, resolve } = Promise.withResolvers<ProcessEnd>();
    this.ended = promise;
    const { pid } = this.#child;
    if (pid !== undefined) guardProcess(pid);
    this.#child.once("error", (error) => {
      this.#running = false;
      resolve({ ok: false, sentence: `${spec.name} could not be started: ${error.message}` });
    });
    this.#child.once("exit", (code, signal) => {
      this.#running = false;
      if (pid !== undefined) releaseProcess(pid);
      resolve({
        ok: code === 0,
        sentence: `${spec.name} ended with ${signal ?? `exit code ${code}`}`,
      });
    });
  }

  get running(): boolean {
    return this.#running;
  }

  /** The last lines that it wrote, oldest first. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** The last lines as text for an error. */
  lastLines(): string {
    return this.#lines.map((line) => `  | ${line}`).join("\n");
  }

  /** Sends a signal to it and all its descendants, also to those in sessions of their own. */
  signalAll(signal: NodeJS.Signals): void {
    for (const pid of this.#pids()) signalIfThere(pid, signal);
  }

  /** Kills it and all its descendants; resolves when none of them is there any more. */
  async kill(): Promise<void> {
    const pids = this.#pids();
    for (const pid of pids) signalIfThere(pid, "SIGKILL");
    if (this.#child.pid !== undefined) await this.ended;
    while (pids.some(isThere)) await Bun.sleep(goneStepMs);
  }

  /** Asks it to end with a signal, and kills what is left of it then, or after the time. */
  async stop(signal: NodeJS.Signals, graceMs: number): Promise<void> {
    if (this.#running && signal !== "SIGKILL") {
      this.#child.kill(signal);
      await this.endedWithin(graceMs);
    }
    await this.kill();
  }

  /** Resolves when it has ended, or after the time. */
  endedWithin(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    return Promise.race([promise, this.ended.then(() => undefined)]).finally(() => {
      clearTimeout(timer);
    });
  }

  #pids(): number[] {
    const { pid } = this.#child;
    return this.#running && pid !== undefined ? [pid, ...descendantsOf(pid)] : [];
  }

  #keepLines(stream: Readable | null): void {
    if (stream === null) return;
    createInterface({ input: stream }).on("line", (line) => {
      this.#lines.push(line.slice(0, lineCharsMax));
      if (this.#lines.length > this.#linesKeptMax) this.#lines.shift();
    });
  }
}

/**
 * Runs a program to its end, for the steps that a broker needs before it starts.
 * @throws Error with its last lines when it did not end well.
 */
export async function runToEnd(spec: ProcessSpec): Promise<void> {
  const running = new ManagedProcess(spec);
  const { ok, sentence } = await running.ended;
  if (!ok) throw new Error(`${sentence}; its last lines:\n${running.lastLines()}`);
}

function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    // A process that has just ended needs no signal any more.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/**
 * A process that has ended and that nobody has asked about (a zombie) is not there any more, once
 * its last thread has ended too: its sockets are open until then.
 */
export function isThere(pid: number): boolean {
  if (process.platform === "linux") {
    const fields = statFields(pid);
    return fields.length > 0 && !(fields[0] === "Z" && Number(fields[threadCountField]) <= 1);
  }
  const { stdout } = Bun.spawnSync(["ps", "-o", "stat=", "-p", String(pid)]);
  return /^[^Z\s]/.test(stdout.toString());
}

/** All processes below a process, parents before children. */
export function descendantsOf(pid: number): number[] {
  const childrenOf = new Map<number, number[]>();
  for (const [child, parent] of parentPairs()) {
    childrenOf.set(parent, [...(childrenOf.get(parent) ?? []), child]);
  }
  const found = [pid];
  for (const parent of found) found.push(...(childrenOf.get(parent) ?? []));
  return found.slice(1);
}

function parentPairs(): [number, number][] {
  if (process.platform === "linux") {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map((name): [number, number] => [Number(name), Number(statFields(Number(name))[1])]);
  }
  const { stdout } = Bun.spawnSync(["ps", "-A", "-o", "pid=,ppid="]);
  return [...stdout.toString().matchAll(/(\d+)\s+(\d+)/g)].map((match) => [
    Number(match[1]),
    Number(match[2]),
  ]);
}

/** The fields after the program's name, which stands in brackets and may hold brackets itself. */
function statFields(pid: number): string[] {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH") return [];
    throw error;
  }
}
