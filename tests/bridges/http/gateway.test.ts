/** HTTP targets as their users have them: rules over the API, a running gateway, a real server. */
import { afterAll, expect, test } from "bun:test";
import { Webhook } from "standardwebhooks";
import { Webhook as Svix } from "svix";
import { TestGateway } from "../../e2e/gateway.ts";
import { freePort, waitFor } from "../../temporary.ts";

interface Arrived {
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: string;
}

const arrived: Arrived[] = [];
let answer = (_path: string): Response => new Response(null, { status: 200 });
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: await freePort(),
  async fetch(request) {
    const { pathname, search } = new URL(request.url);
    const headers = Object.fromEntries(request.headers);
    arrived.push({ path: `${pathname}${search}`, headers, body: await request.text() });
    return answer(pathname);
  },
});
const gateway = await TestGateway.start();
afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
  await server.stop(true);
});

const crm = { kind: "http", url: `${server.url.href}in`, allowPrivate: ["127.0.0.0/8"] };

async function publish(stream: string, body: unknown): Promise<void> {
  await gateway.json(`/streams/${stream}/messages`, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
  });
}

function secretOf(fill: number): string {
  return `whsec_${Buffer.alloc(32, fill).toString("base64")}`;
}

test("a rule signs, templates path and headers, and its secrets are never shown", async () => {
  const [old, young] = [secretOf(1), secretOf(2)];
  const ruleOf = (secrets: readonly string[]): object => ({
    from: "signed",
    start: "earliest",
    sign: { secrets },
    set: { body: { total: "${body.a * 2}" } },
    to: [
      {
        name: "put",
        bridge: "crm",
        method: "PUT",
        path: "/customers/${body.id}?total=${body.a}",
        headers: { "x-region": "${body.region}" },
      },
      { stream: "copies" },
    ],
  });
  await gateway.apply({ bridges: { crm }, rules: { signed: ruleOf([old]) } });
  await publish("signed", { id: "c 1", a: 21, region: "eu" });
  const [first] = await waitFor("it arrived", () => (arrived.length > 0 ? [...arrived] : null));
  expect(first?.path).toBe("/in/customers/c%201?total=21");
  expect(first?.headers).toMatchObject({ "x-region": "eu", "content-type": "application/json" });
  expect(new Webhook(old).verify(first?.body ?? "", first?.headers ?? {})).toEqual({ total: 42 });

  // A rotation: both count, the cursor stays, and neither is told to anybody.
  await gateway.apply({ rules: { signed: ruleOf([young, old]) } });
  await publish("signed", { id: "../admin", a: 1, region: "eu" });
  await publish("signed", { id: "2", a: 2, region: "eu" });
  await waitFor("the second arrived", () => arrived.length === 2);
  const second = arrived[1];
  for (const secret of [old, young]) {
    expect(new Webhook(secret).verify(second?.body ?? "", second?.headers ?? {})).toEqual({
      total: 4,
    });
    const bySvix = new Svix(secret);
    expect(() => bySvix.verify(second?.body ?? "", second?.headers ?? {})).not.toThrow();
    expect(() => bySvix.verify(`${second?.body} `, second?.headers ?? {})).toThrow();
  }
  const [letter] = await gateway.read("signed.dead");
  expect(JSON.stringify(letter?.headers)).toContain("which raw(…) would allow");
  const paths = ["/api/rules/signed", "/api/rules", "/api/rules/signed/revisions", "/api/routes"];
  for (const path of paths) {
    const text = await (await gateway.fetch(path)).text();
    expect(text).not.toContain(old.slice(6));
    expect(text).not.toContain(young.slice(6));
  }
  await gateway.apply({ rules: {} });
});

test("sign is refused where no target can sign, with its place", async () => {
  const rule = { from: "a", to: { stream: "b" }, sign: { secret: secretOf(1) } };
  const response = await gateway.fetch("/api/rules/x", {
    method: "PUT",
    body: JSON.stringify(rule),
  });
  expect(response.status).toBe(422);
  expect(await response.text()).toContain("no target of this rule can sign: HTTP targets do");
});

for (const [order, how] of [
  ["partition", "a changed rule"],
  ["key", "a changed rule"],
  ["key", "a resumed route"],
] as const) {
  test(`410 disables a target, order ${order}; ${how} asks it again, and nothing is lost`, async () => {
    arrived.splice(0);
    const rule = `gone-${order}-${how.replaceAll(" ", "-")}`;
    const stream = `from-${rule}`;
    answer = () => new Response("moved away", { status: 410 });
    const ruleOf = (extra: object): object => ({
      from: stream,
      order,
      start: "earliest",
      to: { bridge: "crm", ...extra },
    });
    await gateway.apply({ bridges: { crm }, rules: { [rule]: ruleOf({}) } });
    for (const id of [1, 2, 3]) await publish(stream, { id });
    const disabled = await waitFor("the route says that it is disabled", async () => {
      return (await gateway.routes()).find((row) => row.rule === rule && row.state === "disabled");
    });
    expect(disabled.error).toContain("the target answered 410: moved away; it is disabled until");
    expect(disabled.circuit).toMatchObject({ state: "disabled", untilMs: null });
    const metrics = await (await gateway.fetch("/metrics")).text();
    const labels = `rule="${rule}",target="crm webhook",state="disabled"`;
    expect(metrics).toContain(`isthmus_target_circuit{${labels}} 1`);
    const asked = arrived.length;
    await Bun.sleep(1500);
    expect(arrived.length).toBe(asked);

    answer = () => new Response(null, { status: 204 });
    if (how === "a resumed route") {
      await gateway.json(`/api/routes/${rule}/resume`, { method: "POST", body: "{}" });
    } else {
      await gateway.apply({ rules: { [rule]: ruleOf({ retry: { attempts: 3 } }) } });
    }
    await gateway.drained(rule);
    const delivered = new Set(arrived.slice(asked).map(({ body }) => body));
    expect(delivered.size).toBe(3);
    const [row] = (await gateway.routes()).filter((each) => each.rule === rule);
    expect(row?.counts).toMatchObject({ taken: 3, delivered: 3, deadLettered: 0 });
    expect(row?.state).toBe("running");
  }, 60_000);
}

test("what a target answered stands in the dead letter and, while it is tried, in the status", async () => {
  answer = (path) => {
    const status = path === "/in/busy" ? 503 : 422;
    return new Response(`no ${"x".repeat(3000)} thanks`, { status });
  };
  await gateway.apply({
    bridges: { crm },
    rules: {
      busy: { from: "busy", start: "earliest", to: { bridge: "crm", path: "/busy" } },
      refused: {
        from: "refused",
        start: "earliest",
        retry: { attempts: 1 },
        to: { bridge: "crm", path: "/refused" },
      },
    },
  });
  await publish("busy", 1);
  await publish("refused", 1);
  await gateway.drained("refused");
  const [letter] = await gateway.read("refused.dead");
  const reason = letter?.headers.find(([name]) => name === "isthmus-reason")?.[1];
  expect(reason).toBe(`the target answered 422: no ${"x".repeat(3000)} thanks`);
  const row = await waitFor("the status shows the answer", async () => {
    return (await gateway.routes()).find(({ rule, error }) => rule === "busy" && error !== null);
  });
  expect(row.error).toStartWith("the target answered 503: no xxx");
});
