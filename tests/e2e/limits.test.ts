/**
 * `batch`, `limit` and `concurrency` with real brokers, the example of batches, and a target that
 * wants nothing more, through kill -9: by a gateway in a process of its own.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { broker } from "../brokers/broker.ts";
import { findProgram } from "../brokers/programs.ts";
import { type Ran, run } from "../cli/run.ts";
import { temporaryFolder, waitFor } from "../temporary.ts";
import { listenAmqp, listenMqtt, runProgram } from "./clients.ts";
import { type RouteRow, TestGateway } from "./gateway.ts";

const PROJECT = join(import.meta.dir, "../..");
const name = `limits-${process.pid}-${Math.floor(Math.random() * 1e6)}`;
const KEYS = 8;

interface Row extends RouteRow {
  readonly balanced: boolean;
}

async function publish(gateway: TestGateway, stream: string, bodies: readonly unknown[]) {
  await gateway.json(`/streams/${stream}/messages`, {
    method: "POST",
    headers: { "content-type": "application/x-ndjson" },
    body: bodies.map((body, n) => JSON.stringify({ key: `k${n % KEYS}`, body })).join("\n"),
  });
}

/** That each number below `count` came once, and the numbers of each key in order. */
function expectOnceInOrder(came: readonly number[], count: number): void {
  const all = Array.from({ length: count }, (_, n) => n);
  expect(came.toSorted((a, b) => a - b)).toEqual(all);
  for (let key = 0; key < KEYS; key++) {
    const own = came.filter((n) => n % KEYS === key);
    expect(own).toEqual(all.filter((n) => n % KEYS === key));
  }
}

/** That each target's routes have delivered so many in all, and balance. */
async function expectLedger(gateway: TestGateway, rule: string, count: number): Promise<void> {
  const { items } = await gateway.json<{ items: Row[] }>("/api/routes");
  const sums = new Map<string, number>();
  for (const { target, counts, balanced } of items.filter((each) => each.rule === rule)) {
    expect(balanced).toBe(true);
    expect(counts["delivered"]).toBe(counts["taken"]);
    sums.set(target, (sums.get(target) ?? 0) + (counts["delivered"] ?? 0));
  }
  expect(sums.size).toBeGreaterThan(0);
  for (const sum of sums.values()) expect(sum).toBe(count);
}

async function cli(gateway: TestGateway, args: readonly string[], input = ""): Promise<Ran> {
  await using folder = await temporaryFolder("limits");
  const env = { ISTHMUS_SERVER: gateway.url, ISTHMUS_TOKEN: gateway.token };
  return await run(args, { folder: folder.path, env, input });
}

test.concurrent("batches and limits to Kafka, RabbitMQ and MQTT: each once, in order, at no more than told", async () => {
  const [{ url: kafka }, { url: amqp }, { url: mqtt }] = await Promise.all([
    broker("kafka"),
    broker("amqp"),
    broker("mqtt"),
  ]);
  await using gateway = await TestGateway.start();
  await using rabbit = await listenAmqp(amqp, name, "#");
  await using plant = await listenMqtt(mqtt, `${name}/#`);
  const to = [
    { bridge: "eu", topic: name, create: true },
    { bridge: "rabbit", exchange: name, routingKey: "${key}" },
    { bridge: "plant", topic: `${name}/\${key}`, qos: 1 },
  ];
  await gateway.apply({
    bridges: {
      eu: { kind: "kafka", urls: [kafka] },
      rabbit: { kind: "amqp", url: amqp },
      plant: { kind: "mqtt", url: mqtt, clientId: name },
    },
    streams: { in: { partitions: 4 }, slow: { partitions: 4 } },
    rules: {
      many: {
        from: "in",
        order: "key",
        batch: { messages: 50, wait: "20ms" },
        concurrency: 2,
        to,
      },
      slow: {
        from: "slow",
        order: "key",
        limit: "10/s",
        concurrency: 4,
        to: { bridge: "rabbit", exchange: name, routingKey: "slow" },
      },
    },
  });
  await Promise.all(["eu", "rabbit", "plant"].map((bridge) => gateway.connected(bridge)));
  const count = 200;
  await publish(
    gateway,
    "in",
    Array.from({ length: count }, (_, n) => n),
  );
  await gateway.drained("many");
  await waitFor("RabbitMQ has all", () => rabbit.messages.length >= count);
  await waitFor("MQTT has all", () => plant.packets.length >= count);
  expectOnceInOrder(
    rabbit.messages.map(({ content }) => Number(content)),
    count,
  );
  expectOnceInOrder(
    plant.packets.map(({ payload }) => Number(payload)),
    count,
  );
  const kcat = [findProgram("kcat"), "-C", "-b", kafka, "-t", name, "-o", "beginning", "-e", "-q"];
  const lines = (await runProgram([...kcat, "-f", "%s\n"])).trim().split("\n");
  expectOnceInOrder(lines.map(Number), count);
  await expectLedger(gateway, "many", count);

  // The eleventh may begin a second after the first, not before.
  rabbit.messages.length = 0;
  const began = performance.now();
  await publish(
    gateway,
    "slow",
    Array.from({ length: 11 }, (_, n) => n),
  );
  await gateway.drained("slow");
  expect(performance.now() - began).toBeGreaterThan(990);
  await waitFor("RabbitMQ has the slow ones", () => rabbit.messages.length >= 11);
  expectOnceInOrder(
    rabbit.messages.map(({ content }) => Number(content)),
    11,
  );
  await expectLedger(gateway, "slow", 11);
}, 60_000);

