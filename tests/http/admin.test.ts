/** Administration: definitions, apply, tokens, roles, listeners, and what describes the calls. */
import { expect, test } from "bun:test";
import { ENDPOINTS, endpointsOf } from "../../src/http/endpoints.ts";
import { HANDLERS } from "../../src/http/handlers.ts";
import { openApiDocument, openApiPath } from "../../src/http/openapi.ts";
import { testCertificate, testKey } from "../bridges/tls.ts";
import { freePort, temporaryFolder } from "../temporary.ts";
import { testServer } from "./support.ts";

const HOOK = '{"stream":"orders"}';

test("PUT answers 201 for a new definition, 200 for a changed or equal one, with its revision", async () => {
  await using server = await testServer();
  const made = await server.call("PUT", "/api/hooks/in", { body: HOOK });
  expect([made.status, made.headers.get("etag")]).toEqual([201, '"1"']);
  expect(made.json).toMatchObject({ name: "in", revision: 1, document: { stream: "orders" } });
  expect(made.json["status"]).toMatchObject({ state: "active", warning: expect.any(String) });
  const same = await server.call("PUT", "/api/hooks/in", { body: HOOK });
  expect([same.status, same.json["revision"]]).toEqual([200, 1]);
  const changed = await server.call("PUT", "/api/hooks/in", { body: '{"stream":"other"}' });
  expect([changed.status, changed.json["revision"]]).toEqual([200, 2]);
  expect((await server.call("POST", "/hooks/in", { body: "x", token: null })).json["stream"]).toBe(
    "other",
  );
  expect((await server.call("GET", "/api/hooks/in")).headers.get("etag")).toBe('"2"');
});

test("If-Match makes a change only on the revision that its author saw", async () => {
  await using server = await testServer();
  const put = (headers: Record<string, string>, body = HOOK) =>
    server.call("PUT", "/api/hooks/in", { body, headers });
  expect((await put({ "if-match": "*" })).json["code"]).toBe("conflict");
  expect((await put({ "if-none-match": "*" })).status).toBe(201);
  const again = await put({ "if-none-match": "*" });
  expect([again.status, again.json["code"]]).toEqual([412, "conflict"]);
  expect((await put({ "if-match": '"7"' })).json).toMatchObject({ status: 412, revision: 1 });
  expect((await put({ "if-match": '"1"' }, '{"stream":"b"}')).status).toBe(200);
  expect((await put({ "if-match": "newest" })).status).toBe(400);
  const stale = await server.call("DELETE", "/api/hooks/in", { headers: { "if-match": '"1"' } });
  expect(stale.status).toBe(412);
});

test("DELETE is 204, 404 for nothing, and 409 naming the user while it is in use", async () => {
  await using server = await testServer();
  await server.call("PUT", "/api/streams/orders", { body: "{}" });
  await server.call("PUT", "/api/hooks/in", { body: HOOK });
  const used = await server.call("DELETE", "/api/streams/orders");
  expect([used.status, used.json["code"]]).toEqual([409, "in-use"]);
  expect(used.text).toContain("hooks/in");
  expect((await server.call("DELETE", "/api/hooks/in")).status).toBe(204);
  expect((await server.call("DELETE", "/api/hooks/in")).status).toBe(404);
  expect((await server.call("GET", "/api/hooks/in")).status).toBe(404);
  expect((await server.call("POST", "/hooks/in", { body: "x", token: null })).status).toBe(404);
  expect((await server.call("DELETE", "/api/streams/orders")).status).toBe(204);
});

test.each([
  ["not json", 400, "invalid", ""],
  ["[1]", 422, "definition-invalid", ""],
  ['{"stream":"orders","steram":"x"}', 422, "definition-invalid", "/steram"],
  ['{"stream":"orders","stream":"x"}', 422, "definition-invalid", ""],
  ['{"stream":"orders","key":"body."}', 422, "definition-invalid", "/key"],
  ['{"stream":7}', 422, "definition-invalid", "/stream"],
  ["{}", 422, "definition-invalid", ""],
])("the document %p is refused with %p %p at %p", async (body, status, code, pointer) => {
  await using server = await testServer();
  const answer = await server.call("PUT", "/api/hooks/in", { body });
  expect([answer.status, answer.json["code"]]).toEqual([status, code]);
  const errors = answer.json["errors"] as { pointer: string }[];
  expect(errors[0]?.pointer.startsWith(pointer)).toBe(true);
  expect((await server.call("GET", "/api/hooks")).json["items"]).toEqual([]);
});

