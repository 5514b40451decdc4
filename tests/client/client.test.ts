/** The client SDK against a real server, with a proxy between them that breaks things. */
import { afterEach, expect, test } from "bun:test";
import { type Client, ClientError, connect, type ConnectOptions } from "../../src/client/client.ts";
import { ADMIN_TOKEN, fill, ShiftedClock, testServer } from "../http/support.ts";
import { waitFor } from "../temporary.ts";
import { MapStore, numbers, proxyTo, quick, Reader } from "./support.ts";

const clients: Client[] = [];

afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()));
});

function open(url: string, options: Partial<ConnectOptions> = {}): Client {
  const client = connect({ url, token: ADMIN_TOKEN, tuning: quick, ...options });
  clients.push(client);
  return client;
}

/** The token of someone who is no admin: names belong to its subject. */
const all = [{ stream: "*", key: null }];
const phone = { subject: "ann", read: all, write: all };

test("a message is published with its receipt and comes to the loop as it was sent", async () => {
  await using server = await testServer();
  const client = open(server.url);
  const reader = new Reader(client.subscribe("s", { from: "earliest" }));
  const bytes = Uint8Array.from([0xff, 0, 0x80]);
  const receipt = await client.publish("s", { body: "grüße", key: "k", headers: { a: "1" } });
  expect(receipt).toMatchObject({ stream: "s", partition: 0, offset: 0, duplicate: false });
  await client.publish("s", { body: bytes, key: bytes, headers: { b: bytes, c: null } });
  await client.publish("s", { body: { n: 1 }, contentType: "application/json", id: "own" });
  await client.publish("s", { body: null });
  await client.publish("s", {});
  expect(await client.publish("s", { body: { n: 1 }, id: "own" })).toMatchObject({ id: "own" });
  await waitFor("all have come", () => reader.messages.length >= 5);
  expect(reader.messages[0]).toMatchObject({ id: receipt.id, key: "k", headers: [["a", "1"]] });
  const second = {
    body: bytes,
    key: bytes,
    headers: [
      ["b", bytes],
      ["c", null],
    ],
  };
  expect(reader.messages[1]).toMatchObject(second);
  expect(reader.bodies).toEqual(["grüße", bytes, '{"n":1}', null, ""]);
});

test("cuts lose nothing and repeat nothing, with and without a name", async () => {
  await using server = await testServer();
  const { proxy, url } = await proxyTo(server.url);
  await using _proxy = proxy;
  const client = open(url);
  const readers = [
    new Reader(client.subscribe("s", { from: "earliest" })),
    new Reader(client.subscribe("s", { from: "earliest", name: "n", window: 7 })),
  ];
  for (let round = 0; round < 10; round++) {
    const sent = numbers(20, round * 20).map((body) => client.publish("s", { body }));
    proxy.cutAfter(300 + round * 170, round % 2 === 0 ? "toClient" : "toUpstream");
    await Promise.all(sent);
    proxy.cut();
  }
  for (const reader of readers) {
    await waitFor("all have come", () => reader.messages.length >= 200);
    expect(reader.bodies).toEqual(numbers(200));
  }
  expect(proxy.accepted).toBeGreaterThan(10);
});

test("what is published during an outage arrives once and in order", async () => {
  await using server = await testServer();
  const { proxy, url } = await proxyTo(server.url);
  await using _proxy = proxy;
  const client = open(url);
  await client.publish("s", { body: "0" });
  await proxy.down();
  await waitFor("it is offline", () => client.state.status === "offline");
  const sent = numbers(60, 1).map((body) => client.publish("s", { body }));
  await proxy.up();
  const receipts = await Promise.all(sent);
  expect(receipts.map(({ offset }) => offset)).toEqual(numbers(60, 1).map(Number));
});

test("the outbox is bounded by count and by bytes, and what fits still arrives", async () => {
  await using server = await testServer();
  const { proxy, url } = await proxyTo(server.url);
  await using _proxy = proxy;
  await proxy.down();
  const client = open(url);
  const sent = numbers(100).map((body) => client.publish("s", { body }));
  await expect(client.publish("s", { body: "x" })).rejects.toMatchObject({ code: "outbox-full" });
  const other = open(url);
  sent.push(other.publish("s", { body: "y".repeat(600_000) }));
  await expect(other.publish("s", { body: "z".repeat(600_000) })).rejects.toMatchObject({
    code: "outbox-full",
  });
  await proxy.up();
  await Promise.all(sent);
  expect((await client.publish("s", { body: "after" })).offset).toBe(101);
});