test.concurrent("examples/batches.yaml, applied: readings come many at once, alarms one by one", async () => {
  const readings: number[][] = [];
  const alarms: string[] = [];
  let underWay = 0;
  let most = 0;
  await using collector = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      const { pathname } = new URL(request.url);
      const body = await request.text();
      if (pathname !== "/v1/readings") {
        alarms.push(pathname);
        return new Response("ok");
      }
      most = Math.max(most, ++underWay);
      const lines = body.trim().split("\n");
      readings.push(lines.map((line) => (JSON.parse(line) as { n: number }).n));
      await Bun.sleep(50);
      underWay--;
      return new Response("ok");
    },
  });
  const url = `http://127.0.0.1:${collector.port}/v1`;
  await using gateway = await TestGateway.start({ COLLECTOR_URL: url });
  const source = await Bun.file(join(PROJECT, "examples/batches.yaml")).text();
  const text = source.replace("# allowPrivate:", "allowPrivate:");
  expect(text).not.toBe(source);
  const applied = await cli(gateway, ["apply", "-f", "-"], text);
  expect([applied.stderr, applied.exitCode]).toEqual(["", 0]);
  const bodies = Array.from({ length: 400 }, (_, n) => ({
    n,
    device: `d${n % KEYS}`,
    celsius: n < 4 ? 90 : 20,
  }));
  await publish(gateway, "readings", bodies);
  await gateway.drained();
  expectOnceInOrder(readings.flat(), 400);
  // One from each of the four partitions, when the first of each has waited for a second.
  expect(readings.length).toBeLessThanOrEqual(8);
  expect(most).toBeLessThanOrEqual(2);
  expect(alarms.toSorted()).toEqual(["d0", "d1", "d2", "d3"].map((each) => `/v1/alarms/${each}`));
  await expectLedger(gateway, "readings-to-collector", 400);
}, 60_000);

test.concurrent("410 disables a target through kill -9, until it is resumed or its bridge is changed", async () => {
  const state = { status: 410, came: 0 };
  await using crm = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: () => {
      state.came++;
      return new Response("moved away", { status: state.status });
    },
  });
  const bridge = {
    kind: "http",
    url: `http://127.0.0.1:${crm.port}/`,
    allowPrivate: ["127.0.0.0/8"],
  };
  await using gateway = await TestGateway.start();
  await gateway.apply({
    bridges: { crm: bridge },
    rules: { out: { from: "orders", concurrency: 1, to: { bridge: "crm" } } },
  });
  const isDisabled = async (): Promise<boolean> =>
    (await gateway.routes()).every((route) => route.state === "disabled");
  await publish(gateway, "orders", [0, 1, 2, 3]);
  await waitFor("it is disabled", isDisabled);
  expect(state.came).toBe(1);

  await gateway.kill();
  await gateway.start();
  await publish(gateway, "orders", [4]);
  await Bun.sleep(500);
  expect(state.came).toBe(1);
  const [route] = await gateway.routes();
  expect(route).toMatchObject({ state: "disabled", circuit: { state: "disabled" }, offset: 0 });
  expect(route?.error).toContain("the target answered 410: moved away");
  const shown = await cli(gateway, ["get", "routes"]);
  expect(shown.stdout).toMatch(/out .*disabled/);

  expect((await cli(gateway, ["route", "resume", "out"])).exitCode).toBe(0);
  await waitFor("it was asked again", () => state.came === 2);
  await waitFor("it is disabled again", isDisabled);
  state.status = 200;
  await gateway.json("/api/bridges/crm", {
    method: "PUT",
    body: JSON.stringify({ ...bridge, url: `${bridge.url}new` }),
  });
  await gateway.drained("out");
  expect(state.came).toBe(2 + 5);
  await expectLedger(gateway, "out", 5);
}, 60_000);
