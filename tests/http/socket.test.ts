/** The socket: who is let in, what frames lead to, what is refused. */
import { expect, test } from "bun:test";
import { waitFor } from "../temporary.ts";
import { TestSocket } from "./socket-client.ts";
import { ADMIN_TOKEN, fill, ShiftedClock, testServer } from "./support.ts";

test("the first frame says who one is; subscribe may follow at once", async () => {
  await using server = await testServer();
  await fill(server, 2);
  using socket = new TestSocket(server.url);
  await socket.send({ op: "auth", token: ADMIN_TOKEN });
  await socket.send({ op: "subscribe", sub: "s1", stream: "s", from: "earliest" });
  expect(await socket.take("welcome")).toEqual({
    op: "welcome",
    session: expect.any(String),
    pingMs: expect.any(Number),
    spreadMs: expect.any(Number),
  });
  expect(await socket.take("subscribed")).toMatchObject({ sub: "s1", gap: null });
  const [first, second] = await socket.takeMany("message", 2);
  expect(first).toMatchObject({ sub: "s1", stream: "s", partition: 0, offset: 0, key: null });
  expect(second).toMatchObject({ offset: 1, cursor: expect.any(String) });
  expect(socket.protocol).toBe("isthmus.v1.json");
});

test("a token may come as a subprotocol, which is never the one chosen", async () => {
  await using server = await testServer();
  using socket = new TestSocket(server.url, ["isthmus.v1.json", `bearer.${ADMIN_TOKEN}`]);
  await socket.take("welcome");
  expect(socket.protocol).toBe("isthmus.v1.json");
  using wrong = new TestSocket(server.url, ["isthmus.v1.json", "bearer.wrong"]);
  expect((await wrong.take("error"))["code"]).toBe("unauthorized");
  expect((await wrong.closed).code).toBe(4501);
});

test("a wrong token is told and closed with 4501", async () => {
  await using server = await testServer();
  using socket = new TestSocket(server.url);
  await socket.send({ op: "auth", token: "wrong" });
  expect((await socket.take("error"))["code"]).toBe("unauthorized");
  expect((await socket.closed).code).toBe(4501);
});

test("without auth everything else is refused, and after 5 s it is closed with 4408", async () => {
  const clock = new ShiftedClock();
  await using server = await testServer({ clock });
  using socket = new TestSocket(server.url);
  await socket.send({ op: "subscribe", sub: "s1", stream: "s" });
  expect(await socket.take("error")).toMatchObject({ sub: "s1", code: "unauthorized" });
  await socket.send({ op: "publish", ref: "p1", stream: "s", body: "x" });
  expect(await socket.take("error")).toMatchObject({ ref: "p1", code: "unauthorized" });
  await socket.nothingElse();
  clock.shiftMs = 6000;
  expect((await socket.closed).code).toBe(4408);
});

test("an expired token closes with 4401, a revoked one with 4501", async () => {
  const clock = new ShiftedClock();
  await using server = await testServer({ clock });
  const short = await server.token({
    name: "short",
    role: "viewer",
    expiresAtMs: clock.nowMs() + 3_600_000,
  });
  const long = await server.token({ name: "long", role: "viewer" });
  using expiring = await TestSocket.open(server.url, short);
  using revoked = await TestSocket.open(server.url, long);
  clock.shiftMs = 3_700_000;
  expect((await expiring.closed).code).toBe(4401);
  await server.tokens.revoke("long", { by: "tests" });
  expect((await revoked.closed).code).toBe(4501);
});

test("a token can be renewed on a live connection, of the same subject only", async () => {
  await using server = await testServer();
  const grants = { read: [{ stream: "s", key: null }] };
  const first = await server.token({ name: "a", subject: "u1", ...grants });
  const second = await server.token({ name: "b", subject: "u1", ...grants });
  const other = await server.token({ name: "c", subject: "u2", ...grants });
  const narrow = await server.token({
    name: "d",
    subject: "u1",
    read: [{ stream: "x", key: null }],
  });
  using socket = await TestSocket.open(server.url, first);
  await socket.send({ op: "subscribe", sub: "s1", stream: "s" });
  await socket.take("subscribed");
  await socket.send({ op: "auth", token: second });
  await socket.take("welcome");
  await server.tokens.revoke("a", { by: "tests" });
  await socket.nothingElse();
  await socket.send({ op: "auth", token: narrow });
  expect((await socket.closed).code).toBe(4503);
  using another = await TestSocket.open(server.url, second);
  await another.send({ op: "auth", token: other });
  expect((await another.closed).code).toBe(4503);
});

