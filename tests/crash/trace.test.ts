/**
 * No answer before the sync: the system calls of the real process while it takes 10,000 messages
 * over several connections. For every one of them its bytes are written to the segment, a sync of
 * that file begins after the write and succeeds, and only then its answer is sent.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { temporaryFolder } from "../temporary.ts";
import { type Call, canTrace, noTrace, readCalls, trace } from "./tracing.ts";

const MESSAGES = 10_000;
const CONNECTIONS = 16;
const CALLS = "trace=write,writev,pwrite64,pwritev,fsync,fdatasync,sendto,sendmsg";
/** More than one group of so many connections takes. */
const SHOWN_BYTES = 65_536;

interface Taken {
  readonly body: string;
  readonly offset: number;
}

describe.skipIf(!canTrace)(`a trace of ${MESSAGES} messages${noTrace}`, () => {
  test("shows of each: written, then synced, then answered", async () => {
    await using folder = await temporaryFolder("trace");
    await using gateway = await TestGateway.start();
    await gateway.apply({ hooks: { in: { stream: "traced" } } });
    const output = join(folder.path, "calls");
    const options = ["-y", "-e", CALLS, "-s", String(SHOWN_BYTES), "-o", output];
    const tracer = await trace(gateway.pid, options);
    const taken = await Promise.all(
      Array.from({ length: CONNECTIONS }, (_, connection) => post(gateway, connection)),
    );
    tracer.kill("SIGINT");
    await tracer.exited;
    const all = taken.flat();
    expect(all.length).toBe(MESSAGES);
    expect(new Set(all.map(({ offset }) => offset)).size).toBe(MESSAGES);
    const calls = await readCalls(output);
    const { writes, syncs, answers } = sorted(calls);
    for (const { body, offset } of all) {
      const write = writes.get(body);
      const answer = answers.get(offset);
      if (write === undefined || answer === undefined) {
        throw new Error(`${body}: ${write === undefined ? "its write" : "its answer"} is missing`);
      }
      const sync = syncs.find((each) => each.began > write.ended && each.file === write.file);
      expect(sync?.result, body).toBe("0");
      expect(sync?.ended, body).toBeLessThan(answer.began);
    }
    console.log(`trace: ${all.length} messages, ${syncs.length} syncs, ${calls.length} calls`);
  }, 300_000);
});

/** Posts one after another on a connection of its own; what was taken, and where. */
async function post(gateway: TestGateway, connection: number): Promise<readonly Taken[]> {
  const taken: Taken[] = [];
  for (let seq = connection; seq < MESSAGES; seq += CONNECTIONS) {
    const body = `traced-${seq}-end`;
    const answer = await fetch(`${gateway.url}/hooks/in`, { method: "POST", body });
    expect(answer.status).toBe(202);
    const { offset } = (await answer.json()) as { offset: number };
    taken.push({ body, offset });
  }
  return taken;
}

interface InFile extends Call {
  readonly file: string;
}

/** Writes by the message that they hold, answers by its offset, and syncs in their order. */
function sorted(calls: readonly Call[]) {
  const writes = new Map<string, InFile>();
  const answers = new Map<number, Call>();
  const syncs: InFile[] = [];
  for (const call of calls) {
    const [, file = ""] = /^\d+<([^>]*)>/.exec(call.text) ?? [];
    if (file.includes("/streams/traced/")) {
      const entry = { ...call, file };
      if (/^f(data)?sync$/.test(call.name)) syncs.push(entry);
      for (const body of bodiesIn(call)) writes.set(body, entry);
      continue;
    }
    const [, offset] = /202 Accepted.*\\"offset\\":(\d+)/s.exec(call.text) ?? [];
    if (offset !== undefined) answers.set(Number(offset), call);
  }
  return { writes, answers, syncs: syncs.toSorted((a, b) => a.began - b.began) };
}

/** The messages that a write holds; a sync holds none. */
function bodiesIn({ text }: Call): readonly string[] {
  return text.match(/traced-\d+-end/g) ?? [];
}
