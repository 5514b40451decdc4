/** Requests as no library sends them. Whatever comes, the server answers the next one. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect } from "node:net";
import { waitFor } from "../temporary.ts";
import { clientFrame, RawSocket } from "./socket-client.ts";
import { ADMIN_TOKEN, testServer, type TestServer } from "./support.ts";

let server: TestServer;

beforeAll(async () => {
  server = await testServer();
  await server.call("PUT", "/api/hooks/in", { body: '{"stream":"s"}' });
});

afterAll(async () => {
  await server[Symbol.asyncDispose]();
});

/** Sends bytes and gives what comes back until the server closes or says no more. */
async function raw(text: string | Buffer, quietMs = 150): Promise<string> {
  const socket = connect(server.port, "127.0.0.1");
  let answer = "";
  let isOver = false;
  socket.on("data", (bytes: Buffer) => {
    answer += bytes.toString("latin1");
  });
  socket.on("close", () => {
    isOver = true;
  });
  socket.on("error", () => {
    isOver = true;
  });
  socket.write(text);
  let seen = -1;
  while (!isOver && (answer.length !== seen || answer === "")) {
    seen = answer.length;
    await Bun.sleep(quietMs);
    if (answer === "" && seen === 0) break;
  }
  socket.destroy();
  return answer;
}

const POST = "POST /hooks/in HTTP/1.1\r\nHost: x\r\n";

test.each([
  ["a null character in a header", `${POST}X-A: a\0b\r\nContent-Length: 1\r\n\r\nx`],
  ["a folded header", `${POST}X-A: a\r\n b\r\nContent-Length: 1\r\n\r\nx`],
  ["a space before the colon", `${POST}X-A : a\r\nContent-Length: 1\r\n\r\nx`],
  ["no host", "POST /hooks/in HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"],
  [
    "both lengths",
    `${POST}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n`,
  ],
  ["two lengths", `${POST}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx`],
  ["a signed length", `${POST}Content-Length: +1\r\n\r\nx`],
  ["a negative length", `${POST}Content-Length: -1\r\n\r\nx`],
  ["another encoding", `${POST}Transfer-Encoding: xchunked\r\n\r\n1\r\nx\r\n0\r\n\r\n`],
  ["a bad chunk size", `${POST}Transfer-Encoding: chunked\r\n\r\nz\r\nx\r\n0\r\n\r\n`],
  ["a huge chunk size", `${POST}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx`],
  ["HTTP/0.9", "GET /\r\n"],
  ["an HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
  ["TLS on the plain port", Buffer.from("1603010200010001fc0303", "hex")],
  ["64 KiB of URL", `GET /${"a".repeat(65_536)} HTTP/1.1\r\nHost: x\r\n\r\n`],
  ["300 headers", `${POST}${"X-A: b\r\n".repeat(300)}Content-Length: 1\r\n\r\nx`],
])("%s is refused, appends nothing, and the server goes on", async (_what, request) => {
  const before = server.gateway.streams.stream("s").partitions[0]?.offsetEnd;
  const answer = await raw(request);
  expect(answer).not.toContain("HTTP/1.1 2");
  expect(server.gateway.streams.stream("s").partitions[0]?.offsetEnd).toBe(before ?? 0);
  expect((await server.call("GET", "/health/live", { token: null })).status).toBe(200);
});

test("pipelined requests get no answer that is not true, and the server goes on", async () => {
  // Bun closes a connection that sends its next request before an answer that takes time.
  const one = (body: string): string => `${POST}Content-Length: ${body.length}\r\n\r\n${body}`;
  const answer = await raw(one("pipe-a") + one("pipe-b") + one("pipe-c"), 300);
  const acked = [...answer.matchAll(/"offset":(\d+)/g)].map(([, offset]) => Number(offset));
  for (const offset of acked) {
    expect((await server.call("GET", `/receipts/s/0/${offset}`)).status).toBe(200);
  }
  expect((await server.call("GET", "/health/live", { token: null })).status).toBe(200);
});

test("a body that comes in bytes with pauses is taken whole; one that is cut off is not", async () => {
  const socket = connect(server.port, "127.0.0.1");
  let answer = "";
  socket.on("data", (bytes: Buffer) => {
    answer += bytes.toString();
  });
  socket.write(`${POST}Content-Length: 5\r\n\r\n`);
  for (const byte of "slow!") {
    await Bun.sleep(30);
    socket.write(byte);
  }
  await waitFor("it is answered", () => answer.includes("202"));
  socket.destroy();
  const end = server.gateway.streams.stream("s").partitions[0]?.offsetEnd ?? 0;
  const cut = connect(server.port, "127.0.0.1");
  cut.write(`${POST}Content-Length: 500\r\n\r\nonly a part`);
  await Bun.sleep(50);
  cut.destroy();
  const chunked = connect(server.port, "127.0.0.1");
  chunked.write(`${POST}Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n`);
  await Bun.sleep(50);
  chunked.destroy();
  await Bun.sleep(100);
  expect(server.gateway.streams.stream("s").partitions[0]?.offsetEnd).toBe(end);
});

test("a gzip body is kept as it is, with its encoding", async () => {
  const body = Bun.gzipSync(new TextEncoder().encode("x".repeat(1000)));
  const answer = await server.call("POST", "/hooks/in", {
    body,
    headers: { "content-encoding": "gzip" },
    token: null,
  });
  const { json } = await server.call(
    "GET",
    `/streams/s/messages?from=${String(answer.json["offset"])}&max=1`,
  );
  expect(json["messages"]).toMatchObject([
    { bodyBase64: Buffer.from(body).toString("base64"), properties: { contentEncoding: "gzip" } },
  ]);
});

test.each([
  ["/hooks/%00", 404],
  ["/hooks/%2e%2e", 404],
  ["/hooks/in/", 404],
  ["/hooks//in", 404],
  ["/HOOKS/in", 404],
  ["/hooks/%ff", 404],
])("POST %p is %p", async (path, status) => {
  const answer = await raw(`POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx`);
  expect(answer).toStartWith(`HTTP/1.1 ${status}`);
});

test.each([
  ["a reserved bit", clientFrame(Buffer.from("{}"), 0xc1)],
  ["a reserved opcode", clientFrame(Buffer.from("{}"), 0x83)],
  ["a ping of 126 bytes", clientFrame(Buffer.alloc(126), 0x89)],
  ["a continuation of nothing", clientFrame(Buffer.from("{}"), 0x80)],
  ["text that is not UTF-8", clientFrame(Buffer.from([0xff, 0xfe]), 0x81)],
])("the socket ends a connection that sends %s, and takes the next", async (_what, frame) => {
  using socket = new RawSocket(server.port);
  socket.send({ op: "auth", token: ADMIN_TOKEN });
  await waitFor("it is known", () => socket.texts.length > 0);
  socket.sendRaw(frame);
  await waitFor("it has ended", () => socket.isClosed);
  using next = new RawSocket(server.port);
  next.send({ op: "auth", token: ADMIN_TOKEN });
  await waitFor("the next is known", () => next.texts.length > 0);
});

test("a frame in many fragments is one frame", async () => {
  using socket = new RawSocket(server.port);
  const text = Buffer.from(JSON.stringify({ op: "auth", token: ADMIN_TOKEN }));
  for (const [index, byte] of text.entries()) {
    const first = index === 0 ? 0x01 : index === text.length - 1 ? 0x80 : 0x00;
    socket.sendRaw(clientFrame(Buffer.from([byte]), first));
  }
  await waitFor("it is known", () => socket.texts.some((each) => each.includes("welcome")));
});
