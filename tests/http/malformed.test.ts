/**
 * HTTP as no sender should write it, from plain sockets against the real gateway and a hook that
 * lets everyone in, so that only HTTP itself can refuse. What is malformed gets a refusal or a
 * closed connection and appends nothing; what is odd but whole is one message, with its bytes; and
 * the next request is answered whatever came before.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect } from "node:net";
import { TestGateway } from "../e2e/gateway.ts";
import { waitFor } from "../temporary.ts";
import { askOnce, RawClient, requestBytes } from "./raw-client.ts";

let gateway: TestGateway;
let port: number;

beforeAll(async () => {
  gateway = await TestGateway.start();
  port = Number(new URL(gateway.url).port);
  await gateway.apply({
    hooks: { in: { stream: "s" }, small: { stream: "s", limits: { body: "1KiB" } } },
  });
}, 60_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
});

const START = "POST /hooks/in HTTP/1.1\r\n";
const POST = `${START}Host: x\r\n`;
const ONE = "Content-Length: 1\r\n\r\nx";
const CHUNKED = `${POST}Transfer-Encoding: chunked\r\n\r\n`;

/** What came back before the server closed, or had answered; `""` for nothing. */
async function talk(bytes: string | Buffer, hasEnd = false): Promise<string> {
  let text = "";
  let isClosed = false;
  const socket = connect(port, "127.0.0.1");
  socket.on("data", (data: Buffer) => (text += data.toString("latin1")));
  socket.on("error", () => (isClosed = true));
  socket.on("close", () => (isClosed = true));
  if (hasEnd) socket.end(bytes);
  else socket.write(bytes);
  await waitFor("it is answered or closed", () => isClosed || /HTTP\/1\.1 [2-5]/.test(text));
  socket.destroy();
  return text;
}

/** A whole request that is answered is behind everything that came before it. */
async function bodies(): Promise<(string | null | undefined)[]> {
  const answer = await askOnce(port, requestBytes({ target: "/hooks/in", body: "mark" }));
  expect(answer?.status).toBe(202);
  const all = await gateway.read("s");
  const last = all.findLastIndex(({ body }, index) => body === "mark" && index < all.length - 1);
  return all.slice(last + 1, -1).map(({ body, bodyBase64 }) => body ?? bodyBase64);
}