test("what has no JSON, is refused or was aborted rejects with its code", async () => {
  await using server = await testServer();
  const client = open(server.url);
  const publish = (stream: string, body: unknown) => client.publish(stream, { body });
  await expect(publish("s", 1n)).rejects.toMatchObject({ code: "invalid" });
  await expect(publish("no stream", "x")).rejects.toMatchObject({ name: "ClientError" });
  const aborted = client.publish("s", { body: "x" }, AbortSignal.abort());
  await expect(aborted).rejects.toMatchObject({ code: "aborted" });
  const control = new AbortController();
  const { proxy, url } = await proxyTo(server.url);
  await using _proxy = proxy;
  await proxy.down();
  const waiting = open(url).publish("s", { body: "x" }, control.signal);
  control.abort();
  await expect(waiting).rejects.toMatchObject({ code: "aborted" });
  const loop = new Reader(client.subscribe("s", { where: "body.(" }));
  expect(await loop.done).toMatchObject({ name: "ClientError" });
  expect((await publish("s", "fine")).offset).toBe(0);
});

test("a name thrown away without closing goes on after the last ack with another client", async () => {
  await using server = await testServer();
  await fill(server, 30);
  const { proxy, url } = await proxyTo(server.url);
  await using _proxy = proxy;
  const first = open(url);
  const stuck = Promise.withResolvers<void>();
  const before = new Reader(first.subscribe("s", { from: "earliest", name: "n" }), ({ offset }) =>
    offset === 9 ? stuck.promise : null,
  );
  await waitFor("ten have come", () => before.messages.length === 10);
  await waitFor("nine are acked", async () => {
    const { json } = await server.call("GET", "/api/clients");
    return JSON.stringify(json).includes('"unacked":21');
  });
  proxy.blackhole(true);
  const after = new Reader(open(server.url).subscribe("s", { name: "n" }));
  await waitFor("the rest has come", () => after.messages.length >= 21);
  expect(after.messages.map(({ offset }) => offset)).toEqual(numbers(21, 9).map(Number));
  proxy.blackhole(false);
  stuck.resolve();
});

test("who is taken over is told so and does not come back", async () => {
  await using server = await testServer();
  await fill(server, 1);
  const first = open(server.url);
  const states: string[] = [];
  first.onState(({ status }) => states.push(status));
  const before = new Reader(first.subscribe("s", { from: "earliest", name: "n" }));
  await waitFor("one has come", () => before.messages.length === 1);
  const after = new Reader(open(server.url).subscribe("s", { name: "n" }));
  expect(await before.done).toMatchObject({ code: "taken-over" });
  expect(first.state).toMatchObject({ status: "closed", error: { code: "taken-over" } });
  await expect(first.publish("s", { body: "x" })).rejects.toMatchObject({ code: "taken-over" });
  await fill(server, 1);
  await waitFor("the next has come", () => after.messages.at(-1)?.offset === 1);
  expect(states).toEqual(["connecting", "online", "closed"]);
});

test("an expired token is asked for once, and without a callback that is the end", async () => {
  const clock = new ShiftedClock();
  await using server = await testServer({ clock });
  const make = (name: string, forMs: number): Promise<string> =>
    server.token({ ...phone, name, expiresAtMs: clock.nowMs() + forMs });
  const tokens = [await make("a", 60_000), await make("b", 600_000)];
  let asked = 0;
  const client = open(server.url, { token: () => Promise.resolve(tokens[asked++] ?? "") });
  const reader = new Reader(client.subscribe("s"));
  const fixed = open(server.url, { token: await make("c", 60_000) });
  const stopped = new Reader(fixed.subscribe("s"));
  await client.publish("s", { body: "1" });
  await waitFor("the other is online", () => fixed.state.status === "online");
  clock.shiftMs = 61_000;
  expect(await stopped.done).toMatchObject({ code: "token-expired" });
  await waitFor("a second token was asked for", () => asked === 2);
  await client.publish("s", { body: "2" });
  await waitFor("both have come", () => reader.messages.length === 2);
  expect(asked).toBe(2);
});

