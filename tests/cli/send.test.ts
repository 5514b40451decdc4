/** `isthmus send` and `hook verify` against a real gateway. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freePort, type TemporaryFolder, temporaryFolder, waitFor } from "../temporary.ts";
import { type Ran, type Running, run, start } from "./run.ts";

let folder: TemporaryFolder;
let gateway: Running;
let env: Record<string, string>;

/** A provider's key pairs, as far as a test has them. */
const ED25519 = generateKeyPairSync("ed25519");
const P256 = generateKeyPairSync("ec", { namedCurve: "P-256" });
const RAW = ED25519.publicKey.export({ type: "spki", format: "der" }).subarray(-32);
const SPKI = P256.publicKey.export({ type: "spki", format: "der" }).toString("base64");
const RSA = generateKeyPairSync("rsa", { modulusLength: 2048 });
const RSA_PEM = RSA.publicKey.export({ type: "spki", format: "pem" }).toString();
const JWT_SECRET = "0123456789abcdef0123456789abcdef";
const SUBJECT = 'CN="a, b",O=c';

const hooks = `hooks:
  stripe: { stream: payments, verify: { scheme: stripe, secret: "\${env:STRIPE_SECRET}" } }
  calls: { stream: calls, verify: { scheme: twilio, secret: token-1, url: "https://a.example/t" } }
  own:
    stream: own
    verify: { scheme: hmac, secret: k, header: X-Sign, base: "{timestamp}:{body}", timestampHeader: X-Time }
  discord: { stream: chat, verify: { scheme: discord, publicKey: "${RAW.toString("hex")}" } }
  mail: { stream: mail, verify: { scheme: sendgrid, publicKey: "${SPKI}" } }
  v1a: { stream: v1a, verify: { scheme: standard-webhooks, secret: "whpk_${RAW.toString("base64")}" } }
  shared: { stream: shared, verify: { scheme: jwt, secret: "\${env:JWT_SECRET}", audience: a, issuer: [i, j], subject: iss } }
  rsa: { stream: rsa, verify: { scheme: jwt, publicKey: ${JSON.stringify(RSA_PEM)}, algorithms: [RS256] } }
  xfcc: { stream: tls, verify: { scheme: mtls, subject: ${JSON.stringify(SUBJECT)} } }
  nginx: { stream: tls, verify: { scheme: mtls, header: x-fp, verifiedHeader: x-ok, fingerprint: ${"ab".repeat(20)} } }
  missing: { stream: s, verify: { scheme: github, secret: "\${env:NOT_SET}" } }
  open: { stream: s }
`;

beforeAll(async () => {
  folder = await temporaryFolder("send");
  const port = String(await freePort());
  env = { ISTHMUS_PORT: port };
  gateway = start(["serve", "--port", port], {
    folder: folder.path,
    env: { STRIPE_SECRET: "whsec_test", JWT_SECRET, ISTHMUS_TRUST_PROXIES: "127.0.0.1" },
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

async function keyFile(name: string, key: KeyObject): Promise<string> {
  const path = join(folder.path, name);
  await writeFile(path, key.export({ type: "pkcs8", format: "pem" }));
  return path;
}

test("a private key of one's own stands in for the provider's", async () => {
  const ed25519 = await keyFile("ed25519.pem", ED25519.privateKey);
  const p256 = await keyFile("p256.pem", P256.privateKey);
  const rsa = await keyFile("rsa.pem", RSA.privateKey);
  const sent = async (hook: string, key: string): Promise<string> => {
    const { stdout, stderr } = await send(hook, "--private-key", key);
    return stdout.slice(0, 3) || stderr;
  };
  expect(await sent("discord", ed25519)).toBe("204");
  expect(await sent("mail", p256)).toBe("202");
  expect(await sent("v1a", ed25519)).toBe("202");
  expect(await sent("rsa", rsa)).toBe("202");
  const other = await keyFile("other.pem", generateKeyPairSync("ed25519").privateKey);
  expect(await sent("discord", other)).toContain("signature-invalid");
  expect(await sent("discord", p256)).toContain("not signed with a private key of this kind");
  expect(await sent("stripe", ed25519)).toContain("not signed with a private key of this kind");
  expect(await sent("rsa", p256)).toContain("a key of type ec signs nothing that the hook takes");
  const whsk = `whsk_${ED25519.privateKey.export({ type: "pkcs8", format: "der" }).subarray(-32).toString("base64")}`;
  expect((await send("v1a", "--secret", whsk, "--id", "msg_2")).stdout).toContain(
    '"duplicate":false',
  );
}, 30_000);

test("makes the tokens of a shared secret, and tells of certificates as a proxy does", async () => {
  const token = await send("shared", "--secret", JWT_SECRET);
  expect([token.exitCode, token.stderr]).toEqual([0, ""]);
  const wrong = await send("shared", "--secret", JWT_SECRET.toUpperCase());
  expect(wrong.stderr).toContain("signature-invalid");
  expect((await send("xfcc", "--secret", SUBJECT)).stderr).toBe("");
  expect((await send("nginx", "--secret", "AB:".repeat(20).slice(0, -1))).stderr).toBe("");
  expect((await send("nginx", "--secret", "cd".repeat(20))).stderr).toContain("signature-invalid");
});

test("says what can't be signed", async () => {
  const discord = await send("discord", "--secret", "x");
  expect([discord.exitCode, discord.stderr]).toEqual([
    2,
    "isthmus: the scheme is signed with a private key: give --private-key\n",
  ]);
  const both = await send("discord", "--secret", "x", "--private-key", "y");
  expect(both.exitCode).toBe(2);
  const away = await send("discord", "--private-key", "not-there.pem");
  expect(away.stderr).toContain("can't be read (ENOENT)");
  const unknown = await send("open", "--scheme", "strip", "--secret", "x");
  expect([unknown.exitCode, unknown.stderr]).toEqual([
    2,
    expect.stringContaining('there is no scheme "strip"; did you mean "stripe"?'),
  ]);
  const nowhere = await send("nowhere");
  expect(nowhere.exitCode).toBe(1);
});
