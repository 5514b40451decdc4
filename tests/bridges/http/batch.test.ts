/** Batches to a real HTTP server: one request for many messages, and who is to blame for a refusal. */
import { afterEach, expect, test } from "bun:test";
import { Webhook } from "standardwebhooks";
import { http } from "../../../bridges/http/module.ts";
import { encodeText, type Message } from "../../../src/message.ts";
import type { JsonObject } from "../../../src/rules/document.ts";
import { message, openLog, readAll } from "../../log/support.ts";
import { rig } from "../../routing/support.ts";
import { MemoryDisk } from "../../sim/disk.ts";
import { freePort, waitFor } from "../../temporary.ts";

interface Came {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

async function setUp(answer: (body: string) => Response) {
  const came: Came[] = [];
  const server = Bun.serve({
    port: await freePort(),
    hostname: "127.0.0.1",
    async fetch(request) {
      const body = await request.text();
      came.push({ headers: Object.fromEntries(request.headers), body });
      return answer(body);
    },
  });
  const { log } = await openLog(new MemoryDisk());
  const url = `http://127.0.0.1:${server.port}/`;
  const config = http.parseConfig({ url, allowPrivate: ["127.0.0.0/8"] });
  const run = rig(log, { bridge: { module: http as never, config } });
  ends.push(async () => {
    await run.stop();
    await log[Symbol.asyncDispose]();
    await server.stop(true);
  });
  const put = async (messages: readonly (readonly [string, Partial<Message>])[]): Promise<void> => {
    const sent = messages.map(([id, parts]) => message(id, { key: null, ...parts }));
    await run.streams.stream("in").append(sent).durable;
  };
  const status = () => run.routes.statuses()[0];
  const dead = async (): Promise<string[]> => {
    const partition = log.partition({ stream: "r.dead", index: 0 });
    return (await readAll(partition)).map(({ id }) => id);
  };
  const rule = (to: JsonObject, more: JsonObject = {}): Promise<void> =>
    run.rule({ from: "in", start: "earliest", ...more, to: { bridge: "b", ...to } });
  return { ...run, came, put, status, dead, rule };
}

const ok = (): Response => new Response(null, { status: 204 });
const json = (value: unknown): Partial<Message> => ({
  body: encodeText(JSON.stringify(value)),
  properties: { contentType: "application/json" },
});

test("bodies go as one JSON array, signed once, exactly as they are written", async () => {
  const run = await setUp(ok);
  await run.put([
    ["a", { body: encodeText('{"n":12345678901234567890.10}') }],
    ["b", { body: null }],
    ["c", json([1])],
  ]);
  const secret = `whsec_${Buffer.alloc(24, 7).toString("base64")}`;
  await run.rule({ batch: { messages: 3 }, sign: { secret } });
  await waitFor("they are delivered", () => run.status()?.counts.delivered === 3);
  const [first] = run.came;
  expect(run.came.length).toBe(1);
  expect(first?.body).toBe('[{"n":12345678901234567890.10},null,[1]]');
  expect(first?.headers["content-type"]).toBe("application/json");
  expect(first?.headers["webhook-id"]).toMatch(/^batch_[0-9a-f]{40}$/);
  expect(() => new Webhook(secret).verify(first?.body ?? "", first?.headers ?? {})).not.toThrow();
});

test("or a line each, whatever line breaks they hold", async () => {
  const run = await setUp(ok);
  await run.put([
    ["a", { body: encodeText('{\n  "a": "x\\ny"\r\n}') }],
    ["b", json({ b: 2 })],
  ]);
  await run.rule({ batch: { messages: 2, as: "ndjson" } });
  await waitFor("they are delivered", () => run.status()?.counts.delivered === 2);
  const [first] = run.came;
  const lines = (first?.body ?? "").split("\n");
  expect(lines.length).toBe(3);
  expect(lines.slice(0, 2).map((line) => JSON.parse(line))).toEqual([{ a: "x\ny" }, { b: 2 }]);
  expect(first?.headers["content-type"]).toBe("application/x-ndjson");
});

test("events go as a batch of CloudEvents", async () => {
  const run = await setUp(ok);
  await run.put([
    ["a", json({ a: 1 })],
    ["b", json({ b: 2 })],
  ]);
  await run.rule({ format: "cloudevents", batch: { messages: 2 } });
  await waitFor("they are delivered", () => run.status()?.counts.delivered === 2);
  const [first] = run.came;
  expect(first?.headers["content-type"]).toBe("application/cloudevents-batch+json");
  expect(JSON.parse(first?.body ?? "")).toMatchObject([
    { specversion: "1.0", id: "a", data: { a: 1 } },
    { specversion: "1.0", id: "b", data: { b: 2 } },
  ]);
});

for (const order of ["partition", "key", "none"] as const) {
  test(`of a refused batch only those to blame are given up, order ${order}`, async () => {
    const run = await setUp((body) =>
      body.includes("bad") ? new Response("bad one", { status: 422 }) : ok(),
    );
    await run.put(
      Array.from({ length: 20 }, (_, index) => [
        `m${index}`,
        json({ n: index, is: index % 7 === 3 ? "bad" : "good" }),
      ]),
    );
    const retry = { attempts: 3, delayMin: 1, delayMax: 2 };
    await run.rule({ batch: { messages: 10 } }, { order, retry });
    await waitFor("all are finished", () => run.status()?.counts.taken === 20);
    expect(run.status()?.counts).toMatchObject({ delivered: 17, deadLettered: 3 });
    expect((await run.dead()).toSorted()).toEqual(["m10", "m17", "m3"]);
    // Each of them was tried by itself as often as the rule says, and no more.
    for (const n of [3, 10, 17]) {
      const alone = run.came.filter(({ body }) => body === `[{"n":${n},"is":"bad"}]`);
      expect(alone.length).toBe(3);
    }
    if (order === "partition") {
      const good = run.came.filter(({ body }) => !body.includes("bad"));
      const numbers = good.flatMap(({ body }) =>
        (JSON.parse(body) as { n: number }[]).map((each) => each.n),
      );
      expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
    }
  });

  test(`what is no JSON is a dead letter, and the others go, order ${order}`, async () => {
    const run = await setUp(ok);
    await run.put([
      ["a", json(1)],
      ["b", { body: encodeText("<xml/>") }],
      ["c", json(3)],
      ["d", { body: encodeText("{}"), properties: { contentEncoding: "gzip" } }],
      ["e", json(5)],
    ]);
    await run.rule({ batch: { messages: 10 } }, { order });
    await waitFor("all are finished", () => run.status()?.counts.taken === 5);
    expect((await run.dead()).toSorted()).toEqual(["b", "d"]);
    const sent = run.came.flatMap(({ body }) => JSON.parse(body) as number[]);
    expect(sent).toEqual([1, 3, 5]);
  });
}

test("a batch that is answered 503 goes again with the same messages and the same id", async () => {
  let refusals = 3;
  const run = await setUp(() => (refusals-- > 0 ? new Response(null, { status: 503 }) : ok()));
  await run.put(Array.from({ length: 10 }, (_, index) => [`m${index}`, json(index)]));
  await run.rule({ batch: { messages: 5 } }, { retry: { delayMin: 1, delayMax: 2 } });
  await waitFor("they are delivered", () => run.status()?.counts.delivered === 10);
  const ids = run.came.map(({ headers }) => headers["webhook-id"]);
  expect(run.came.length).toBe(5);
  expect(new Set(ids.slice(0, 4)).size).toBe(1);
  expect(ids[4]).not.toBe(ids[3]);
});

test("410 to a batch disables the target, and an outage loses none", async () => {
  let status = 410;
  const run = await setUp(() => new Response(null, { status }));
  await run.put([
    ["a", json(1)],
    ["b", json(2)],
  ]);
  await run.rule({ batch: { messages: 5 } });
  await waitFor("it is disabled", () => run.status()?.state === "disabled");
  expect(run.came.length).toBe(1);
  status = 204;
  await run.routes.of("r", null)[0]?.route.setPaused(false);
  await waitFor("they are delivered", () => run.status()?.counts.delivered === 2);
  expect(run.came.map(({ body }) => body)).toEqual(["[1,2]", "[1,2]"]);
});

test("what is lost in a batch is told, and refused by a strict rule", async () => {
  const run = await setUp(ok);
  await run.put([
    ["a", { ...json(1), key: encodeText("k") }],
    ["b", { ...json(2), headers: [{ name: "x", value: encodeText("1") }] }],
    ["c", json(3)],
  ]);
  await run.rule({ batch: { messages: 5 }, name: "t" });
  await waitFor("they are delivered", () => run.status()?.counts.delivered === 3);
  expect(run.status()?.losses).toEqual({ key: 1, headers: 1 });
  await run.rule({ batch: { messages: 5 }, name: "t", translation: "strict" });
  await run.put([["d", { ...json(4), key: encodeText("k") }]]);
  await waitFor("it is refused", () => run.status()?.counts.deadLettered === 1);
});
