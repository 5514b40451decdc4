/** How commands find the gateway and the token, and how they tell what went wrong. */
import { expect, test } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freePort, temporaryFolder } from "../temporary.ts";
import { contractServer, problem } from "./contract-server.ts";
import { run } from "./run.ts";

const empty = (): Response => Response.json({ items: [], next: null });

test("says in one line that nothing answers when the gateway is not running", async () => {
  await using folder = await temporaryFolder("cli");
  const port = await freePort();
  const commands = [
    ["get", "rules"],
    ["publish", "orders", "{}"],
    ["read", "orders", "--from", "earliest"],
    ["tail", "orders"],
  ];
  for (const command of commands) {
    const env = { ISTHMUS_PORT: String(port) };
    expect(await run(command, { folder: folder.path, env })).toEqual({
      exitCode: 1,
      stdout: "",
      stderr: `isthmus: nothing answers at http://127.0.0.1:${port}: is the gateway running? (isthmus serve)\n`,
    });
  }
});

test("takes the token from the flag, then ISTHMUS_TOKEN, then ISTHMUS_ADMIN_TOKEN, then the data folder", async () => {
  const seen: (string | null)[] = [];
  await using server = contractServer({
    answer: (request) => {
      seen.push(request.headers.get("authorization"));
      return empty();
    },
  });
  await using folder = await temporaryFolder("cli");
  const data = join(folder.path, "elsewhere");
  await mkdir(data);
  await writeFile(join(data, "admin-token"), "of-the-folder\n");
  const env: Record<string, string> = {
    ISTHMUS_SERVER: server.url,
    ISTHMUS_DATA: data,
    ISTHMUS_ADMIN_TOKEN: "of-the-admin",
    ISTHMUS_TOKEN: "of-the-environment",
  };
  const get = (...flags: string[]) => run(["get", "rules", ...flags], { folder: folder.path, env });
  await get("--token", "of-the-flag");
  await get();
  delete env["ISTHMUS_TOKEN"];
  await get();
  delete env["ISTHMUS_ADMIN_TOKEN"];
  await get();
  expect(seen).toEqual(
    ["flag", "environment", "admin", "folder"].map((each) => `Bearer of-the-${each}`),
  );
});

test("speaks to the settings' own listener for administration", async () => {
  await using admin = contractServer({ answer: empty });
  await using folder = await temporaryFolder("cli");
  const { port } = new URL(admin.url);
  await writeFile(join(folder.path, "isthmus.yaml"), `adminPort: ${port}\nport: 1\n`);
  const ran = await run(["get", "rules"], { folder: folder.path, env: { ISTHMUS_TOKEN: "t" } });
  expect(ran.exitCode).toBe(0);
  expect(admin.calls).toEqual(["GET /api/rules"]);
});

test("reaches a gateway on this machine past a proxy of the environment", async () => {
  await using server = contractServer({ answer: empty });
  await using folder = await temporaryFolder("cli");
  const proxy = { HTTP_PROXY: "http://127.0.0.1:1", http_proxy: "http://127.0.0.1:1" };
  const env = { ...proxy, NO_PROXY: "example.org", ISTHMUS_SERVER: server.url, ISTHMUS_TOKEN: "t" };
  const ran = await run(["get", "rules"], { folder: folder.path, env });
  expect(ran).toEqual({ exitCode: 0, stdout: "", stderr: "there are no rules\n" });
});

test("says where a token was looked for when the gateway wants one", async () => {
  await using server = contractServer({
    answer: () => problem(401, { code: "unauthorized", detail: "a token is needed" }),
  });
  await using folder = await temporaryFolder("cli");
  const env = { ISTHMUS_SERVER: server.url };
  const { exitCode, stderr } = await run(["get", "rules"], { folder: folder.path, env });
  expect(exitCode).toBe(1);
  expect(stderr).toStartWith("isthmus: a token is needed\n  no token was sent: there is no ");
  expect(stderr).toEndWith("data/admin-token; give one with --token or ISTHMUS_TOKEN\n");
});

test("tells a problem's detail, and one line for each of its errors", async () => {
  await using server = contractServer({
    answer: () => {
      return problem(400, {
        code: "invalid",
        detail: "2 things are wrong",
        errors: [
          { pointer: "/name", detail: "expected a name" },
          { pointer: "/where", detail: "expected )", line: 2, column: 7 },
        ],
      });
    },
  });
  await using folder = await temporaryFolder("cli");
  const env = { ISTHMUS_SERVER: server.url, ISTHMUS_TOKEN: "t" };
  expect(await run(["get", "rules"], { folder: folder.path, env })).toEqual({
    exitCode: 2,
    stdout: "",
    stderr:
      "isthmus: 2 things are wrong\n  /name: expected a name\n  /where, line 2, column 7: expected )\n",
  });
});

