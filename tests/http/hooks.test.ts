/** Hooks: what a webhook becomes, and what it is answered. */
import { expect, test } from "bun:test";
import { ADMIN_TOKEN, FillableDisk, testServer, type TestServer } from "./support.ts";

async function withHook(document: Record<string, string>): Promise<TestServer> {
  const server = await testServer();
  const made = await server.call("PUT", "/api/hooks/in", { body: JSON.stringify(document) });
  expect(made.status).toBe(201);
  return server;
}

async function messages(server: TestServer, stream: string): Promise<Record<string, unknown>[]> {
  const page = await server.call("GET", `/streams/${stream}/messages?max=1000`);
  return page.json["messages"] as Record<string, unknown>[];
}

test("a webhook needs no token and is answered with a receipt of what is on disk", async () => {
  await using server = await withHook({ stream: "orders" });
  const answer = await server.call("POST", "/hooks/in", { body: '{"id":1}', token: null });
  expect(answer.status).toBe(202);
  expect(answer.headers.get("content-type")).toBe("application/json");
  expect(answer.json).toEqual({
    id: expect.stringMatching(/^[0-9a-f-]{36}$/),
    stream: "orders",
    partition: 0,
    offset: 0,
    duplicate: false,
    durable: "fsync",
  });
  const [stored] = await messages(server, "orders");
  expect(stored).toMatchObject({ id: answer.json["id"], body: '{"id":1}', key: null });
});

test("headers are kept as their bytes, without the sender's secrets", async () => {
  await using server = await withHook({ stream: "orders" });
  const raw = Buffer.from("é漢", "utf8").toString("latin1");
  await fetch(`${server.url}/hooks/in`, {
    method: "POST",
    body: "x",
    headers: {
      authorization: "Bearer secret-1",
      cookie: "a=secret-2",
      "x-api-key": "secret-3",
      "x-text": raw,
      "x-latin": "\u00e9",
      "content-type": "text/plain",
      "content-encoding": "identity",
    },
  });
  const [stored] = await messages(server, "orders");
  const headers = stored?.["headers"] as [string, unknown][];
  expect(JSON.stringify(stored)).not.toContain("secret-");
  expect(headers).toContainEqual(["x-text", "é漢"]);
  expect(headers).toContainEqual(["x-latin", { base64: Buffer.from([0xe9]).toString("base64") }]);
  expect(stored?.["properties"]).toEqual({
    contentType: "text/plain",
    contentEncoding: "identity",
  });
  const names = headers.map(([name]) => name);
  expect(names).not.toContain("content-length");
  expect(names).not.toContain("connection");
  expect(stored?.["origin"]).toMatchObject({ bridge: "http", address: "in" });
});

test("a binary body keeps every byte, and an empty one is no tombstone", async () => {
  await using server = await withHook({ stream: "orders" });
  const body = Uint8Array.from({ length: 256 }, (_, index) => index);
  await server.call("POST", "/hooks/in", { body, token: null });
  await server.call("POST", "/hooks/in", { token: null });
  const [first, second] = await messages(server, "orders");
  expect(first?.["bodyBase64"]).toBe(Buffer.from(body).toString("base64"));
  expect(first).not.toHaveProperty("body");
  expect(second?.["body"]).toBe("");
});

test("the key comes from the body, and one that fails or is empty gives none", async () => {
  await using server = await withHook({ stream: "orders", key: "body.customer" });
  const answers = await Promise.all(
    ['{"customer":"c1"}', "not json", '{"customer":""}', '{"customer":null}'].map((body) =>
      server.call("POST", "/hooks/in", { body, token: null }),
    ),
  );
  expect(answers.map(({ status }) => status)).toEqual([202, 202, 202, 202]);
  const stored = await messages(server, "orders");
  const keys = stored.map(({ body, key }) => [body, key]);
  expect(keys).toContainEqual(['{"customer":"c1"}', "c1"]);
  expect(keys).toContainEqual(["not json", null]);
  expect(keys).toContainEqual(['{"customer":""}', null]);
  const { text } = await server.call("GET", "/metrics");
  expect(text).toMatch(/isthmus_expression_failures_total\{kind="hook",name="in"\} [1-9]/);
});

