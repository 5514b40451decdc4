/** The command line against a real gateway that it has started itself. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freePort, type TemporaryFolder, temporaryFolder, waitFor } from "../temporary.ts";
import { type Ran, type RunOptions, type Running, run, start } from "./run.ts";

let folder: TemporaryFolder;
let gateway: Running;
let options: RunOptions;

async function serve(port: string): Promise<Running> {
  const running = start(["serve", "--port", port], { folder: folder.path });
  await waitFor("the gateway answers", async () => {
    if (running.ended === undefined) return false;
    const answer = await fetch(`http://127.0.0.1:${port}/health/ready`).catch(() => null);
    return answer?.ok === true;
  });
  return running;
}

beforeAll(async () => {
  folder = await temporaryFolder("cli");
  const port = String(await freePort());
  options = { folder: folder.path, env: { ISTHMUS_PORT: port } };
  gateway = await serve(port);
}, 30_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

async function cli(args: readonly string[], more: Partial<RunOptions> = {}): Promise<Ran> {
  return await run(args, { ...options, ...more });
}

/** Runs what must succeed, and gives its standard output. */
async function done(args: readonly string[], more: Partial<RunOptions> = {}): Promise<string> {
  const ran = await cli(args, more);
  expect(ran.stderr).toBe("");
  expect(ran.exitCode).toBe(0);
  return ran.stdout;
}

async function file(name: string, text: string): Promise<string> {
  await writeFile(join(folder.path, name), text);
  return name;
}

const shop = `project: shop
streams:
  orders: { partitions: 2 }
hooks:
  orders: { stream: orders, key: body.customer }
rules:
  big:
    from: orders
    where: body.amount > 100
    to: [{ stream: big }]
`;

test("applies a file, shows a dry run first, and calls the same file the same", async () => {
  const path = await file("shop.yaml", shop);
  const dry = await cli(["apply", "-f", path, "--dry-run"]);
  const created = "created  streams/orders\ncreated  hooks/orders\ncreated  rules/big\n";
  const outcomes = dry.stdout.split("\n").filter((line) => !line.startsWith(" "));
  expect(outcomes.join("\n")).toBe(created);
  expect(dry.stdout).toContain("created  streams/orders\n    + partitions: 2\n");
  expect(dry.stdout).toContain("    of 0 messages: 0 newly matched");
  expect(dry.stderr).toContain("nothing was changed: this was a dry run");
  expect((await cli(["get", "rules"])).stderr).toBe("there are no rules\n");
  const made = await cli(["apply", "-f", path]);
  expect(made.stdout).toBe(created);
  expect(made.exitCode).toBe(0);
  const again = await cli(["apply", "-f", "-"], { input: shop });
  expect(again.stdout).toBe(created.replaceAll("created ", "same    "));
  const changed = shop.replace("> 100", "> 200");
  const { stdout } = await cli(["apply", "-f", await file("changed.yaml", changed)]);
  expect(stdout).toBe("same     streams/orders\nsame     hooks/orders\nchanged  rules/big\n");
  await cli(["apply", "-f", path]);
});

test("shows definitions as a table, as YAML and as JSON", async () => {
  const table = await done(["get", "rule"]);
  expect(table).toMatch(/^NAME +REVISION +FROM +STATE/);
  expect(table).toMatch(/\nbig +\d+ +orders /);
  expect(await done(["get", "rules", "big"])).toContain("where: body.amount > 100");
  const one = JSON.parse(await done(["get", "rule", "big", "--json"])) as { name: string };
  expect(one.name).toBe("big");
  const routes = JSON.parse(await done(["get", "routes", "--json"])) as { rule: string }[];
  expect(routes.map(({ rule }) => rule)).toEqual(["big", "big"]);
  expect(await done(["get", "routes"])).toMatch(/\nbig +stream.*orders\/0 +running/);
  const missing = await cli(["get", "rule", "none"]);
  expect(missing.exitCode).toBe(1);
  expect(missing.stderr).toMatch(/^isthmus: [^\n]*none[^\n]*\n$/);
});

