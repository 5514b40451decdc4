/** Runs the real command line as a child process, with nothing of this machine's settings. */
import { join } from "node:path";

const entry = join(import.meta.dir, "..", "..", "src", "cli", "main.ts");

/** How a command is run. */
export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** The current folder; settings and the data folder are looked for there. */
  readonly folder: string;
  /** Standard input; nothing when it is not given. */
  readonly input?: string | Uint8Array;
}

/** What a command has left behind. */
export interface Ran {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs. */
export interface Running extends AsyncDisposable {
  readonly pid: number;
  stdout(): string;
  stderr(): string;
  kill(signal: NodeJS.Signals): void;
  /** Resolves at its end. */
  readonly ended: Promise<Ran>;
}

/** Runs a command to its end. */
export async function run(args: readonly string[], options: RunOptions): Promise<Ran> {
  await using running = start(args, options);
  return await running.ended;
}

/** Starts a command; disposing of it ends it. */
export function start(args: readonly string[], options: RunOptions): Running {
  const child = Bun.spawn([process.execPath, entry, ...args], {
    cwd: options.folder,
    env: { PATH: process.env["PATH"] ?? "", HOME: options.folder, ...options.env },
    stdin: options.input === undefined ? "ignore" : Buffer.from(options.input),
    stdout: "pipe",
    stderr: "pipe",
  });
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  const ended = (async (): Promise<Ran> => {
    const exitCode = await child.exited;
    await Promise.all([stdout.done, stderr.done]);
    return { exitCode, stdout: stdout.text(), stderr: stderr.text() };
  })();
  return {
    pid: child.pid,
    stdout: stdout.text,
    stderr: stderr.text,
    kill: (signal) => child.kill(signal),
    ended,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode === null) child.kill("SIGKILL");
      await ended;
    },
  };
}

function collect(stream: ReadableStream<Uint8Array>): { text: () => string; done: Promise<void> } {
  let text = "";
  const decoder = new TextDecoder();
  const done = (async () => {
    for await (const chunk of stream) text += decoder.decode(chunk, { stream: true });
  })();
  return { text: () => text, done };
}
