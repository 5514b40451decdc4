/** What ever stood under a name: listed, compared, put back; previews and explanations over HTTP. */
import { expect, test } from "bun:test";
import type { PreviewEvent, PreviewResult } from "../../src/rules/preview.ts";
import { fill, type TestServer, testServer } from "./support.ts";

const RULE = { from: "s", where: "body.n >= 5", to: { stream: "out" } };

async function put(server: TestServer, rule: unknown, query = ""): Promise<void> {
  const body = JSON.stringify(rule);
  const answer = await server.call("PUT", `/api/rules/r${query}`, { body });
  if (answer.status > 201) throw new Error(answer.text);
}

function items(json: Record<string, unknown>): Record<string, unknown>[] {
  return json["items"] as Record<string, unknown>[];
}

test("revisions are listed newest first, with who, why, and how many lines changed", async () => {
  await using server = await testServer();
  await put(server, RULE, "?why=first");
  await put(server, { ...RULE, where: "body.n >= 6" }, `?why=${encodeURIComponent("too many")}`);
  await server.call("DELETE", "/api/rules/r?why=unused");
  await put(server, RULE);
  const { json } = await server.call("GET", "/api/rules/r/revisions");
  expect(items(json)).toMatchObject([
    { revision: 4, why: null, deleted: false, linesAdded: 4, linesRemoved: 0 },
    { revision: 3, why: "unused", deleted: true, linesAdded: 0, linesRemoved: 4 },
    { revision: 2, why: "too many", linesAdded: 1, linesRemoved: 1 },
    { revision: 1, why: "first", by: "token:admin", linesAdded: 4 },
  ]);
  const page = await server.call("GET", "/api/rules/r/revisions?max=2");
  expect([items(page.json).length, page.json["next"]]).toEqual([2, "3"]);
  const rest = await server.call("GET", "/api/rules/r/revisions?max=2&after=3");
  expect(items(rest.json).map((each) => each["revision"])).toEqual([2, 1]);
  const one = await server.call("GET", "/api/rules/r/revisions/2");
  expect(one.json).toMatchObject({ revision: 2, against: 1, document: { where: "body.n >= 6" } });
  expect(one.json["diff"]).toContain("- where: body.n >= 5");
  expect(one.json["diff"]).toContain("+ where: body.n >= 6");
  const same = await server.call("GET", "/api/rules/r/revisions/4?against=1");
  expect(same.json["diff"]).toEqual([]);
  for (const path of ["/api/rules/x/revisions", "/api/rules/r/revisions/9"]) {
    expect((await server.call("GET", path)).status).toBe(404);
  }
});

test("a rollback makes a new revision, and never overwrites what another changed", async () => {
  await using server = await testServer();
  const rollback = (body: unknown, headers: Record<string, string> = {}) =>
    server.call("POST", "/api/rules/r/rollback", { body: JSON.stringify(body), headers });
  expect((await rollback({})).status).toBe(404);
  await put(server, RULE);
  expect([(await rollback({})).status, (await rollback({ to: 7 })).status]).toEqual([412, 404]);
  await put(server, { ...RULE, where: "body.n >= 6" });
  await put(server, { ...RULE, where: "body.n >= 7" });
  const back = await rollback({});
  expect(back.json).toMatchObject({ revision: 4, document: { where: "body.n >= 6" } });
  const first = await rollback({ to: 1, why: "as it was" });
  expect(first.json).toMatchObject({ revision: 5, document: RULE });
  expect(first.headers.get("etag")).toBe('"5"');
  const [newest] = items((await server.call("GET", "/api/rules/r/revisions")).json);
  expect(newest).toMatchObject({ revision: 5, why: "as it was" });
  const stale = await rollback({ to: 2 }, { "if-match": '"4"' });
  expect([stale.status, stale.json["code"]]).toEqual([412, "conflict"]);
  await server.call("DELETE", "/api/rules/r");
  expect((await rollback({ to: 6 })).status).toBe(400);
  expect((await rollback({})).json).toMatchObject({ revision: 7, document: RULE });
  expect((await rollback({ too: 1 })).json["errors"]).toMatchObject([{ pointer: "/too" }]);
  const viewer = await server.token({ name: "v", role: "viewer" });
  const refused = await server.call("POST", "/api/rules/r/rollback", { token: viewer, body: "{}" });
  expect(refused.status).toBe(403);
});

