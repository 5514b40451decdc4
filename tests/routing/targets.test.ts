/** Routes to a real HTTP target: one key that never goes through, and answers that take their time. */
import { afterEach, expect, test } from "bun:test";
import { http } from "../../bridges/http/module.ts";
import { lanesMax } from "../../src/limits.ts";
import { encodeText } from "../../src/message.ts";
import { message, openLog } from "../log/support.ts";
import { MemoryDisk } from "../sim/disk.ts";
import { freePort, waitFor } from "../temporary.ts";
import { type Rig, rig } from "./support.ts";

const ends: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

/** A route by keys to an HTTP server that answers as it is told. */
async function setUp(answer: (body: string) => Promise<Response> | Response) {
  const server = Bun.serve({
    port: await freePort(),
    hostname: "127.0.0.1",
    fetch: async (request) => await answer(await request.text()),
  });
  const { log } = await openLog(new MemoryDisk());
  const url = `http://127.0.0.1:${server.port}/`;
  const config = http.parseConfig({ url, allowPrivate: ["127.0.0.0/8"] });
  const run: Rig = rig(log, { bridge: { module: http as never, config } });
  ends.push(async () => {
    await run.stop();
    await log[Symbol.asyncDispose]();
    await server.stop(true);
  });
  const put = async (...names: string[]): Promise<void> => {
    const sent = names.map((name) =>
      message(name, { key: encodeText(name.split(".")[0] ?? ""), body: encodeText(name) }),
    );
    await run.streams.stream("in").append(sent).durable;
  };
  return { ...run, put };
}

test("a key that is answered 503 for ever stops no other; what it waits for is obeyed", async () => {
  const came: string[] = [];
  const run = await setUp((body) => {
    came.push(body);
    const headers = { "retry-after": "3600" };
    return body.startsWith("bad") ? new Response("", { status: 503, headers }) : new Response("");
  });
  await run.rule({ from: "in", to: { bridge: "b" }, order: "key", start: "earliest" });
  for (let round = 0; round < 5; round++) {
    await run.put(`bad.${round}`, `good.${round}`, `fine.${round}`);
  }
  await waitFor("all others are there", () => came.length === 11);
  await waitFor("all is decided", () => run.routes.statuses()[0]?.offset === 15);
  await waitFor("the key waits", () => run.routes.statuses()[0]?.counts.waiting === 5);
  expect(came.filter((body) => body.startsWith("bad"))).toEqual(["bad.0"]);
  expect(came.filter((body) => body.startsWith("good"))).toEqual(
    [0, 1, 2, 3, 4].map((round) => `good.${round}`),
  );
  expect(run.routes.statuses()[0]).toMatchObject({
    balanced: true,
    counts: { taken: 15, delivered: 10, waiting: 5 },
  });
});

test("a slow target is asked by as many lanes at once as there may be", async () => {
  const gate = Promise.withResolvers<void>();
  let running = 0;
  let runningMost = 0;
  let done = 0;
  const run = await setUp(async () => {
    runningMost = Math.max(runningMost, ++running);
    await gate.promise;
    running--;
    done++;
    return new Response("");
  });
  await run.rule({ from: "in", to: { bridge: "b" }, order: "key", start: "earliest" });
  await run.put(...Array.from({ length: 200 }, (_, index) => `key-${index}.0`));
  await waitFor("all lanes are busy", () => running === lanesMax);
  gate.resolve();
  await waitFor("all are there", () => done === 200);
  expect(runningMost).toBe(lanesMax);
});
