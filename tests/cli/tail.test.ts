/** A tail outlives lost connections, stops where it never will work, and ends on Ctrl-C. */
import { expect, test } from "bun:test";
import { temporaryFolder, waitFor } from "../temporary.ts";
import { contractServer, type Frame, type Peer } from "./contract-server.ts";
import { type Running, start } from "./run.ts";

function tail(url: string, folder: string, ...flags: string[]): Running {
  const env = { ISTHMUS_SERVER: url, ISTHMUS_TOKEN: "t0" };
  return start(["tail", "orders", ...flags], { folder, env });
}

function welcome(peer: Peer, cursor: string, gap: unknown = null): void {
  peer.send({ op: "welcome", session: "1", pingMs: 15_000 });
  peer.send({ op: "subscribed", sub: "tail", cursor, gap });
}

function message(peer: Peer, offset: number): void {
  const time = { timestamp: 0, appendedAt: 0 };
  const rest = { id: `m${offset}`, stream: "orders", partition: 0, headers: [], properties: {} };
  const cursor = `c${offset + 1}`;
  peer.send({ op: "message", sub: "tail", cursor, ...rest, offset, ...time, key: "k", body: "b" });
}

const line = (offset: number): string => `0/${offset}\t1970-01-01T00:00:00.000Z\tk\tb\n`;

test("goes on after the last message when the connection is lost", async () => {
  const froms: unknown[] = [];
  await using server = contractServer({
    frame: (frame, peer) => {
      if (frame.op !== "subscribe") return;
      froms.push(frame["from"]);
      if (peer.number === 1) {
        welcome(peer, "c0");
        message(peer, 0);
        message(peer, 1);
        setTimeout(() => peer.cut(), 20);
      } else if (peer.number === 2) {
        // Restarting: told so before anything was answered.
        peer.close(1012, "restart");
      } else {
        welcome(peer, String(frame["from"]), { from: 2, to: 5, reason: "retention" });
        message(peer, 5);
      }
    },
  });
  await using folder = await temporaryFolder("cli");
  await using running = tail(server.url, folder.path, "--from", "earliest");
  await waitFor("the third message is printed", () => running.stdout().includes("0/5\t"));
  running.kill("SIGINT");
  const { exitCode, stdout, stderr } = await running.ended;
  expect(stdout).toBe(line(0) + line(1) + line(5));
  expect(stderr).toBe(
    "connection lost: trying again\nconnected again\n" +
      "orders: messages from 2 to 5 are gone (retention)\n",
  );
  expect(froms).toEqual(["earliest", "c2", "c2"]);
  expect(exitCode).toBe(0);
});

test("sends its token first, and the place and filter as they were given", async () => {
  const frames: Frame[] = [];
  await using server = contractServer({
    frame: (frame, peer) => {
      frames.push(frame);
      if (frame.op === "subscribe") welcome(peer, "c0");
    },
  });
  await using folder = await temporaryFolder("cli");
  const flags = ["--from", "2026-01-31T12:00:00Z", "--where", "body.a > 1"];
  await using running = tail(server.url, folder.path, ...flags);
  await waitFor("both frames have come", () => frames.length === 2);
  running.kill("SIGTERM");
  expect((await running.ended).exitCode).toBe(0);
  expect(frames).toEqual([
    { op: "auth", token: "t0" },
    {
      op: "subscribe",
      sub: "tail",
      stream: "orders",
      from: { time: Date.UTC(2026, 0, 31, 12) },
      where: "body.a > 1",
    },
  ]);
});

test("prints one line of JSON a message, its cursor with it", async () => {
  await using server = contractServer({
    frame: (frame, peer) => {
      if (frame.op !== "subscribe") return;
      welcome(peer, "c0");
      message(peer, 0);
    },
  });
  await using folder = await temporaryFolder("cli");
  await using running = tail(server.url, folder.path, "--json");
  await waitFor("the message is printed", () => running.stdout().endsWith("\n"));
  expect(JSON.parse(running.stdout())).toEqual({
    cursor: "c1",
    id: "m0",
    stream: "orders",
    partition: 0,
    offset: 0,
    headers: [],
    properties: {},
    timestamp: 0,
    appendedAt: 0,
    key: "k",
    body: "b",
  });
});

const final: readonly (readonly [code: number, reason: string, says: string])[] = [
  [4401, "", "the token has expired"],
  [4501, "", "the token is wrong or was revoked"],
  [4503, "orders may not be read", "orders may not be read"],
  [4599, "", "the gateway closed the connection for good (4599)"],
];

for (const [code, reason, says] of final) {
  test(`ends with 1 when the connection is closed with ${code}${reason && " and a reason"}`, async () => {
    await using server = contractServer({ frame: (_, peer) => peer.close(code, reason) });
    await using folder = await temporaryFolder("cli");
    await using running = tail(server.url, folder.path);
    expect(await running.ended).toEqual({ exitCode: 1, stdout: "", stderr: `isthmus: ${says}\n` });
  });
}

test("ends with 1 when its subscription is refused", async () => {
  await using server = contractServer({
    frame: (frame, peer) => {
      if (frame.op !== "subscribe") return;
      peer.send({ op: "error", sub: "tail", code: "invalid", message: "where: expected )" });
    },
  });
  await using folder = await temporaryFolder("cli");
  await using running = tail(server.url, folder.path, "--where", "(");
  const { exitCode, stderr } = await running.ended;
  expect(stderr).toBe("isthmus: where: expected )\n");
  expect(exitCode).toBe(1);
});

test("tries again after an error that passes by itself", async () => {
  await using server = contractServer({
    frame: (frame, peer) => {
      if (frame.op !== "subscribe") return;
      if (peer.number === 1) {
        const code = "storage-unavailable";
        return peer.send({ op: "error", sub: "tail", code, message: "the disk is full" });
      }
      welcome(peer, "c0");
      message(peer, 0);
    },
  });
  await using folder = await temporaryFolder("cli");
  await using running = tail(server.url, folder.path);
  await waitFor("the message is printed", () => running.stdout().includes("0/0\t"));
  expect(running.stderr()).toBe(
    "connection lost (the disk is full): trying again\nconnected again\n",
  );
});