test("a rollback to a document whose secret is gone names the secret", async () => {
  await using server = await testServer();
  const put = (document: unknown) =>
    server.call("PUT", "/api/bridges/b", { body: JSON.stringify(document) });
  const mqtt = { kind: "mqtt", url: "mqtt://127.0.0.1:1" };
  expect((await put({ ...mqtt, username: "u", password: "a secret" })).status).toBe(201);
  expect((await put(mqtt)).status).toBe(200);
  const back = await server.call("POST", "/api/bridges/b/rollback", { body: "{}" });
  expect(back.status).toBe(422);
  expect(back.text).toContain("${secret:bridges.b.password}");
});

async function previewOf(
  server: TestServer,
  rule: unknown,
  query = "",
): Promise<readonly PreviewEvent[]> {
  const body = JSON.stringify(rule);
  const answer = await server.call("POST", `/api/rules/r/preview${query}`, { body });
  if (answer.status !== 200) throw new Error(answer.text);
  return answer.text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as PreviewEvent);
}

function resultIn(events: readonly PreviewEvent[]): PreviewResult {
  const last = events.at(-1);
  if (last === undefined || !("result" in last)) throw new Error(JSON.stringify(events));
  return last.result;
}

test("a preview runs draft and live over what the stream holds, and changes nothing", async () => {
  await using server = await testServer();
  await fill(server, 20);
  await put(server, RULE);
  const draft = { ...RULE, where: "body.n >= 15" };
  const result = resultIn(await previewOf(server, draft, "?last=1h"));
  expect(result.counts).toMatchObject({ messages: 20, removed: 10, same: 5, added: 0 });
  expect(result.samples.removed[0]).toMatchObject({ partition: 0, offset: 5 });
  expect((await server.call("GET", "/api/rules/r")).json["revision"]).toBe(1);
  const part = resultIn(await previewOf(server, draft, "?from=2&to=12"));
  expect(part.counts).toMatchObject({ messages: 10, removed: 7 });
  const few = resultIn(await previewOf(server, draft, "?limit=8"));
  expect([few.counts.messages, few.complete]).toEqual([8, false]);
  const elsewhere = resultIn(await previewOf(server, { ...RULE, from: "nothing" }));
  expect(elsewhere.counts.messages).toBe(0);
  const disabled = resultIn(await previewOf(server, { ...RULE, enabled: false }));
  expect(disabled.counts).toMatchObject({ removed: 15, matchedDraft: 0 });
});

test("a preview of a wrong draft or window is refused before it begins", async () => {
  await using server = await testServer();
  const call = (rule: unknown, query = "") =>
    server.call("POST", `/api/rules/r/preview${query}`, { body: JSON.stringify(rule) });
  const wrong = await call({ ...RULE, where: "body.n >" });
  expect([wrong.status, wrong.json["errors"]]).toMatchObject([422, [{ pointer: "/where" }]]);
  expect((await call(RULE, "?last=soon")).json["errors"]).toMatchObject([{ pointer: "/last" }]);
  expect((await call(RULE, "?last=1h&from=3")).status).toBe(400);
  expect((await call(RULE, "?limit=0")).status).toBe(400);
});

