/** Publishing: raw bodies, NDJSON, CloudEvents, idempotency, conditions, grants. */
import { expect, test } from "bun:test";
import { StreamFullError } from "../../src/errors.ts";
import { ADMIN_TOKEN, type Answer, testServer, type TestServer } from "./support.ts";

async function stored(server: TestServer, stream: string): Promise<Record<string, unknown>[]> {
  const page = await server.call("GET", `/streams/${stream}/messages?max=1000`);
  return page.json["messages"] as Record<string, unknown>[];
}

function lines(
  server: TestServer,
  text: string,
  headers: Record<string, string> = {},
): Promise<Answer> {
  return server.call("POST", "/streams/s/messages", {
    body: text,
    headers: { "content-type": "application/x-ndjson", ...headers },
  });
}

test("a raw body is kept as its bytes, with key, headers and content type", async () => {
  await using server = await testServer();
  const key = Buffer.from("ключ", "utf8").toString("latin1");
  const answer = await server.publish("s", "{}", {
    "isthmus-key": key,
    "isthmus-header-x-region": "eu",
    "x-other": "not a header of the message",
    "content-type": "application/json",
  });
  expect(answer.status).toBe(202);
  const [message] = await stored(server, "s");
  expect(message).toMatchObject({
    key: "ключ",
    headers: [["x-region", "eu"]],
    properties: { contentType: "application/json" },
    body: "{}",
    origin: { bridge: "http", address: "s" },
  });
});

test("no body is an empty body, never a tombstone", async () => {
  await using server = await testServer();
  await server.call("POST", "/streams/s/messages");
  expect((await stored(server, "s"))[0]?.["body"]).toBe("");
});

test("an idempotency key gives the first receipt again, quoted or bare", async () => {
  await using server = await testServer();
  const first = await server.publish("s", "one", { "idempotency-key": '"k-1"' });
  const again = await server.publish("s", "one", { "idempotency-key": "k-1" });
  expect(again.json).toEqual({ ...first.json, duplicate: true });
  const other = await server.publish("s", "two", { "idempotency-key": '"k-1"' });
  expect([other.status, other.json["code"]]).toEqual([422, "idempotency-key-reused"]);
  expect(await stored(server, "s")).toHaveLength(1);
});

test("idempotency keys belong to their caller and their stream", async () => {
  await using server = await testServer();
  const token = await server.token({
    name: "a",
    subject: "a",
    write: [{ stream: "*", key: null }],
  });
  const headers = { "idempotency-key": "k" };
  await server.publish("s", "one", headers);
  const path = "/streams/s/messages";
  const theirs = await server.call("POST", path, { body: "two", headers, token });
  expect(theirs.json["duplicate"]).toBe(false);
  const elsewhere = await server.publish("other", "three", headers);
  expect(elsewhere.json["duplicate"]).toBe(false);
});

test.each(['"', "", '"unfinished', "a b", '"" ', "é", '"'.padEnd(400, "x").concat('"')])(
  "the idempotency key %p is refused",
  async (key) => {
    await using server = await testServer();
    const answer = await server.publish("s", "x", { "idempotency-key": key });
    expect([answer.status, answer.json["code"]]).toEqual([400, "invalid"]);
    expect(await stored(server, "s")).toHaveLength(0);
  },
);

test("If-Match appends only at the end that the caller knows", async () => {
  await using server = await testServer();
  const first = await server.publish("s", "0", { "if-match": "0" });
  expect(first.status).toBe(202);
  const late = await server.publish("s", "x", { "if-match": "0" });
  expect([late.status, late.json["code"], late.json["end"]]).toEqual([412, "conflict", 1]);
  expect((await server.publish("s", "1", { "if-match": '"1"' })).status).toBe(202);
  expect((await server.publish("s", "x", { "if-match": "soon" })).status).toBe(400);
  expect(await stored(server, "s")).toHaveLength(2);
});

