/**
 * Where requests of HTTP targets go: paths made from messages, names that resolve to something
 * else, and what answers may cost.
 */
import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import type { LookupAddress } from "node:dns";
import { createServer, type Socket } from "node:net";
import { encodeMessage } from "../../../bridges/http/codec.ts";
import { Guard, type Resolve } from "../../../bridges/http/guard.ts";
import { http } from "../../../bridges/http/module.ts";
import { pathProblem, requestPath } from "../../../bridges/http/path.ts";
import { type Answer, Requester } from "../../../bridges/http/request.ts";
import { systemClock } from "../../../src/clock.ts";
import { InvalidError } from "../../../src/errors.ts";
import { freePort } from "../../temporary.ts";
import { messageOf, openTarget, sendOne } from "./support.ts";

const paths: string[] = [];
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: await freePort(),
  fetch(request) {
    paths.push(request.url.slice(request.url.indexOf("/", 8)));
    return new Response(null, { status: 204 });
  },
});
afterAll(async () => await server.stop(true));
beforeEach(() => paths.splice(0));

const never = new AbortController().signal;

async function pathSent(below: string, path?: unknown): Promise<string | undefined> {
  await using bridge = await openTarget({ url: new URL(below, server.url).href });
  const sink = await bridge.sink(http.parseAddress({}, "sink"));
  await sendOne(sink, messageOf(), path === undefined ? {} : { path });
  return paths.at(-1);
}

describe("the path of a target", () => {
  test("stands below the bridge's URL, and keeps its query", async () => {
    expect(await pathSent("/in")).toBe("/in");
    expect(await pathSent("/", "/customers/7")).toBe("/customers/7");
    expect(await pathSent("/v1/", "/customers/7")).toBe("/v1/customers/7");
    expect(await pathSent("/v1?key=a", "/c?x=1&y=2")).toBe("/v1/c?key=a&x=1&y=2");
    expect(await pathSent("/v1", "/größe 1")).toBe("/v1/gr%C3%B6%C3%9Fe%201");
  });

  test("never leaves the place that the rule names", async () => {
    for (const path of ["//evil.example/", "/../admin", "/a/%2e%2E/b", "/.", "/a\\..\\b", "/a#b"]) {
      expect([path, pathProblem(path)]).toEqual([path, expect.any(String)]);
      await pathSent("/in", path);
    }
    for (const path of ["", "a", "@evil.example/", "/a\r\nhost: evil", 7]) {
      await pathSent("/in", path);
    }
    expect(paths).toEqual([]);
    expect(requestPath(new URL("http://a/b"), "/@evil.example/..x/...")).toBe(
      "/b/@evil.example/..x/...",
    );
  });

  test("is part of a target's identity, and refused in a document where it is wrong", () => {
    expect(http.parseAddress({ path: "/c/${body.id}", method: "PUT" }, "sink").text).toBe(
      "webhook PUT /c/${body.id}",
    );
    for (const path of ["c", "https://evil.example/", "//evil.example", "/../a"]) {
      expect(() => http.parseAddress({ path }, "sink")).toThrow(InvalidError);
    }
  });
});

/** A requester whose names resolve as told. */
function requesterTo(url: string, answers: readonly string[], allow: readonly string[] = []) {
  let asked = 0;
  const resolve: Resolve = (_host, _options, callback) => {
    const address = answers[Math.min(asked, answers.length - 1)] ?? "";
    asked += 1;
    const found: LookupAddress[] = [{ address, family: address.includes(":") ? 6 : 4 }];
    queueMicrotask(() => callback(null, found));
  };
  const guard = new Guard(allow, resolve);
  const target = { url: new URL(url), guard, timeoutMs: 3000, tls: {} };
  const requester = new Requester(target, systemClock);
  const send = async (): Promise<Answer> => {
    const encoded = encodeMessage(messageOf(), { fixed: {}, nowMs: 0, signer: null });
    if ("refused" in encoded) throw new Error(encoded.refused);
    return await requester.send({ ...encoded, method: "POST", path: "/" }, never);
  };
  return { send, asked: () => asked, close: () => requester.close() };
}

describe("a name that resolves to an address that is not public", () => {
  test("is refused without a connection, whatever kind of address it is", async () => {
    for (const address of ["127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "10.0.0.1"]) {
      const target = requesterTo(`http://rebound.example:${server.port}/`, [address]);
      expect(await target.send()).toEqual({ refused: expect.stringContaining("allowPrivate") });
      target.close();
    }
    expect(paths).toEqual([]);
  });

  test("is refused when it resolves anew, though it was allowed before", async () => {
    // The first address is allowed, the second is the machine's own: what DNS rebinding does.
    const target = requesterTo(
      `http://rebound.example:${server.port}/`,
      ["127.0.0.1", "127.0.0.2"],
      ["127.0.0.1"],
    );
    expect(await target.send()).toEqual({ sent: "status 204" });
    target.close();
    expect(await target.send()).toEqual({ refused: expect.stringContaining("127.0.0.2") });
    expect(target.asked()).toBe(2);
    expect(paths.length).toBe(1);
  });

  test("is connected to at the very address that was checked", async () => {
    const target = requesterTo(
      `http://rebound.example:${server.port}/`,
      ["127.0.0.1", "10.0.0.1"],
      ["127.0.0.1"],
    );
    expect(await target.send()).toEqual({ sent: "status 204" });
    expect(target.asked()).toBe(1);
    target.close();
  });
});

describe("an answer", () => {
  async function answering(write: (socket: Socket) => void): Promise<Answer> {
    const port = await freePort();
    const sockets = new Set<Socket>();
    const bare = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => sockets.delete(socket));
      socket.once("data", () => write(socket));
    });
    await new Promise<void>((resolve) => bare.listen(port, "127.0.0.1", () => resolve()));
    const target = requesterTo(`http://127.0.0.1:${port}/`, [], ["127.0.0.1"]);
    const answer = await target.send();
    target.close();
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => bare.close(() => resolve()));
    return answer;
  }

  test("with more headers than 16 KiB is not read on, and tried again", async () => {
    const reason = "the target's answer has more than 16384 bytes of headers";
    const line = `x-flood: ${"a".repeat(1000)}\r\n`;
    const answer = await answering((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\n${line.repeat(100)}content-length: 0\r\n\r\n`);
    });
    expect(answer).toEqual({ busyMs: 1000, reason });
    const endless = await answering((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\nx-endless: ${"a".repeat(10_000_000)}`);
    });
    expect(endless).toEqual({ busyMs: 1000, reason });
  });

  test("that is no HTTP is an outage", async () => {
    expect(await answering((socket) => socket.end("SSH-2.0-OpenSSH_9.6\r\n"))).toHaveProperty(
      "disconnected",
    );
  });

  test("whose body breaks off counts by its status", async () => {
    const answer = await answering((socket) => {
      socket.end("HTTP/1.1 500 Oops\r\ncontent-length: 100\r\n\r\nhalf of it");
    });
    expect(answer).toEqual({ busyMs: 1000, reason: "the target answered 500: half of it" });
  });

  test("that is compressed is neither inflated nor shown", async () => {
    const bomb = Bun.gzipSync(new Uint8Array(3_000_000));
    const answer = await answering((socket) => {
      socket.write("HTTP/1.1 400 Bad\r\ncontent-encoding: gzip\r\n");
      socket.write(`content-length: ${bomb.byteLength}\r\n\r\n`);
      socket.write(bomb);
    });
    expect(answer).toEqual({ refused: "the target answered 400" });
  });
});