test("shows each fault of a file at its line and column, and applies none of it", async () => {
  const bad = `${shop}  worse:\n    from: orders\n    where: body.amount >\n    too: []\n`;
  const { exitCode, stderr, stdout } = await cli(["apply", "-f", await file("bad.yaml", bad)]);
  expect(exitCode).toBe(1);
  expect(stdout).toBe("");
  expect(stderr).toStartWith("isthmus: bad.yaml has ");
  expect(stderr).toMatch(/\n {2}bad\.yaml:13:\d+: \/rules\/worse\/where: /);
  expect(stderr).toMatch(/\n {2}bad\.yaml:14:\d+: \/rules\/worse\/too: .*did you mean "to"/);
  expect((await cli(["get", "rule", "worse"])).exitCode).toBe(1);
});

const badFiles: readonly (readonly [name: string, text: string, says: RegExp])[] = [
  ["tag.yaml", "rules:\n  a:\n    where: !x\n", /^isthmus: tag\.yaml:3:12: .*quote/],
  ["twice.yaml", "streams:\n  a: {}\n  a: {}\n", /^isthmus: twice\.yaml:3:3: .*twice/],
  ["kind.yaml", "rulez: {}\n", /^isthmus: kind\.yaml:1:\d+: \/rulez: .*did you mean "rules"/],
  [
    "bridge.yaml",
    "rules:\n  a:\n    from: orders\n    to:\n      - { bridge: nope, topic: x }\n",
    /^isthmus: bridge\.yaml:5:\d+: \/rules\/a\/to\/0\/bridge: .*nope/,
  ],
  ["text.yaml", "just text\n", /^isthmus: text\.yaml:1:1: .*expected a map/],
];

for (const [name, text, says] of badFiles) {
  test(`refuses ${name} in one line`, async () => {
    const { exitCode, stderr } = await cli(["apply", "-f", await file(name, text)]);
    expect(stderr).toMatch(says);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(exitCode).toBe(1);
  });
}

test("says so when a file is not there, or is no text", async () => {
  expect(await cli(["apply", "-f", "none.yaml"])).toEqual({
    exitCode: 1,
    stdout: "",
    stderr: "isthmus: none.yaml can't be read: there is no such file\n",
  });
  const ran = await cli(["apply", "-f", "-"], { input: new Uint8Array([0xff, 0xfe]) });
  expect(ran.stderr).toBe("isthmus: standard input is not UTF-8 text\n");
});

test("publishes text, headers, keys and bytes, and reads them back exactly", async () => {
  const bytes = new Uint8Array([0, 255, 10, 13, 128]);
  const body = '{"n":12345678901234567890}';
  const first = await done(["publish", "p1", body, "--key", "ü k", "--header", "X-One=ä=1"]);
  expect(first).toMatch(/^p1 0\/0 \S+\n$/);
  const receipt = JSON.parse(await done(["publish", "p1", "--json"], { input: bytes })) as object;
  expect(receipt).toMatchObject({ stream: "p1", partition: 0, offset: 1, duplicate: false });
  await done(["publish", "p1", "-"], { input: "" });
  const lines = (await done(["read", "p1", "--from", "earliest", "--json"])).trimEnd().split("\n");
  expect(lines.map((line) => JSON.parse(line) as object)).toMatchObject([
    { offset: 0, key: "ü k", headers: [["X-One", "ä=1"]], body },
    { offset: 1, key: null, bodyBase64: Buffer.from(bytes).toString("base64") },
    { offset: 2, body: "" },
  ]);
  const plain = await done(["read", "p1", "--from", "0", "--max", "1", "--partition", "0"]);
  expect(plain).toMatch(/^0\/0\t\d{4}-\d\d-\d\dT[^\t]+Z\tü k\t\{"n":12345678901234567890\}\n$/);
});