test("an expression that does not compile tells line and column", async () => {
  await using server = await testServer();
  const answer = await server.call("PUT", "/api/hooks/in", {
    body: JSON.stringify({ stream: "orders", key: "body.a &&\n  == 1" }),
  });
  expect(answer.json["errors"]).toMatchObject([{ pointer: "/key", line: 2 }]);
});

test("lists show every definition, and streams that exist by being named", async () => {
  await using server = await testServer();
  await server.publish("implied", "x");
  await server.call("PUT", "/api/streams/defined", { body: '{"partitions":2}' });
  const { json } = await server.call("GET", "/api/streams");
  expect(json["next"]).toBeNull();
  expect(json["items"]).toMatchObject([
    { name: "defined", revision: 1, status: { partitions: [{ partition: 0 }, { partition: 1 }] } },
    { name: "implied", revision: 0, status: { messages: 1 } },
  ]);
  const page = await server.call("GET", "/api/streams?max=1");
  expect(page.json).toMatchObject({ items: [{ name: "defined" }], next: "defined" });
  const rest = await server.call("GET", "/api/streams?max=1&after=defined");
  expect(rest.json).toMatchObject({ items: [{ name: "implied" }], next: null });
});

test("apply takes all of a file or nothing, and says what it did", async () => {
  await using server = await testServer();
  const apply = (file: unknown, query = "") =>
    server.call("POST", `/api/apply${query}`, { body: JSON.stringify(file) });
  const file = {
    project: "shop",
    streams: { orders: { partitions: 2 } },
    hooks: { in: { stream: "orders" }, extra: { stream: "orders" } },
  };
  const dry = await apply(file, "?dryRun=1");
  expect(dry.json).toMatchObject({ dryRun: true, results: [{ outcome: "created" }, {}, {}] });
  expect((await server.call("GET", "/api/hooks")).json["items"]).toEqual([]);
  const done = await apply(file);
  expect(done.json["results"]).toEqual([
    { kind: "streams", name: "orders", revision: 1, outcome: "created" },
    { kind: "hooks", name: "in", revision: 1, outcome: "created" },
    { kind: "hooks", name: "extra", revision: 1, outcome: "created" },
  ]);
  expect(done.json["warnings"]).toHaveLength(2);
  await server.call("PUT", "/api/hooks/theirs", { body: HOOK });
  const pruned = await apply({ ...file, hooks: { in: { stream: "orders" } } }, "?prune=true");
  expect(pruned.json["results"]).toMatchObject([
    { outcome: "same" },
    { outcome: "same" },
    { name: "extra", outcome: "deleted" },
  ]);
  const { items } = (await server.call("GET", "/api/hooks")).json as { items: { name: string }[] };
  expect(items.map(({ name }) => name)).toEqual(["in", "theirs"]);
});

test("apply with one thing wrong changes nothing and points into the file", async () => {
  await using server = await testServer();
  const body = JSON.stringify({
    hooks: { good: { stream: "a" }, bad: { stream: "a", key: "1 +" } },
    rules: { r: { from: "a", to: { bridge: "none", topic: "t" } } },
  });
  const answer = await server.call("POST", "/api/apply", { body });
  expect([answer.status, answer.json["code"]]).toEqual([422, "definition-invalid"]);
  const errors = answer.json["errors"] as { pointer: string }[];
  expect(errors.map(({ pointer }) => pointer)).toContain("/hooks/bad/key");
  expect((await server.call("GET", "/api/hooks")).json["items"]).toEqual([]);
  const one = await server.call("POST", "/api/apply", {
    body: '{"hooks":{"bad":{"stream":"a","key":"1 +"}}}',
  });
  expect(one.json["errors"]).toMatchObject([{ pointer: "/hooks/bad/key" }]);
  const nameless = await server.call("POST", "/api/apply?prune=1", { body: "{}" });
  expect(nameless.json["errors"]).toMatchObject([{ pointer: "/project" }]);
  const unknown = await server.call("POST", "/api/apply", { body: '{"hoks":{}}' });
  expect(unknown.text).toContain("hooks");
});

