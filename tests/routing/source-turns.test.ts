/** A source that one of several gateways runs: what it keeps counts for one turn. */
import { expect, test } from "bun:test";
import type { BridgeModule, SourceOptions } from "../../src/bridge.ts";
import { systemClock } from "../../src/clock.ts";
import { DisconnectedError } from "../../src/errors.ts";
import { Streams } from "../../src/log/stream.ts";
import { BridgeConnection } from "../../src/routing/connection.ts";
import { sourceMemory } from "../../src/routing/source-memory.ts";
import { SourceRunner, type Turns } from "../../src/routing/source-runner.ts";
import { openLog } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { waitFor } from "../temporary.ts";
import { targetModule, Target } from "./support.ts";

test("what a source keeps is there when it is opened anew, and forgotten in another turn", async () => {
  const { log } = await openLog(new MemoryDisk());
  await (await sourceMemory(log.states, "s", "b")).save([["place", Uint8Array.of(7)]]);
  const found: (number | null)[] = [];
  let lose = (): void => undefined;
  const { promise: never } = Promise.withResolvers<null>();
  const source = async (_: unknown, { memory }: SourceOptions) => {
    found.push((await memory?.load("place"))?.[0] ?? null);
    await memory?.save([["place", Uint8Array.of(8)]]);
    const { promise: lost, reject } = Promise.withResolvers<null>();
    lose = () => reject(new DisconnectedError("lost"));
    const receive = async (signal: AbortSignal) => {
      const aborted = new Promise<null>((resolve) => {
        signal.addEventListener("abort", () => resolve(null), { once: true });
      });
      return await Promise.race([lost, aborted]);
    };
    return { receive, [Symbol.asyncDispose]: () => Promise.resolve() };
  };
  const module: BridgeModule = {
    ...targetModule(new Target(), "prefix"),
    connect: () =>
      Promise.resolve({
        source,
        sink: () => Promise.reject(new Error("no sink here")),
        closed: never,
        [Symbol.asyncDispose]: () => Promise.resolve(),
      }),
  };
  const shared = { clock: systemClock, random: () => 0 };
  await using connection = new BridgeConnection({
    ...shared,
    name: "b",
    module,
    config: {},
    resolve: (text) => Promise.resolve(text),
    onChange: () => undefined,
  });
  const lost: AbortController[] = [];
  const turns: Turns = {
    holder: () => "gateway x runs it",
    take: (_name, signal) => {
      if (signal.aborted) return Promise.resolve(null);
      const turn = new AbortController();
      lost.push(turn);
      return Promise.resolve({ lost: turn.signal, release: () => undefined });
    },
  };
  const streams = new Streams(log);
  const from = { bridge: "b", kind: "test", fields: {}, text: "queue" };
  const document = { from, stream: "in", key: null, dedupe: null, start: "earliest" } as const;
  const runner = new SourceRunner(
    { document, connection, turns },
    {
      ...shared,
      name: "s",
      identity: "s",
      states: log.states,
      stream: streams.stream("in"),
      dead: streams.stream("s.dead"),
      prepare: (message) => ({ message, dedupeKey: null }),
      onTaken: () => undefined,
      warn: () => undefined,
    },
  );
  runner.start();
  await waitFor("it is open", () => runner.status.state === "running");
  lose();
  await waitFor("it is open again", () => found.length === 2 && runner.status.state === "running");
  lost[0]?.abort();
  await waitFor("it has its second turn", () => found.length === 3);
  await runner.stop();
  expect(found).toEqual([null, 8, null]);
  expect(lost).toHaveLength(2);
});