test("a conditional append that is sent again gets its first receipt, and not 412", async () => {
  await using server = await testServer();
  const headers = { "if-match": "0", "idempotency-key": '"once"' };
  const first = await server.publish("s", "a", headers);
  expect([first.status, first.json["duplicate"]]).toEqual([202, false]);
  expect((await server.publish("s", "b")).status).toBe(202);
  const again = await server.publish("s", "a", headers);
  expect(again.status).toBe(202);
  expect(again.json).toEqual({ ...first.json, duplicate: true });
  const other = await server.publish("s", "c", { ...headers, "idempotency-key": '"two"' });
  expect([other.status, other.json["end"]]).toEqual([412, 2]);
  expect(await stored(server, "s")).toHaveLength(2);
});

test("a stream of several partitions takes If-Match only with ?partition=", async () => {
  await using server = await testServer();
  await server.call("PUT", "/api/streams/s", { body: '{"partitions":4}' });
  const refused = await server.publish("s", "x", { "if-match": "0" });
  expect([refused.status, refused.json["code"]]).toEqual([400, "invalid"]);
  const taken = await server.call("POST", "/streams/s/messages?partition=3", {
    body: "x",
    headers: { "if-match": "0" },
  });
  expect(taken.json).toMatchObject({ partition: 3, offset: 0 });
  const beyond = await server.call("POST", "/streams/s/messages?partition=4", { body: "x" });
  expect(beyond.status).toBe(400);
});

test("NDJSON is answered in the order of its lines, blank ones ignored", async () => {
  await using server = await testServer();
  await server.call("PUT", "/api/streams/s", { body: '{"partitions":4}' });
  const answer = await lines(
    server,
    '{"key":"a","body":"1"}\n\n{"key":"b","body":{"n":12345678901234567890}}\r\n' +
      '{"key":"c","body":null,"headers":{"x":"1"}}\n{"keyBase64":"/w==","bodyBase64":"AP8="}\n' +
      '{"headers":[["h","1"],["h",null],["h",{"base64":"/w=="}]]}',
  );
  expect(answer.status).toBe(202);
  const receipts = answer.json as unknown as Record<string, unknown>[];
  expect(receipts).toHaveLength(5);
  const byId = new Map((await stored(server, "s")).map((message) => [message["id"], message]));
  const inOrder = receipts.map(({ id }) => byId.get(id));
  expect(inOrder[0]).toMatchObject({ key: "a", body: "1" });
  expect(inOrder[1]).toMatchObject({ key: "b", body: '{"n":12345678901234567890}' });
  expect(inOrder[2]).toMatchObject({ key: "c", body: null, headers: [["x", "1"]] });
  expect(inOrder[3]).toMatchObject({ keyBase64: "/w==", bodyBase64: "AP8=" });
  expect(inOrder[4]).toMatchObject({
    body: "",
    headers: [
      ["h", "1"],
      ["h", null],
      ["h", { base64: "/w==" }],
    ],
  });
});

test.each([
  ['{"body":"1"}\nnot json', "/2"],
  ['{"body":"1"}\n\n[1]', "/3"],
  ['{"Body":"1"}', "/1/Body"],
  ['{"key":1}', "/1/key"],
  ['{"body":"1","bodyBase64":"AA=="}', "/1/bodyBase64"],
  ['{"bodyBase64":"A"}', "/1/bodyBase64"],
  ['{"bodyBase64":"_-=="}', "/1/bodyBase64"],
  ['{"headers":{"x":1}}', "/1/headers/x"],
  ['{"headers":[["x"]]}', "/1/headers/0"],
  ['{"headers":"x"}', "/1/headers"],
  ['{"body":"\\ud800"}', "/1/body"],
  ['{"key":"\\udc00"}', "/1/key"],
  ['{"body":1e400}', "/1/body"],
  ['{"timestamp":"now"}', "/1/timestamp"],
])("the line %p refuses the whole request at %p", async (text, pointer) => {
  await using server = await testServer();
  const answer = await lines(server, text);
  expect([answer.status, answer.json["code"]]).toEqual([400, "invalid"]);
  const errors = answer.json["errors"] as { pointer: string; line: number }[];
  expect(errors[0]?.pointer).toBe(pointer);
  expect(errors[0]?.line).toBe(Number(pointer.split("/")[1]));
  expect(await stored(server, "s")).toHaveLength(0);
});

