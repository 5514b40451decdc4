/**
 * What senders write on the wire, from plain sockets against the real gateway and a hook that
 * verifies: bodies of every kind, whole or in chunks, are kept byte by byte, so that their
 * signature can be checked again; and what providers ask before they send is answered without a
 * signature and kept nowhere.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { connect } from "node:net";
import { gzipSync } from "node:zlib";
import { TestGateway } from "../e2e/gateway.ts";
import { waitFor } from "../temporary.ts";
import { askOnce, requestBytes } from "./raw-client.ts";

const SECRET = "a secret of the wire";
const ALL_BYTES = Uint8Array.from({ length: 256 }, (_, index) => index);

let gateway: TestGateway;
let port: number;

beforeAll(async () => {
  gateway = await TestGateway.start({ KEY: SECRET });
  port = Number(new URL(gateway.url).port);
  const verify = { scheme: "github", secret: "${env:KEY}" };
  await gateway.apply({
    hooks: {
      in: { stream: "kept", verify, dedupe: false },
      asked: { stream: "asked", verify, limits: { body: "1KiB", rate: "1000/s" } },
    },
  });
}, 60_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
});

function signature(body: Uint8Array): Record<string, string> {
  const text = createHmac("sha256", SECRET).update(body).digest("hex");
  return { "x-hub-signature-256": `sha256=${text}` };
}

const BOUNDARY = "----part";
const MULTIPART = Buffer.concat([
  Buffer.from(`preamble\r\n--${BOUNDARY}\r\nContent-Disposition: form-data; name="a"\r\n\r\n`),
  Buffer.from(
    `é\r\n--${BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="x\0y"\r\n`,
  ),
  Buffer.from("Content-Type: application/octet-stream\r\n\r\n"),
  ALL_BYTES,
  Buffer.from(`\r\n--${BOUNDARY}--\r\nepilogue`),
]);

const KINDS: readonly (readonly [string, string, Uint8Array])[] = [
  ["JSON", "application/json", Buffer.from('\ufeff{ "a":1.0,\t"a":2,"é":"\\u00e9" }\r\n')],
  ["a form", "application/x-www-form-urlencoded", Buffer.from("b=%7e+%7E&a=1&a=&&=x&%zz")],
  ["multipart", `multipart/form-data; boundary="${BOUNDARY}"`, MULTIPART],
  [
    "XML",
    "text/xml; charset=iso-8859-1",
    Buffer.from("<?xml version=\"1.0\"?>\r\n<!DOCTYPE a>\n<a b='1'>\xe9&amp;</a >\n", "latin1"),
  ],
  ["all bytes", "application/octet-stream", ALL_BYTES],
  ["gzip", "application/json", gzipSync('{"a":1}')],
  ["a body of many packets", "text/plain", Buffer.from("0123456789\r\n".repeat(60_000))],
  ["nothing", "text/plain", new Uint8Array(0)],
];

/** Chunks of 1, 2, 3 … bytes, so that they end anywhere; long ones in few. */
function chunked(body: Uint8Array): Buffer {
  const parts: Uint8Array[] = [];
  const step = Math.ceil(body.length / 300);
  for (let at = 0, size = 1; at < body.length; at += size, size += step) {
    const part = body.subarray(at, at + size);
    parts.push(Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from("\r\n"));
  }
  return Buffer.concat([...parts, Buffer.from("0\r\n\r\n")]);
}

test.each(KINDS.flatMap((kind) => [[...kind, "whole"] as const, [...kind, "in chunks"] as const]))(
  "%s is kept byte by byte (%#)",
  async (name, type, body, how) => {
    const encoding: Record<string, string> = name === "gzip" ? { "content-encoding": "gzip" } : {};
    const headers = { "content-type": type, ...encoding, ...signature(body) };
    const target = "/hooks/in";
    const head = requestBytes({ target, headers }).toString("latin1");
    const sent =
      how === "whole"
        ? requestBytes({ target, headers, body })
        : Buffer.concat([
            Buffer.from(head.replace("content-length: 0", "transfer-encoding: chunked"), "latin1"),
            chunked(body),
          ]);
    expect((await askOnce(port, sent))?.status).toBe(202);
    const stored = (await gateway.read("kept")).at(-1);
    const kept =
      stored?.bodyBase64 === undefined
        ? Buffer.from(stored?.body ?? "never")
        : Buffer.from(stored.bodyBase64, "base64");
    expect(kept.equals(body)).toBe(true);
    expect(stored?.properties["contentType"]).toBe(type);
    expect(stored?.properties["contentEncoding"]).toBe(encoding["content-encoding"]);
    const place = `${stored?.partition}/${stored?.offset}`;
    expect(await gateway.json(`/api/verifications/kept/${place}`)).toMatchObject({ valid: true });
  },
);

