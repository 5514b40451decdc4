/**
 * Two gateways on one Postgres: a change of one is soon followed by the other. While the database
 * is killed, paused, read-only or slow, traffic goes on with the last good rules, changes are
 * refused with 503, readiness says why, and all is well again by itself.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { type Broker, privateBroker } from "../brokers/broker.ts";
import { TcpProxy } from "../proxy.ts";
import { connection, ownDatabase } from "../rules/store/opened.ts";
import { waitFor } from "../temporary.ts";
import { TestGateway } from "./gateway.ts";

/** Longer than the ten seconds after which a silent database counts as lost. */
const LONG = { timeoutMs: 60_000 };
const secretKey = randomBytes(32).toString("base64url");

let postgres: Broker;

beforeAll(async () => {
  postgres = await privateBroker("postgres");
}, 120_000);

afterAll(async () => {
  await postgres.stop();
}, 60_000);

async function pair(url?: string): Promise<[TestGateway, TestGateway]> {
  const environment = {
    DATABASE_URL: url ?? (await ownDatabase(postgres.url)),
    ISTHMUS_SECRET_KEY: secretKey,
  };
  return await Promise.all([TestGateway.start(environment), TestGateway.start(environment)]);
}

function ruleOf(where: string): object {
  return { from: "orders", where, to: { stream: "out" } };
}

async function put(gateway: TestGateway, where: string): Promise<Response> {
  return await gateway.fetch("/api/rules/r", {
    method: "PUT",
    body: JSON.stringify(ruleOf(where)),
  });
}

async function follows(gateway: TestGateway, revision: number): Promise<void> {
  await waitFor(
    `the other gateway follows revision ${revision}`,
    async () => {
      const response = await gateway.fetch("/api/rules/r");
      return response.ok && ((await response.json()) as { revision: number }).revision === revision;
    },
    LONG,
  );
}

/** Publishes one message and waits until the rule has put it into the stream `out`. */
async function routes(gateway: TestGateway, n: number): Promise<void> {
  const body = JSON.stringify({ n });
  const init = { method: "POST", body };
  expect((await gateway.fetch("/streams/orders/messages", init)).status).toBe(202);
  await waitFor(`message ${n} is routed`, async () => {
    const messages = await gateway.read("out");
    return messages.some((message) => message.body === body);
  });
}

/** The refusal of a change, and what readiness says; traffic goes on meanwhile. */
async function isAway(gateway: TestGateway, n: number): Promise<void> {
  await routes(gateway, n);
  const refused = await put(gateway, `body.n > ${-n}`);
  expect([refused.status, ((await refused.json()) as { code: string }).code]).toEqual([
    503,
    "database-unavailable",
  ]);
  await waitFor(
    "readiness tells that the database is away",
    async () => {
      const ready = await gateway.fetch("/health/ready");
      return ready.status === 503 && (await ready.text()).includes("database-unavailable");
    },
    LONG,
  );
  await routes(gateway, n + 1);
}

async function isBack(gateway: TestGateway): Promise<void> {
  const isReady = async (): Promise<boolean> => (await gateway.fetch("/health/ready")).ok;
  await waitFor("the gateway is ready again", isReady, LONG);
}

test("a change reaches the other gateway within a second, and both route by it", async () => {
  const [a, b] = await pair();
  await using _a = a;
  await using _b = b;
  expect((await put(a, "body.n >= 0")).status).toBe(201);
  await follows(b, 1);
  const times: number[] = [];
  for (let revision = 2; revision <= 6; revision++) {
    const [from, to] = revision % 2 === 0 ? [a, b] : [b, a];
    expect((await put(from, `body.n >= -${revision}`)).status).toBe(200);
    const startMs = performance.now();
    await follows(to, revision);
    times.push(performance.now() - startMs);
  }
  // Notices come at once; the poll of each second catches what they miss.
  expect(times.toSorted((one, other) => one - other)[2]).toBeLessThan(1_000);
  await Promise.all([routes(a, 1), routes(b, 2)]);
}, 120_000);

test("without Postgres both go on, refuse changes, say so, and recover when it is back", async () => {
  const [a, b] = await pair();
  await using _a = a;
  await using _b = b;
  expect((await put(a, "body.n >= 0")).status).toBe(201);
  await follows(b, 1);
  await postgres.kill();
  await Promise.all([isAway(a, 10), isAway(b, 10)]);
  await postgres.restart();
  await Promise.all([isBack(a), isBack(b)]);
  expect((await put(b, "body.n >= 1")).status).toBe(200);
  await follows(a, 2);
  await Promise.all([routes(a, 20), routes(b, 20)]);
}, 180_000);

test("a Postgres that stands still holds up changes alone, for a bounded time", async () => {
  const [a, b] = await pair();
  await using _a = a;
  await using _b = b;
  expect((await put(a, "body.n >= 0")).status).toBe(201);
  await follows(b, 1);
  await postgres.pause();
  try {
    await Promise.all([isAway(a, 10), isAway(b, 10)]);
  } finally {
    await postgres.resume();
  }
  await Promise.all([isBack(a), isBack(b)]);
  // What was refused may have been kept after all, when only its confirmation was lost.
  const answer = await put(b, "body.n >= 1");
  expect(answer.status).toBe(200);
  const { revision } = (await answer.json()) as { revision: number };
  await follows(a, revision);
  await Promise.all([routes(a, 20), routes(b, 20)]);
}, 240_000);

test("a Postgres that can only be read is followed, and readiness says that it takes nothing", async () => {
  const [a, b] = await pair();
  await using _a = a;
  await using _b = b;
  expect((await put(a, "body.n >= 0")).status).toBe(201);
  await follows(b, 1);
  await using admin = connection(postgres.url);
  const readOnly = async (on: boolean): Promise<void> => {
    await admin.sql.unsafe("set default_transaction_read_only = off");
    await admin.sql.unsafe(`alter system set default_transaction_read_only = ${on ? "on" : "off"}`);
    await admin.sql.unsafe("select pg_reload_conf()");
  };
  await readOnly(true);
  try {
    await Promise.all([isAway(a, 10), isAway(b, 10)]);
    const ready = await (await a.fetch("/health/ready")).text();
    expect(ready).toContain("can only be read");
  } finally {
    await readOnly(false);
  }
  await Promise.all([isBack(a), isBack(b)]);
  expect((await put(a, "body.n >= 1")).status).toBe(200);
  await follows(b, 2);
}, 180_000);

test("a slow Postgres makes changes slow and nothing else", async () => {
  const database = new URL(await ownDatabase(postgres.url));
  await using proxy = await TcpProxy.open({
    upstream: { host: database.hostname, port: Number(database.port) },
  });
  database.hostname = proxy.host;
  database.port = String(proxy.port);
  const [a, b] = await pair(database.href);
  await using _a = a;
  await using _b = b;
  expect((await put(a, "body.n >= 0")).status).toBe(201);
  await follows(b, 1);
  proxy.delay(150);
  const changing = put(a, "body.n >= 1");
  for (let n = 10; n < 15; n++) await routes(b, n);
  expect((await changing).status).toBe(200);
  await follows(b, 2);
  proxy.delay(0);
  await Promise.all([isBack(a), isBack(b)]);
}, 180_000);