test.each([
  ["no host", `${START}${ONE}`],
  ["two hosts", `${START}Host: x\r\nHost: y\r\n${ONE}`],
  ["a list of hosts", `${START}Host: x, y\r\n${ONE}`],
  ["a target that is an authority", `POST x:80 HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["a target that is a star", `POST * HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["a fragment in the target", `POST /hooks/in#a HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["an escaped slash in the path", `POST /hooks%2fin HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["an overlong escape in the path", `POST /hooks/%c1%a9n HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["an escaped null character as the name", `POST /hooks/%00 HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["an escaped null character after the name", `POST /hooks/in%00 HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["escaped dots as the name", `POST /hooks/%2e%2e HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["escaped dots in the path", `POST /hooks/%2e%2e/hooks/in HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["an escaped dot in the path", `POST /hooks/%2E/in HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["escaped dots behind the name", `POST /hooks/x/%2e%2e/in HTTP/1.1\r\nHost: x\r\n${ONE}`],
  [
    "bytes in the path that are no text",
    Buffer.from(`POST /hooks/\xff HTTP/1.1\r\nHost: x\r\n${ONE}`, "latin1"),
  ],
  ["dots in the path", `POST /hooks/../hooks/in HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["64 KiB of query", `POST /hooks/in?${"a".repeat(65_536)} HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["HTTP/2.0", `POST /hooks/in HTTP/2.0\r\nHost: x\r\n${ONE}`],
  ["HTTP/1.9", `POST /hooks/in HTTP/1.9\r\nHost: x\r\n${ONE}`],
  ["HTTP/0.9", "POST /hooks/in\r\n\r\n"],
  ["lines that end with LF", `${POST}${ONE}`.replaceAll("\r\n", "\n")],
  ["lines that end with CR", `${POST}${ONE}`.replaceAll("\r\n", "\r")],
  ["two spaces in the request line", `POST  /hooks/in HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["tabs in the request line", `POST\t/hooks/in\tHTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["a method in small letters", `post /hooks/in HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["a method that is none", `FOO /hooks/in HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["CONNECT", `CONNECT /hooks/in HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["TRACE", `TRACE /hooks/in HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["empty lines before the request", `\r\n\r\n${POST}${ONE}`],
  ["a null character in a header", `${POST}X-A: a\0b\r\n${ONE}`],
  ["a control character in a header", `${POST}X-A: a\u0001b\r\n${ONE}`],
  ["a bare CR in a header", `${POST}X-A: a\rb\r\n${ONE}`],
  ["a folded header", `${POST}X-A: a\r\n b\r\n${ONE}`],
  ["a space before the first header", `${START} Host: x\r\n${ONE}`],
  ["a space before the colon", `${POST}X-A : a\r\n${ONE}`],
  ["a header without a colon", `${POST}XA\r\n${ONE}`],
  ["a header without a name", `${POST}: a\r\n${ONE}`],
  ["a name with a bracket", `${POST}X(A): a\r\n${ONE}`],
  ["a name that is no ASCII", Buffer.from(`${POST}Xé: a\r\n${ONE}`)],
  ["17 KiB in a header", `${POST}X-A: ${"a".repeat(17_408)}\r\n${ONE}`],
  ["300 headers", `${POST}${"X-A: b\r\n".repeat(300)}${ONE}`],
  [
    "both lengths",
    `${POST}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n`,
  ],
  [
    "both lengths, the other way round",
    `${POST}Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\nx\r\n0\r\n\r\n`,
  ],
  ["two lengths", `${POST}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx`],
  ["a list of lengths", `${POST}Content-Length: 1, 1\r\n\r\nx`],
  ["an empty length", `${POST}Content-Length: \r\n\r\nx`],
  ["a signed length", `${POST}Content-Length: +1\r\n\r\nx`],
  ["a negative length", `${POST}Content-Length: -1\r\n\r\nx`],
  ["a length in hex", `${POST}Content-Length: 0x1\r\n\r\nx`],
  ["a length with an exponent", `${POST}Content-Length: 1e0\r\n\r\nx`],
  ["a length beyond 64 bits", `${POST}Content-Length: 18446744073709551617\r\n\r\nx`],
  ["another transfer encoding", `${POST}Transfer-Encoding: xchunked\r\n\r\n1\r\nx\r\n0\r\n\r\n`],
  ["two transfer encodings", `${POST}Transfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n`],
  [
    "chunked that is not last",
    `${POST}Transfer-Encoding: chunked, gzip\r\n\r\n1\r\nx\r\n0\r\n\r\n`,
  ],
  [
    "chunked twice",
    `${POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n`,
  ],
  ["identity beside a length", `${POST}Transfer-Encoding: identity\r\n${ONE}`],
  [
    "chunks in HTTP/1.0",
    `${POST.replace("1.1", "1.0")}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n`,
  ],
  ["a bad chunk size", `${CHUNKED}z\r\nx\r\n0\r\n\r\n`],
  ["a negative chunk size", `${CHUNKED}-1\r\nx\r\n0\r\n\r\n`],
  ["a chunk size with 0x", `${CHUNKED}0x1\r\nx\r\n0\r\n\r\n`],
  ["a chunk size with a space", `${CHUNKED}1 \r\nx\r\n0\r\n\r\n`],
  ["a huge chunk size", `${CHUNKED}ffffffffffffffffff\r\nx`],
  ["chunks that end with LF", `${CHUNKED}1\nx\n0\n\n`],
  ["a chunk longer than it says", `${CHUNKED}1\r\nxy\r\n0\r\n\r\n`],
  ["a line break in a chunk's extension", `${CHUNKED}1;a="\n"\r\nx\r\n0\r\n\r\n`],
  ["32 KiB of a chunk's extension", `${CHUNKED}1;${"a".repeat(32_768)}\r\nx\r\n0\r\n\r\n`],
  [
    "a body over the limit by its length",
    `${POST.replace("/in", "/small")}Content-Length: 1025\r\n\r\n`,
  ],
  [
    "a body over the limit in chunks",
    `${CHUNKED.replace("/in", "/small")}401\r\n${"x".repeat(1025)}\r\n0\r\n\r\n`,
  ],
  ["a length of 16 EiB", `${POST}Content-Length: 9223372036854775807\r\n\r\nx`],
  ["an HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
  ["TLS on the plain port", Buffer.from("16030100050100000103030d0a0d0a", "hex")],
  ["bytes that are nothing", Buffer.from("\0\0\0\0\0\0\0\0garbage\r\n\r\n")],
])("%s is refused and appends nothing", async (_what, bytes) => {
  // TLS is told by its first bytes only once more of them have come.
  const text = await talk(bytes, true);
  if (text !== "") expect(text).toMatch(/^HTTP\/1\.1 (4\d\d|505) /);
  expect(await bodies()).toEqual([]);
});

test.each([
  ["an absolute target", `POST http://x/hooks/in HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["an escaped name", `POST /hooks/%69n HTTP/1.1\r\nHost: x\r\n${ONE}`],
  ["HTTP/1.0", `${POST.replace("1.1", "1.0")}${ONE}`],
  ["the same length twice", `${POST}Content-Length: 1\r\n${ONE}`],
  ["an extension of a chunk", `${CHUNKED}1;a=b\r\nx\r\n0\r\n\r\n`],
  ["leading zeros in a chunk's size", `${CHUNKED}0001\r\nx\r\n0\r\n\r\n`],
  ["an offer of HTTP/2", `${POST}Connection: Upgrade\r\nUpgrade: h2c\r\n${ONE}`],
  ["a list of encodings", `${POST}Content-Encoding: gzip, gzip\r\n${ONE}`],
  ["a body that is no gzip though it says so", `${POST}Content-Encoding: gzip\r\n${ONE}`],
])("%s is odd but whole: one message with its bytes", async (_what, bytes) => {
  expect(await talk(bytes)).toStartWith("HTTP/1.1 202 ");
  expect(await bodies()).toEqual(["x"]);
});

test("a sender that waits to be told to go on is told, and taken", async () => {
  using client = new RawClient(port);
  const answer = client.ask(
    Buffer.from(`${POST}Expect: 100-continue\r\nContent-Length: 1\r\n\r\n`),
  );
  client.write("x");
  expect((await answer)?.status).toBe(202);
  expect(await bodies()).toEqual(["x"]);
});

test.each([
  ["nonsense", `${POST}${ONE}GARBAGE\r\n\r\n`],
  ["trailers", `${CHUNKED}1\r\nx\r\n0\r\nX-T: 1\r\n\r\n`],
  ["a smuggled request with a bad length", `${POST}${ONE}${POST}Content-Length: -1\r\n\r\ny`],
])("a whole request with %s behind it is at most itself", async (_what, bytes) => {
  await talk(bytes);
  // It was whole before the rest came, and no answer that could be read calls it refused for good.
  const kept = await bodies();
  expect(kept.length).toBeLessThan(2);
  for (const body of kept) expect(body).toBe("x");
});

test("a body cut off after any of its bytes is never taken", async () => {
  const whole = "0123456789abcdef".repeat(16);
  const cut = async (bytes: string): Promise<void> => {
    // Closed on our side before the rest: with an answer or without, it can't be a success.
    const text = await talk(bytes, true);
    expect(text).not.toContain("HTTP/1.1 2");
  };
  for (let start = 0; start < 256; start += 32) {
    const lengths = Array.from({ length: 32 }, (_, index) => start + index);
    await Promise.all(
      lengths.map((length) => cut(`${POST}Content-Length: 256\r\n\r\n${whole.slice(0, length)}`)),
    );
    const chunk = `100\r\n${whole}\r\n0\r\n\r\n`;
    await Promise.all(lengths.map((length) => cut(`${CHUNKED}${chunk.slice(0, length)}`)));
  }
  expect(await bodies()).toEqual([]);
}, 60_000);

test("a request that comes one byte at a time is taken as one", async () => {
  const bytes = Buffer.from(`${CHUNKED}4\r\nslow\r\n1\r\n!\r\n0\r\n\r\n`);
  using client = new RawClient(port);
  const answer = client.ask(bytes.subarray(0, 1));
  for (const byte of bytes.subarray(1)) {
    client.write(Uint8Array.of(byte));
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  expect((await answer)?.status).toBe(202);
  expect(await bodies()).toEqual(["slow!"]);
});

test("senders that never end their headers are closed, and keep nobody else waiting", async () => {
  const slow = Array.from({ length: 64 }, () => new RawClient(port));
  const answers = slow.map((client) => client.ask(Buffer.from(`${POST}X-Slow: `)));
  const trickle = setInterval(() => {
    for (const client of slow) client.write("x");
  }, 500);
  try {
    expect(await bodies()).toEqual([]);
    await waitFor("all are closed", () => slow.every(({ isClosed }) => isClosed), {
      timeoutMs: 90_000,
    });
    for (const answer of await Promise.all(answers)) expect(answer?.status ?? 408).toBe(408);
    expect(await bodies()).toEqual([]);
  } finally {
    clearInterval(trickle);
    for (const client of slow) client[Symbol.dispose]();
  }
}, 120_000);