test("NDJSON with an idempotency key is appended once", async () => {
  await using server = await testServer();
  const text = '{"body":"1"}\n{"body":"2"}\n';
  const headers = { "idempotency-key": "batch" };
  const first = await lines(server, text, headers);
  const again = await lines(server, text, headers);
  const receipts = first.json as unknown as Record<string, unknown>[];
  const expected = receipts.map((receipt) => ({ ...receipt, duplicate: true }));
  expect(again.json as unknown).toEqual(expected);
  expect(await stored(server, "s")).toHaveLength(2);
});

test("space around a line, a mark at its beginning and CRLF are no part of a message", async () => {
  await using server = await testServer();
  const text = '\uFEFF{"body":"a"}\r\n  {"body":"b"} \n\t\n{"body":"{\u00e9}"}';
  const answer = await lines(server, text);
  expect(answer.status).toBe(202);
  const bodies = (await stored(server, "s")).map(({ body }) => body);
  expect(bodies).toEqual(["a", "b", "{\u00e9}"]);
});

test("NDJSON within bounds only: lines, UTF-8, deep JSON, names that JavaScript gives a meaning", async () => {
  await using server = await testServer();
  const many = await lines(server, '{"body":""}\n'.repeat(10_001));
  expect([many.status, many.json["code"]]).toEqual([413, "too-large"]);
  const bytes = await server.call("POST", "/streams/s/messages", {
    body: new Uint8Array([0x7b, 0xff, 0x7d]),
    headers: { "content-type": "application/x-ndjson" },
  });
  expect(bytes.status).toBe(400);
  expect((await lines(server, `{"body":${"[".repeat(100_000)}`)).status).toBe(400);
  const named = await lines(
    server,
    '{"headers":{"__proto__":"1","constructor":"2"},"body":{"__proto__":3}}',
  );
  expect(named.status).toBe(202);
  const [message] = await stored(server, "s");
  expect(message).toMatchObject({
    headers: [
      ["__proto__", "1"],
      ["constructor", "2"],
    ],
    body: '{"__proto__":3}',
  });
});

test("a binary CloudEvent keeps its attributes, decoded", async () => {
  await using server = await testServer();
  const answer = await server.publish("s", "data", {
    "ce-id": "1",
    "ce-source": "/x",
    "ce-type": "t",
    "ce-specversion": "1.0",
    "ce-subject": "Euro%20%E2%82%AC%20%F0%9F%98%80",
    "ce-partitionkey": "pk",
    "ce-time": "2026-01-02T03:04:05Z",
  });
  expect(answer.status).toBe(202);
  const [message] = await stored(server, "s");
  expect(message).toMatchObject({
    key: "pk",
    properties: { type: "t", messageId: "1" },
    timestamp: Date.UTC(2026, 0, 2, 3, 4, 5),
    body: "data",
  });
  expect(message?.["headers"]).toContainEqual(["ce-subject", "Euro € 😀"]);
  const bad = await server.publish("s", "x", {
    "ce-id": "1",
    "ce-source": "/x",
    "ce-type": "t",
    "ce-specversion": "1.0",
    "ce-subject": "%C0%A0",
  });
  expect(bad.status).toBe(400);
});