test.each([
  ["not json", "invalid"],
  ["[]", "invalid"],
  ['{"op":"subscribe"}', "invalid"],
  ['{"op":"constructor"}', "invalid"],
  ['{"op":"subscribe","stream":"s"}', "invalid"],
  ['{"op":"subscribe","sub":"s1","stream":"a b"}', "invalid"],
  ['{"op":"subscribe","sub":"s1","stream":"$state"}', "invalid"],
  ['{"op":"subscribe","sub":"s1","stream":"s","form":"latest"}', "invalid"],
  ['{"op":"subscribe","sub":"s1","stream":"s","from":"never"}', "invalid"],
  ['{"op":"subscribe","sub":"s1","stream":"s","from":{"time":"x"}}', "invalid"],
  ['{"op":"subscribe","sub":"s1","stream":"s","from":9}', "invalid"],
  ['{"op":"subscribe","sub":"s1","stream":"s","where":"1 +"}', "invalid"],
  ['{"op":"subscribe","sub":"s1","stream":"s","window":0}', "invalid"],
  ['{"op":"subscribe","sub":"s1","stream":"s","name":"a/b"}', "invalid"],
  ['{"op":"subscribe","sub":"s1","stream":"s","as":"xml"}', "invalid"],
  ['{"op":"subscribe","sub":"s1","stream":"s","from":"99"}', "offset-out-of-range"],
  ['{"op":"ack","sub":"none","cursor":"x"}', "not-found"],
  ['{"op":"unsubscribe","sub":"none"}', "not-found"],
  ['{"op":"publish","ref":"p","stream":"s","Body":1}', "invalid"],
  ['{"op":"publish","ref":"p","stream":"$audit","body":"x"}', "invalid"],
  ['{"op":"publish","stream":"s","body":"x"}', "invalid"],
  ['{"op":"publish","ref":"p","stream":"s","id":"","body":"x"}', "invalid"],
  ['{"op":"publish","ref":"p","stream":"s","body":"x","key":7}', "invalid"],
])("the frame %p is answered with the error %p, and the connection goes on", async (text, code) => {
  await using server = await testServer();
  using socket = await TestSocket.open(server.url);
  await socket.send(text);
  expect((await socket.take("error"))["code"]).toBe(code);
  await socket.nothingElse();
});

test("frames of bytes are refused without closing", async () => {
  await using server = await testServer();
  using socket = await TestSocket.open(server.url);
  await socket.sendBytes(new Uint8Array([1, 2, 3]));
  expect((await socket.take("error"))["code"]).toBe("invalid");
  await socket.nothingElse();
});

test("subscriptions of one connection run side by side, under different names", async () => {
  await using server = await testServer();
  using socket = await TestSocket.open(server.url);
  await socket.send({ op: "subscribe", sub: "a", stream: "one" });
  await socket.take("subscribed");
  await socket.send({ op: "subscribe", sub: "b", stream: "two" });
  await socket.take("subscribed");
  await socket.send({ op: "subscribe", sub: "a", stream: "two" });
  expect(await socket.take("error")).toMatchObject({ sub: "a", code: "conflict" });
  await server.publish("one", "1");
  expect(await socket.take("message")).toMatchObject({ sub: "a", stream: "one" });
  await server.publish("two", "2");
  expect(await socket.take("message")).toMatchObject({ sub: "b", stream: "two" });
  await socket.send({ op: "unsubscribe", sub: "a" });
  await server.publish("one", "3");
  await server.publish("two", "4");
  expect(await socket.take("message")).toMatchObject({ sub: "b", body: "4" });
});

test("from takes latest, earliest, a time and the cursor of a message", async () => {
  await using server = await testServer();
  await fill(server, 3);
  using socket = await TestSocket.open(server.url);
  await socket.send({ op: "subscribe", sub: "a", stream: "s", from: { time: 1 } });
  await socket.take("subscribed");
  const [, second] = await socket.takeMany("message", 3);
  await socket.send({ op: "subscribe", sub: "b", stream: "s", from: second?.["cursor"] });
  await socket.take("subscribed");
  expect(await socket.take("message")).toMatchObject({ sub: "b", offset: 2 });
  const page = await server.call("GET", `/streams/s/messages?from=${String(second?.["cursor"])}`);
  expect(page.json["messages"]).toMatchObject([{ offset: 2 }]);
  await socket.send({ op: "subscribe", sub: "c", stream: "s" });
  await socket.take("subscribed");
  await socket.nothingElse();
});

