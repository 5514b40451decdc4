/**
 * What tests take from the machine for a while: folders, ports, and time to wait. Ports are below
 * the range that the system hands out by itself, so that no outgoing connection can be in the way.
 */
import { randomInt } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Ports handed out: above what services use, below Linux's range for outgoing connections. */
const portMin = 12_000;
const portMax = 32_000;
const portTriesMax = 200;
/** Below the time limit of one test, so that the sentence is shown and not just "timed out". */
const waitMsMax = 25_000;
const waitStepMs = 20;

/** A folder of one test; disposing of it removes it with everything inside. */
export interface TemporaryFolder extends AsyncDisposable {
  readonly path: string;
}

/** Makes an empty folder: `await using folder = await temporaryFolder()`. */
export async function temporaryFolder(name = "test"): Promise<TemporaryFolder> {
  const path = await mkdtemp(join(tmpdir(), `isthmus-${name}-`));
  return {
    path,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 5 }),
  };
}

const handedOut = new Set<number>();

/** A port of the loopback that nobody listens on; never the same one twice in a process. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < portTriesMax; tries++) {
    const port = randomInt(portMin, portMax);
    if (handedOut.has(port)) continue;
    handedOut.add(port);
    if (await isFree(port)) return port;
  }
  throw new Error(`no free port was found between ${portMin} and ${portMax}`);
}

function isFree(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const server = createServer();
  server.once("error", () => resolve(false));
  server.listen({ port, host: "127.0.0.1" }, () => server.close(() => resolve(true)));
  return promise;
}

/**
 * Asks again and again until the condition gives something other than false, null and undefined,
 * and resolves with that. What the condition throws ends the wait.
 * @throws Error `SENTENCE did not come true within … s`; write the sentence as a fact that holds
 *   at the end, such as "the route has caught up".
 */
export async function waitFor<T>(
  sentence: string,
  condition: () => T | Promise<T>,
  options: { readonly timeoutMs?: number } = {},
): Promise<Exclude<T, false | null | undefined>> {
  const timeoutMs = options.timeoutMs ?? waitMsMax;
  const startMs = performance.now();
  for (;;) {
    const value = await condition();
    if (value !== false && value !== null && value !== undefined) {
      return value as Exclude<T, false | null | undefined>;
    }
    if (performance.now() - startMs > timeoutMs) {
      throw new Error(`"${sentence}" did not come true within ${timeoutMs / 1000} s`);
    }
    await Bun.sleep(waitStepMs);
  }
}
