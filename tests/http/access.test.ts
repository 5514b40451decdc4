/**
 * Clients with JSON Web Tokens against real gateway sockets and a real JWKS server on loopback:
 * who is let in, what grants let them do, and how soon a token's end is felt.
 */
import { expect, test } from "bun:test";
import { exportJWK, generateKeyPair, type JWK, SignJWT } from "jose";
import { freePort, waitFor } from "../temporary.ts";
import { TestSocket } from "./socket-client.ts";
import { ADMIN_TOKEN, type TestServer, testServer } from "./support.ts";

type KeyPair = Awaited<ReturnType<typeof generateKeyPair>>;

/** An identity provider: signs tokens, and serves its public keys. */
class Issuer implements AsyncDisposable {
  readonly url: string;
  fetches = 0;
  status = 200;
  #keys: { readonly kid: string; readonly pair: KeyPair; readonly jwk: JWK }[] = [];
  readonly #server: Bun.Server<undefined>;

  private constructor(port: number) {
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port,
      fetch: () => {
        this.fetches++;
        if (this.status === 302) return Response.redirect(`${this.url}/other`);
        return Response.json({ keys: this.#keys.map(({ jwk }) => jwk) }, { status: this.status });
      },
    });
    this.url = `http://127.0.0.1:${port}/jwks`;
  }

  static async start(): Promise<Issuer> {
    const issuer = new Issuer(await freePort());
    await issuer.rotate("k1");
    return issuer;
  }

  /** From here on another key signs, and is the only one served. */
  async rotate(kid: string): Promise<void> {
    const pair = await generateKeyPair("ES256", { extractable: true });
    const jwk = { ...(await exportJWK(pair.publicKey)), kid, use: "sig", alg: "ES256" };
    this.#keys = [{ kid, pair, jwk }];
  }

