/** What hooks refuse before they keep it: too slow, too much, of another type; and its repeats. */
import { expect, test } from "bun:test";
import { connect } from "node:net";
import { gzipSync } from "node:zlib";
import { deliver, signedNow, verifiedServer } from "./verify/server.ts";
import { type Answer, ShiftedClock, type TestServer } from "./support.ts";

const KEY = "${env:KEY}";

function post(
  server: TestServer,
  hook: string,
  body: string | Uint8Array,
  headers: Record<string, string> = {},
): Promise<Answer> {
  return server.call("POST", `/hooks/${hook}`, { body, headers, token: null });
}

async function messages(server: TestServer): Promise<Record<string, unknown>[]> {
  const page = await server.call("GET", "/streams/s/messages?max=1000");
  return page.json["messages"] as Record<string, unknown>[];
}

async function metrics(server: TestServer): Promise<string> {
  return (await server.call("GET", "/metrics")).text;
}

/** Sends the start of a request and gives what the server answers until it closes. */
function started(server: TestServer, text: string): { answer: Promise<string> } {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = connect(server.port, "127.0.0.1", () => socket.write(text));
  let answer = "";
  socket.on("data", (data: Buffer) => {
    answer += data.toString("latin1");
  });
  socket.on("close", () => resolve(answer));
  socket.on("error", reject);
  return { answer: promise };
}

const LINES = "POST /hooks/in HTTP/1.1\r\nHost: h\r\n";

test.each([
  ["of an announced length", `${LINES}Content-Length: 100\r\n\r\nabc`],
  ["that is long", `${LINES}Content-Length: 1000000\r\n\r\nabc`],
  ["in chunks", `${LINES}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n`],
])(
  "a body %s that comes too slowly is a 408, and takes nothing for long",
  async (_how, text) => {
    const clock = new ShiftedClock();
    await using server = await verifiedServer({ in: { stream: "s" } }, { clock });
    const { answer } = started(server, text);
    while (!(await metrics(server)).includes("isthmus_hooks_under_way 1")) await clock.sleep(5);
    clock.shiftMs += 15_000;
    const told = await answer;
    expect(told).toStartWith("HTTP/1.1 408");
    expect(told).toContain('"code":"too-slow"');
    const after = await metrics(server);
    expect(after).toContain("isthmus_hooks_under_way 0");
    expect(after).toContain("isthmus_hooks_body_bytes 0");
    expect(after).toContain('isthmus_ingest_total{source="hook/in",code="too-slow"} 1');
    expect(await messages(server)).toHaveLength(0);
  },
  20_000,
);

test("a short body has as long as its length takes at the pace, and no more", async () => {
  const clock = new ShiftedClock();
  await using server = await verifiedServer({ in: { stream: "s" } }, { clock });
  const { answer } = started(server, `${LINES}Content-Length: 10240\r\n\r\nabc`);
  while (!(await metrics(server)).includes("isthmus_hooks_under_way 1")) await clock.sleep(5);
  clock.shiftMs += 17_000;
  await clock.sleep(1500);
  expect(await metrics(server)).toContain("isthmus_hooks_under_way 1");
  clock.shiftMs += 2000;
  expect(await answer).toStartWith("HTTP/1.1 408");
}, 20_000);

test("senders that announce bodies and do not send them keep nobody out", async () => {
  const hookLimits = { rate: null, concurrency: 10_000, memoryBytes: 256 * 1024 };
  const config = { hookLimits };
  await using server = await verifiedServer({ in: { stream: "s" } }, { config });
  const bytes = `${LINES}Content-Length: 65536\r\n\r\nabc`;
  const stalled = Array.from({ length: 20 }, () => {
    const socket = connect(server.port, "127.0.0.1", () => socket.write(bytes));
    return socket;
  });
  while (!(await metrics(server)).includes("isthmus_hooks_under_way 20")) await Bun.sleep(5);
  expect((await post(server, "in", "x".repeat(65_536))).status).toBe(202);
  for (const socket of stalled) socket.destroy();
});

test("a slow body that keeps the pace, or a hook without one, is waited for", async () => {
  const clock = new ShiftedClock();
  const limits = { bytesPerSecond: 0 };
  await using server = await verifiedServer({ in: { stream: "s", limits } }, { clock });
  const hold = Promise.withResolvers<void>();
  const body = new ReadableStream<Uint8Array>({
    async start(controller) {
      controller.enqueue(Buffer.from("a"));
      await hold.promise;
      controller.enqueue(Buffer.from("b"));
      controller.close();
    },
  });
  const answer = fetch(`${server.url}/hooks/in`, { method: "POST", body });
  while (!(await metrics(server)).includes("isthmus_hooks_under_way 1")) await clock.sleep(5);
  clock.shiftMs += 3_600_000;
  await clock.sleep(1200);
  hold.resolve();
  expect((await answer).status).toBe(202);
});

