/** Reading by offset, time and cursor; waits; filters; events; receipts. */
import { expect, test } from "bun:test";
import { messageDigest } from "../../src/http/receipts.ts";
import { encodeText } from "../../src/message.ts";
import { type Answer, testServer, type TestServer } from "./support.ts";

interface Page {
  readonly messages: { offset: number; partition: number; body: string; bodyJson?: unknown }[];
  readonly next: string;
  readonly atEnd: boolean;
  readonly gap: { from: number; to: number; reason: string } | null;
}

async function read(server: TestServer, query: string, stream = "s"): Promise<Page> {
  const answer = await server.call("GET", `/streams/${stream}/messages?${query}`);
  expect(answer.status).toBe(200);
  return answer.json as unknown as Page;
}

async function fill(server: TestServer, count: number, stream = "s"): Promise<void> {
  const body = Array.from({ length: count }, (_, n) => JSON.stringify({ body: { n } })).join("\n");
  const headers = { "content-type": "application/x-ndjson" };
  const answer = await server.call("POST", `/streams/${stream}/messages`, { body, headers });
  expect(answer.status).toBe(202);
}

const offsets = ({ messages }: Page): number[] => messages.map(({ offset }) => offset);

test("a stream exists as soon as it is read, and reading it whole needs only next", async () => {
  await using server = await testServer();
  expect(await read(server, "")).toMatchObject({ messages: [], atEnd: true, gap: null });
  await fill(server, 250);
  const seen: number[] = [];
  let from = "earliest";
  for (let pages = 0; pages < 10; pages++) {
    const page = await read(server, `from=${from}&max=60`);
    seen.push(...offsets(page));
    from = page.next;
    if (page.atEnd) break;
  }
  expect(seen).toEqual(Array.from({ length: 250 }, (_, n) => n));
  expect(await read(server, `from=${from}`)).toMatchObject({ messages: [], atEnd: true });
});

test("from and to take earliest, latest, offsets, times and cursors; to is not included", async () => {
  await using server = await testServer();
  await fill(server, 10);
  expect(offsets(await read(server, "from=3&to=6"))).toEqual([3, 4, 5]);
  expect(await read(server, "from=3&to=6")).toMatchObject({ atEnd: true });
  expect(offsets(await read(server, "from=3&to=3"))).toEqual([]);
  expect(offsets(await read(server, "from=8&to=latest"))).toEqual([8, 9]);
  expect(offsets(await read(server, "from=latest"))).toEqual([]);
  expect(offsets(await read(server, "from=10"))).toEqual([]);
  expect(offsets(await read(server, "from=1h%20ago"))).toHaveLength(10);
  expect(offsets(await read(server, "from=1h+ago&max=2"))).toEqual([0, 1]);
  expect(offsets(await read(server, "to=2001-01-01T00:00:00Z"))).toEqual([]);
  expect(offsets(await read(server, "from=2001-01-01T00:00:00Z"))).toHaveLength(10);
  const { next } = await read(server, "from=2&max=3");
  expect(offsets(await read(server, `from=${next}`))).toEqual([5, 6, 7, 8, 9]);
  expect(offsets(await read(server, `to=${next}`))).toEqual([0, 1, 2, 3, 4]);
  const page = await read(server, "from=0&to=5&max=2");
  expect(page.atEnd).toBe(false);
  expect(offsets(await read(server, `from=${page.next}&to=5`))).toEqual([2, 3, 4]);
});

test("past the end is 416 with the bounds", async () => {
  await using server = await testServer();
  await fill(server, 3);
  const answer = await server.call("GET", "/streams/s/messages?from=4");
  expect([answer.status, answer.json["code"]]).toEqual([416, "offset-out-of-range"]);
  expect(answer.json).toMatchObject({ earliest: 0, latest: 3 });
});

test.each([
  ["from=yesterday", "/from"],
  ["to=AAAA", "/to"],
  ["from=", "/from"],
  ["max=0", "/max"],
  ["max=10001", "/max"],
  ["wait=61s", "/wait"],
  ["wait=long", "/wait"],
  ["partition=1", "/partition"],
  ["as=xml", "/as"],
  ["form=earliest", "/form"],
  ["max=1&max=2", "/max"],
])("the query %p is refused at %p", async (query, pointer) => {
  await using server = await testServer();
  const answer = await server.call("GET", `/streams/s/messages?${query}`);
  expect([answer.status, answer.json["code"]]).toEqual([400, "invalid"]);
  expect(answer.json["errors"]).toMatchObject([{ pointer }]);
});

test("a where that does not compile tells line and column", async () => {
  await using server = await testServer();
  const where = encodeURIComponent("body.n >\n  && 1");
  const answer = await server.call("GET", `/streams/s/messages?where=${where}`);
  expect([answer.status, answer.json["code"]]).toEqual([400, "invalid"]);
  expect(answer.json["errors"]).toMatchObject([{ pointer: "/where", line: 2 }]);
});