test("key and where choose messages, as=json shows bodies as JSON", async () => {
  await using server = await testServer();
  using socket = await TestSocket.open(server.url);
  const where = "body.n > 1";
  await socket.send({ op: "subscribe", sub: "a", stream: "s", key: "k", where, as: "json" });
  await socket.take("subscribed");
  await server.publish("s", '{"n":2}', { "isthmus-key": "other" });
  await server.publish("s", '{"n":1}', { "isthmus-key": "k" });
  await server.publish("s", '{"n":3}', { "isthmus-key": "k" });
  expect(await socket.take("message")).toMatchObject({ offset: 2, key: "k", bodyJson: { n: 3 } });
});

test("grants bound what a client reads and writes", async () => {
  await using server = await testServer();
  const token = await server.token({
    name: "phone",
    subject: "u1",
    read: [{ stream: "inbox", key: "u1" }],
    write: [{ stream: "chat", key: "u1" }],
  });
  using socket = await TestSocket.open(server.url, token);
  for (const frame of [
    { op: "subscribe", sub: "x", stream: "inbox" },
    { op: "subscribe", sub: "x", stream: "inbox", key: "u2" },
    { op: "subscribe", sub: "x", stream: "chat", key: "u1" },
    { op: "publish", ref: "x", stream: "chat", key: "u2", body: "1" },
    { op: "publish", ref: "x", stream: "inbox", key: "u1", body: "1" },
  ]) {
    await socket.send(frame);
    expect((await socket.take("error"))["code"]).toBe("forbidden");
  }
  await socket.send({ op: "subscribe", sub: "mine", stream: "inbox", key: "u1" });
  await socket.take("subscribed");
  await socket.send({ op: "publish", ref: "p", stream: "chat", key: "u1", body: "1" });
  expect(await socket.take("published")).toMatchObject({ ref: "p", offset: 0 });
});

test("a publish is answered once it is durable; the same id gets the first receipt", async () => {
  await using server = await testServer();
  using socket = await TestSocket.open(server.url);
  const frame = { op: "publish", ref: "p1", stream: "s", id: "m-1", key: "k", body: { a: 1 } };
  await socket.send(frame);
  expect(await socket.take("published")).toEqual({
    op: "published",
    ref: "p1",
    partition: 0,
    offset: 0,
    duplicate: false,
  });
  await socket.send({ ...frame, ref: "p2" });
  expect(await socket.take("published")).toMatchObject({ ref: "p2", offset: 0, duplicate: true });
  await socket.send({ ...frame, ref: "p3", body: "another" });
  expect(await socket.take("error")).toMatchObject({ ref: "p3", code: "idempotency-key-reused" });
  const { json } = await server.call("GET", "/streams/s/messages");
  expect(json["messages"]).toMatchObject([
    { id: "m-1", key: "k", body: '{"a":1}', origin: { bridge: "socket" } },
  ]);
});

test("the path is a WebSocket and nothing else", async () => {
  await using server = await testServer();
  const plain = await server.call("GET", "/socket");
  expect([plain.status, plain.json["code"]]).toEqual([426, "upgrade-required"]);
  expect((await server.call("POST", "/socket", { body: "x" })).status).toBe(405);
  const keyless = await fetch(`${server.url}/socket`, { headers: { upgrade: "websocket" } });
  expect(keyless.status).toBeGreaterThanOrEqual(400);
});

test("clients are listed with their subscriptions, and gone when they have left", async () => {
  await using server = await testServer();
  const socket = await TestSocket.open(server.url);
  await socket.send({ op: "subscribe", sub: "a", stream: "s", name: "n" });
  await socket.take("subscribed");
  const { json } = await server.call("GET", "/api/clients");
  expect(json["items"]).toMatchObject([
    { subject: "token:admin", subscriptions: [{ sub: "a", stream: "s", name: "n", unacked: 0 }] },
  ]);
  socket.close();
  await waitFor("it is gone", async () => {
    const list = (await server.call("GET", "/api/clients")).json["items"] as unknown[];
    return list.length === 0;
  });
});
