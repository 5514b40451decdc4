/** The socket under load: slow and stuck clients, many publishes, gaps, the end. */
import { expect, test } from "bun:test";
import { waitFor } from "../temporary.ts";
import { RawSocket, TestSocket } from "./socket-client.ts";
import { ADMIN_TOKEN, fill, ShiftedClock, testServer } from "./support.ts";

test("progress without a message is told as a cursor", async () => {
  const clock = new ShiftedClock();
  await using server = await testServer({ clock });
  using socket = await TestSocket.open(server.url);
  await socket.send({ op: "subscribe", sub: "a", stream: "s", where: "false" });
  await socket.take("subscribed");
  await fill(server, 5);
  await Bun.sleep(50);
  clock.shiftMs += 5000;
  const { cursor } = await socket.take("cursor");
  const page = await server.call("GET", `/streams/s/messages?from=${String(cursor)}`);
  expect(page.json).toMatchObject({ messages: [], atEnd: true });
  clock.shiftMs += 5000;
  await Bun.sleep(700);
  await socket.nothingElse();
});

test("many publishes at once keep their order", async () => {
  await using server = await testServer();
  using socket = await TestSocket.open(server.url);
  const count = 3000;
  for (let n = 0; n < count; n++) {
    await socket.send({ op: "publish", ref: String(n), stream: "s", body: String(n) });
  }
  const answers = await socket.takeMany("published", count);
  expect(answers.map(({ ref }) => ref)).toEqual(answers.map((_, n) => String(n)));
  expect(answers.map(({ offset }) => offset)).toEqual(answers.map((_, n) => n));
});

test("a cursor of a stream made anew is answered with a gap, and reading goes on", async () => {
  await using before = await testServer();
  await fill(before, 5);
  const cursor = (await before.call("GET", "/streams/s/messages?max=4")).json["next"];
  await using server = await testServer();
  await fill(server, 2);
  using socket = await TestSocket.open(server.url);
  await socket.send({ op: "subscribe", sub: "a", stream: "s", from: cursor });
  expect(await socket.take("subscribed")).toMatchObject({
    gap: { from: 4, to: 0, reason: "epoch" },
  });
  expect(await socket.take("message")).toMatchObject({ offset: 0 });
});

test("a client that pauses gets all 10,000 messages, in order, and memory stays bounded", async () => {
  await using server = await testServer();
  for (let round = 0; round < 10; round++) await fill(server, 1000, "s", 1024);
  using socket = new RawSocket(server.port);
  socket.send({ op: "auth", token: ADMIN_TOKEN });
  socket.send({ op: "subscribe", sub: "a", stream: "s", from: "earliest" });
  await waitFor("the first messages have come", () => socket.texts.length > 2);
  socket.pause();
  let sent = -1;
  await waitFor("the server has stopped sending", async () => {
    const before = sent;
    await Bun.sleep(200);
    sent = server.telemetry.socketMessages;
    return sent === before;
  });
  // What is on its way: the kernel's buffers on both sides, and a step of ours.
  expect(sent).toBeLessThan(9000);
  socket.resume();
  await waitFor("everything has come", () => socket.texts.length >= 10_002);
  const offsets = socket.texts
    .slice(2)
    .map((text) => (JSON.parse(text) as { offset: number }).offset);
  expect(offsets).toEqual(Array.from({ length: 10_000 }, (_, n) => n));
});

test("a client that sends on and reads nothing is closed, and memory stays bounded", async () => {
  await using server = await testServer();
  using socket = new RawSocket(server.port);
  socket.send({ op: "auth", token: ADMIN_TOKEN });
  await waitFor("it is known", () => socket.texts.length > 0);
  socket.pause();
  const sub = "x".repeat(200);
  const flood = (async () => {
    for (let n = 0; n < 100_000 && server.telemetry.socketClients > 0; n++) {
      socket.send({ op: "unsubscribe", sub });
      if (n % 200 === 0) await Bun.sleep(1);
    }
  })();
  await waitFor("it has been closed", () => server.telemetry.socketClients === 0);
  await flood;
});

test("one stuck client does not hold up another", async () => {
  await using server = await testServer();
  using stuck = new RawSocket(server.port);
  stuck.send({ op: "auth", token: ADMIN_TOKEN });
  stuck.send({ op: "subscribe", sub: "a", stream: "s", from: "earliest" });
  await waitFor("it is subscribed", () => stuck.texts.length > 1);
  stuck.pause();
  using socket = await TestSocket.open(server.url);
  await socket.send({ op: "subscribe", sub: "a", stream: "s", from: "earliest" });
  await socket.take("subscribed");
  for (let round = 0; round < 8; round++) await fill(server, 1000, "s", 1024);
  const frames = await socket.takeMany("message", 8000);
  expect(frames.at(-1)).toMatchObject({ offset: 7999 });
});