test("all hooks together have a rate, a number under way and memory, each counted", async () => {
  const hookLimits = { rate: { count: 2, perMs: 3_600_000 }, concurrency: 10, memoryBytes: 100 };
  const config = { hookLimits };
  await using server = await verifiedServer({ a: { stream: "s" }, b: { stream: "s" } }, { config });
  const full = await post(server, "a", "x".repeat(101));
  expect([full.status, full.json["code"], full.headers.get("retry-after")]).toEqual([
    429,
    "rate-limited",
    "1",
  ]);
  const told = ["ratelimit-policy", "ratelimit"].map((name) => full.headers.get(name));
  expect(told).toEqual(['"hooks-memory";q=100;qu="content-bytes"', '"hooks-memory";r=100']);
  const last = await post(server, "b", "x".repeat(100));
  expect(last.headers.get("ratelimit-policy")).toBe('"hooks";q=2;w=3600');
  const over = await post(server, "a", "x");
  expect([over.status, over.json["detail"]]).toEqual([
    429,
    "all hooks together take 2 webhooks in 3600 s",
  ]);
  expect(Number(over.headers.get("retry-after"))).toBeGreaterThan(1000);
  const text = await metrics(server);
  expect(text).toContain('isthmus_ingest_total{source="hook/a",code="all-memory"} 1');
  expect(text).toContain('isthmus_ingest_total{source="hook/a",code="all-rate-limited"} 1');
  expect(text).toContain("isthmus_hooks_body_bytes 0");
});

test("who comes while as many as may be are under way is told of that limit and of the rate", async () => {
  const limits = { concurrency: 1 };
  await using server = await verifiedServer({
    in: { stream: "s", limits },
    rated: { stream: "s", limits: { ...limits, rate: "5/m" } },
  });
  const expected = {
    in: ['"hook-concurrency";q=1;qu="concurrent-requests"', '"hook-concurrency";r=0'],
    rated: [
      '"hook";q=5;w=60, "hook-concurrency";q=1;qu="concurrent-requests"',
      '"hook";r=4;t=12, "hook-concurrency";r=0',
    ],
  };
  for (const [hook, told] of Object.entries(expected)) {
    const text = `POST /hooks/${hook} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na`;
    const socket = connect(server.port, "127.0.0.1", () => socket.write(text));
    while (!(await metrics(server)).includes("isthmus_hooks_under_way 1")) await Bun.sleep(5);
    const { status, headers } = await post(server, hook, "x");
    expect([status, headers.get("retry-after")]).toEqual([429, "1"]);
    expect([headers.get("ratelimit-policy"), headers.get("ratelimit")]).toEqual(told);
    socket.destroy();
    while (!(await metrics(server)).includes("isthmus_hooks_under_way 0")) await Bun.sleep(5);
  }
});

test("headers over the hook's bound are a 431, types that it doesn't take a 415", async () => {
  await using server = await verifiedServer({
    in: { stream: "s", limits: { headers: 1000 }, accept: ["application/json", "text/*"] },
  });
  const type = (value: string) => post(server, "in", "x", { "content-type": value });
  expect((await type("Application/JSON; charset=utf-8")).status).toBe(202);
  expect((await type("text/csv")).status).toBe(202);
  const other = await type("application/xml");
  expect([other.status, other.json["code"], other.headers.get("accept-post")]).toEqual([
    415,
    "unsupported-media-type",
    "application/json, text/*",
  ]);
  expect((await post(server, "in", Buffer.from("x"))).status).toBe(415);
  const long = await post(server, "in", "x", { "x-pad": "p".repeat(1000) });
  expect([long.status, long.json["code"]]).toEqual([431, "headers-too-large"]);
  expect(await messages(server)).toHaveLength(2);
});

test("gzip is kept as it came, or inflated after its signature; bombs and scraps are refused", async () => {
  const verify = { scheme: "github", secret: KEY };
  await using server = await verifiedServer({
    raw: { stream: "s" },
    in: { stream: "s", inflate: true, key: "body.id", limits: { body: "256KiB" } },
    signed: { stream: "s", verify, inflate: true },
  });
  const gzip = { "content-encoding": "gzip", "content-type": "application/json" };
  const json = '{"id":"é"}';
  await post(server, "raw", gzipSync(json), gzip);
  await post(server, "in", gzipSync(json), gzip);
  await post(server, "in", json, { "content-encoding": "identity" });
  const [raw, inflated, plain] = await messages(server);
  expect(raw?.["bodyBase64"]).toBe(gzipSync(json).toString("base64"));
  expect(raw?.["properties"]).toMatchObject({ contentEncoding: "gzip" });
  expect(inflated).toMatchObject({ body: json, key: "é", origin: { http: { inflated: "gzip" } } });
  expect(inflated?.["properties"]).toEqual({ contentType: "application/json" });
  expect(plain).toMatchObject({ body: json, key: "é" });
  const bomb = await post(server, "in", gzipSync(new Uint8Array(1_000_000)), gzip);
  expect([bomb.status, bomb.json["code"]]).toEqual([413, "too-large"]);
  const scraps = await post(server, "in", "no gzip", gzip);
  expect([scraps.status, scraps.json["detail"]]).toEqual([400, "the body is no gzip"]);
  const cut = await post(server, "in", gzipSync(json).subarray(0, 12), gzip);
  expect(cut.status).toBe(400);
  const brotli = await post(server, "in", "x", { "content-encoding": "br" });
  expect([brotli.status, brotli.headers.get("accept-encoding")]).toEqual([415, "gzip"]);
  const unsigned = await post(server, "signed", gzipSync(json), gzip);
  expect(unsigned.status).toBe(401);
  expect(await messages(server)).toHaveLength(3);
  expect(await metrics(server)).toContain("isthmus_hooks_body_bytes 0");
});