test("a duplicate gets the first one's receipt; messages without a dedupe value are all kept", async () => {
  await using server = await withHook({ stream: "orders", dedupe: 'header("x-id")' });
  const send = (id: string | null, body: string) =>
    server.call("POST", "/hooks/in", {
      body,
      token: null,
      headers: id === null ? {} : { "x-id": id },
    });
  const first = await send("a", "1");
  const again = await send("a", "2");
  expect(again.status).toBe(202);
  expect(again.json).toEqual({ ...first.json, duplicate: true });
  await send(null, "3");
  await send(null, "4");
  const bodies = (await messages(server, "orders")).map(({ body }) => body);
  expect(bodies).toEqual(["1", "3", "4"]);
});

test("a dedupe value of any length works", async () => {
  await using server = await withHook({ stream: "orders", dedupe: "text" });
  const body = "x".repeat(100_000);
  const first = await server.call("POST", "/hooks/in", { body, token: null });
  const again = await server.call("POST", "/hooks/in", { body, token: null });
  expect([first.status, again.status]).toEqual([202, 202]);
  expect(again.json["duplicate"]).toBe(true);
});

test("duplicates that arrive at the same time get one offset", async () => {
  await using server = await withHook({ stream: "orders", dedupe: "body.id" });
  const answers = await Promise.all(
    Array.from({ length: 20 }, () =>
      server.call("POST", "/hooks/in", { body: '{"id":"same"}', token: null }),
    ),
  );
  expect(new Set(answers.map(({ json }) => json["offset"])).size).toBe(1);
  expect(new Set(answers.map(({ json }) => json["id"])).size).toBe(1);
  expect(answers.filter(({ json }) => json["duplicate"] === false)).toHaveLength(1);
});

test("an unknown hook is 404, another method is 405 with Allow", async () => {
  await using server = await withHook({ stream: "orders" });
  for (const method of ["POST", "GET", "OPTIONS", "PUT"]) {
    const unknown = await server.call(method, "/hooks/nothing", { body: "", token: null });
    expect([unknown.status, unknown.json["code"]]).toEqual([404, "not-found"]);
    expect(unknown.headers.get("content-type")).toBe("application/problem+json");
  }
  for (const method of ["PUT", "DELETE", "PATCH"]) {
    const answer = await server.call(method, "/hooks/in", { token: null });
    expect([answer.status, answer.json["code"]]).toEqual([405, "method-not-allowed"]);
    expect(answer.headers.get("allow")).toBe("GET, HEAD, OPTIONS, POST");
  }
});

test("a body over the limit is a 413 problem, announced or in chunks, and the limit itself is taken", async () => {
  await using server = await withHook({ stream: "orders" });
  const limit = 16 * 1024 * 1024;
  const over = await server.call("POST", "/hooks/in", {
    body: new Uint8Array(limit + 1),
    token: null,
  });
  expect([over.status, over.json["code"]]).toEqual([413, "too-large"]);
  const chunks = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(new Uint8Array(1024 * 1024)),
  });
  const chunked = await fetch(`${server.url}/hooks/in`, { method: "POST", body: chunks });
  expect(chunked.status).toBe(413);
  expect(await chunked.json()).toMatchObject({ code: "too-large" });
  const full = await server.call("POST", "/hooks/in", { body: new Uint8Array(limit), token: null });
  expect(full.status).toBe(202);
});

test("a full disk is a 503 with Retry-After, never a 4xx, and tells senders no paths", async () => {
  const disk = new FillableDisk();
  await using server = await testServer({ disk });
  await server.call("PUT", "/api/hooks/in", { body: '{"stream":"orders"}' });
  await server.publish("orders", "before");
  disk.isFull = true;
  for (const [path, token] of [
    ["/hooks/in", null],
    ["/streams/orders/messages", ADMIN_TOKEN],
  ] as const) {
    const answer = await server.call("POST", path, { body: "x", token });
    expect([answer.status, answer.json["code"]]).toEqual([503, "storage-unavailable"]);
    expect(answer.headers.get("retry-after")).toBe("1");
    expect(answer.text).not.toContain("streams/");
  }
  expect(server.logLines.filter((line) => line.includes("can't write"))).toHaveLength(1);
  disk.isFull = false;
  const answer = await server.call("POST", "/hooks/in", { body: "after", token: null });
  expect(answer.json).toMatchObject({ offset: 1 });
});

test("what comes in by a hook is counted by name", async () => {
  await using server = await withHook({ stream: "orders" });
  await server.call("POST", "/hooks/in", { body: "x", token: null });
  await server.call("POST", "/hooks/in", { body: "y", token: null });
  const { text } = await server.call("GET", "/metrics");
  expect(text).toContain('isthmus_ingest_total{source="hook/in",code="accepted"} 2');
  expect(text).toMatch(/isthmus_log_sync_seconds_count [1-9]/);
});