test("reads a whole stream over many pages, each message once", async () => {
  const lines = Array.from({ length: 1203 }, (_, index) => JSON.stringify({ body: `m${index}` }));
  const token = (await Bun.file(join(folder.path, "data", "admin-token")).text()).trim();
  const port = options.env?.["ISTHMUS_PORT"];
  const answer = await fetch(`http://127.0.0.1:${port}/streams/many/messages`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/x-ndjson" },
    body: lines.join("\n"),
  });
  expect(answer.status).toBe(202);
  const read = (await done(["read", "many", "--from", "earliest"])).trimEnd().split("\n");
  expect(read.map((line) => line.split("\t")[3])).toEqual(lines.map((_, index) => `m${index}`));
  const few = await done(["read", "many", "--from", "100", "--to", "103"]);
  expect(
    few
      .trimEnd()
      .split("\n")
      .map((line) => line.split("\t")[3]),
  ).toEqual(["m100", "m101", "m102"]);
  const some = await done(["read", "many", "--from", "earliest", "--where", 'text == "m7"']);
  expect(some.trimEnd().split("\t").at(-1)).toBe("m7");
});

test("tells that a place lies past the end", async () => {
  await done(["publish", "p2", "x"]);
  const { exitCode, stderr } = await cli(["read", "p2", "--from", "99"]);
  expect(exitCode).toBe(1);
  expect(stderr).toMatch(/^isthmus: [^\n]*99[^\n]*\n$/);
});

test("tails a stream from its beginning and goes on over a restart of the gateway", async () => {
  await done(["publish", "t1", "one"]);
  await using tail = start(["tail", "t1", "--from", "earliest"], options);
  await waitFor("the first message is printed", () => tail.stdout().includes("one"));
  await done(["publish", "t1", "two"]);
  await waitFor("the second message is printed", () => tail.stdout().includes("two"));
  gateway.kill("SIGTERM");
  expect((await gateway.ended).exitCode).toBe(0);
  gateway = await serve(options.env?.["ISTHMUS_PORT"] ?? "");
  await done(["publish", "t1", "three"]);
  await waitFor("the third message is printed", () => tail.stdout().includes("three"));
  tail.kill("SIGINT");
  const { exitCode, stdout } = await tail.ended;
  expect(exitCode).toBe(0);
  const printed = stdout.trimEnd().split("\n");
  expect(printed.map((line) => line.split("\t")[3])).toEqual(["one", "two", "three"]);
}, 30_000);

test("tails what a filter lets through, from a time and from an offset on", async () => {
  for (const n of [1, 2, 3]) await done(["publish", "t2", JSON.stringify({ n })]);
  const flags = [
    ["--where", "body.n > 1", "--from", "1h ago"],
    ["--from", "1"],
  ];
  for (const each of flags) {
    await using tail = start(["tail", "t2", "--json", ...each], options);
    await waitFor("both messages are printed", () => tail.stdout().split("\n").length === 3);
    const printed = tail.stdout().trimEnd().split("\n");
    expect(printed.map((line) => (JSON.parse(line) as { offset: number }).offset)).toEqual([1, 2]);
  }
});

test("ends a tail with 1 when its filter is wrong, its token unknown or its stream forbidden", async () => {
  const refused = [["t2", "--where", "body.n >"], ["t2", "--token", "nonsense"], ["not a name"]];
  for (const flags of refused) {
    const { exitCode, stderr } = await cli(["tail", ...flags]);
    expect(stderr).toMatch(/^isthmus: [^\n]+\n$/);
    expect(exitCode).toBe(1);
  }
});

test("makes a token that can do what it was made for, lists it, and revokes it", async () => {
  const flags = ["--sub", "phone-7", "--read", "inbox:phone-7", "--write", "chat"];
  const made = await cli(["token", "create", "phone", ...flags, "--expires", "90d"]);
  expect(made.exitCode).toBe(0);
  expect(made.stdout).toMatch(/^ist_\S+\n$/);
  expect(made.stderr).toBe("This token is shown only now: keep it.\n");
  const token = made.stdout.trim();
  await done(["publish", "chat", "hello", "--token", token]);
  const forbidden = await cli(["publish", "orders", "hello", "--token", token]);
  expect(forbidden.exitCode).toBe(1);
  expect(forbidden.stderr).toStartWith("isthmus: ");
  const list = await done(["token", "list"]);
  expect(list).toMatch(/\nphone +phone-7 read inbox:phone-7 write chat +live +20\d\d-/);
  expect(list).not.toContain(token);
  expect(await done(["token", "revoke", "phone"])).toBe("revoked  phone\n");
  expect((await cli(["publish", "chat", "x", "--token", token])).exitCode).toBe(1);
  expect(await done(["token", "list"])).toMatch(/\nphone +.* revoked /);
});

