/**
 * Webhooks against a real HTTP server: what each answer means, order, bounds, broken connections.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { createServer, type Server, type Socket } from "node:net";
import { http } from "../../../bridges/http/module.ts";
import type { Bridge, Outcome, Sink } from "../../../src/bridge.ts";
import { DisconnectedError, InvalidError } from "../../../src/errors.ts";
import { encodeText, type Message } from "../../../src/message.ts";
import { freePort, waitFor } from "../../temporary.ts";
import { testCertificate, testKey } from "../tls.ts";

const never = new AbortController().signal;
const allowPrivate = ["127.0.0.0/8", "::1"];
/** What came, kept apart from the requests themselves, which the server empties when they end. */
const requests: { method: string; url: string; headers: Readonly<Record<string, string>> }[] = [];
let running = 0;
let runningMost = 0;
let gate = Promise.withResolvers<void>();
gate.resolve();

function answerTo(status: number, headers: Record<string, string> = {}): Response {
  return new Response(`answer ${status}`, { status, headers });
}

async function answer(request: Request): Promise<Response> {
  const { method, url } = request;
  requests.push({ method, url, headers: Object.fromEntries(request.headers) });
  const { pathname } = new URL(request.url);
  const status = /^\/status\/(\d+)$/.exec(pathname)?.[1];
  if (status !== undefined) return answerTo(Number(status), { "x-test": "1" });
  if (pathname === "/later") return answerTo(429, { "retry-after": "7" });
  if (pathname === "/later-date") {
    return answerTo(503, { "retry-after": new Date(Date.now() + 3_600_000).toUTCString() });
  }
  if (pathname === "/talkative") return new Response("line\n".repeat(10_000), { status: 422 });
  if (pathname === "/redirect") return answerTo(302, { location: "/status/200" });
  if (pathname === "/never") return await new Promise<Response>(() => {});
  if (pathname === "/endless") return endless();
  if (pathname === "/bomb") {
    return new Response(Bun.gzipSync(new Uint8Array(10_000_000)), {
      status: 400,
      headers: { "content-encoding": "gzip" },
    });
  }
  running += 1;
  runningMost = Math.max(runningMost, running);
  await gate.promise;
  running -= 1;
  if (pathname === "/moody" && request.headers.get("x-mood") === "bad") return answerTo(503);
  return answerTo(200);
}

/** An answer whose body does not come to an end. */
function endless(): Response {
  let open = true;
  const body = new ReadableStream({
    async pull(controller) {
      await Bun.sleep(1);
      if (open) controller.enqueue(new Uint8Array(1000));
    },
    cancel() {
      open = false;
    },
  });
  return new Response(body, { status: 400 });
}

const port = await freePort();
const server = Bun.serve({ hostname: "127.0.0.1", port, idleTimeout: 60, fetch: answer });
const opened: AsyncDisposable[] = [];
afterAll(async () => {
  for (const one of opened) await one[Symbol.asyncDispose]();
  await server.stop(true);
});

async function open(document: Record<string, unknown>): Promise<Bridge> {
  const bridge = await http.connect(http.parseConfig({ allowPrivate, ...document }), {
    name: "crm",
    resolve: (text) => Promise.resolve(text.replaceAll("${env:TOKEN}", "secret")),
    signal: never,
  });
  opened.push(bridge);
  return bridge;
}

async function sinkTo(path: string, more: Record<string, unknown> = {}): Promise<Sink> {
  const bridge = await open({ url: `http://127.0.0.1:${port}${path}`, ...more });
  return await bridge.sink(http.parseAddress({}, "sink"));
}

let made = 0;
function message(parts: Partial<Message> = {}): Message {
  made += 1;
  return {
    id: `m${made}`,
    key: null,
    properties: {},
    headers: [],
    body: encodeText(`body ${made}`),
    timestampMs: 0,
    origin: null,
    ...parts,
  };
}

async function send(
  sink: Sink,
  messages: readonly Message[] = [message()],
  fields: Record<string, unknown> = {},
): Promise<readonly Outcome[]> {
  return await sink.send(
    messages.map((one) => ({ message: one, fields })),
    never,
  );
}

async function outcomeOf(path: string, more: Record<string, unknown> = {}): Promise<Outcome> {
  const [outcome] = await send(await sinkTo(path, more));
  if (outcome === undefined) throw new Error("no outcome");
  return outcome;
}

