/** Operating deliveries by the command line and the API, through kill -9. */
import { expect, test } from "bun:test";
import { type Ran, run } from "../cli/run.ts";
import { temporaryFolder, waitFor } from "../temporary.ts";
import { TestGateway } from "./gateway.ts";

interface Taken {
  readonly body: string;
  readonly redriven: string | null;
  readonly replayed: string | null;
}

/** An HTTP target that refuses while it is told to, and keeps what it took. */
function target() {
  const taken: Taken[] = [];
  const state = { isRefusing: true };
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      const body = await request.text();
      if (state.isRefusing) return new Response("no such customer", { status: 422 });
      taken.push({
        body,
        redriven: request.headers.get("isthmus-redriven"),
        replayed: request.headers.get("isthmus-replayed"),
      });
      return new Response("ok");
    },
  });
  return { taken, state, server, url: `http://127.0.0.1:${server.port}/` };
}

const RETRY = { attempts: 1, delayMin: "5ms", delayMax: "10ms" };

async function setUp(url: string) {
  const folder = await temporaryFolder("operations");
  const gateway = await TestGateway.start();
  await gateway.apply({
    bridges: { crm: { kind: "http", url, allowPrivate: ["127.0.0.0/8"] } },
    rules: { out: { from: "orders", to: { name: "crm", bridge: "crm" }, retry: RETRY } },
  });
  const env = { ISTHMUS_SERVER: gateway.url, ISTHMUS_TOKEN: gateway.token };
  const cli = (...args: string[]): Promise<Ran> => run(args, { folder: folder.path, env });
  const publish = async (count: number): Promise<void> => {
    const lines = Array.from({ length: count }, (_, n) => JSON.stringify({ body: `m${n}` }));
    await gateway.json("/streams/orders/messages", {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body: lines.join("\n"),
    });
  };
  return { folder, gateway, cli, publish };
}

async function settled(gateway: TestGateway): Promise<void> {
  await waitFor("all is finished", async () => {
    const routes = await gateway.routes();
    return routes.every((each) => each.offset === each.end && each.counts["waiting"] === 0);
  });
}