test("several partitions come in order within each, and an offset needs one of them", async () => {
  await using server = await testServer();
  await server.call("PUT", "/api/streams/s", { body: '{"partitions":3}' });
  await fill(server, 90);
  const seen = new Map<number, number[]>();
  let from = "earliest";
  for (;;) {
    const page = await read(server, `from=${from}&max=7`);
    for (const { partition, offset } of page.messages) {
      seen.set(partition, [...(seen.get(partition) ?? []), offset]);
    }
    from = page.next;
    if (page.atEnd) break;
  }
  expect(new Set(seen.keys())).toEqual(new Set([0, 1, 2]));
  let count = 0;
  for (const list of seen.values()) {
    expect(list).toEqual(Array.from({ length: list.length }, (_, n) => n));
    count += list.length;
  }
  expect(count).toBe(90);
  expect((await server.call("GET", "/streams/s/messages?from=1")).status).toBe(400);
  const one = await read(server, "partition=1&from=2&max=1");
  expect(one.messages).toMatchObject([{ partition: 1, offset: 2 }]);
  const cut = await read(server, "from=earliest&to=latest&max=1000");
  expect(cut.messages).toHaveLength(90);
});

test("a filter goes on exactly behind what was given", async () => {
  await using server = await testServer();
  await fill(server, 100);
  const where = encodeURIComponent("body.n % 10 == 3");
  const first = await read(server, `where=${where}&max=2`);
  expect(offsets(first)).toEqual([3, 13]);
  expect(first.atEnd).toBe(false);
  const rest = await read(server, `where=${where}&from=${first.next}`);
  expect(offsets(rest)).toEqual([23, 33, 43, 53, 63, 73, 83, 93]);
  expect(rest.atEnd).toBe(true);
  const failing = await read(server, `where=${encodeURIComponent("body.missing.deep == 1")}`);
  expect(failing).toMatchObject({ messages: [], atEnd: true });
});

test("as=json shows JSON bodies as they stand, and others as they are", async () => {
  await using server = await testServer();
  await server.publish(
    "s",
    '{\n  "big": 12345678901234567890,\r\n  "exact": 0.10000000000000000001 }',
  );
  await server.publish("s", "no json");
  const { text } = await server.call("GET", "/streams/s/messages?as=json");
  expect(text).toContain(
    '"bodyJson":{   "big": 12345678901234567890,   "exact": 0.10000000000000000001 }',
  );
  expect(text).toContain('"body":"no json"');
});

test("wait returns at the first message, and with nothing when it is over", async () => {
  await using server = await testServer();
  await fill(server, 1);
  const waiting = read(server, "from=latest&wait=30s");
  await Bun.sleep(30);
  await server.publish("s", "now");
  expect((await waiting).messages).toMatchObject([{ offset: 1, body: "now" }]);
  expect(await read(server, "from=latest&wait=50ms")).toMatchObject({ messages: [], atEnd: true });
});

test("a wait with a filter goes on until a message fits", async () => {
  await using server = await testServer();
  const waiting = read(server, `from=latest&wait=30s&where=${encodeURIComponent('text == "b"')}`);
  await Bun.sleep(30);
  await server.publish("s", "a");
  await server.publish("s", "b");
  expect((await waiting).messages).toMatchObject([{ offset: 1, body: "b" }]);
});

test("a wait ends when the server stops", async () => {
  await using server = await testServer();
  const waiting = server.call("GET", "/streams/s/messages?from=latest&wait=60s");
  await Bun.sleep(50);
  await server.stop();
  const answer: Answer = await waiting;
  expect([answer.status, answer.json["atEnd"]]).toEqual([200, true]);
});

test("reading is for those who may: all of a stream, or one key", async () => {
  await using server = await testServer();
  await server.publish("inbox", "mine", { "isthmus-key": "u1" });
  await server.publish("inbox", "theirs", { "isthmus-key": "u2" });
  const token = await server.token({
    name: "phone",
    subject: "u1",
    read: [{ stream: "inbox", key: "u1" }],
  });
  const call = (path: string) => server.call("GET", path, { token });
  expect((await call("/streams/inbox/messages")).status).toBe(403);
  expect((await call("/streams/inbox/messages?key=u2")).status).toBe(403);
  expect((await call("/streams/other/messages?key=u1")).status).toBe(403);
  const mine = await call("/streams/inbox/messages?key=u1");
  expect(mine.json["messages"]).toMatchObject([{ body: "mine" }]);
  expect((await call("/receipts/inbox/0/0")).status).toBe(200);
  expect((await call("/receipts/inbox/0/1")).status).toBe(403);
  expect((await call("/receipts/inbox/0/9")).status).toBe(403);
  expect((await server.call("GET", "/streams/$state/messages")).status).toBe(400);
});

