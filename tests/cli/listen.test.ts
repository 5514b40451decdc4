/** `isthmus listen` against a real gateway, with a program that checks signatures itself. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { freePort, type TemporaryFolder, temporaryFolder, waitFor } from "../temporary.ts";
import { run, type Running, start } from "./run.ts";

const SECRET = "It's a Secret to Everybody";
const BODIES = ["one", '{ "é": "漢" }\r\n', "three"];

let folder: TemporaryFolder;
let gateway: Running;
let env: Record<string, string>;
let url: string;

async function serve(): Promise<Running> {
  const running = start(["serve"], { folder: folder.path, env });
  await waitFor("the gateway answers", async () => {
    const answer = await fetch(`${url}/health/ready`).catch(() => null);
    return answer?.ok === true;
  });
  return running;
}

beforeAll(async () => {
  folder = await temporaryFolder("listen");
  const port = String(await freePort());
  env = { ISTHMUS_PORT: port };
  url = `http://127.0.0.1:${port}`;
  gateway = await serve();
  const document = `hooks:
  github: { stream: mixed, verify: { scheme: github, secret: "${SECRET}" } }
  other: { stream: mixed }
`;
  const applied = await run(["apply", "-f", "-"], { folder: folder.path, env, input: document });
  expect(applied.exitCode).toBe(0);
}, 30_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

function mac(body: Uint8Array | string): string {
  return `sha256=${createHmac("sha256", SECRET).update(body).digest("hex")}`;
}

async function post(hook: string, body: string): Promise<void> {
  const headers = {
    "content-type": "application/json",
    "x-hub-signature-256": mac(body),
    "x-text": Buffer.from("é漢", "utf8").toString("latin1"),
  };
  const response = await fetch(`${url}/hooks/${hook}?a=1`, { method: "POST", body, headers });
  expect(response.status).toBe(202);
}

/** A program that answers 200 to what is signed, and 401 to the rest. */
function program(): { readonly url: string; readonly taken: string[] } & AsyncDisposable {
  const taken: string[] = [];
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request) => {
      const body = await request.bytes();
      taken.push(Buffer.from(body).toString("utf8"));
      const isRight =
        request.headers.get("x-hub-signature-256") === mac(body) &&
        request.headers.get("content-type") === "application/json" &&
        Buffer.from(request.headers.get("x-text") ?? "", "latin1").toString("utf8") === "é漢" &&
        new URL(request.url).search === "?a=1";
      return new Response(null, { status: isRight ? 200 : 401 });
    },
  });
  const stop = (): Promise<void> => server.stop(true);
  return { url: `http://127.0.0.1:${server.port}/in`, taken, [Symbol.asyncDispose]: stop };
}

test("hands out the last and each new webhook of one hook, exactly, through a restart", async () => {
  await using local = program();
  for (const body of BODIES) {
    await post("github", body);
    await post("other", "of another hook");
  }
  const args = ["listen", "github", "--forward", local.url, "--last", "2"];
  await using listening = start(args, { folder: folder.path, env });
  await waitFor("the last two are handed out", () => local.taken.length === 2);
  expect(local.taken).toEqual(BODIES.slice(1));
  await post("github", "four");
  await waitFor("a new one is handed out", () => local.taken.length === 3);
  await gateway[Symbol.asyncDispose]();
  gateway = await serve();
  await post("github", "five");
  await post("other", "of another hook");
  await waitFor("it goes on", () => local.taken.length === 4);
  listening.kill("SIGINT");
  const { exitCode, stdout, stderr } = await listening.ended;
  expect(local.taken).toEqual([...BODIES.slice(1), "four", "five"]);
  const lines = stdout.trimEnd().split("\n");
  expect(lines).toHaveLength(4);
  for (const line of lines)
    expect(line).toMatch(/^POST\t\/hooks\/github\?a=1\t200\t\d+ ms\t0\/\d+$/);
  expect(stderr).toStartWith("listening to hook github, stream mixed, for http://127.0.0.1:");
  expect(exitCode).toBe(0);
  // What comes while nobody listens is there for who goes on.
  await post("github", "six");
  const [, cursor = ""] = / --from (\S+)$/m.exec(stderr) ?? [];
  const again = ["listen", "github", "--forward", local.url, "--json", "--from", cursor];
  await using resumed = start(again, { folder: folder.path, env });
  await waitFor("it goes on", () => local.taken.length === 5);
  await post("github", "seven");
  await waitFor("and on", () => resumed.stdout().split("\n").length === 3);
  resumed.kill("SIGINT");
  expect(local.taken.slice(4)).toEqual(["six", "seven"]);
  const ended = await resumed.ended;
  const told = JSON.parse(ended.stdout.trimEnd().split("\n").at(-1) ?? "") as { cursor: string };
  expect(ended.stderr).toContain(` --from ${told.cursor}`);
}, 60_000);

test("a program that is away is told of, and an unknown hook ends it", async () => {
  const away = `http://127.0.0.1:${await freePort()}/`;
  const args = ["listen", "github", "--forward", away, "--last", "1", "--json"];
  await using listening = start(args, { folder: folder.path, env });
  await waitFor("a line is printed", () => listening.stdout().includes("\n"));
  expect(JSON.parse(listening.stdout())).toMatchObject({
    method: "POST",
    error: expect.stringContaining("not delivered: "),
  });
  listening.kill("SIGINT");
  expect((await listening.ended).exitCode).toBe(0);
  const unknown = await run(["listen", "nothing", "--forward", away], { folder: folder.path, env });
  expect([unknown.exitCode, unknown.stderr]).toEqual([1, "isthmus: there is no hooks/nothing\n"]);
}, 30_000);
