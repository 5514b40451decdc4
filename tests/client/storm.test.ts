/**
 * Many clients through proxies that cut, while the server is killed again and again: each of them
 * ends with every message exactly once, in order for each key. A sample of the clients by default,
 * all thousand with ISTHMUS_TEST_FULL.
 */
import { expect, test } from "bun:test";
import { type Client, connect } from "../../src/client/client.ts";
import { TestGateway } from "../e2e/gateway.ts";
import type { TcpProxy } from "../proxy.ts";
import { waitFor } from "../temporary.ts";
import { proxyTo, Reader } from "./support.ts";

const isFull = process.env["ISTHMUS_TEST_FULL"] === "1";
const clientCount = isFull ? 1000 : 50;
const publisherCount = 10;
const kills = 5;
const perRound = 10;
const tuning = {
  minMs: 20,
  maxMs: 500,
  pingMs: isFull ? 5000 : 500,
  deadMs: isFull ? 10_000 : 2000,
  restartMs: 100,
};

interface Seen {
  readonly key: string;
  readonly body: string;
}

/** What each reader has to end with, by key. */
const expected = Array.from({ length: (kills + 1) * perRound }, (_, index) => String(index));

test(
  `${clientCount} clients get every message once through ${kills} kills and many cuts`,
  async () => {
    await using gateway = await TestGateway.start();
    await gateway.apply({ streams: { orders: { partitions: 4 } } });
    const { proxy, url } = await proxyTo(gateway.url);
    await using _proxy = proxy;
    const clients: Client[] = Array.from({ length: clientCount }, () =>
      connect({ url, token: gateway.token, tuning, outbox: { messages: 1000 } }),
    );
    const readers = clients.map((client, index) => {
      const name = index % 2 === 0 ? { name: `n${index}`, window: 16 } : {};
      return new Reader(client.subscribe("orders", { from: "earliest", ...name }));
    });
    const receipts: Promise<unknown>[] = [];
    const publishRound = (round: number): void => {
      for (let index = 0; index < perRound; index++) {
        for (const [who, client] of clients.slice(0, publisherCount).entries()) {
          const body = String(round * perRound + index);
          receipts.push(client.publish("orders", { key: `k${who}`, body }));
        }
      }
    };
    for (let round = 0; round < kills; round++) {
      publishRound(round);
      // The first of the round is on disk, the others are on their way.
      await receipts.at(-perRound * publisherCount);
      breakMore(proxy, round);
      await gateway.kill();
      await gateway.start();
      // What was half-open stays so: nothing ends those connections but their clients.
      proxy.blackhole(false);
      proxy.delay(0);
    }
    publishRound(kills);
    await Promise.all(receipts);
    const total = expected.length * publisherCount;
    await waitFor(
      "every client has every message",
      () => readers.every(({ messages }) => messages.length >= total),
      { timeoutMs: isFull ? 600_000 : 90_000 },
    );
    for (const reader of readers) {
      const seen = reader.messages.map(({ key, body }) => ({ key, body }) as Seen);
      for (let who = 0; who < publisherCount; who++) {
        const own = seen.filter(({ key }) => key === `k${who}`).map(({ body }) => body);
        expect(own).toEqual(expected);
      }
      expect(seen.length).toBe(total);
    }
    await Promise.all(clients.map((client) => client.close()));
  },
  isFull ? 1_200_000 : 170_000,
);

/** One more way to break in each round, before the server itself is killed. */
function breakMore(proxy: TcpProxy, round: number): void {
  const ways = [
    () => proxy.cut(),
    () => proxy.cutAfter(2000, "toClient"),
    () => proxy.blackhole(true),
    () => proxy.delay(15),
  ];
  ways[round % ways.length]?.();
}

test("durable names lose nothing when the process that reads is killed", async () => {
  await using gateway = await TestGateway.start();
  const publisher = connect({ url: gateway.url, token: gateway.token, tuning });
  const total = 120;
  const seen: number[] = [];
  let sent = 0;
  const publish = async (count: number): Promise<void> => {
    for (let index = 0; index < count; index++) {
      await publisher.publish("orders", { body: String(sent++) });
    }
  };
  await publish(total / 4);
  for (let round = 0; round < 3; round++) {
    const child = Bun.spawn([process.execPath, `${import.meta.dir}/reader-child.ts`], {
      env: { ...process.env, READER_URL: gateway.url, READER_TOKEN: gateway.token },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    });
    const before = seen.length;
    const reading = (async () => {
      for await (const chunk of child.stdout) {
        const lines = new TextDecoder()
          .decode(chunk)
          .split("\n")
          .filter((line) => line !== "");
        seen.push(...lines.map(Number));
        if (seen.length >= before + 20) child.kill("SIGKILL");
      }
    })();
    await publish(total / 4);
    await child.exited;
    await reading;
  }
  const last = connect({ url: gateway.url, token: gateway.token, tuning });
  const reader = new Reader(last.subscribe("orders", { name: "phone" }));
  const missing = (): number[] => {
    const all = new Set([...seen, ...reader.messages.map(({ body }) => Number(body))]);
    return Array.from({ length: total }, (_, n) => n).filter((n) => !all.has(n));
  };
  await waitFor("each one was read", () => missing().length === 0);
  await Promise.all([publisher.close(), last.close()]);
}, 120_000);