describe("an answer", () => {
  test("of 2xx is success", async () => {
    for (const status of [200, 201, 202, 204]) {
      expect(await outcomeOf(`/status/${status}`)).toEqual({ sent: `status ${status}` });
    }
  });

  test("of 3xx and 4xx is a refusal", async () => {
    for (const status of [300, 400, 401, 403, 404, 409, 422]) {
      const refused = `the target answered ${status}: answer ${status}`;
      expect(await outcomeOf(`/status/${status}`)).toEqual({ refused });
    }
  });

  test("of 5xx, 408, 425 and 429 means later, when it says", async () => {
    for (const status of [408, 425, 429, 500, 502, 503, 504]) {
      const reason = `the target answered ${status}: answer ${status}`;
      expect(await outcomeOf(`/status/${status}`)).toEqual({ busyMs: 1000, reason });
    }
    expect(await outcomeOf("/later")).toMatchObject({ busyMs: 7000 });
    const inHttpDate = await outcomeOf("/later-date");
    if (!("busyMs" in inHttpDate)) throw new Error("a date was not understood");
    expect(inHttpDate.busyMs).toBeGreaterThan(3_590_000 - 5000);
    expect(inHttpDate.busyMs).toBeLessThanOrEqual(3_600_000);
  });

  test("of 410 closes the target for good: nothing more is sent until it is opened anew", async () => {
    requests.length = 0;
    const bridge = await open({ url: `http://127.0.0.1:${port}/status/410` });
    const address = http.parseAddress({}, "sink");
    const sink = await bridge.sink(address);
    expect(sink.disabled).toBeNull();
    const reason =
      "the target answered 410: answer 410; it is disabled until its rule is changed or its route resumed";
    for (let attempt = 0; attempt < 3; attempt += 1) {
      expect(await send(sink)).toEqual([{ busyMs: 1000, reason }]);
    }
    expect(sink.disabled).toBe(reason);
    expect(requests.length).toBe(1);
    await send(await bridge.sink(address));
    expect(requests.length).toBe(2);
  });

  test("is kept up to 4 KiB, in one line", async () => {
    const outcome = await outcomeOf("/talkative");
    if (!("refused" in outcome)) throw new Error("it was not refused");
    expect(outcome.refused).toStartWith("the target answered 422: line line line");
    expect(outcome.refused.length).toBeGreaterThan(4000);
    expect(outcome.refused.length).toBeLessThanOrEqual(4096 + 30);
  });

  test("that redirects is not followed", async () => {
    requests.length = 0;
    expect(await outcomeOf("/redirect")).toHaveProperty("refused");
    expect(requests.length).toBe(1);
  });

  test("that does not come in time means later", async () => {
    const reason = "the target did not answer within 50 ms";
    expect(await outcomeOf("/never", { timeout: "50ms" })).toEqual({ busyMs: 1000, reason });
  });

  test("is read no further than 4 KiB, and never decompressed", async () => {
    expect(await outcomeOf("/endless")).toHaveProperty("refused");
    expect(await outcomeOf("/bomb")).toEqual({ refused: "the target answered 400" });
  });
});

describe("a request", () => {
  test("has the body, method and headers of message, bridge and address", async () => {
    requests.length = 0;
    const headers = { Authorization: "Bearer ${env:TOKEN}", "x-a": "bridge" };
    const sink = await sinkTo("/in?a=b", { method: "PUT", headers });
    const sent = message({ headers: [{ name: "X-Own", value: encodeText("1") }] });
    const body = Uint8Array.from({ length: 256 }, (_, index) => index);
    await send(sink, [{ ...sent, body }], { headers: { "X-A": "address" } });
    const [request] = requests;
    expect(request?.method).toBe("PUT");
    expect(request?.url).toEndWith("/in?a=b");
    expect(request?.headers).toMatchObject({
      authorization: "Bearer secret",
      "x-a": "address",
      "x-own": "1",
      "webhook-id": sent.id,
      "content-length": "256",
    });
  });

  test("is refused for an address that did not come to headers", async () => {
    const sink = await sinkTo("/in");
    for (const headers of [{ "a b": "1" }, { a: { b: 1 } }, { a: "b\nc" }]) {
      const [outcome] = await send(sink, [message()], { headers });
      expect(outcome).toMatchObject({ refused: expect.any(String), final: true });
    }
  });
});

