/** Durable names: acks, windows, coming back, taking over. */
import { expect, test } from "bun:test";
import { systemClock } from "../../src/clock.ts";
import { shortEpoch } from "../../src/log/cursor.ts";
import { DurableNames } from "../../src/http/names.ts";
import { TestSocket } from "./socket-client.ts";
import { fill, ShiftedClock, testServer } from "./support.ts";

test("a named subscription goes on after its last ack, the unacked ones again", async () => {
  await using server = await testServer();
  await fill(server, 5);
  const frame = { op: "subscribe", sub: "a", stream: "s", name: "phone", from: "earliest" };
  using first = await TestSocket.open(server.url);
  await first.send(frame);
  await first.take("subscribed");
  const messages = await first.takeMany("message", 5);
  await first.send({ op: "ack", sub: "a", cursor: messages[2]?.["cursor"] });
  await first.send({ op: "ack", sub: "a", cursor: messages[0]?.["cursor"] });
  await first.nothingElse();
  first.close();
  await first.closed;
  using second = await TestSocket.open(server.url);
  await second.send({ ...frame, from: "latest" });
  await second.take("subscribed");
  expect((await second.takeMany("message", 2)).map(({ offset }) => offset)).toEqual([3, 4]);
  await second.nothingElse();
});

test("latest under a name is where the name began, not where it came back", async () => {
  await using server = await testServer();
  await fill(server, 2);
  const frame = { op: "subscribe", sub: "a", stream: "s", name: "phone", from: "latest" };
  using first = await TestSocket.open(server.url);
  await first.send(frame);
  await first.take("subscribed");
  first.close();
  await first.closed;
  await fill(server, 1);
  using second = await TestSocket.open(server.url);
  await second.send(frame);
  await second.take("subscribed");
  expect(await second.take("message")).toMatchObject({ offset: 2 });
});

test("names belong to the subject, and to one stream", async () => {
  await using server = await testServer();
  await fill(server, 2);
  const token = await server.token({ name: "u", subject: "u", read: [{ stream: "s", key: null }] });
  const frame = { op: "subscribe", sub: "a", stream: "s", name: "phone", from: "earliest" };
  using admin = await TestSocket.open(server.url);
  await admin.send(frame);
  await admin.take("subscribed");
  const [, last] = await admin.takeMany("message", 2);
  await admin.send({ op: "ack", sub: "a", cursor: last?.["cursor"] });
  using client = await TestSocket.open(server.url, token);
  await client.send(frame);
  await client.take("subscribed");
  await client.takeMany("message", 2);
  await admin.send({ ...frame, sub: "b" });
  expect(await admin.take("error")).toMatchObject({ sub: "b", code: "conflict" });
  await admin.send({ op: "unsubscribe", sub: "a" });
  await admin.send({ ...frame, stream: "other" });
  expect(await admin.take("error")).toMatchObject({ code: "conflict" });
});

test("a second connection takes a name over, and loses nothing that was acked", async () => {
  await using server = await testServer();
  await fill(server, 4);
  const frame = { op: "subscribe", sub: "a", stream: "s", name: "phone", from: "earliest" };
  using first = await TestSocket.open(server.url);
  await first.send(frame);
  await first.take("subscribed");
  const messages = await first.takeMany("message", 4);
  await first.send({ op: "ack", sub: "a", cursor: messages[1]?.["cursor"] });
  await first.nothingElse();
  using second = await TestSocket.open(server.url);
  await second.send(frame);
  expect(await first.take("error")).toMatchObject({ sub: "a", code: "taken-over" });
  expect((await first.closed).code).toBe(4509);
  await second.take("subscribed");
  expect((await second.takeMany("message", 2)).map(({ offset }) => offset)).toEqual([2, 3]);
});

test("a late frame of a client's earlier connection does not take the name from its later one", async () => {
  await using server = await testServer();
  const frame = (client?: string) => ({
    op: "subscribe",
    sub: "a",
    stream: "s",
    name: "n",
    client,
  });
  using early = await TestSocket.open(server.url);
  using late = await TestSocket.open(server.url);
  await late.send(frame("ann"));
  await late.take("subscribed");
  await early.send(frame("ann"));
  expect(await early.take("error")).toMatchObject({ sub: "a", code: "conflict" });
  await late.nothingElse();
  // Another client takes it over from a connection that is older too, and so does one that does
  // not say who it is.
  await early.send(frame("bob"));
  await early.take("subscribed");
  expect(await late.take("error")).toMatchObject({ sub: "a", code: "taken-over" });
  using last = await TestSocket.open(server.url);
  await last.send(frame());
  await last.take("subscribed");
  expect((await early.closed).code).toBe(4509);
});