test("dead letters are listed, shown, retried once and dropped, by the command line", async () => {
  const crm = target();
  const { folder, gateway, cli, publish } = await setUp(crm.url);
  try {
    await publish(4);
    await settled(gateway);
    const list = await cli("dead-letters", "list", "out", "--reason", "422");
    expect(list.stderr).toBe("");
    expect(list.stdout.split("\n")).toHaveLength(6);
    expect(list.stdout).toMatch(/^PLACE .*\n0\/0 +pending +- +crm +1 /);
    const shown = await cli("dead-letters", "show", "out", "2", "--json");
    expect(JSON.parse(shown.stdout)).toMatchObject({
      state: "pending",
      target: "crm",
      position: "orders/0/2",
      revision: 1,
      history: [{ refusals: 1, answer: "the target answered 422: no such customer" }],
      message: { stream: "orders", offset: 2, body: "m2", headers: [] },
    });
    const wrongly: [args: string[], exitCode: number, says: string][] = [
      [["dead-letters", "list", "outt"], 1, "there is no rule or source outt"],
      [["replay", "order", "--rule", "out", "--from", "earliest"], 1, "there is no stream order"],
      [
        ["replay", "orders", "--rule", "out", "--from", "earliest", "--rate", "fast"],
        2,
        "rate: expected a rate such as 100/s, 5000/m or 20/10s",
      ],
      [
        ["dead-letters", "retry", "out", "--all", "--set", '{"boddy":1}'],
        2,
        'set.boddy: there is no such member; did you mean "body"?',
      ],
    ];
    for (const [args, exitCode, says] of wrongly) {
      const ran = await cli(...args);
      expect([ran.stderr, ran.exitCode]).toEqual([`isthmus: ${says}\n`, exitCode]);
    }
    crm.state.isRefusing = false;
    const dry = await cli("dead-letters", "retry", "out", "--all", "--dry-run");
    expect(dry.stdout).toContain("would send 4 of 4 messages");
    expect(crm.taken).toEqual([]);
    const one = await cli("dead-letters", "retry", "out", "0/1");
    expect(one.stdout).toMatch(/^done {2}\w+ {2}sent 1 of 1 messages\n$/);
    expect((await cli("dead-letters", "retry", "out")).exitCode).toBe(2);
    const refused = await cli("dead-letters", "drop", "out", "0/3");
    expect(refused.stderr).toContain("this would drop 1 dead letters of out: give --yes");
    expect(refused.exitCode).toBe(2);
    expect((await cli("dead-letters", "drop", "out", "0/3", "--yes")).stdout).toContain(
      "dropped  1",
    );
    await gateway.kill();
    await gateway.start();
    const rest = await cli("dead-letters", "retry", "out", "--all", "--rate", "1000/s");
    expect(rest.stdout).toContain("sent 2 of 4 messages; 2 not asked for");
    await waitFor("all came", () => crm.taken.length === 3);
    await settled(gateway);
    const bodies = crm.taken.map(({ body, redriven }) => [body, redriven]);
    expect(bodies).toEqual([
      ["m1", "out.dead/0/1"],
      ["m0", "out.dead/0/0"],
      ["m2", "out.dead/0/2"],
    ]);
    const all = await cli("dead-letters", "list", "out", "--state", "all", "--json");
    const states = (JSON.parse(all.stdout) as { state: string }[]).map(({ state }) => state);
    expect(states).toEqual(["redriven", "redriven", "redriven", "dropped"]);
    expect((await cli("dead-letters", "list", "out")).stderr).toBe(
      "out has no such dead letters\n",
    );
  } finally {
    await gateway[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
    await crm.server.stop(true);
  }
}, 120_000);

test("a replay goes on after kill -9 and sends nothing that it had handed over again", async () => {
  const crm = target();
  crm.state.isRefusing = false;
  const { folder, gateway, cli, publish } = await setUp(crm.url);
  try {
    await publish(300);
    await settled(gateway);
    expect(crm.taken).toHaveLength(300);
    const args = ["--rule", "out", "--from", "earliest", "--rate", "150/s", "--detach"];
    const begun = await cli("replay", "orders", ...args);
    expect(begun.stdout).toMatch(/^begun {2}\w+\n$/);
    await waitFor("some came", () => crm.taken.length > 320);
    await gateway.kill();
    await gateway.start();
    await waitFor("the job has ended", async () => {
      const list = await cli("replays", "list", "--json");
      const [job] = JSON.parse(list.stdout) as { state: string; counts: { sent: number } }[];
      return job?.state === "done" && job.counts.sent === 300;
    });
    await settled(gateway);
    const replayed = crm.taken.filter((each) => each.replayed !== null);
    expect(new Set(replayed.map((each) => each.replayed)).size).toBe(300);
    // What was under way when it died may come once more; what was handed over is not read again.
    expect(replayed.length - 300).toBeLessThan(100);
    const [route] = await gateway.routes();
    expect(route?.counts).toMatchObject({ taken: 600, delivered: 600, waiting: 0 });
    expect(route?.offset).toBe(300);
  } finally {
    await gateway[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
    await crm.server.stop(true);
  }
}, 120_000);

test("routes are paused, moved and resumed by the command line; viewers may not", async () => {
  const crm = target();
  crm.state.isRefusing = false;
  const { folder, gateway, cli, publish } = await setUp(crm.url);
  try {
    await publish(3);
    await settled(gateway);
    expect((await cli("route", "pause", "out/crm")).stdout).toBe("paused  out/crm  (1 route)\n");
    await publish(2);
    await gateway.kill();
    await gateway.start();
    expect((await gateway.routes())[0]?.state).toBe("paused");
    const listed = await cli("get", "routes", "out");
    expect(listed.stdout).toMatch(
      /^RULE .* UNSENT +OLDEST .*\nout +crm +orders\/0 +paused +3 +5 +2 /,
    );
    const misnamed = await cli("get", "routes", "outt");
    expect([misnamed.stderr, misnamed.exitCode]).toEqual([
      "isthmus: there is no rule outt that runs\n",
      1,
    ]);
    const dry = await cli("route", "seek", "out", "--to", "0/1");
    expect(dry.stdout).toMatch(/crm +orders\/0 +3 +1 +2 +0\n$/);
    expect(dry.stderr).toBe("nothing was moved: do it with --yes\n");
    expect((await cli("route", "seek", "out", "--to", "0/1", "--yes")).exitCode).toBe(0);
    expect((await gateway.routes())[0]?.offset).toBe(1);
    expect((await cli("route", "seek", "out", "--to", "0/99")).stderr).toContain("holds 0 to 5");
    expect((await cli("route", "resume", "out")).stdout).toBe("resumed  out  (1 route)\n");
    await settled(gateway);
    expect(crm.taken.map(({ body }) => body).join(" ")).toBe("m0 m1 m2 m1 m2 m0 m1");
    expect((await cli("route", "parked", "out")).stderr).toBe("no key is parked\n");
    expect((await cli("route", "release", "out")).stdout).toBe("released  0 keys of out\n");
    const made = await gateway.json<{ token: string }>("/api/tokens", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ name: "eyes", role: "viewer" }),
    });
    const headers = { authorization: `Bearer ${made.token}` };
    const asViewer = await gateway.fetch("/api/routes/out/pause", { method: "POST", headers });
    expect(asViewer.status).toBe(403);
    const misspelt = await gateway.fetch("/api/dead-letters/out/retry", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"reasn":"x"}',
    });
    expect([misspelt.status, await misspelt.text()]).toEqual([
      400,
      expect.stringContaining('did you mean \\"reason\\"?'),
    ]);
  } finally {
    await gateway[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
    await crm.server.stop(true);
  }
}, 120_000);
