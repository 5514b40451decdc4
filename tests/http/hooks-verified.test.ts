/** Hooks that verify their senders: what is let in, what is kept, and what is answered. */
import { expect, test } from "bun:test";
import { generateKeyPairSync, sign } from "node:crypto";
import { systemClock } from "../../src/clock.ts";
import { hmacText } from "./verify/mac.ts";
import { define, deliver, SECRET, signedNow, verifiedServer } from "./verify/server.ts";
import type { TestServer } from "./support.ts";

const KEY = "${env:KEY}";

async function messages(server: TestServer): Promise<Record<string, unknown>[]> {
  const page = await server.call("GET", "/streams/s/messages?max=10000");
  return page.json["messages"] as Record<string, unknown>[];
}

test("a webhook whose signature doesn't hold changes nothing and is told which check failed", async () => {
  await using server = await verifiedServer({
    in: { stream: "s", verify: { scheme: "stripe", secret: KEY } },
  });
  const good = await deliver(server, "in", { scheme: "stripe", body: '{"id":"evt_1"}' });
  expect([good.status, good.json["duplicate"]]).toEqual([202, false]);
  const bad = await deliver(server, "in", { scheme: "stripe", body: "{}", secret: "other" });
  expect([bad.status, bad.json["code"]]).toEqual([401, "signature-invalid"]);
  expect(bad.json["detail"]).toBe("the signature in stripe-signature does not fit this request");
  const bare = await server.call("POST", "/hooks/in", { body: "{}", token: null });
  expect(bare.json["detail"]).toBe("the header stripe-signature is missing");
  const { headers } = signedNow({ scheme: "stripe", body: "{}" });
  const old = `t=1492774577,v1=${await hmacText(SECRET, "1492774577.{}")}`;
  const late = await server.call("POST", "/hooks/in", {
    body: "{}",
    headers: { ...headers, "stripe-signature": old },
    token: null,
  });
  expect([late.status, late.json["code"]]).toEqual([401, "timestamp-outside-tolerance"]);
  expect(await messages(server)).toHaveLength(1);
  const { text } = await server.call("GET", "/metrics");
  expect(text).toContain('isthmus_ingest_total{source="hook/in",code="signature-invalid"} 2');
  expect(text).toContain(
    'isthmus_ingest_total{source="hook/in",code="timestamp-outside-tolerance"} 1',
  );
});

test("a refusal asks for a password or a token where the proof is one, and else for nothing", async () => {
  const jwt = { scheme: "jwt", secret: KEY, audience: "a" };
  await using server = await verifiedServer({
    basic: { stream: "s", verify: { scheme: "basic", username: "u", password: KEY } },
    bearer: { stream: "s", verify: { scheme: "bearer", secret: KEY } },
    jwt: { stream: "s", verify: jwt },
    own: { stream: "s", verify: { ...jwt, header: "X-Token" } },
    github: { stream: "s", verify: { scheme: "github", secret: KEY } },
  });
  const asked: Record<string, string | null> = {};
  for (const hook of ["basic", "bearer", "jwt", "own", "github"]) {
    const answer = await server.call("POST", `/hooks/${hook}`, { body: "{}", token: null });
    expect(answer.status).toBe(401);
    asked[hook] = answer.headers.get("www-authenticate");
  }
  const bearer = 'Bearer realm="isthmus"';
  expect(asked).toEqual({
    basic: 'Basic realm="isthmus"',
    bearer,
    jwt: bearer,
    own: null,
    github: null,
  });
});

test("what is kept is enough to check the signature again, until the key is gone", async () => {
  await using server = await verifiedServer({
    in: { stream: "s", verify: { scheme: "standard-webhooks", secret: KEY } },
    open: { stream: "s" },
  });
  const body = '{ "é":"漢",\t"n":1.0 }\r\n';
  await deliver(server, "in", { scheme: "standard-webhooks", body });
  const [stored] = await messages(server);
  expect(stored?.["body"]).toBe(body);
  expect(stored?.["origin"]).toMatchObject({
    bridge: "http",
    address: "in",
    http: {
      method: "POST",
      path: "/hooks/in",
      remoteAddress: "127.0.0.1",
      scheme: "standard-webhooks",
      keyId: "env:KEY",
    },
  });
  const again = await server.call("GET", "/api/verifications/s/0/0");
  expect(again.json).toMatchObject({ valid: true, hook: "in", keyId: "env:KEY" });
  await define(server, "in", {
    stream: "s",
    verify: { scheme: "standard-webhooks", secret: { secret: KEY, until: "2001-01-01T00:00:00Z" } },
  });
  const ended = await server.call("GET", "/api/verifications/s/0/0");
  expect(ended.json).toMatchObject({ valid: false, code: "signature-invalid" });
  await server.call("POST", "/hooks/open", { body: "x", token: null });
  const open = await server.call("GET", "/api/verifications/s/0/1");
  expect([open.status, open.text]).toEqual([400, expect.stringContaining("a verified hook")]);
  expect((await messages(server))[1]?.["origin"]).toMatchObject({ http: { scheme: "none" } });
  expect((await server.call("GET", "/api/verifications/s/0/9")).status).toBe(404);
});