test("connections that take two names from one another do not wait for ever", async () => {
  await using server = await testServer();
  const frame = (name: string) => ({ op: "subscribe", sub: name, stream: "s", name });
  using first = await TestSocket.open(server.url);
  using second = await TestSocket.open(server.url);
  await first.send(frame("x"));
  await first.take("subscribed");
  await second.send(frame("y"));
  await second.take("subscribed");
  await Promise.all([first.send(frame("y")), second.send(frame("x"))]);
  await Promise.race([first.closed, second.closed]);
  using third = await TestSocket.open(server.url);
  await third.send(frame("x"));
  await third.take("subscribed");
  await third.send(frame("y"));
  await third.take("subscribed");
});

test("a window holds back what is not acked", async () => {
  await using server = await testServer();
  await fill(server, 10);
  using socket = await TestSocket.open(server.url);
  await socket.send({
    op: "subscribe",
    sub: "a",
    stream: "s",
    name: "n",
    from: "earliest",
    window: 3,
  });
  await socket.take("subscribed");
  const first = await socket.takeMany("message", 3);
  await Bun.sleep(100);
  await socket.nothingElse();
  await socket.send({ op: "ack", sub: "a", cursor: first[1]?.["cursor"] });
  const more = await socket.takeMany("message", 2);
  expect(more.map(({ offset }) => offset)).toEqual([3, 4]);
  await socket.nothingElse();
  await socket.send({ op: "ack", sub: "a", cursor: more[1]?.["cursor"] });
  await socket.takeMany("message", 3);
});

test("an ack of another stream's cursor, or of nonsense, is refused and moves nothing", async () => {
  await using server = await testServer();
  await fill(server, 3);
  await using other = await testServer();
  await fill(other, 3);
  const foreign = (await other.call("GET", "/streams/s/messages")).json["next"];
  using socket = await TestSocket.open(server.url);
  await socket.send({ op: "subscribe", sub: "a", stream: "s", name: "n", from: "earliest" });
  await socket.take("subscribed");
  await socket.takeMany("message", 3);
  for (const cursor of [foreign, "nonsense"]) {
    await socket.send({ op: "ack", sub: "a", cursor });
    expect(await socket.take("error")).toMatchObject({ sub: "a", code: "invalid" });
  }
});

test("a name unused for 30 days begins anew", async () => {
  const clock = new ShiftedClock();
  await using server = await testServer({ clock });
  await fill(server, 3);
  const frame = { op: "subscribe", sub: "a", stream: "s", name: "n", from: "earliest" };
  const open = async (): Promise<TestSocket> => {
    const socket = await TestSocket.open(server.url);
    await socket.send(frame);
    await socket.take("subscribed");
    return socket;
  };
  using first = await open();
  const [last] = (await first.takeMany("message", 3)).slice(-1);
  await first.send({ op: "ack", sub: "a", cursor: last?.["cursor"] });
  await first.nothingElse();
  first.close();
  await first.closed;
  clock.shiftMs = 29 * 86_400_000;
  using second = await open();
  await second.nothingElse();
  // It was used by coming back: the time counts from there.
  await Bun.sleep(700);
  second.close();
  await second.closed;
  clock.shiftMs = 58 * 86_400_000;
  using third = await open();
  await third.nothingElse();
  third.close();
  await third.closed;
  clock.shiftMs = 100 * 86_400_000;
  using fourth = await open();
  await fourth.takeMany("message", 3);
});

test("names unused for 30 days are forgotten, those in use and younger ones stay", async () => {
  await using server = await testServer();
  const { states } = server.gateway;
  let ageMs = 0;
  const clock = { ...systemClock, nowMs: () => systemClock.nowMs() + ageMs };
  const names = new DurableNames(states, clock);
  const holder = { client: null, openedMs: 0, takenOver: () => undefined, failed: () => undefined };
  const cursor = server.gateway.streams
    .stream("s")
    .partitions.map(({ epoch, offsetEnd }) => ({ epoch: shortEpoch(epoch), offset: offsetEnd }));
  const begun = async (name: string) => {
    const claim = await names.claim("ann", name, holder);
    await claim.begin("s", cursor);
    return claim;
  };
  await (await begun("old")).release();
  const held = await begun("held");
  ageMs = 31 * 24 * 3_600_000;
  await (await begun("young")).release();
  expect(await names.sweep()).toBe(1);
  expect(states.keys("client/ann/")).toEqual(["client/ann/held", "client/ann/young"]);
  await held.release();
  expect(await names.sweep()).toBe(1);
});