describe("messages of one send", () => {
  test("go one after another for a key and side by side for others, at most 64", async () => {
    requests.length = 0;
    runningMost = 0;
    gate = Promise.withResolvers<void>();
    const sink = await sinkTo("/in");
    const sent = Array.from({ length: 300 }, (_, index) =>
      message({
        key: encodeText(`key ${index % 75}`),
        headers: [{ name: "x-index", value: encodeText(String(index)) }],
      }),
    );
    const sending = send(sink, sent);
    await waitFor("64 are under way", () => running === 64);
    gate.resolve();
    expect((await sending).every((outcome) => "sent" in outcome)).toBe(true);
    expect(runningMost).toBe(64);
    const order = requests.map((request) => Number(request.headers["x-index"]));
    expect(new Set(order).size).toBe(300);
    for (let key = 0; key < 75; key += 1) {
      const ofKey = order.filter((index) => index % 75 === key);
      expect(ofKey).toEqual(ofKey.toSorted((a, b) => a - b));
    }
  });

  test("do not overtake one of their key that was not sent", async () => {
    requests.length = 0;
    const sink = await sinkTo("/moody");
    const of = (key: string | null, mood: string): Message =>
      message({
        key: key === null ? null : encodeText(key),
        headers: [{ name: "x-mood", value: encodeText(mood) }],
      });
    const outcomes = await send(sink, [
      of("a", "good"),
      of("a", "bad"),
      of("a", "good"),
      of("b", "good"),
      of(null, "good"),
    ]);
    expect(outcomes).toEqual([
      { sent: "status 200" },
      { busyMs: 1000, reason: "the target answered 503: answer 503" },
      { busyMs: 1000, reason: "the target answered 503: answer 503" },
      { sent: "status 200" },
      { sent: "status 200" },
    ]);
    expect(requests.length).toBe(4);
  });
});

describe("a target that is not there", () => {
  test("ends the bridge with the reason", async () => {
    const away = await freePort();
    const brief = createServer((socket) => void socket.on("error", () => {}));
    await new Promise<void>((resolve) => brief.listen(away, "127.0.0.1", () => resolve()));
    const bridge = await open({ url: `http://127.0.0.1:${away}/` });
    const sink = await bridge.sink(http.parseAddress({}, "sink"));
    await new Promise<void>((resolve) => brief.close(() => resolve()));
    await expect(send(sink)).rejects.toBeInstanceOf(DisconnectedError);
    expect((await bridge.closed)?.message).toBe(`127.0.0.1:${away} refused the connection`);
  });

  test("may be one that leads into the machine only by its name, and is refused", async () => {
    const error = await open({ url: `http://localhost:${port}/`, allowPrivate: [] }).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(InvalidError);
    expect((error as Error).message).toContain("a loopback address; allow it with allowPrivate");
  });
});

describe("a kept connection", () => {
  /** A server that answers one request a connection and closes when the second one comes. */
  async function forgetful(): Promise<{ server: Server; port: number; connections: () => number }> {
    const at = await freePort();
    let connections = 0;
    const accept = (socket: Socket): void => {
      connections += 1;
      let seen = 0;
      socket.on("error", () => {});
      socket.on("data", () => {
        seen += 1;
        if (seen > 1) socket.resetAndDestroy();
        else socket.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
      });
    };
    const listening = createServer(accept);
    await new Promise<void>((resolve) => listening.listen(at, "127.0.0.1", () => resolve()));
    return { server: listening, port: at, connections: () => connections };
  }

  test("that the server has closed meanwhile costs one more try, not a failure", async () => {
    const target = await forgetful();
    const bridge = await open({ url: `http://127.0.0.1:${target.port}/` });
    const sink = await bridge.sink(http.parseAddress({}, "sink"));
    for (let index = 0; index < 3; index += 1) {
      expect(await send(sink)).toEqual([{ sent: "status 200" }]);
    }
    // One connection was the look whether anybody is there.
    expect(target.connections()).toBeGreaterThanOrEqual(3);
    await bridge[Symbol.asyncDispose]();
    await new Promise<void>((resolve) => target.server.close(() => resolve()));
  });
});

describe("a target behind TLS", () => {
  test("is trusted by the authority that the bridge names, and by no other", async () => {
    const secure = Bun.serve({
      hostname: "127.0.0.1",
      port: await freePort(),
      tls: { cert: testCertificate, key: testKey },
      fetch: () => new Response(null, { status: 204 }),
    });
    const url = `https://localhost:${secure.port}/`;
    const error = await open({ url }).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(DisconnectedError);
    expect((error as Error).message).toContain("certificate");
    const bridge = await open({ url, tls: { ca: testCertificate } });
    const sink = await bridge.sink(http.parseAddress({}, "sink"));
    expect(await send(sink)).toEqual([{ sent: "status 204" }]);
    await bridge[Symbol.asyncDispose]();
    await secure.stop(true);
  });
});