test("a token that expired while offline is renewed; a wrong one stops the client", async () => {
  const clock = new ShiftedClock();
  await using server = await testServer({ clock });
  const { proxy, url } = await proxyTo(server.url);
  await using _proxy = proxy;
  const make = (name: string, forMs: number): Promise<string> =>
    server.token({ ...phone, name, expiresAtMs: clock.nowMs() + forMs });
  const tokens = [await make("a", 60_000), await make("b", 6_000_000)];
  let asked = 0;
  const client = open(url, { token: () => tokens[asked++] ?? "" });
  await client.publish("s", { body: "1" });
  await proxy.down();
  clock.shiftMs = 61_000;
  await proxy.up();
  await client.publish("s", { body: "2" });
  expect(asked).toBe(2);
  const wrong = open(server.url, { token: () => "wrong" });
  await expect(wrong.publish("s", { body: "x" })).rejects.toMatchObject({ code: "unauthorized" });
});

test("a stream made anew is a gap between the messages, and reading goes on", async () => {
  await using old = await testServer();
  await fill(old, 5);
  const { json } = await old.call("GET", "/streams/s/messages?from=earliest");
  await using server = await testServer();
  await fill(server, 2);
  const seen: unknown[] = [];
  const reader = new Reader(
    open(server.url).subscribe("s", {
      from: String(json["next"]),
      onGap: (gap) => seen.push(gap),
    }),
    ({ offset }) => seen.push(offset),
  );
  await waitFor("both have come", () => reader.messages.length === 2);
  expect(seen).toEqual([{ partition: 0, from: 5, to: 0, reason: "epoch" }, 0, 1]);
});

test("a half-open connection is noticed by its silence and replaced", async () => {
  await using server = await testServer();
  const { proxy, url } = await proxyTo(server.url);
  await using _proxy = proxy;
  const client = open(url, { tuning: { ...quick, pingMs: 50, deadMs: 200 } });
  const reader = new Reader(client.subscribe("s"));
  await client.publish("s", { body: "1" });
  proxy.blackhole(true);
  const publishing = client.publish("s", { body: "2" });
  await waitFor("it is offline", () => client.state.status === "offline");
  proxy.blackhole(false);
  await publishing;
  await waitFor("both have come", () => reader.messages.length === 2);
  expect(reader.bodies).toEqual(["1", "2"]);
});

test("wake reconnects at once, and the network's return does the same", async () => {
  await using server = await testServer();
  const { proxy, url } = await proxyTo(server.url);
  await using _proxy = proxy;
  let online: () => void = () => undefined;
  const platform: ConnectOptions["platform"] = {
    random: () => 0.999,
    onWake: (wake) => {
      online = wake;
      return () => undefined;
    },
  };
  const client = open(url, { tuning: { minMs: 3_600_000, maxMs: 3_600_000 }, platform });
  for (const wake of [() => client.wake(), () => online()]) {
    await client.publish("s", { body: "x" });
    proxy.cut();
    await waitFor("it is offline", () => client.state.status === "offline");
    wake();
    await waitFor("it is online", () => client.state.status === "online");
  }
});

test("with a store, the next run goes on where the loop was and sends what was left", async () => {
  await using server = await testServer();
  const { proxy, url } = await proxyTo(server.url);
  await using _proxy = proxy;
  await fill(server, 10);
  const store = new MapStore();
  const first = open(url, { store });
  const before: number[] = [];
  for await (const { offset } of first.subscribe("s", { from: "earliest" })) {
    before.push(offset);
    if (offset === 4) break;
  }
  await proxy.down();
  const lost = numbers(3).map((body) => first.publish("t", { body }));
  await first.close();
  for (const each of lost) await expect(each).rejects.toMatchObject({ code: "closed" });
  await proxy.up();
  const second = open(url, { store });
  const reader = new Reader(second.subscribe("s", { from: "earliest" }));
  const outside = new Reader(second.subscribe("t", { from: "earliest" }));
  await waitFor("the rest has come", () => reader.messages.at(-1)?.offset === 9);
  // The last one of the first run was not settled: its loop never came back for another.
  expect(reader.messages.map(({ offset }) => offset)).toEqual([4, 5, 6, 7, 8, 9]);
  await waitFor("what was left has come", () => outside.messages.length === 3);
  expect(outside.bodies).toEqual(["0", "1", "2"]);
  await waitFor("nothing waits any more", () =>
    [...store.values.keys()].every((key) => key.startsWith("cursor/")),
  );
});

