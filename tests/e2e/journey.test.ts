/** The journey of a message, by the API and the command line, on a gateway as users run it. */
import { expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { run } from "../cli/run.ts";
import { temporaryFolder, waitFor } from "../temporary.ts";
import { TestGateway } from "./gateway.ts";

interface RouteJson {
  readonly rule: string;
  readonly revision: number | null;
  readonly matched: string | null;
  readonly because: readonly string[];
  readonly fate: string;
  readonly position: string | null;
  readonly deadLetter: string | null;
  readonly notes: readonly { readonly event: string; readonly detail: string | null }[];
}

interface JourneyJson {
  readonly stream: string;
  readonly offset: number;
  readonly received: Readonly<Record<string, unknown>>;
  readonly routes: readonly RouteJson[];
}

interface Answer {
  readonly items: readonly JourneyJson[];
  readonly complete: boolean;
}

const SECRET = "secret-of-the-tests";

async function journeyOf(gateway: TestGateway, place: string): Promise<JourneyJson> {
  const { items } = await gateway.json<Answer>(`/api/journey?place=${place}`);
  const [journey] = items;
  if (journey === undefined) throw new Error(`no journey of ${place}`);
  return journey;
}

async function routeOf(gateway: TestGateway, place: string, rule: string): Promise<RouteJson> {
  const { routes } = await journeyOf(gateway, place);
  const found = routes.find((each) => each.rule === rule);
  if (found === undefined) throw new Error(`no route of ${rule}: ${JSON.stringify(routes)}`);
  return found;
}

async function publish(gateway: TestGateway, body: string): Promise<{ id: string }> {
  return await gateway.json("/streams/orders/messages", { method: "POST", body });
}

/** An HTTP target that answers 422 to what says so, and 503 until it is told to take it. */
function target() {
  const state = { isBusy: false };
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request) => {
      const text = await request.text();
      if (text.includes("refuse")) return new Response("no such customer", { status: 422 });
      return new Response("", { status: state.isBusy ? 503 : 200 });
    },
  });
  return { server, state, url: `http://127.0.0.1:${server.port}` };
}

test("a journey tells how a message was received, who took it, each attempt, and where it is", async () => {
  const crm = target();
  await using folder = await temporaryFolder("journey");
  await using gateway = await TestGateway.start();
  try {
    await gateway.apply({
      bridges: { crm: { kind: "http", url: crm.url, allowPrivate: ["127.0.0.0/8"] } },
      hooks: {
        shop: { stream: "orders", verify: { scheme: "github", secrets: [SECRET] } },
      },
      rules: {
        big: { from: "orders", where: "body.amount > 100", to: { stream: "audit" } },
        crm: {
          from: "orders",
          order: "key",
          to: { name: "crm", bridge: "crm" },
          retry: { attempts: 2, delayMin: "10ms", delayMax: "20ms" },
        },
      },
    });
    const body = JSON.stringify({ amount: 42 });
    const signature = createHmac("sha256", SECRET).update(body).digest("hex");
    const hooked = await gateway.json<{ id: string; offset: number }>("/hooks/shop", {
      method: "POST",
      headers: {
        "x-hub-signature-256": `sha256=${signature}`,
        "x-github-delivery": "d-1",
        "x-github-event": "push",
      },
      body,
    });
    await publish(gateway, JSON.stringify({ amount: 200 }));
    await publish(gateway, JSON.stringify({ amount: 300, say: "refuse" }));
    await gateway.drained();
    const journey = await journeyOf(gateway, "orders/0/0");
    expect(journey.received).toMatchObject({
      by: "hook",
      address: "shop",
      verified: { scheme: "github" },
    });
    expect(await routeOf(gateway, "orders/0/0", "big")).toMatchObject({
      revision: 1,
      matched: "no",
      because: ["body.amount > 100: 42 > 100 is false"],
      fate: "filtered",
      notes: [],
    });
    expect(await routeOf(gateway, "orders/0/0", "crm")).toMatchObject({
      matched: "yes",
      fate: "delivered",
      position: "status 200",
    });
    expect(await routeOf(gateway, "orders/0/1", "big")).toMatchObject({
      fate: "delivered",
      position: "partition 0 offset 0",
    });
    const refused = await routeOf(gateway, "orders/0/2", "crm");
    expect(refused).toMatchObject({ fate: "dead-lettered", deadLetter: "crm.dead/0/0" });
    expect(refused.notes.map(({ event }) => event)).toEqual(["failed", "failed", "dead"]);
    expect(refused.notes[0]?.detail).toContain("422");
    const metrics = await (await gateway.fetch("/metrics")).text();
    expect(metrics).toContain("isthmus_journey_dropped_total 0");
    expect(metrics).toContain('isthmus_jobs{kind="replay",state="running"} 0');
    expect(metrics).toContain('isthmus_route_oldest_seconds{rule="crm",target="crm"} 0');
    // By id, in each stream that it came to; and by a killed process's successor.
    await gateway.kill();
    await gateway.start();
    const { items, complete } = await gateway.json<Answer>(`/api/journey?id=${hooked.id}`);
    expect({ complete, places: items.map(({ stream, offset }) => [stream, offset]) }).toEqual({
      complete: true,
      places: [["orders", 0]],
    });
    // Killed before its state was saved it has tried again; what was noted before stays.
    const after = await routeOf(gateway, "orders/0/2", "crm");
    expect(after.notes.slice(0, 3)).toEqual([...refused.notes]);
    expect(after).toMatchObject({ fate: "dead-lettered", deadLetter: "crm.dead/0/0" });
    const traced = await run(["trace", "orders/0/2", "--server", gateway.url], {
      folder: folder.path,
      env: { ISTHMUS_TOKEN: gateway.token },
    });
    expect(traced.stderr).toBe("");
    expect(traced.stdout).toContain("→ crm: dead letter crm.dead/0/0");
    expect(traced.stdout).toContain("422");
    expect(traced.stdout.split("\n").filter((line) => line.length > 80)).toEqual([]);
    const none = await run(["trace", "orders/0/99", "--server", gateway.url], {
      folder: folder.path,
      env: { ISTHMUS_TOKEN: gateway.token },
    });
    expect(none.exitCode).toBe(1);
    expect(none.stderr).toContain("orders/0/99");
  } finally {
    await crm.server.stop(true);
  }
}, 60_000);