test("a stop closes with 1012 and keeps every ack", async () => {
  await using server = await testServer();
  await fill(server, 3);
  using socket = await TestSocket.open(server.url);
  await socket.send({ op: "subscribe", sub: "a", stream: "s", name: "n", from: "earliest" });
  await socket.take("subscribed");
  const [, second] = await socket.takeMany("message", 3);
  await socket.send({ op: "ack", sub: "a", cursor: second?.["cursor"] });
  await socket.nothingElse();
  await server.stop();
  expect((await socket.closed).code).toBe(1012);
  const saved = await server.gateway.states.load("client/token%3Aadmin/n");
  expect(saved === null ? "" : new TextDecoder().decode(saved)).toContain(
    String(second?.["cursor"]),
  );
});

test("a subscription to one key on an indexed stream is told how far it has come", async () => {
  const clock = new ShiftedClock();
  await using server = await testServer({ clock });
  const index = { body: '{"partitions":2,"index":["key"]}' };
  expect((await server.call("PUT", "/api/streams/inbox", index)).status).toBe(201);
  using socket = await TestSocket.open(server.url);
  await socket.send({ op: "subscribe", sub: "a", stream: "inbox", key: "mine", from: "earliest" });
  await socket.take("subscribed");
  for (const key of ["other", "third", "other"]) {
    await server.publish("inbox", key, { "isthmus-key": key });
  }
  clock.shiftMs += 5000;
  const { cursor } = await socket.take("cursor");
  const behind = await server.call("GET", `/streams/inbox/messages?from=${String(cursor)}`);
  expect(behind.json).toMatchObject({ messages: [], atEnd: true });
  await server.publish("inbox", "hello", { "isthmus-key": "mine" });
  expect(await socket.take("message")).toMatchObject({ key: "mine", body: "hello" });
  const own = await server.call("GET", "/streams/inbox/messages?key=mine&from=earliest");
  expect(own.json).toMatchObject({ messages: [{ body: "hello" }], atEnd: true });
});

test("metrics tell of sockets, what they read, who does not read, and how they have closed", async () => {
  await using server = await testServer();
  for (let round = 0; round < 10; round++) await fill(server, 1000, "s", 1024);
  const value = async (name: string): Promise<number> => {
    const { text } = await server.call("GET", "/metrics");
    const line = text.split("\n").find((each) => each.startsWith(`${name} `));
    return Number(line?.split(" ").at(-1) ?? Number.NaN);
  };
  const socket = await TestSocket.open(server.url);
  await socket.send({ op: "subscribe", sub: "a", stream: "s", name: "phone" });
  await socket.send({ op: "subscribe", sub: "b", stream: "s" });
  await socket.takeMany("subscribed", 2);
  using stuck = new RawSocket(server.port);
  stuck.send({ op: "auth", token: ADMIN_TOKEN });
  stuck.send({ op: "subscribe", sub: "a", stream: "s", from: "earliest" });
  await waitFor("the first messages have come", () => stuck.texts.length > 2);
  stuck.pause();
  await fill(server, 1000, "s", 16_000);
  await waitFor("it is blocked", async () => (await value("isthmus_ws_blocked")) === 1);
  expect(await value("isthmus_ws_lag_messages")).toBeGreaterThan(0);
  expect(await value("isthmus_ws_clients")).toBe(2);
  expect(await value('isthmus_ws_subscriptions{named="true"}')).toBe(1);
  expect(await value('isthmus_ws_subscriptions{named="false"}')).toBe(2);
  socket[Symbol.dispose]();
  await waitFor("it is gone", async () => (await value("isthmus_ws_clients")) === 1);
  expect(await value("isthmus_ws_opened_total")).toBe(2);
  const { text } = await server.call("GET", "/metrics");
  expect(text).toMatch(/^isthmus_ws_closed_total\{code="100[056]"\} 1$/m);
  const events = await fetch(`${server.url}/streams/s/events?from=earliest`, {
    headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
  });
  await waitFor("an event stream is open", async () => (await value("isthmus_sse_clients")) === 1);
  await events.body?.cancel();
  await waitFor("it has ended", async () => (await value("isthmus_sse_clients")) === 0);
  expect(await value("isthmus_sse_messages_total")).toBeGreaterThan(0);
});