test("a store that fails is told of, and the message still arrives", async () => {
  await using server = await testServer();
  const store = new MapStore();
  const errors: string[] = [];
  const client = open(server.url, { store, onError: ({ code }) => errors.push(code) });
  await client.publish("s", { body: "1" });
  store.isBroken = true;
  expect((await client.publish("s", { body: "2" })).offset).toBe(1);
  await waitFor("it was told", () => errors.includes("store-failed"));
});

test("with manual acks, what was not acked comes again", async () => {
  await using server = await testServer();
  await fill(server, 6);
  const first = open(server.url);
  const options = { from: "earliest", name: "n", ack: "manual" } as const;
  const before = new Reader(first.subscribe("s", options), (message) => {
    if (message.offset === 2) message.ack();
  });
  await waitFor("all have come", () => before.messages.length === 6);
  await first.close();
  expect(await before.done).toBeNull();
  const after = new Reader(open(server.url).subscribe("s", options));
  await waitFor("the rest has come", () => after.messages.length === 3);
  expect(after.messages.map(({ offset }) => offset)).toEqual([3, 4, 5]);
});

test("a loop that is slow gets everything once, though the server was asked to wait", async () => {
  await using server = await testServer();
  await fill(server, 6000);
  const opened = Promise.withResolvers<void>();
  const client = open(server.url);
  const reader = new Reader(client.subscribe("s", { from: "earliest" }), ({ offset }) =>
    offset === 0 ? opened.promise : null,
  );
  await waitFor("the server was asked to wait", async () => {
    const { json } = await server.call("GET", "/api/clients");
    return JSON.stringify(json).includes('"subscriptions":[]');
  });
  opened.resolve();
  await waitFor("all have come", () => reader.messages.length >= 6000);
  expect(reader.messages.every(({ offset }, index) => offset === index)).toBe(true);
});

test("a loop ends with its signal, by break, and with the client", async () => {
  await using server = await testServer();
  await fill(server, 3);
  const control = new AbortController();
  const client = open(server.url);
  const aborted = new Reader(client.subscribe("s", { signal: control.signal }));
  for await (const { offset } of client.subscribe("s", { from: "earliest" })) {
    expect(offset).toBe(0);
    break;
  }
  const closed = new Reader(client.subscribe("s"));
  control.abort();
  expect(await aborted.done).toBeNull();
  await waitFor("one subscription is left", async () => {
    const { json } = await server.call("GET", "/api/clients");
    return JSON.stringify(json).split('"sub":').length === 2;
  });
  await client.close();
  expect(await closed.done).toBeNull();
  expect(await new Reader(client.subscribe("s")).done).toBeNull();
  await expect(client.publish("s", { body: "x" })).rejects.toMatchObject({ code: "closed" });
});

test("a stream that the token does not allow ends its loop and nothing else", async () => {
  await using server = await testServer();
  const grant = [{ stream: "mine", key: null }];
  const token = await server.token({ name: "p", subject: "ann", read: grant, write: grant });
  const client = open(server.url, { token });
  expect(await new Reader(client.subscribe("other")).done).toMatchObject({ code: "forbidden" });
  await expect(client.publish("other", { body: "x" })).rejects.toMatchObject({ code: "forbidden" });
  expect((await client.publish("mine", { body: "x" })).offset).toBe(0);
});

test("an address that is none, or a runtime without a socket, ends the client at once", async () => {
  const nowhere = open("not an address");
  await expect(nowhere.publish("s", { body: "x" })).rejects.toMatchObject({ code: "invalid" });
  const socket = (): never => {
    throw new ClientError("unsupported", "there is none");
  };
  const bare = open("http://127.0.0.1:1", { platform: { socket } });
  const loop = new Reader(bare.subscribe("s"));
  expect(await loop.done).toMatchObject({ code: "unsupported" });
  expect(bare.state.error).toBeInstanceOf(ClientError);
});

test("a restart of the server is waited out, and a signal closes the client", async () => {
  const control = new AbortController();
  const first = await testServer();
  const { port } = first;
  const client = open(first.url, { signal: control.signal });
  await client.publish("s", { body: "1" });
  await first[Symbol.asyncDispose]();
  const waiting = client.publish("s", { body: "2" });
  await waitFor("it is offline", () => client.state.status === "offline");
  await using _second = await testServer({ config: { port } });
  expect((await waiting).offset).toBe(0);
  control.abort();
  expect(client.state).toEqual({ status: "closed", error: null });
});