test("a journey tells what waits, for what, and the revision that a message belonged to", async () => {
  const crm = target();
  crm.state.isBusy = true;
  await using gateway = await TestGateway.start();
  try {
    const rule = (where: string) => ({
      bridges: { crm: { kind: "http", url: crm.url, allowPrivate: ["127.0.0.0/8"] } },
      rules: {
        crm: {
          from: "orders",
          where,
          order: "none",
          to: { name: "crm", bridge: "crm" },
          retry: { delayMin: "20s", delayMax: "1h" },
        },
      },
    });
    await gateway.apply(rule("body.n < 5"));
    await publish(gateway, `{"n":9}`);
    await gateway.drained();
    await gateway.apply(rule("body.n > 5"));
    await publish(gateway, `{"n":9}`);
    const isWaiting = async (): Promise<boolean> =>
      (await routeOf(gateway, "orders/0/1", "crm")).notes.length > 0;
    await waitFor("a failure is noted", isWaiting);
    expect(await routeOf(gateway, "orders/0/0", "crm")).toMatchObject({
      revision: 1,
      matched: "no",
      fate: "filtered",
    });
    const waiting = await routeOf(gateway, "orders/0/1", "crm");
    expect(waiting).toMatchObject({ revision: 2, matched: "yes" });
    expect(["waiting", "retrying"]).toContain(waiting.fate);
    expect(waiting.notes[0]).toMatchObject({ event: "failed" });
    await gateway.json("/api/rules/late", {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ from: "orders", start: "latest", to: { stream: "out" } }),
    });
    expect(await routeOf(gateway, "orders/0/0", "late")).toMatchObject({
      fate: "never-read",
      matched: null,
    });
  } finally {
    await crm.server.stop(true);
  }
}, 60_000);

test("wrong questions are refused, and clients may not ask", async () => {
  await using gateway = await TestGateway.start();
  for (const query of ["", "?place=orders", "?id=a&place=orders/0/1", "?what=1"]) {
    expect((await gateway.fetch(`/api/journey${query}`)).status).toBe(400);
  }
  expect((await gateway.fetch("/api/journey?place=orders/0/1")).status).toBe(404);
  expect((await fetch(`${gateway.url}/api/journey?place=orders/0/1`)).status).toBe(401);
  const { items, complete } = await gateway.json<Answer>("/api/journey?id=nobody");
  expect({ items, complete }).toEqual({ items: [], complete: true });
});

test("each administrative change stands in the audit, which only admins read", async () => {
  await using gateway = await TestGateway.start();
  await gateway.apply({ rules: { r: { from: "in", to: { stream: "out" } } } });
  await gateway.json("/api/routes/r/pause", { method: "POST" });
  const made = await gateway.json<{ token: string }>("/api/tokens", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name: "looker", role: "viewer" }),
  });
  const path = "/streams/$audit/messages";
  const { messages } = await gateway.json<{ messages: { body: string }[] }>(path);
  const entries = messages.map(({ body }) => JSON.parse(body) as Record<string, unknown>);
  expect(entries).toMatchObject([
    { action: "created", kind: "rules", name: "r", revision: 1 },
    { action: "paused", kind: "routes", name: "r" },
    { action: "created", kind: "tokens", name: "looker", detail: "role viewer" },
  ]);
  expect(entries.every(({ by }) => typeof by === "string" && by !== "")).toBe(true);
  expect(JSON.stringify(entries)).not.toContain(made.token);
  const looked = await gateway.fetch(path, { headers: { authorization: `Bearer ${made.token}` } });
  expect(looked.status).toBe(403);
});