test("headers keep their order, HTTP's own names before all others, and lines of one name are joined", async () => {
  const lines = [
    "X-Zeta: 1",
    "User-Agent: sender",
    "__proto__: p",
    "X-Alpha:  two words ",
    "Accept: a/b",
    "X-Zeta: a, b",
    "Set-Cookie: a=1",
    "x-empty:",
    "Set-Cookie: b=2",
    "constructor: c",
    "Accept: c/d",
    ...Object.entries(signature(new Uint8Array(0))).map(([name, value]) => `${name}: ${value}`),
  ];
  const bytes = `POST /hooks/in HTTP/1.1\r\n${lines.join("\r\n")}\r\nHost: x\r\nContent-Length: 0\r\n\r\n`;
  expect((await askOnce(port, Buffer.from(bytes)))?.status).toBe(202);
  const headers = (await gateway.read("kept")).at(-1)?.headers;
  expect(headers?.slice(0, -1)).toEqual([
    ["user-agent", "sender"],
    ["accept", "a/b, c/d"],
    ["host", "x"],
    ["set-cookie", "a=1"],
    ["set-cookie", "b=2"],
    ["x-zeta", "1, a, b"],
    ["__proto__", "p"],
    ["x-alpha", "two words"],
    ["x-empty", ""],
    ["constructor", "c"],
  ]);
});

/** One connection: what has come on it so far. */
function talking(
  bytes: string,
): { text: () => string; write: (more: string) => void } & Disposable {
  let text = "";
  const socket = connect(port, "127.0.0.1", () => socket.write(bytes));
  socket.on("data", (data: Buffer) => (text += data.toString("latin1")));
  socket.on("error", () => (text += "(closed)"));
  return {
    text: () => text,
    write: (more) => socket.write(more),
    [Symbol.dispose]: () => socket.destroy(),
  };
}

test("HEAD and GET find a verified hook without a signature, on one connection, and keep nothing", async () => {
  const probe = (method: string): string => `${method} /hooks/asked HTTP/1.1\r\nHost: x\r\n\r\n`;
  using line = talking(probe("HEAD"));
  await waitFor("HEAD is answered", () => line.text().includes("\r\n\r\n"));
  expect(line.text()).toStartWith("HTTP/1.1 200 ");
  expect(line.text()).toEndWith("\r\n\r\n");
  const before = line.text().length;
  line.write(probe("GET"));
  await waitFor("GET is answered", () => line.text().includes("}", before));
  expect(line.text().slice(before)).toStartWith("HTTP/1.1 200 ");
  expect(line.text()).toEndWith('\r\n\r\n{"hook":"asked","takes":["POST"]}');
  expect(await gateway.read("asked")).toEqual([]);
});

test("the OPTIONS of CloudEvents is consent with the rate of the hook, and without an origin none", async () => {
  const ask = "OPTIONS /hooks/asked HTTP/1.1\r\nHost: x\r\n";
  using line = talking(
    `${ask}WebHook-Request-Origin: a.example\r\nWebHook-Request-Rate: 9\r\n\r\n`,
  );
  await waitFor("it is answered", () => line.text().includes("\r\n\r\n"));
  expect(line.text()).toStartWith("HTTP/1.1 204 ");
  expect(line.text()).toMatch(/\r\nwebhook-allowed-origin: a\.example\r\n/i);
  expect(line.text()).toMatch(/\r\nwebhook-allowed-rate: 60000\r\n/i);
  using bare = talking(`${ask}\r\n`);
  await waitFor("it is answered", () => bare.text().includes("\r\n\r\n"));
  expect(bare.text()).not.toMatch(/webhook-allowed/i);
  expect(await gateway.read("asked")).toEqual([]);
});

test("a sender that waits for 100 Continue is told it before its body, and then the answer", async () => {
  const body = Buffer.from("{}");
  const head = requestBytes({
    target: "/hooks/asked",
    headers: { expect: "100-continue", "content-length": "2", ...signature(body) },
  });
  using line = talking(head.toString("latin1"));
  await waitFor("it is told to go on", () => line.text().includes("\r\n\r\n"));
  expect(line.text()).toBe("HTTP/1.1 100 Continue\r\n\r\n");
  line.write("{}");
  await waitFor("it is answered", () => line.text().includes('"durable"'));
  expect(line.text()).toStartWith("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 ");
  const [kept, ...others] = await gateway.read("asked");
  expect([kept?.body, others]).toEqual(["{}", []]);
  expect(kept?.headers.map(([name]) => name)).not.toContain("expect");
});