  token(claims: Record<string, unknown>, lifeS: number | null = 60): Promise<string> {
    const [key] = this.#keys;
    if (key === undefined) throw new Error("no key");
    const nowS = Math.floor(Date.now() / 1000);
    const jwt = new SignJWT({ aud: "app", ...claims }).setProtectedHeader({
      alg: "ES256",
      kid: key.kid,
    });
    if (lifeS !== null) jwt.setExpirationTime(nowS + lifeS);
    return jwt.sign(key.pair.privateKey);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}

const by = { by: "tests" };

async function define(server: TestServer, name: string, document: object | null): Promise<void> {
  await server.gateway.change([{ kind: "access", name, document: document as never }], by);
}

async function withAccess(issuer: Issuer, more: object = {}): Promise<TestServer> {
  const server = await testServer();
  await define(server, "app", {
    jwt: { jwks: issuer.url, audience: "app", leeway: "0s" },
    read: [
      { stream: "inbox", key: "claims.sub" },
      { stream: "docs", where: "body.owner == claims.sub" },
    ],
    write: [
      { stream: "chat", key: "claims.sub" },
      { stream: "docs", where: "body.owner == claims.sub" },
    ],
    ...more,
  });
  return server;
}

test("a JWT opens a socket, and its claims are its grants", async () => {
  await using issuer = await Issuer.start();
  await using server = await withAccess(issuer);
  using socket = await TestSocket.open(server.url, await issuer.token({ sub: "ann" }));
  await socket.send({ op: "subscribe", sub: "a", stream: "inbox", key: "ann" });
  await socket.take("subscribed");
  await socket.send({ op: "subscribe", sub: "b", stream: "inbox", key: "bob" });
  expect((await socket.take("error"))["code"]).toBe("forbidden");
  expect(issuer.fetches).toBe(1);
});

test("a write grant's key is forced, and the server stamps who wrote", async () => {
  await using issuer = await Issuer.start();
  await using server = await withAccess(issuer);
  const token = await issuer.token({ sub: "ann" });
  const headers = { "content-type": "application/x-ndjson" };
  const lines = '{"body":"1"}\n{"key":"ann","body":"2"}';
  const path = "/streams/chat/messages";
  expect((await server.call("POST", path, { token, headers, body: lines })).status).toBe(202);
  const other = { "isthmus-key": "bob" };
  const refused = await server.call("POST", path, { token, headers: other, body: "3" });
  expect(refused.status).toBe(403);
  const { json } = await server.call("GET", `${path}?from=earliest`);
  expect(json["messages"]).toMatchObject([
    { key: "ann", body: "1", origin: { principal: "ann" } },
    { key: "ann", body: "2", origin: { principal: "ann" } },
  ]);
});

test("a grant's where is forced on every way of reading and on writes", async () => {
  await using issuer = await Issuer.start();
  await using server = await withAccess(issuer);
  const token = await issuer.token({ sub: "ann" });
  const path = "/streams/docs/messages";
  await server.publish("docs", '{"owner":"bob","n":0}');
  expect((await server.call("POST", path, { token, body: '{"owner":"bob"}' })).status).toBe(403);
  const mine = await server.call("POST", path, { token, body: '{"owner":"ann"}' });
  expect(mine.status).toBe(202);
  const read = await server.call("GET", `${path}?from=earliest`, { token });
  expect((read.json["messages"] as { offset: number }[]).map(({ offset }) => offset)).toEqual([1]);
  expect((await server.call("GET", "/receipts/docs/0/0", { token })).status).toBe(403);
  expect((await server.call("GET", "/receipts/docs/0/1", { token })).status).toBe(200);
  using socket = await TestSocket.open(server.url, token);
  await socket.send({ op: "subscribe", sub: "s", stream: "docs", from: "earliest" });
  await socket.take("subscribed");
  expect(await socket.take("message")).toMatchObject({ offset: 1 });
  const headers = { authorization: `Bearer ${token}`, accept: "text/event-stream" };
  const events = await fetch(`${server.url}/streams/docs/events?from=earliest&max=1`, { headers });
  expect(await events.text()).toContain('"offset":1');
});

test.each([
  ["without an end", { sub: "ann" }, null],
  ["for another audience", { sub: "ann", aud: "web" }, 60],
  ["without a subject", {}, 60],
  ["with a role's subject", { sub: "token:admin" }, 60],
] as const)("a JWT %s is not let in", async (_, claims, lifeS) => {
  await using issuer = await Issuer.start();
  await using server = await withAccess(issuer);
  const token = await issuer.token(claims, lifeS);
  expect((await server.call("GET", "/streams/inbox/messages?key=ann", { token })).status).toBe(401);
});

test("no token chooses its own algorithm", async () => {
  await using issuer = await Issuer.start();
  await using server = await withAccess(issuer);
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = part({ sub: "ann", aud: "app", exp: Math.floor(Date.now() / 1000) + 60 });
  const none = `${part({ alg: "none" })}.${claims}.`;
  const jwks = await (await fetch(issuer.url)).text();
  const mixed = await new SignJWT({ sub: "ann", aud: "app" })
    .setProtectedHeader({ alg: "HS256", kid: "k1" })
    .setExpirationTime("1m")
    .sign(new TextEncoder().encode(jwks));
  for (const token of [none, `${none}AA`, mixed]) {
    const answer = await server.call("GET", "/streams/inbox/messages?key=ann", { token });
    expect(answer.status).toBe(401);
  }
});

test("a rotated key is found, and known keys count while their server is away", async () => {
  await using issuer = await Issuer.start();
  await using server = await withAccess(issuer);
  const path = "/streams/inbox/messages?key=ann";
  const get = async (claims: object) =>
    (await server.call("GET", path, { token: await issuer.token({ sub: "ann", ...claims }) }))
      .status;
  expect(await get({})).toBe(200);
  issuer.status = 500;
  expect(await get({ n: 1 })).toBe(200);
  issuer.status = 200;
  await issuer.rotate("k2");
  // Keys are fetched again at most once in a few seconds, however many unknown ones are named.
  expect(await get({ n: 2 })).toBe(401);
  expect(issuer.fetches).toBe(1);
  await waitFor("the new key counts", async () => (await get({ n: 3 })) === 200);
});

test.each([404, 302])("keys that can't be fetched (%d) are a 503, never a 401", async (status) => {
  await using issuer = await Issuer.start();
  issuer.status = status;
  await using server = await withAccess(issuer);
  const token = await issuer.token({ sub: "ann" });
  const answer = await server.call("GET", "/streams/inbox/messages?key=ann", { token });
  expect([answer.status, answer.json["code"]]).toEqual([503, "keys-unavailable"]);
  using socket = new TestSocket(server.url);
  await socket.send({ op: "auth", token });
  const { code, reason } = await socket.closed;
  expect(code).toBe(4411);
  expect(reason).toMatch(/retryMs=\d+$/);
});

test("a token's end closes the socket with 4401, and a later token keeps it open", async () => {
  await using issuer = await Issuer.start();
  await using server = await withAccess(issuer);
  const short = await issuer.token({ sub: "ann" }, 2);
  using ending = await TestSocket.open(server.url, short);
  using staying = await TestSocket.open(server.url, short);
  await staying.send({ op: "auth", token: await issuer.token({ sub: "ann" }) });
  await staying.take("welcome");
  expect((await ending.closed).code).toBe(4401);
  await staying.send({ op: "ping" });
  await staying.take("pong");
  using late = new TestSocket(server.url);
  await late.send({ op: "auth", token: short });
  expect((await late.closed).code).toBe(4401);
});

test("a deleted access ends sockets, event streams and waiting reads at once", async () => {
  await using issuer = await Issuer.start();
  await using server = await withAccess(issuer);
  const token = await issuer.token({ sub: "ann" });
  using socket = await TestSocket.open(server.url, token);
  const headers = { authorization: `Bearer ${token}` };
  const events = await fetch(`${server.url}/streams/inbox/events?key=ann`, { headers });
  const poll = server.call("GET", "/streams/inbox/messages?key=ann&from=latest&wait=50s", {
    token,
  });
  await define(server, "app", null);
  const startMs = performance.now();
  expect((await socket.closed).code).toBe(4501);
  expect(await events.text()).not.toContain("data:");
  expect((await poll).status).toBe(401);
  expect(performance.now() - startMs).toBeLessThan(10_000);
});

test("other grants of an access count for those who are connected", async () => {
  await using issuer = await Issuer.start();
  await using server = await withAccess(issuer);
  const { token } = { token: await issuer.token({ sub: "ann" }) };
  using socket = await TestSocket.open(server.url, token);
  await socket.send({ op: "subscribe", sub: "a", stream: "inbox", key: "ann" });
  await socket.take("subscribed");
  const jwt = { jwks: issuer.url, audience: "app", leeway: "0s" };
  await define(server, "app", { jwt, read: [{ stream: "news" }] });
  expect((await socket.closed).code).toBe(4503);
});

test("of several accesses the one that says most of the token decides", async () => {
  await using issuer = await Issuer.start();
  await using server = await withAccess(issuer);
  const jwt = { jwks: issuer.url, audience: "app", issuer: "https://id.example" };
  await define(server, "zz", { jwt, read: [{ stream: "news" }] });
  const status = async (claims: object, stream: string) =>
    (
      await server.call("GET", `/streams/${stream}/messages?key=ann`, {
        token: await issuer.token({ sub: "ann", ...claims }),
      })
    ).status;
  expect(await status({ iss: "https://id.example" }, "news")).toBe(200);
  expect(await status({ iss: "https://id.example" }, "inbox")).toBe(403);
  expect(await status({}, "inbox")).toBe(200);
});

test("a ticket opens one socket or one event stream, and no second one", async () => {
  await using issuer = await Issuer.start();
  await using server = await withAccess(issuer);
  const token = await issuer.token({ sub: "ann" });
  const ticket = async (): Promise<string> => {
    const made = await server.call("POST", "/api/tickets", { token });
    expect(made.status).toBe(201);
    return String(made.json["ticket"]);
  };
  const first = await ticket();
  using socket = new TestSocket(server.url, ["isthmus.v1.json", `ticket.${first}`]);
  await socket.take("welcome");
  using again = new TestSocket(server.url, ["isthmus.v1.json", `ticket.${first}`]);
  expect((await again.closed).code).toBe(4501);
  const url = `${server.url}/streams/inbox/events?key=ann&ticket=${await ticket()}`;
  const events = await fetch(url);
  expect(events.status).toBe(200);
  await events.body?.cancel();
  expect((await fetch(url)).status).toBe(401);
  expect(server.logLines.join("")).not.toContain(first);
});

test("pages of other origins are refused before the upgrade, and let in by the list", async () => {
  await using server = await testServer({ config: { origins: ["https://*.shop.example"] } });
  const call = (path: string, init: RequestInit) => fetch(`${server.url}${path}`, init);
  const upgrade = { upgrade: "websocket", connection: "upgrade", "sec-websocket-version": "13" };
  const evil = { origin: "https://evil.example" };
  expect((await call("/socket", { headers: { ...upgrade, ...evil } })).status).toBe(403);
  expect((await call("/health/live", { headers: evil })).status).toBe(403);
  const near = { origin: "https://evilshop.example" };
  expect((await call("/health/live", { headers: near })).status).toBe(403);
  const good = { origin: "https://a.shop.example" };
  const answer = await call("/health/live", { headers: good });
  expect(answer.headers.get("access-control-allow-origin")).toBe("https://a.shop.example");
  const asked = await call("/streams/s/messages", {
    method: "OPTIONS",
    headers: {
      ...good,
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization,isthmus-key",
    },
  });
  expect(asked.status).toBe(204);
  expect(asked.headers.get("access-control-allow-headers")).toBe("authorization, isthmus-key");
  const own = await call("/health/live", { headers: { origin: new URL(server.url).origin } });
  expect(own.status).toBe(200);
  expect(own.headers.get("access-control-allow-origin")).toBeNull();
  const posted = await call("/streams/s/messages", { method: "POST", body: "x", headers: evil });
  expect([
    posted.status,
    (await server.call("GET", "/streams/s/messages")).json["messages"],
  ]).toEqual([403, []]);
});

test("sockets and subscriptions are counted for each address and caller", async () => {
  const clientLimits = "caller.sockets=1 connection.subscriptions=1";
  await using server = await testServer({ config: { clientLimits } });
  using first = await TestSocket.open(server.url);
  await first.send({ op: "subscribe", sub: "a", stream: "s" });
  await first.take("subscribed");
  await first.send({ op: "subscribe", sub: "b", stream: "s" });
  expect((await first.take("error"))["code"]).toBe("too-large");
  await first.send({ op: "unsubscribe", sub: "a" });
  await first.send({ op: "subscribe", sub: "b", stream: "s" });
  await first.take("subscribed");
  using second = new TestSocket(server.url);
  await second.send({ op: "auth", token: ADMIN_TOKEN });
  const { code, reason } = await second.closed;
  expect([code, /retryMs=\d+$/.test(reason)]).toEqual([4429, true]);
});

test("who publishes faster than it may waits on a socket, and is told so over HTTP", async () => {
  await using server = await testServer({ config: { clientLimits: "caller.messages=4/s" } });
  for (let index = 0; index < 5; index++) await server.publish("h", "x");
  const refused = await server.publish("h", "x");
  expect([refused.status, refused.json["code"]]).toEqual([429, "rate-limited"]);
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
  using socket = await TestSocket.open(server.url);
  for (let index = 0; index < 6; index++) {
    await socket.send({ op: "publish", ref: String(index), stream: "s", body: "x" });
  }
  const refs = (await socket.takeMany("published", 6)).map((frame) => frame["ref"]);
  expect(refs).toEqual(["0", "1", "2", "3", "4", "5"]);
});

test("a stop tells each client when to come back", async () => {
  await using server = await testServer();
  using socket = await TestSocket.open(server.url);
  await server.stop();
  const { code, reason } = await socket.closed;
  expect(code).toBe(1012);
  expect(reason).toMatch(/^restart retryMs=\d+$/);
});
