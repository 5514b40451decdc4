/** `isthmus rule …`: tests of rules without a gateway, and everything else against a real one. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { type TemporaryFolder, temporaryFolder } from "../temporary.ts";
import { type Ran, run } from "./run.ts";

const examples = join(import.meta.dir, "..", "..", "examples");

let folder: TemporaryFolder;
let gateway: TestGateway;

beforeAll(async () => {
  folder = await temporaryFolder("rule");
  gateway = await TestGateway.start();
  await gateway.apply({
    project: "shop",
    rules: {
      big: { from: "orders", where: "body.amount > 100", to: { stream: "big" } },
      all: { from: "orders", to: { stream: "all-${body.region}" } },
    },
  });
  const lines = [10, 150, 250, 350].map((amount, index) =>
    JSON.stringify({ key: `k${index}`, body: { amount, region: index === 3 ? "a b" : "eu" } }),
  );
  await gateway.json("/streams/orders/messages", {
    method: "POST",
    headers: { "content-type": "application/x-ndjson" },
    body: lines.join("\n"),
  });
}, 60_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

async function cli(...args: readonly string[]): Promise<Ran> {
  const env = { ISTHMUS_SERVER: gateway.url, ISTHMUS_TOKEN: gateway.token };
  return await run(args, { folder: folder.path, env });
}

async function file(name: string, text: string): Promise<string> {
  await writeFile(join(folder.path, name), text);
  return name;
}

for (const name of (await readdir(examples)).filter((each) => each.endsWith(".test.yaml"))) {
  test(`examples/${name} passes without a gateway`, async () => {
    await using alone = await temporaryFolder("rule");
    const ran = await run(["rule", "test", "-f", join(examples, name)], { folder: alone.path });
    expect(ran.stderr).toBe("");
    expect(ran.stdout).toMatch(/^ok {2}.*\n[\s\S]*\d+ passed\n$/);
    expect(ran.exitCode).toBe(0);
  });
}

const RULES = `rules:
  big: { from: orders, where: body.amount > 100, set: { body: { n: "\${body.n}" } }, to: { stream: big } }
`;

test("a failing test shows what was expected and what was found, and ends with 1", async () => {
  await file("rules.yaml", RULES);
  const tests = await file(
    "fail.test.yaml",
    `definitions: rules.yaml
tests:
  - name: the wrong body
    message: { stream: orders, body: { amount: 200, n: 1 } }
    deliveries: [{ rule: big, to: { stream: big }, body: { n: 2 } }]
  - name: another target
    message: { stream: orders, body: { amount: 200, n: 1 } }
    deliveries: [{ rule: big, to: { stream: small } }]
  - name: no match
    message: { stream: orders, body: { amount: 1 } }
    matches: [big]
  - name: right
    message: { stream: orders, body: { amount: 200, n: 1 } }
    matches: [big]
    deliveries: [{ rule: big, target: stream big, body: { n: 1 } }]
`,
  );
  const ran = await cli("rule", "test", "-f", tests);
  expect(ran.exitCode).toBe(1);
  expect(ran.stderr).toBe("isthmus: 3 of 4 tests failed\n");
  expect(ran.stdout).toContain("FAIL the wrong body");
  expect(ran.stdout).toMatch(/-\s+n: 2\n\s+\+\s+n: 1\n/);
  expect(ran.stdout).toMatch(/-\s+stream: small\n\s+\+\s+stream: big\n/);
  expect(ran.stdout).toContain("other rules match than expected");
  expect(ran.stdout).toContain("ok   right");
  const json = await cli("rule", "test", "-f", tests, "--json");
  expect(JSON.parse(json.stdout)).toMatchObject({ passed: 1, failed: 3 });
  expect(json.exitCode).toBe(1);
});

test("a test file that is wrong is told with its place", async () => {
  const wrong = await file(
    "wrong.test.yaml",
    "definitions: rules.yaml\ntests:\n  - name: a\n    message: { steam: orders }\n    matches: []\n",
  );
  const ran = await cli("rule", "test", "-f", wrong);
  expect(ran.exitCode).toBe(1);
  expect(ran.stderr).toContain('did you mean "stream"?');
  const unknown = await file(
    "unknown.test.yaml",
    "tests:\n  - name: a\n    message: { stream: orders }\n    matches: [nobody]\n",
  );
  expect((await cli("rule", "test", "-f", unknown)).stderr).toContain("nobody");
});

test("without definitions the tests run over a gateway's rules", async () => {
  const tests = await file(
    "live.test.yaml",
    `tests:
  - name: large
    message: { stream: orders, body: { amount: 200, region: eu } }
    matches: [all, big]
    deliveries:
      - { rule: big, to: { stream: big } }
      - { rule: all, to: { stream: all-eu } }
`,
  );
  const ran = await cli("rule", "test", "-f", tests);
  expect([ran.stderr, ran.exitCode]).toEqual(["", 0]);
  expect(ran.stdout).toBe("ok   large\n1 passed\n");
});

const DRAFT = "from: orders\nwhere: body.amount > 200\nto: { stream: big }\n";

test("a preview tells what a draft would change, for people and as JSON", async () => {
  const draft = await file("draft.yaml", DRAFT);
  const ran = await cli("rule", "preview", "big", "-f", draft, "--last", "1h");
  expect([ran.stderr, ran.exitCode]).toEqual(["", 0]);
  expect(ran.stdout).toStartWith(
    "of 4 messages: 0 newly matched, 1 no longer matched, 0 changed, 2 as before, 0 would be refused\n",
  );
  expect(ran.stdout).toContain("no longer matched, for example:\n  0/1 key k1\n    - stream big: ");
  const json = await cli("rule", "preview", "big", "-f", draft, "--json");
  expect(JSON.parse(json.stdout)).toMatchObject({ counts: { messages: 4, removed: 1 } });
  const none = await cli("rule", "preview", "big", "-f", draft, "--from", "latest");
  expect([none.stderr, none.exitCode]).toEqual([
    "there is no message of that time: see --last and --from\n",
    0,
  ]);
  const bad = await file("bad.yaml", "from: orders\nwhere: body.amount >\nto: { stream: big }\n");
  const refused = await cli("rule", "preview", "big", "-f", bad);
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toContain("bad.yaml:2:");
});

test("an explanation names the part that said no, and what targets get", async () => {
  const ran = await cli("rule", "explain", "orders", "0/0");
  expect([ran.stderr, ran.exitCode]).toEqual(["", 0]);
  expect(ran.stdout).toContain("big does not match\n    body.amount > 100: 10 > 100 is false\n");
  expect(ran.stdout).toContain("all matches\n  → stream all-${body.region}\n");
  const refused = await cli("rule", "explain", "orders", "3", "--rule", "all");
  expect(refused.stdout).toContain('is refused: stream: "all-a b" is not a stream\'s name');
  expect((await cli("rule", "explain", "orders", "0/99")).exitCode).toBe(1);
});

test("a rule's history, its differences, and the way back", async () => {
  const path = await file(
    "shop.yaml",
    `project: shop\nrules:\n  big: { from: orders, where: body.amount > 200, to: { stream: big } }\n`,
  );
  const dry = await cli("apply", "-f", path, "--dry-run");
  expect(dry.stdout).toContain("    - where: body.amount > 100\n    + where: body.amount > 200\n");
  expect(dry.stdout).toContain("of 4 messages: 0 newly matched, 1 no longer matched");
  expect((await cli("apply", "-f", path, "--why", "fewer mails")).exitCode).toBe(0);
  const history = await cli("rule", "history", "big");
  expect(history.stdout).toMatch(/2 .* token:admin +\+1 -1 +fewer mails\n.*1 .*\+\d -0/);
  const diff = await cli("rule", "diff", "big");
  expect(diff.stdout).toContain("- where: body.amount > 100\n+ where: body.amount > 200\n");
  expect((await cli("rule", "diff", "big", "1", "2")).stdout).toBe(diff.stdout);
  const json = await cli("rule", "diff", "big", "2", "1", "--json");
  expect(JSON.parse(json.stdout)).toMatchObject({ from: 2, to: 1 });
  const back = await cli("rule", "rollback", "big", "--why", "it was wrong");
  expect(back.stdout).toBe("rules/big stands at revision 3\n");
  const third = await cli("get", "rule", "big", "--revision", "3", "--json");
  expect(JSON.parse(third.stdout)).toMatchObject({
    why: "it was wrong",
    document: { where: "body.amount > 100" },
  });
  expect((await cli("rule", "rollback", "nobody")).exitCode).toBe(1);
});

test("export names the project, applies without a change, and exports one project of several", async () => {
  const whole = await cli("export");
  expect(whole.stdout).toStartWith("project: shop\n");
  const again = await cli("apply", "-f", await file("all.yaml", whole.stdout));
  expect(
    again.stdout
      .trimEnd()
      .split("\n")
      .every((line) => line.startsWith("same ")),
  ).toBe(true);
  await gateway.apply({ project: "other", streams: { theirs: {} } });
  const mixed = await cli("export");
  expect(mixed.stdout).not.toContain("project:");
  expect(mixed.stderr).toContain("--project");
  expect((await cli("export", "--project", "shop")).stdout).toBe(whole.stdout);
  expect((await cli("export", "--project", "none")).exitCode).toBe(1);
  const pruned = await cli("apply", "-f", await file("p.yaml", whole.stdout), "--prune", "--yes");
  expect(pruned.stdout).not.toContain("deleted");
  expect((await cli("get", "stream", "theirs")).exitCode).toBe(0);
});