test("the provider's own id names a message, unless the hook says otherwise", async () => {
  const verify = { scheme: "github", secret: KEY };
  await using server = await verifiedServer({
    id: { stream: "s", verify },
    off: { stream: "s", verify, dedupe: false },
    own: { stream: "s", verify, dedupe: "body.n" },
    stripe: { stream: "s", verify: { scheme: "stripe", secret: KEY } },
  });
  const twice = async (hook: string, scheme: string, bodies: readonly string[], ids: string[]) => {
    const answers = [];
    for (const [index, body] of bodies.entries()) {
      answers.push(await deliver(server, hook, { scheme, body, id: ids[index] ?? "x" }));
    }
    return answers.map(({ json }) => json["duplicate"]);
  };
  expect(await twice("id", "github", ["1", "1"], ["a", "a"])).toEqual([false, true]);
  expect(await twice("id", "github", ["1"], ["b"])).toEqual([false]);
  expect(await twice("off", "github", ["1", "1"], ["a", "a"])).toEqual([false, false]);
  const numbered = ['{"n":1}', '{"n":2}', '{"n":1}'];
  expect(await twice("own", "github", numbered, ["a", "a", "b"])).toEqual([false, false, true]);
  const events = ['{"id":"evt_1"}', '{"id":"evt_1","again":1}', "not json", "not json"];
  expect(await twice("stripe", "stripe", events, [])).toEqual([false, true, false, false]);
  const { text } = await server.call("GET", "/metrics");
  expect(text).not.toMatch(/isthmus_expression_failures_total\{kind="hook",name="stripe"\}/);
});

test("handshakes are answered after the signature and kept nowhere", async () => {
  await using server = await verifiedServer({
    slack: { stream: "s", verify: { scheme: "slack", secret: KEY } },
    zoom: { stream: "s", verify: { scheme: "zoom", secret: KEY } },
  });
  const body = '{"type":"url_verification","challenge":"3eZbrw1aB10FEMAGAZd4FyFQ"}';
  const refused = await deliver(server, "slack", { scheme: "slack", body, secret: "other" });
  expect(refused.status).toBe(401);
  const slack = await deliver(server, "slack", { scheme: "slack", body });
  expect([slack.status, slack.text]).toEqual([200, "3eZbrw1aB10FEMAGAZd4FyFQ"]);
  const validation =
    '{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}';
  const zoom = await deliver(server, "zoom", { scheme: "zoom", body: validation });
  expect([zoom.status, zoom.json]).toEqual([
    200,
    {
      plainToken: "qgg8vlvZRS6UYooatFL8Aw",
      encryptedToken: await hmacText(SECRET, "qgg8vlvZRS6UYooatFL8Aw"),
    },
  ]);
  expect(await messages(server)).toHaveLength(0);
  const event = await deliver(server, "slack", { scheme: "slack", body: '{"event_id":"Ev1"}' });
  expect([event.status, event.text]).toEqual([200, ""]);
  expect((await deliver(server, "zoom", { scheme: "zoom", body: "{}" })).status).toBe(204);
  expect(await messages(server)).toHaveLength(2);
});

test("discord's pings are answered, its interactions and events are kept", async () => {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const raw = publicKey.export({ format: "der", type: "spki" }).subarray(-32).toString("hex");
  await using server = await verifiedServer({
    in: { stream: "s", verify: { scheme: "discord", publicKey: raw } },
  });
  const send = (body: string, signed = body) => {
    const time = String(Math.floor(systemClock.nowMs() / 1000));
    const headers = {
      "x-signature-timestamp": time,
      "x-signature-ed25519": sign(null, Buffer.from(time + signed), privateKey).toString("hex"),
    };
    return server.call("POST", "/hooks/in", { body, headers, token: null });
  };
  expect((await send('{"type":1}', "other")).status).toBe(401);
  const ping = await send('{"type":1,"id":"1","application_id":"2","token":"t"}');
  expect([ping.status, ping.json]).toEqual([200, { type: 1 }]);
  expect((await send('{"type":0,"application_id":"2"}')).status).toBe(204);
  expect(await messages(server)).toHaveLength(0);
  expect((await send('{"type":2,"id":"3","token":"t"}')).status).toBe(204);
  expect((await send('{"type":1,"event":{"type":"ENTITLEMENT_CREATE"}}')).status).toBe(204);
  expect(await messages(server)).toHaveLength(2);
});

