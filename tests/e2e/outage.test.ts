/** Targets that are away or refuse: their routes wait or bury; nothing else is held up or lost. */
import { expect, test } from "bun:test";
import { type Broker, privateBroker } from "../brokers/broker.ts";
import { waitFor } from "../temporary.ts";
import { listenAmqp, listenMqtt } from "./clients.ts";
import { type MessageJson, TestGateway } from "./gateway.ts";

async function post(gateway: TestGateway, hook: string, body: unknown): Promise<number> {
  const init = { method: "POST", body: JSON.stringify(body) };
  return (await fetch(`${gateway.url}/hooks/${hook}`, init)).status;
}

test("a broker that was killed gets everything when it is back; others are not held up", async () => {
  const started: Broker[] = await Promise.all([privateBroker("amqp"), privateBroker("mqtt")]);
  const [rabbit, mosquitto] = started;
  if (rabbit === undefined || mosquitto === undefined) throw new Error("two brokers were started");
  try {
    await using gateway = await TestGateway.start();
    await using plant = await listenMqtt(mosquitto.url, "orders");
    {
      await using _made = await listenAmqp(rabbit.url, "", "orders");
    }
    await gateway.apply({
      bridges: {
        rabbit: { kind: "amqp", url: rabbit.url },
        plant: { kind: "mqtt", url: mosquitto.url },
      },
      hooks: { orders: { stream: "orders" } },
      rules: {
        slow: { from: "orders", to: { bridge: "rabbit", queue: "orders" } },
        fast: { from: "orders", to: { bridge: "plant", topic: "orders", qos: 1 } },
      },
    });
    await Promise.all([gateway.connected("rabbit"), gateway.connected("plant")]);
    expect(await post(gateway, "orders", { n: 0 })).toBe(202);
    await gateway.drained();
    await rabbit.kill();
    for (let n = 1; n <= 20; n++) expect(await post(gateway, "orders", { n })).toBe(202);
    await waitFor("MQTT has all", () => plant.packets.length >= 21);
    await waitFor("the bridge shows as down", async () => {
      const { status } = await gateway.json<{ status: { state: string; error: string } }>(
        "/api/bridges/rabbit",
      );
      return status.state === "down" && status.error.length > 0;
    });
    await rabbit.restart();
    await gateway.drained("slow", 90_000);
    await using queue = await listenAmqp(rabbit.url, "", "orders");
    await waitFor("the queue was read", () => {
      const numbers = queue.messages.map(({ content }) => JSON.parse(content.toString()).n);
      return new Set(numbers).size === 20 || new Set(numbers).size === 21;
    });
    const numbers = queue.messages.map(({ content }) => JSON.parse(content.toString()).n as number);
    const first = [...new Set(numbers)].filter((n) => n > 0);
    expect(first).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
  } finally {
    await Promise.all(started.map((each) => each.stop()));
  }
}, 240_000);

test("a message that its target refuses for good can be read among the dead letters", async () => {
  using crm = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      const { n } = (await request.json()) as { n: number };
      return new Response("no such customer", { status: n === 2 ? 422 : 200 });
    },
  });
  await using gateway = await TestGateway.start();
  const url = `http://127.0.0.1:${crm.port}/`;
  await gateway.apply({
    bridges: { crm: { kind: "http", url, allowPrivate: ["127.0.0.0/8"] } },
    hooks: { orders: { stream: "orders" } },
    rules: {
      out: {
        from: "orders",
        to: { name: "crm", bridge: "crm" },
        retry: { attempts: 3, delayMin: "5ms", delayMax: "10ms" },
      },
      broken: { from: "orders", set: { body: "${body.n / (body.n - 3)}" }, to: { stream: "x" } },
    },
  });
  for (const n of [1, 2, 3]) expect(await post(gateway, "orders", { n })).toBe(202);
  await gateway.drained();
  const headersOf = ({ headers }: MessageJson): Record<string, unknown> =>
    Object.fromEntries(headers);
  const refused = await gateway.read("out.dead");
  expect(refused.map(({ body }) => body)).toEqual(['{"n":2}']);
  expect(headersOf(refused[0] as MessageJson)).toMatchObject({
    "isthmus-rule": "out",
    "isthmus-target": "crm",
    "isthmus-attempts": "3",
    "isthmus-position": "orders/0/1",
  });
  expect(String(headersOf(refused[0] as MessageJson)["isthmus-reason"])).toContain("422");
  const broken = await gateway.read("broken.dead");
  expect(broken.map(({ body }) => body)).toEqual(['{"n":3}']);
  expect(headersOf(broken[0] as MessageJson)["isthmus-attempts"]).toBe("1");
}, 120_000);
