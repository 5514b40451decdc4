/** What a protocol can't hold is named: by the codec, in counts, in metrics, and by strict rules. */
import { afterAll, describe, expect, test } from "bun:test";
import { bridgeModules } from "../../bridges/registry.ts";
import type { BridgeModule, Loss } from "../../src/bridge.ts";
import { encodeText, type Message, textHeader } from "../../src/message.ts";
import { TestGateway } from "../e2e/gateway.ts";
import { freePort, waitFor } from "../temporary.ts";
import { nowMs } from "./wires.ts";

const full: Message = {
  id: "id-1",
  key: encodeText("k"),
  properties: { contentType: "text/plain", priority: 3, durable: false },
  headers: [textHeader("a", "1"), { name: "n", value: null }, textHeader("Cookie", "c")],
  body: null,
  timestampMs: nowMs,
  origin: null,
};

function moduleOf(kind: string): BridgeModule {
  const module = bridgeModules.get(kind);
  if (module === undefined) throw new Error(`no module ${kind}`);
  return module;
}

function losses(kind: string, config: object, message: Message): readonly Loss[] {
  const module = moduleOf(kind);
  return module.translation?.losses(message, module.parseConfig(config)) ?? [];
}

describe("the losses of a message", () => {
  test("are none where every field has a place", () => {
    expect(losses("kafka", { url: "127.0.0.1:9092" }, full)).toEqual([]);
    expect(losses("amqp", { url: "amqp://127.0.0.1" }, full)).toEqual([]);
    expect(losses("amqp1", { url: "amqp://127.0.0.1" }, full)).toEqual([]);
    expect(losses("mqtt", { url: "mqtt://127.0.0.1" }, full)).toEqual([]);
  });

  test("are all but topic and payload with MQTT 3.1.1", () => {
    const old = { url: "mqtt://127.0.0.1", version: "3.1.1" };
    const lost = losses("mqtt", old, full);
    expect(lost.map(({ field }) => field).toSorted()).toEqual([
      "contentType",
      "headers",
      "key",
      "priority",
      "tombstone",
    ]);
    expect(lost.map(({ what }) => what)).toContain("MQTT 3.1.1 has no place for headers");
    const bare = { ...full, key: null, properties: {}, headers: [], body: encodeText("b") };
    expect(losses("mqtt", old, bare)).toEqual([]);
  });

  test("are an HTTP request's headers that it can't be given", () => {
    const lost = losses("http", { url: "https://a.example/in" }, full);
    expect(lost).toEqual([
      { field: "headers", what: 'the header "n" has an empty value' },
      { field: "headers", what: 'the header "Cookie" is not sent' },
    ]);
  });
});

describe("a refusal", () => {
  test("is told by the codec without a connection", () => {
    const refusal = (kind: string, config: object, message: Message): string | null => {
      const module = moduleOf(kind);
      return module.translation?.refusal(message, module.parseConfig(config), nowMs) ?? null;
    };
    const long: Message = { ...full, properties: { contentType: "x".repeat(300) } };
    expect(refusal("amqp", { url: "amqp://127.0.0.1" }, long)).toContain("contentType");
    const broken: Message = { ...full, headers: [textHeader("a", "b\nc")] };
    expect(refusal("http", { url: "https://a.example/in" }, broken)).toContain("line break");
    const named: Message = { ...full, headers: [textHeader("a\0", "b")] };
    expect(refusal("mqtt", { url: "mqtt://127.0.0.1" }, named)).toContain("forbids");
    const high: Message = { ...full, properties: { priority: 999 } };
    expect(refusal("amqp1", { url: "amqp://127.0.0.1" }, high)).toContain("0 to 255");
    expect(refusal("kafka", { url: "127.0.0.1:9092" }, high)).toBeNull();
  });
});

const arrived: string[] = [];
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: await freePort(),
  async fetch(request) {
    arrived.push(`${new URL(request.url).pathname} ${await request.text()}`);
    return new Response(null, { status: 200 });
  },
});
const gateway = await TestGateway.start();
afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
  await server.stop(true);
});

test("a route counts what it loses by field, and a strict one sends no such message", async () => {
  const crm = { kind: "http", url: server.url.href, allowPrivate: ["127.0.0.0/8"] };
  const to = { bridge: "crm", path: "/lenient" };
  await gateway.apply({
    bridges: { crm },
    rules: {
      lenient: { from: "shop", start: "earliest", to },
      strict: {
        from: "shop",
        start: "earliest",
        translation: "strict",
        to: [
          { name: "all", bridge: "crm", path: "/strict" },
          { name: "some", bridge: "crm", path: "/some", translation: "lenient" },
        ],
      },
    },
  });
  const publish = async (body: string, headers: Record<string, string>): Promise<void> => {
    await gateway.json("/streams/shop/messages", { method: "POST", body, headers });
  };
  await publish("plain", {});
  await publish("cookie", { "isthmus-header-cookie": "c", "isthmus-header-host": "h" });
  await waitFor("all is delivered", () => arrived.length === 5);
  await gateway.drained("strict");
  expect(arrived.toSorted()).toEqual([
    "/lenient cookie",
    "/lenient plain",
    "/some cookie",
    "/some plain",
    "/strict plain",
  ]);

  const routes = await gateway.json("/api/routes", {});
  const { items } = routes as { items: { rule: string; target: string; losses: object }[] };
  const counted = items.map(({ rule, target, losses: lost }) => [rule, target, lost] as const);
  const sorted = counted.toSorted(([, left], [, right]) => (left < right ? -1 : 1));
  expect(sorted).toEqual([
    ["strict", "all", {}],
    ["lenient", "crm webhook /lenient", { headers: 2 }],
    ["strict", "some", { headers: 2 }],
  ]);
  const metrics = await (await gateway.fetch("/metrics")).text();
  expect(metrics).toContain(
    'isthmus_route_losses_total{rule="strict",target="some",field="headers"} 2',
  );
  const letters = await gateway.read("strict.dead");
  const reason = letters[0]?.headers.find(([name]) => name === "isthmus-reason")?.[1];
  expect(letters).toHaveLength(1);
  expect(String(reason)).toMatch(
    /^translation is strict: the header "(?:cookie|host)" is not sent \(and 1 more\)$/,
  );
});

test("a translation that is neither strict nor lenient is refused with its place", async () => {
  for (const rule of [
    { from: "a", to: { stream: "b" }, translation: "loose" },
    { from: "a", to: { stream: "b", translation: 1 } },
  ]) {
    const body = JSON.stringify(rule);
    const response = await gateway.fetch("/api/rules/x", { method: "PUT", body });
    expect(response.status).toBe(422);
    expect(await response.text()).toContain("translation");
  }
});