test("a challenge is given back as text, to whoever shows the token where there is one", async () => {
  await using server = await verifiedServer({
    meta: {
      stream: "s",
      verify: {
        scheme: "none",
        challenge: { parameter: "hub.challenge", token: "hub.verify_token" },
        token: KEY,
      },
    },
    plain: { stream: "s", verify: { scheme: "none", challenge: "challenge" } },
  });
  const ask = (query: string) => server.call("GET", `/hooks/${query}`, { token: null });
  const asked = "hub.mode=subscribe&hub.challenge=1158201444";
  const meta = await ask(`meta?${asked}&hub.verify_token=${SECRET}`);
  expect([meta.status, meta.text]).toEqual([200, "1158201444"]);
  expect(meta.headers.get("content-type")).toBe("text/plain; charset=utf-8");
  expect((await ask(`meta?${asked}&hub.verify_token=other`)).json["code"]).toBe(
    "signature-invalid",
  );
  expect((await ask(`meta?${asked}`)).status).toBe(401);
  expect((await ask("plain?challenge=%3Cscript%3E")).text).toBe("<script>");
  expect((await ask(`plain?challenge=${"x".repeat(1001)}`)).status).toBe(400);
  expect((await ask("plain")).json).toEqual({ hook: "plain", takes: ["POST"] });
  expect((await server.call("HEAD", "/hooks/plain", { token: null })).status).toBe(200);
});

test("a CloudEvents sender that asks is allowed, as often as the hook takes", async () => {
  await using server = await verifiedServer({
    in: { stream: "s", limits: { rate: "10/s" } },
    free: { stream: "s" },
  });
  const headers = { "webhook-request-origin": "events.example", "webhook-request-rate": "1000" };
  const ask = (hook: string) => server.call("OPTIONS", `/hooks/${hook}`, { headers, token: null });
  const limited = await ask("in");
  expect(limited.status).toBe(204);
  expect(limited.headers.get("webhook-allowed-origin")).toBe("events.example");
  expect(limited.headers.get("webhook-allowed-rate")).toBe("600");
  expect((await ask("free")).headers.get("webhook-allowed-rate")).toBe("*");
  const plain = await server.call("OPTIONS", "/hooks/in", { token: null });
  expect(plain.headers.get("webhook-allowed-origin")).toBeNull();
  expect(plain.headers.get("allow")).toBe("GET, HEAD, OPTIONS, POST");
});

test("a hook answers as it says, and takes the methods that it names", async () => {
  await using server = await verifiedServer({
    twiml: {
      stream: "s",
      answer: { status: 200, contentType: "text/xml", body: "<Response/>" },
      methods: ["PUT", "GET"],
    },
  });
  const put = await server.call("PUT", "/hooks/twiml", { body: "x", token: null });
  expect([put.status, put.text, put.headers.get("content-type")]).toEqual([
    200,
    "<Response/>",
    "text/xml",
  ]);
  expect((await server.call("GET", "/hooks/twiml?a=1", { token: null })).text).toBe("<Response/>");
  expect((await server.call("POST", "/hooks/twiml", { body: "x", token: null })).status).toBe(405);
  expect((await messages(server)).map(({ body }) => body)).toEqual(["x", ""]);
});

test("a key that can't be had is a 503 of that hook alone, and stands in its status", async () => {
  await using server = await verifiedServer({
    in: { stream: "s", verify: { scheme: "github", secret: "${env:MISSING}" } },
    other: { stream: "s", verify: { scheme: "github", secret: KEY } },
  });
  const answer = await deliver(server, "in", { scheme: "github", body: "{}" });
  expect([answer.status, answer.json["code"]]).toEqual([503, "hook-unavailable"]);
  expect(answer.headers.get("retry-after")).toBe("5");
  // Whoever sends is told no names of variables and no paths; its operator is.
  expect(answer.text).not.toContain("MISSING");
  const { json } = await server.call("GET", "/api/hooks/in");
  expect(json["status"]).toMatchObject({
    state: "failing",
    error: "${env:MISSING} can't be resolved",
    refused: { "hook-unavailable": 1 },
  });
  expect((await deliver(server, "other", { scheme: "github", body: "{}" })).status).toBe(202);
  const other = await server.call("GET", "/api/hooks/other");
  expect(other.json["status"]).toMatchObject({
    state: "active",
    scheme: "github",
    keys: [{ id: "env:KEY", state: "active", lastUsedAt: expect.any(Number) }],
  });
  expect(other.json["status"]).not.toHaveProperty("warning");
});