test("shows control characters from outside as escapes", async () => {
  const detail = "\u001b[31mred\u001b[0m\nisthmus: forged \u202e";
  await using server = contractServer({
    answer: (request) => {
      if (request.method === "DELETE") return problem(404, { code: "not-found", detail });
      const message = { partition: 0, offset: 0, key: detail, body: detail, appendedAt: 0 };
      return Response.json({ messages: [message], next: "c", atEnd: true, gap: null });
    },
  });
  await using folder = await temporaryFolder("cli");
  const env = { ISTHMUS_SERVER: server.url, ISTHMUS_TOKEN: "t" };
  const shown = "\\u001b[31mred\\u001b[0m\\nisthmus: forged \\u202e";
  const deleted = await run(["delete", "rule", "x"], { folder: folder.path, env });
  expect(deleted.stderr).toBe(`isthmus: ${shown}\n`);
  const read = await run(["read", "s", "--from", "earliest"], { folder: folder.path, env });
  expect(read.stdout).toBe(`0/0\t1970-01-01T00:00:00.000Z\t${shown}\t${shown}\n`);
});

test("says that another program is no gateway, without a trace", async () => {
  await using server = contractServer({ answer: () => new Response("<html>hello</html>") });
  await using folder = await temporaryFolder("cli");
  const env = { ISTHMUS_SERVER: server.url, ISTHMUS_TOKEN: "t" };
  for (const command of [
    ["get", "rules"],
    ["tail", "s"],
    ["publish", "s", "x"],
  ]) {
    const { exitCode, stderr } = await run(command, { folder: folder.path, env });
    expect(stderr).toMatch(/^isthmus: [^\n]+\n$/);
    expect(exitCode).toBe(1);
  }
});

test("follows a list over its pages", async () => {
  await using server = contractServer({
    answer: (request) => {
      const after = new URL(request.url).searchParams.get("after");
      const name = after === null ? "a" : "b";
      const item = {
        name,
        revision: 1,
        document: { from: "orders" },
        status: { state: "running" },
      };
      return Response.json({ items: [item], next: after === null ? "page2" : null });
    },
  });
  await using folder = await temporaryFolder("cli");
  const env = { ISTHMUS_SERVER: server.url, ISTHMUS_TOKEN: "t" };
  const { stdout } = await run(["get", "rules"], { folder: folder.path, env });
  expect(stdout).toBe(
    "NAME  REVISION  FROM    STATE    DETAIL\n" +
      "a            1  orders  running\n" +
      "b            1  orders  running\n",
  );
});

test("reads page by page up to --max, and tells of messages that are gone", async () => {
  await using server = contractServer({
    answer: (request) => {
      const { searchParams } = new URL(request.url);
      const from = searchParams.get("from") ?? "";
      const offset = from === "earliest" ? 5 : Number(from.slice(1));
      const gap = { partition: 0, from: 0, to: 5, reason: "retention" };
      return Response.json({
        messages: [{ partition: 0, offset, key: null, body: null, appendedAt: 0 }],
        next: `c${offset + 1}`,
        atEnd: false,
        gap: from === "earliest" ? gap : null,
      });
    },
  });
  await using folder = await temporaryFolder("cli");
  const env = { ISTHMUS_SERVER: server.url, ISTHMUS_TOKEN: "t" };
  const args = ["read", "s", "--from", "earliest", "--to", "1h ago", "--max", "3"];
  const { stdout, stderr, exitCode } = await run(args, { folder: folder.path, env });
  const time = "1970-01-01T00:00:00.000Z";
  expect(stdout).toBe([5, 6, 7].map((each) => `0/${each}\t${time}\t-\t(tombstone)\n`).join(""));
  expect(stderr).toBe("s/0: messages from 0 to 5 are gone (retention)\n");
  expect(exitCode).toBe(0);
  const ends = server.calls.map((call) => new URLSearchParams(call.split("?")[1]).get("to"));
  expect(ends).toHaveLength(3);
  // The end was counted from now once, and stays where it is.
  expect(new Set(ends).size).toBe(1);
  expect(ends[0]).toMatch(/^\d{4}-\d\d-\d\dT/);
});