test("structured CloudEvents and batches are checked and kept whole", async () => {
  await using server = await testServer();
  const event = { specversion: "1.0", id: "7", source: "/y", type: "made", data: { a: 1 } };
  const one = await server.publish("s", JSON.stringify(event), {
    "content-type": "application/cloudevents+json; charset=utf-8",
  });
  expect(one.json).toMatchObject({ offset: 0 });
  const batch = await server.publish("s", JSON.stringify([event, { ...event, id: "8" }]), {
    "content-type": "Application/CloudEvents-Batch+json",
  });
  expect(batch.json as unknown).toHaveLength(2);
  const messages = await stored(server, "s");
  expect(messages.map(({ properties }) => properties)).toEqual([
    expect.objectContaining({ type: "made", messageId: "7" }),
    { contentType: "application/cloudevents+json", type: "made", messageId: "7" },
    { contentType: "application/cloudevents+json", type: "made", messageId: "8" },
  ]);
  expect(JSON.parse(String(messages[2]?.["body"]))).toEqual({ ...event, id: "8" });
  const { type: _, ...typeless } = event;
  const bad = await server.publish("s", JSON.stringify([event, typeless]), {
    "content-type": "application/cloudevents-batch+json",
  });
  expect(bad.status).toBe(400);
  expect(bad.json["errors"]).toMatchObject([{ pointer: "/1/type" }]);
  expect(await stored(server, "s")).toHaveLength(3);
});

test("publishing needs a token, and one that may write this stream and this key", async () => {
  await using server = await testServer();
  const path = "/streams/chat/messages";
  expect((await server.call("POST", path, { body: "x", token: null })).status).toBe(401);
  expect((await server.call("POST", path, { body: "x", token: "wrong" })).status).toBe(401);
  const viewer = await server.token({ name: "v", role: "viewer" });
  expect((await server.call("POST", path, { body: "x", token: viewer })).status).toBe(403);
  const token = await server.token({
    name: "app",
    subject: "u1",
    write: [{ stream: "chat", key: "u1" }],
  });
  const send = (headers: Record<string, string>, at = path) =>
    server.call("POST", at, { body: "x", headers, token });
  expect((await send({ "isthmus-key": "u1" })).status).toBe(202);
  expect((await send({ "isthmus-key": "u2" })).json["code"]).toBe("forbidden");
  expect((await send({})).status).toBe(202);
  expect((await send({ "isthmus-key": "u1" }, "/streams/other/messages")).status).toBe(403);
  const mixed = await server.call("POST", path, {
    body: '{"key":"u1","body":"ok"}\n{"key":"u2","body":"no"}\n',
    headers: { "content-type": "application/x-ndjson" },
    token,
  });
  expect(mixed.status).toBe(403);
  expect(await stored(server, "chat")).toHaveLength(2);
});

test.each(["$state", "$audit", "-x", "a%2Fb", "..%2F..", "a".repeat(101), "a%00b"])(
  "the stream %p can't be written to",
  async (name) => {
    await using server = await testServer();
    const answer = await server.call("POST", `/streams/${name}/messages`, { body: "x" });
    expect([400, 404]).toContain(answer.status);
    expect(server.log.streams().size).toBe(0);
  },
);

test("authorization is a bearer token and nothing else", async () => {
  await using server = await testServer();
  for (const value of [`Basic ${btoa(`x:${ADMIN_TOKEN}`)}`, ADMIN_TOKEN, "Bearer", "Bearer  "]) {
    const answer = await fetch(`${server.url}/streams/s/messages`, {
      method: "POST",
      body: "x",
      headers: { authorization: value },
    });
    expect([value, answer.status]).toEqual([value, 401]);
    expect(answer.headers.get("www-authenticate")).toContain("Bearer");
  }
  const byQuery = await fetch(`${server.url}/streams/s/messages?token=${ADMIN_TOKEN}`);
  expect(byQuery.status).toBe(401);
});

test("a stream that is full of what a rule has not passed answers 503 and names the rule", async () => {
  await using server = await testServer();
  const stream = server.gateway.streams.stream("s");
  stream.guard = () => {
    throw new StreamFullError("s", "slow", 7);
  };
  const refused = await server.publish("s", "x");
  expect(refused.status).toBe(503);
  expect(refused.json).toMatchObject({ code: "storage-unavailable", rule: "slow" });
  expect(refused.json["detail"]).toContain("rule slow has yet to pass 7 messages");
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
  stream.guard = null;
  expect((await server.publish("s", "x")).status).toBe(202);
  expect(await stored(server, "s")).toHaveLength(1);
});