test("a gzip body that grows out of all proportion is refused, however large its hook's bound", async () => {
  await using server = await verifiedServer({ in: { stream: "s", inflate: true } });
  const gzip = { "content-encoding": "gzip" };
  const bomb = await post(server, "in", gzipSync(new Uint8Array(8_000_000)), gzip);
  expect([bomb.status, bomb.json["code"]]).toEqual([413, "too-large"]);
  // As long as the bomb, and of the kind that is no bomb: 16 MiB is what the hook takes.
  const text = Buffer.from(Array.from({ length: 900_000 }, (_, n) => `${n}`).join("\n"));
  expect((await post(server, "in", gzipSync(text), gzip)).status).toBe(202);
  const [stored, ...others] = await messages(server);
  expect([stored?.["body"] === text.toString(), others]).toEqual([true, []]);
  expect(await metrics(server)).toContain("isthmus_hooks_body_bytes 0");
});

test("an Idempotency-Key names a webhook where nothing else does, and stands for one body", async () => {
  await using server = await verifiedServer({
    in: { stream: "s" },
    off: { stream: "s", dedupe: false },
    own: { stream: "s", dedupe: "body.id" },
    github: { stream: "s", verify: { scheme: "github", secret: KEY } },
  });
  const send = (hook: string, body: string, key: string) =>
    post(server, hook, body, { "idempotency-key": key });
  const all = await Promise.all(Array.from({ length: 20 }, () => send("in", "1", '"k-1"')));
  expect(new Set(all.map(({ status }) => status))).toEqual(new Set([202]));
  expect(new Set(all.map(({ json }) => json["offset"])).size).toBe(1);
  const again = await send("in", "1", "k-1");
  expect(again.json).toMatchObject({ duplicate: true, id: all[0]?.json["id"] });
  const other = await send("in", "2", '"k-1"');
  expect([other.status, other.json["code"]]).toEqual([422, "idempotency-key-reused"]);
  for (const bad of ["", "two words", `"${"x".repeat(256)}"`]) {
    expect((await send("in", "1", bad)).status).toBe(400);
  }
  expect((await send("off", "1", '"k-1"')).json["duplicate"]).toBe(false);
  expect((await send("off", "2", '"k-1"')).json["duplicate"]).toBe(false);
  expect((await send("own", '{"id":1}', '"k-1"')).json["duplicate"]).toBe(false);
  expect((await send("own", '{"id":2}', '"k-1"')).json["duplicate"]).toBe(false);
  const headers = { "idempotency-key": '"k-1"' };
  const github = { scheme: "github", body: "1", headers };
  expect((await deliver(server, "github", { ...github, id: "a" })).json["duplicate"]).toBe(false);
  expect((await deliver(server, "github", { ...github, id: "b" })).json["duplicate"]).toBe(false);
});

test("headers that a hook names are not kept", async () => {
  await using server = await verifiedServer({ in: { stream: "s", dropHeaders: ["X-Own-Token"] } });
  await post(server, "in", "x", { "x-own-token": "s3cret", "x-kept": "1" });
  const [stored] = await messages(server);
  expect(JSON.stringify(stored)).not.toContain("s3cret");
  expect(stored?.["headers"]).toContainEqual(["x-kept", "1"]);
});

test("a proxy's word on who called counts only from a trusted one", async () => {
  const forwarded = {
    "x-forwarded-for": "198.51.100.1",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "a.example",
  };
  const verify = { scheme: "twilio", secret: KEY };
  const signed = signedNow({ scheme: "twilio", body: "{}", url: "https://a.example/hooks/in" });
  for (const trustProxies of [["127.0.0.0/8"], []]) {
    await using server = await verifiedServer(
      { in: { stream: "s", verify }, open: { stream: "s" } },
      {
        config: { trustProxies },
      },
    );
    const headers = { ...signed.headers, ...forwarded };
    const answer = await post(server, `in${signed.query}`, "{}", headers);
    expect(answer.status).toBe(trustProxies.length === 0 ? 503 : 204);
    await post(server, "open", "x", forwarded);
    const stored = (await messages(server)).at(-1)?.["origin"];
    const remoteAddress = trustProxies.length === 0 ? "127.0.0.1" : "198.51.100.1";
    expect(stored).toMatchObject({ http: { remoteAddress, scheme: "none", path: "/hooks/open" } });
  }
});