test("a receipt tells the digest of what is on disk", async () => {
  await using server = await testServer();
  const { json } = await server.publish("s", "body", {
    "isthmus-key": "k",
    "isthmus-header-x": "1",
  });
  const receipt = await server.call("GET", "/receipts/s/0/0");
  const digest = messageDigest({
    key: encodeText("k"),
    headers: [{ name: "x", value: encodeText("1") }],
    body: encodeText("body"),
  });
  expect(receipt.json).toMatchObject({
    id: json["id"],
    durable: "fsync",
    digest: `sha256:${digest}`,
  });
  for (const path of ["/receipts/s/0/1", "/receipts/s/1/0", "/receipts/none/0/0"]) {
    expect((await server.call("GET", path)).json["code"]).toBe("not-found");
  }
  expect((await server.call("GET", "/receipts/s/0/x")).status).toBe(400);
});

/** Reads events until so many have come, then leaves. */
async function events(
  server: TestServer,
  path: string,
  count: number,
  headers = {},
): Promise<string[]> {
  const gone = new AbortController();
  const response = await fetch(`${server.url}${path}`, {
    headers: { authorization: "Bearer admin-token-of-the-tests", ...headers },
    signal: gone.signal,
  });
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toContain("text/event-stream");
  let text = "";
  const decoder = new TextDecoder();
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const complete = (): string[] =>
    text
      .split("\n\n")
      .slice(0, -1)
      .filter((each) => !each.startsWith(":"));
  while (complete().length < count) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
  }
  gone.abort();
  return complete();
}

function eventOf(text: string): { id: string; event: string; data: Record<string, unknown> } {
  const fields = new Map(
    text
      .split("\n")
      .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
  );
  return {
    id: fields.get("id") ?? "",
    event: fields.get("event") ?? "",
    data: JSON.parse(fields.get("data") ?? "null") as Record<string, unknown>,
  };
}

test("events carry a cursor each, and Last-Event-ID goes on behind it", async () => {
  await using server = await testServer();
  await fill(server, 5);
  const first = (await events(server, "/streams/s/events?from=earliest", 3)).map(eventOf);
  expect(first.slice(0, 3).map(({ event, data }) => [event, data["offset"]])).toEqual([
    ["message", 0],
    ["message", 1],
    ["message", 2],
  ]);
  const rest = await events(server, "/streams/s/events?from=earliest", 2, {
    "last-event-id": first[2]?.id ?? "",
  });
  expect(rest.map((text) => eventOf(text).data["offset"])).toEqual([3, 4]);
  const { messages } = await read(server, `from=${first[0]?.id}`);
  expect(messages[0]?.offset).toBe(1);
});

test("events are live, and end at max and at to", async () => {
  await using server = await testServer();
  const live = events(server, "/streams/s/events?max=2", 9);
  await Bun.sleep(50);
  await fill(server, 5);
  expect((await live).map((text) => eventOf(text).data["offset"])).toEqual([0, 1]);
  const bounded = await events(server, "/streams/s/events?from=1&to=4", 9);
  expect(bounded.map((text) => eventOf(text).data["offset"])).toEqual([1, 2, 3]);
  const over = await server.call("GET", "/streams/s/events?from=4&to=4");
  expect(over.status).toBe(204);
});

test("events end when the server stops", async () => {
  await using server = await testServer();
  const live = events(server, "/streams/s/events", 1);
  await Bun.sleep(50);
  await server.stop();
  expect(await live).toEqual([]);
});

test("a reader of events that pauses gets everything, in order", async () => {
  await using server = await testServer();
  const body = `${JSON.stringify({ body: "x".repeat(1024) })}\n`.repeat(5000);
  const headers = { "content-type": "application/x-ndjson" };
  for (let round = 0; round < 4; round++) {
    await server.call("POST", "/streams/s/messages", { body, headers });
  }
  const response = await fetch(`${server.url}/streams/s/events?from=earliest&to=latest`, {
    headers: { authorization: "Bearer admin-token-of-the-tests" },
  });
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  let text = decoder.decode((await reader.read()).value, { stream: true });
  await Bun.sleep(200);
  let next = 0;
  for (;;) {
    const { done, value } = await reader.read();
    text += decoder.decode(value, { stream: true });
    const events = text.split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) expect(eventOf(event).data["offset"]).toBe(next++);
    if (done) break;
  }
  expect(next).toBe(20_000);
});

test("a cursor of a stream made anew is answered with a gap", async () => {
  await using first = await testServer();
  await fill(first, 5);
  const { next } = await read(first, "max=3");
  await using second = await testServer();
  await fill(second, 2);
  const page = await read(second, `from=${next}`);
  expect(page.gap).toEqual({ partition: 0, from: 3, to: 0, reason: "epoch" } as Page["gap"]);
  expect(offsets(page)).toEqual([0, 1]);
  const [gap, message] = (
    await events(second, "/streams/s/events", 2, { "last-event-id": next })
  ).map(eventOf);
  expect(gap).toMatchObject({ event: "gap", data: { reason: "epoch", to: 0 } });
  expect(message).toMatchObject({ event: "message", data: { offset: 0 } });
  const behind = await read(second, `from=${gap?.id}`);
  expect(offsets(behind)).toEqual([0, 1]);
});