test("tokens are made once, listed without their text, and revoked", async () => {
  await using server = await testServer();
  const made = await server.call("POST", "/api/tokens", {
    body: '{"name":"ci","role":"viewer","expires":"90d"}',
  });
  expect(made.status).toBe(201);
  const token = String(made.json["token"]);
  expect((await server.call("GET", "/api/hooks", { token })).status).toBe(200);
  const list = await server.call("GET", "/api/tokens");
  expect(list.text).not.toContain(token);
  expect(list.json["items"]).toMatchObject([{ name: "ci", role: "viewer", revokedAtMs: null }]);
  const client = await server.call("PUT", "/api/tokens/phone", {
    body: '{"sub":"u1","read":["inbox:u1"],"write":[{"stream":"chat"}]}',
  });
  expect(client.json["document"]).toMatchObject({
    subject: "u1",
    read: [{ stream: "inbox", key: "u1" }],
    write: [{ stream: "chat", key: null }],
  });
  expect((await server.call("DELETE", "/api/tokens/ci")).status).toBe(204);
  expect((await server.call("GET", "/api/hooks", { token })).status).toBe(401);
  expect((await server.call("DELETE", "/api/tokens/ci")).status).toBe(404);
  expect((await server.call("GET", "/api/tokens/ci")).json["status"]).toMatchObject({
    state: "revoked",
  });
});

test.each([
  '{"name":"x"}',
  '{"name":"x","role":"king"}',
  '{"name":"x","role":"viewer","read":["a"]}',
  '{"name":"x","subject":"u"}',
  '{"name":"x","role":"viewer","expires":"soon"}',
  '{"name":"x","role":"viewer","expires":0}',
  '{"name":"x","role":"viewer","rol":1}',
  '{"role":"viewer"}',
  '{"name":"x","subject":"u","read":[1]}',
])("the token %p is refused", async (body) => {
  await using server = await testServer();
  const answer = await server.call("POST", "/api/tokens", { body });
  expect([answer.status, answer.json["code"]]).toEqual([400, "invalid"]);
});

test("every call of the table is open, or refuses who has no token or the wrong role", async () => {
  await using server = await testServer();
  const viewer = await server.token({ name: "viewer", role: "viewer" });
  const client = await server.token({ name: "c", subject: "c", read: [{ stream: "x", key: "k" }] });
  for (const { method, path, access } of ENDPOINTS) {
    const at = path.replaceAll(/:partition|:offset/g, "0").replaceAll(/:[a-z]+/g, "some");
    const status = async (token: string | null): Promise<number> =>
      (await server.call(method, at, { token, ...(method === "GET" ? {} : { body: "{}" }) }))
        .status;
    const what = `${method} ${path}`;
    if (access === "open") {
      expect([what, [401, 403].includes(await status(null))]).toEqual([what, false]);
      continue;
    }
    expect([what, await status(null)]).toEqual([what, 401]);
    expect([what, await status("wrong")]).toEqual([what, 401]);
    // Any caller may have a ticket: it allows what its caller may do anyway.
    const isTicket = path === "/api/tickets";
    expect([what, await status(client)]).toEqual([what, isTicket ? 201 : 403]);
    if (access === "admin") expect([what, await status(viewer)]).toEqual([what, 403]);
  }
});