test("secrets with ends, passwords and tokens of challenges are stored encrypted", async () => {
  const until = "2030-01-01T00:00:00Z";
  await using server = await verifiedServer({
    many: {
      stream: "s",
      verify: { scheme: "github", secrets: ["clear-1", { secret: "clear-2", until }] },
    },
    one: { stream: "s", verify: { scheme: "github", secret: { secret: "clear-3", until } } },
    basic: { stream: "s", verify: { scheme: "basic", username: "u", password: "clear-4" } },
    meta: {
      stream: "s",
      verify: { scheme: "none", challenge: { parameter: "c", token: "t" }, token: "clear-5" },
    },
  });
  const { text } = await server.call("GET", "/api/hooks");
  expect(text).not.toContain("clear-");
  expect(text).toContain("${secret:hooks.many.verify.secrets.1.secret}");
  expect(text).toContain("${secret:hooks.one.verify.secret.secret}");
});

test("twilio signs the public URL: the gateway's, else the hook's own, else none is known", async () => {
  const verify = { scheme: "twilio", secret: KEY };
  const send = (server: TestServer, url: string) =>
    deliver(server, "in", { scheme: "twilio", body: "{}", url });
  {
    await using server = await verifiedServer({ in: { stream: "s", verify } });
    const answer = await send(server, "https://a.example/hooks/in");
    expect([answer.status, answer.json["code"]]).toEqual([503, "hook-unavailable"]);
    const trouble = "the signature is over the public URL, which is not known";
    const { json } = await server.call("GET", "/api/hooks/in");
    expect(json["status"]).toMatchObject({
      state: "failing",
      error: expect.stringContaining(trouble),
    });
    const hooks = { in: { stream: "s", verify, key: "body.id" } };
    const applied = await server.call("POST", "/api/apply", { body: JSON.stringify({ hooks }) });
    expect(applied.json["warnings"]).toEqual([expect.stringContaining(`hook in answers 503`)]);
  }
  const config = { publicUrl: "https://a.example/" };
  await using server = await verifiedServer({ in: { stream: "s", verify } }, { config });
  expect((await send(server, "https://a.example/hooks/in")).status).toBe(204);
  expect((await send(server, "https://b.example/t")).status).toBe(401);
  expect((await server.call("GET", "/api/verifications/s/0/0")).json["valid"]).toBe(true);
});

test("over its rate a hook answers 429 and says how long to wait", async () => {
  await using server = await verifiedServer({ in: { stream: "s", limits: { rate: "2/h" } } });
  const send = () => server.call("POST", "/hooks/in", { body: "x", token: null });
  const first = await send();
  expect(first.headers.get("ratelimit-policy")).toBe('"hook";q=2;w=3600');
  expect(first.headers.get("ratelimit")).toBe('"hook";r=1;t=1800');
  await send();
  const over = await send();
  expect([over.status, over.json["code"]]).toEqual([429, "rate-limited"]);
  expect(Number(over.headers.get("retry-after"))).toBeWithin(1790, 1801);
  expect(await messages(server)).toHaveLength(2);
});

test("a hook has its own bounds of the body and of webhooks under way", async () => {
  await using server = await verifiedServer({
    in: { stream: "s", limits: { body: "1KiB", concurrency: 1 } },
  });
  const over = await server.call("POST", "/hooks/in", { body: "x".repeat(1025), token: null });
  expect([over.status, over.json["code"]]).toEqual([413, "too-large"]);
  const slow = Promise.withResolvers<void>();
  const body = new ReadableStream<Uint8Array>({
    async start(controller) {
      controller.enqueue(Buffer.from("a"));
      await slow.promise;
      controller.enqueue(Buffer.from("b"));
      controller.close();
    },
  });
  const first = fetch(`${server.url}/hooks/in`, { method: "POST", body });
  let second = await server.call("POST", "/hooks/in", { body: "x", token: null });
  while (second.status !== 429) {
    second = await server.call("POST", "/hooks/in", { body: "x", token: null });
  }
  expect(second.headers.get("retry-after")).toBe("1");
  slow.resolve();
  expect((await first).status).toBe(202);
  const third = await server.call("POST", "/hooks/in", { body: "x", token: null });
  expect(third.status).toBe(202);
});

test("a thousand duplicates of each of ten messages at once are ten messages", async () => {
  await using server = await verifiedServer({
    in: { stream: "s", verify: { scheme: "github", secret: KEY } },
  });
  const all = Array.from({ length: 10_000 }, (_, index) => index % 10);
  const offsets = new Map<number, Set<unknown>>();
  const worker = async (): Promise<void> => {
    for (let n = all.pop(); n !== undefined; n = all.pop()) {
      const answer = await deliver(server, "in", { scheme: "github", body: `${n}`, id: `d${n}` });
      expect(answer.status).toBe(202);
      offsets.set(n, (offsets.get(n) ?? new Set()).add(answer.json["offset"]));
    }
  };
  await Promise.all(Array.from({ length: 64 }, worker));
  expect([...offsets.values()].map(({ size }) => size)).toEqual(Array(10).fill(1));
  expect(await messages(server)).toHaveLength(10);
}, 60_000);
