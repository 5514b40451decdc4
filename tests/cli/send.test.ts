/** `isthmus send` and `hook verify` against a real gateway. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freePort, type TemporaryFolder, temporaryFolder, waitFor } from "../temporary.ts";
import { type Ran, type Running, run, start } from "./run.ts";

let folder: TemporaryFolder;
let gateway: Running;
let env: Record<string, string>;

const hooks = `hooks:
  stripe: { stream: payments, verify: { scheme: stripe, secret: "\${env:STRIPE_SECRET}" } }
  calls: { stream: calls, verify: { scheme: twilio, secret: token-1, url: "https://a.example/t" } }
  own:
    stream: own
    verify: { scheme: hmac, secret: k, header: X-Sign, base: "{timestamp}:{body}", timestampHeader: X-Time }
  discord: { stream: chat, verify: { scheme: discord, publicKey: "${"ab".repeat(32)}" } }
  missing: { stream: s, verify: { scheme: github, secret: "\${env:NOT_SET}" } }
  open: { stream: s }
`;

beforeAll(async () => {
  folder = await temporaryFolder("send");
  const port = String(await freePort());
  env = { ISTHMUS_PORT: port };
  gateway = start(["serve", "--port", port], {
    folder: folder.path,
    env: { STRIPE_SECRET: "whsec_test" },
  });
  await waitFor("the gateway answers", async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/health/ready`).catch(() => null);
    return answer?.ok === true;
  });
  await writeFile(join(folder.path, "event.json"), '{"id":"evt_1"}');
  await writeFile(join(folder.path, "hooks.yaml"), hooks);
  const applied = await cli("apply", "-f", "hooks.yaml");
  expect(applied.stderr).toBe(
    "warning: hook open is not verified: whoever knows its address can send to it\n" +
      "warning: hook missing answers 503 until this is mended: ${env:NOT_SET} can't be resolved: the environment variable is not set\n",
  );
  expect(applied.exitCode).toBe(0);
}, 30_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

function cli(...args: string[]): Promise<Ran> {
  return run(args, { folder: folder.path, env });
}

async function send(...args: string[]): Promise<Ran> {
  return await cli("send", ...args, "-f", "event.json");
}

test("signs as the hook's scheme wants it, and the gateway can check it again", async () => {
  const sent = await send("stripe", "--secret", "whsec_test");
  expect([sent.exitCode, sent.stderr]).toEqual([0, ""]);
  expect(sent.stdout).toStartWith('202 {"id":');
  const verified = await cli("hook", "verify", "payments", "0/0");
  expect(verified.stdout).toBe(
    "payments 0/0 holds: hook stripe, scheme stripe, env:STRIPE_SECRET\n",
  );
  const none = await cli("hook", "verify", "payments", "0/7");
  expect([none.exitCode, none.stderr]).toEqual([
    1,
    "isthmus: there is no message at payments/0/7\n",
  ]);
});

test("takes the secret from the variable that the hook names", async () => {
  const own = { ...env, STRIPE_SECRET: "whsec_test" };
  const args = ["send", "stripe", "-f", "event.json"];
  const sent = await run(args, { folder: folder.path, env: own });
  expect(sent.stdout).toContain('"duplicate":true');
  const nothing = await send("stripe");
  expect([nothing.exitCode, nothing.stderr]).toEqual([
    2,
    "isthmus: no secret to sign with: give --secret\n",
  ]);
});

test("a refusal ends with 1 and says what the hook answered", async () => {
  const sent = await send("stripe", "--secret", "wrong");
  expect(sent.exitCode).toBe(1);
  expect(sent.stderr).toContain("the hook answered 401");
  expect(sent.stderr).toContain("signature-invalid");
  const unset = await send("missing", "--secret", "x");
  expect(unset.stderr).toContain("the hook answered 503");
  expect(unset.stderr).toContain("${env:NOT_SET} can't be resolved");
  const status = await cli("get", "hooks", "--json");
  expect(status.stdout).toContain("the environment variable is not set");
});

test("signs the hook's own URL, settings of one's own, and nothing", async () => {
  expect((await send("calls", "--secret", "token-1")).stdout).toBe("204\n");
  const own = await send("own", "--secret", "k");
  expect([own.exitCode, own.stderr]).toEqual([0, ""]);
  expect((await send("open")).exitCode).toBe(0);
});

test("a changed secret counts at once, and the one before no more", async () => {
  const define = (secret: string): Promise<Ran> => {
    const input = `hooks: { turning: { stream: s, verify: { scheme: github, secret: ${secret} } } }`;
    return run(["apply", "-f", "-"], { folder: folder.path, env, input });
  };
  for (const secret of ["first", "second"]) {
    expect((await define(secret)).exitCode).toBe(0);
    expect((await send("turning", "--secret", secret)).exitCode).toBe(0);
  }
  expect((await send("turning", "--secret", "first")).stderr).toContain("signature-invalid");
});

test("a secret in a file that is replaced counts without a restart, and the one before no more", async () => {
  const path = join(folder.path, "secret");
  await writeFile(path, "first\n");
  const verify = `{ scheme: github, secret: "\${file:${path}}" }`;
  const input = `hooks: { filed: { stream: s, verify: ${verify} } }`;
  const applied = await run(["apply", "-f", "-"], { folder: folder.path, env, input });
  expect([applied.exitCode, applied.stderr]).toEqual([0, ""]);
  expect((await send("filed", "--secret", "first")).exitCode).toBe(0);
  await writeFile(path, "second\n");
  await waitFor("the new one counts", async () => {
    return (await send("filed", "--secret", "second")).exitCode === 0;
  });
  expect((await send("filed", "--secret", "first")).stderr).toContain("signature-invalid");
}, 30_000);

test("says what can't be signed", async () => {
  const discord = await send("discord", "--secret", "x");
  expect(discord.stderr).toContain("signed with a private key that only its provider has");
  const unknown = await send("open", "--scheme", "strip", "--secret", "x");
  expect([unknown.exitCode, unknown.stderr]).toEqual([
    2,
    expect.stringContaining('there is no scheme "strip"; did you mean "stripe"?'),
  ]);
  const nowhere = await send("nowhere");
  expect(nowhere.exitCode).toBe(1);
});