test("the OpenAPI document names the calls that are served, and no others", async () => {
  await using server = await testServer();
  const document = (await server.call("GET", "/openapi.json", { token: null })).json;
  expect(document).toMatchObject({ openapi: "3.1.0", info: { version: "0.0.0-test" } });
  const paths = document["paths"] as Record<string, Record<string, unknown>>;
  const named = Object.entries(paths).flatMap(([path, operations]) =>
    Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
  );
  const served = ENDPOINTS.map(({ method, path }) => `${method} ${openApiPath(path)}`);
  expect(named.toSorted()).toEqual(served.toSorted());
  const handled = Object.keys(HANDLERS);
  const slow = ENDPOINTS.filter(({ isFast }) => isFast !== true);
  expect(handled.toSorted()).toEqual(
    slow.map(({ method, path }) => `${method} ${path}`).toSorted(),
  );
  const ids = Object.values(paths).flatMap((operations) =>
    Object.values(operations).map(
      (operation) => (operation as { operationId: string }).operationId,
    ),
  );
  expect(new Set(ids).size).toBe(ids.length);
  const schemas = (openApiDocument("1", null)["components"] as { schemas: object }).schemas;
  const references = JSON.stringify(document).matchAll(/#\/components\/schemas\/(\w+)/g);
  for (const [, name] of references) expect(schemas).toHaveProperty(name ?? "");
});

test("the pages need nothing from elsewhere and allow nothing", async () => {
  await using server = await testServer();
  for (const path of ["/", "/docs"]) {
    const page = await server.call("GET", path, { token: null });
    expect(page.status).toBe(200);
    const policy = page.headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toContain("unsafe");
    expect(page.headers.get("x-content-type-options")).toBe("nosniff");
    expect(page.text).not.toMatch(/<script|src=|https?:\/\/(?!127\.0\.0\.1)/);
    const style = /<style>([\s\S]*?)<\/style>/.exec(page.text)?.[1] ?? "";
    const hash = new Bun.CryptoHasher("sha256").update(style).digest("base64");
    expect(policy).toContain(`'sha256-${hash}'`);
  }
  const docs = await server.call("GET", "/docs", { token: null });
  for (const { method, path } of ENDPOINTS) expect(docs.text).toContain(`${method} ${path}`);
});

test("with a listener of its own, administration answers only there", async () => {
  const adminPort = await freePort();
  await using server = await testServer({ config: { adminHost: "127.0.0.1", adminPort } });
  expect(server.adminUrl).toBe(`http://127.0.0.1:${adminPort}`);
  for (const path of ["/api/hooks", "/metrics", "/docs", "/openapi.json", "/"]) {
    expect([path, (await server.call("GET", path)).status]).toEqual([path, 404]);
    const there = await server.call("GET", path, { base: server.adminUrl });
    expect([path, there.status]).toEqual([path, 200]);
  }
  await server.call("PUT", "/api/hooks/in", { body: HOOK, base: server.adminUrl });
  expect((await server.call("POST", "/hooks/in", { body: "x", token: null })).status).toBe(202);
  const elsewhere = await server.call("POST", "/hooks/in", { body: "x", base: server.adminUrl });
  expect(elsewhere.status).toBe(404);
  const publish = await server.call("POST", "/streams/s/messages", {
    body: "x",
    base: server.adminUrl,
  });
  expect(publish.status).toBe(404);
  for (const base of [server.url, server.adminUrl]) {
    expect((await server.call("GET", "/health/live", { base, token: null })).status).toBe(200);
  }
  const open = endpointsOf("public").filter(({ path }) => path.startsWith("/api"));
  // Pages that connect to the public listener get their tickets from it.
  expect(open.map(({ path }) => path)).toEqual(["/api/tickets"]);
});

test("readiness is 503 with every reason", async () => {
  await using server = await testServer({ ready: false });
  const answer = await server.call("GET", "/health/ready", { token: null });
  expect(answer.status).toBe(503);
  expect(answer.json).toEqual({
    status: "not-ready",
    reasons: [{ code: "starting", detail: "it is starting" }],
    warnings: [],
  });
  server.gateway.isReady = true;
  const ready = await server.call("GET", "/health/ready", { token: null });
  expect([ready.status, ready.json["status"]]).toEqual([200, "ready"]);
});

test("what runs is listed: routes, dead letters, clients, nodes", async () => {
  await using server = await testServer();
  for (const kind of ["routes", "dead-letters", "clients", "nodes"]) {
    const { json } = await server.call("GET", `/api/${kind}`);
    expect(json).toMatchObject({ items: expect.any(Array), next: null });
  }
  const { json } = await server.call("GET", "/api/nodes");
  expect(json["items"]).toMatchObject([{ version: "0.0.0-test", ready: true }]);
});

test("an unexpected failure shows an id and hides the rest, which is in the log", async () => {
  await using server = await testServer();
  server.gateway.routes = () => {
    throw new RangeError("secret detail");
  };
  const answer = await server.call("GET", "/api/routes");
  expect([answer.status, answer.json["code"]]).toEqual([500, "internal"]);
  expect(answer.text).not.toContain("secret detail");
  const instance = String(answer.json["instance"]);
  expect(server.logLines.join("")).toContain(instance);
  expect(server.logLines.join("")).toContain("secret detail");
});

test("a port that is taken, and half of a certificate, are told in a sentence", async () => {
  await using server = await testServer();
  const taken = testServer({ config: { port: server.port } });
  expect(taken).rejects.toThrow(`can't listen on 127.0.0.1:${server.port}`);
  expect(testServer({ config: { tlsCert: "/nowhere" } })).rejects.toThrow("go together");
});

test("with a certificate it speaks TLS", async () => {
  await using folder = await temporaryFolder("tls");
  const [tlsCert, tlsKey] = [`${folder.path}/cert.pem`, `${folder.path}/key.pem`];
  await Bun.write(tlsCert, testCertificate);
  await Bun.write(tlsKey, testKey);
  await using server = await testServer({ config: { tlsCert, tlsKey } });
  expect(server.url).toStartWith("https://");
  const tls = { ca: testCertificate };
  const answer = await fetch(`${server.url}/health/live`, { tls });
  expect(answer.status).toBe(200);
});