test("two previews run at once, a third waits its turn, and a client that goes ends its own", async () => {
  await using server = await testServer();
  await fill(server, 4_000);
  const heavy = { ...RULE, set: { body: "${[uuid(), uuid(), uuid(), uuid(), uuid(), uuid()]}" } };
  const begin = async (stop: AbortController): Promise<number> => {
    const response = await fetch(`${server.url}/api/rules/r/preview`, {
      method: "POST",
      headers: { authorization: "Bearer admin-token-of-the-tests" },
      body: JSON.stringify(heavy),
      signal: stop.signal,
    });
    return response.status;
  };
  const stops = [new AbortController(), new AbortController()];
  expect(await Promise.all(stops.map(begin))).toEqual([200, 200]);
  const third = await server.call("POST", "/api/rules/r/preview", { body: JSON.stringify(RULE) });
  expect([third.status, third.json["code"]]).toEqual([429, "rate-limited"]);
  expect(third.headers.get("retry-after")).not.toBeNull();
  for (const stop of stops) stop.abort();
  for (let tries = 0; ; tries++) {
    const again = await server.call("POST", "/api/rules/r/preview", { body: JSON.stringify(RULE) });
    if (again.status === 200) break;
    if (tries > 200) throw new Error("the places were not given back");
    await Bun.sleep(20);
  }
}, 30_000);

test("an explanation says for each rule of the stream what decided", async () => {
  await using server = await testServer();
  await fill(server, 6);
  await put(server, RULE);
  const other = {
    from: "s",
    set: { body: "${body.none}" },
    to: [{ stream: "a" }, { stream: "b" }],
  };
  await server.call("PUT", "/api/rules/other", { body: JSON.stringify(other) });
  await server.call("PUT", "/api/rules/away", { body: JSON.stringify({ ...RULE, from: "t" }) });
  const { json } = await server.call("GET", "/api/explanations/s/0/3");
  expect(items(json)).toMatchObject([
    { rule: "other", verdict: "yes", because: [], targets: [{ target: "stream a" }, {}] },
    { rule: "r", verdict: "no", because: ["body.n >= 5: 3 >= 5 is false"], targets: [] },
  ]);
  const [first] = items(json);
  expect(JSON.stringify(first?.["targets"])).toContain("no such field: none");
  const taken = await server.call("GET", "/api/explanations/s/0/5?rule=r");
  expect(items(taken.json)).toMatchObject([
    { verdict: "yes", targets: [{ outgoing: { to: { stream: "out" }, body: { n: 5 } } }] },
  ]);
  for (const path of ["s/0/99", "s/1/0", "s/0/3?rule=away"]) {
    expect((await server.call("GET", `/api/explanations/${path}`)).status).toBe(404);
  }
  expect((await server.call("GET", "/api/explanations/s/0/x")).status).toBe(400);
});

test("a dry run answers differences and what changed rules would do", async () => {
  await using server = await testServer();
  await fill(server, 10);
  await put(server, RULE);
  const file = { rules: { r: { ...RULE, where: "body.n >= 8" }, made: RULE } };
  const call = (query: string) =>
    server.call("POST", `/api/apply${query}`, { body: JSON.stringify(file) });
  const { json } = await call("?dryRun=true&preview=1h");
  expect(json["results"]).toMatchObject([
    { name: "r", outcome: "changed", preview: { messages: 10, removed: 3, same: 2 } },
    { name: "made", outcome: "created", preview: { messages: 10, added: 5 } },
  ]);
  const [first] = json["results"] as { diff: string[] }[];
  expect(first?.diff).toContain("+ where: body.n >= 8");
  expect((await server.call("GET", "/api/rules/made")).status).toBe(404);
  const plain = await call("?dryRun=true");
  expect(JSON.stringify(plain.json["results"])).not.toContain("preview");
  const done = await call("?why=because");
  expect(done.json["results"]).toMatchObject([{ outcome: "changed" }, { outcome: "created" }]);
  const history = await server.call("GET", "/api/rules/made/revisions");
  expect(items(history.json)).toMatchObject([{ why: "because" }]);
});