test("makes a token with a role, which is all that it may do", async () => {
  const env = { ...options.env, ISTHMUS_TOKEN: "" };
  const { stdout } = await cli(["token", "create", "watcher", "--role", "viewer"]);
  env.ISTHMUS_TOKEN = stdout.trim();
  expect(await done(["get", "hooks"], { env })).toContain("orders");
  expect((await cli(["delete", "hook", "orders"], { env })).exitCode).toBe(1);
});

test("exports what apply takes back as unchanged, secrets as references", async () => {
  const secret = `bridges:\n  r: { kind: amqp, url: "amqp://127.0.0.1:1", password: s3cret }\n`;
  await cli(["apply", "-f", await file("secret.yaml", secret)]);
  const { stdout: text, stderr } = await cli(["export"]);
  expect(stderr).toContain("definitions of several projects");
  expect(text).not.toContain("s3cret");
  expect(text).toContain("${secret:");
  const { stdout, exitCode } = await cli(["apply", "-f", await file("export.yaml", text)]);
  expect(exitCode).toBe(0);
  expect(stdout).toContain("same     bridges/r\n");
  expect(
    stdout
      .trimEnd()
      .split("\n")
      .every((line) => line.startsWith("same ")),
  ).toBe(true);
  const shopOnly = await done(["export", "--project", "shop", "--json"]);
  expect(JSON.parse(shopOnly)).toHaveProperty("hooks.orders");
});

test("prunes what the project no longer names, and refuses without a project", async () => {
  const rest = "project: shop\nstreams:\n  orders: { partitions: 2 }\n";
  const path = await file("rest.yaml", rest);
  const asked = await cli(["apply", "-f", path, "--prune"]);
  expect(asked.stderr).toMatch(
    /^isthmus: --prune would delete [^\n]*rules\/big[^\n]*--yes[^\n]*\n$/,
  );
  expect([asked.exitCode, asked.stdout]).toEqual([2, ""]);
  const { stdout } = await cli(["apply", "-f", path, "--prune", "--yes"]);
  expect(stdout).toContain("deleted  hooks/orders\n");
  expect(stdout).toContain("deleted  rules/big\n");
  expect(stdout).not.toContain("bridges/r");
  const none = await file("none.yaml", "streams:\n  orders: {}\n");
  const { exitCode, stderr } = await cli(["apply", "-f", none, "--prune"]);
  expect(stderr).toMatch(/^isthmus: [^\n]*project[^\n]*\n$/);
  expect(exitCode).toBe(2);
});

test("deletes a definition, unless it is in use", async () => {
  const use = `rules:\n  a: { from: orders, to: [{ bridge: r, queue: q }] }\n`;
  await cli(["apply", "-f", await file("use.yaml", use)]);
  const used = await cli(["delete", "bridge", "r"]);
  expect(used.exitCode).toBe(1);
  expect(used.stderr).toMatch(/^isthmus: [^\n]*rules\/a[^\n]*\n/);
  expect(await done(["delete", "rule", "a"])).toBe("deleted  rules/a\n");
  expect(await done(["delete", "bridges", "r"])).toBe("deleted  bridges/r\n");
  expect((await cli(["delete", "bridge", "r"])).exitCode).toBe(1);
});

test("ends quietly when its reader goes away", async () => {
  const command = `${process.execPath} ${join(import.meta.dir, "../../src/cli/main.ts")}`;
  const child = Bun.spawn(["sh", "-c", `${command} read many --from earliest | head -n 1`], {
    cwd: folder.path,
    env: { PATH: process.env["PATH"] ?? "", ...options.env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  expect(out.split("\n")).toHaveLength(2);
  expect(err).toBe("");
});
