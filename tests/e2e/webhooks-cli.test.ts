/**
 * The way of a new user with each of the six providers of `examples/`: apply the file, send a
 * signed test event, check what is stored once more, and have it handed to a program on this
 * machine whose own check, by the provider's package where there is one, passes.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { verify as verifyGithub } from "@octokit/webhooks-methods";
import { Webhook } from "standardwebhooks";
import { Stripe } from "stripe";
import twilio from "twilio";
import { run, start } from "../cli/run.ts";
import { type TemporaryFolder, temporaryFolder, waitFor } from "../temporary.ts";
import { TestGateway } from "./gateway.ts";

const SECRETS = {
  GITHUB_SECRET: "github's secret",
  SHOPIFY_SECRET: "hush",
  SLACK_SIGNING_SECRET: "8f742231b10e8888abcd99yyyzzz85a5",
  STRIPE_SECRET: "whsec_of_stripe",
  TWILIO_AUTH_TOKEN: "12345",
  WEBHOOK_SECRET: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
};
const PUBLIC_URL = "https://hooks.example.com";
const BODY = '{ "id":"evt_1", "text":"é漢😀",\t"n":1.0 }\r\n';

/** A webhook as a program on this machine gets it. */
interface Handed {
  readonly headers: Headers;
  readonly body: string;
  readonly search: string;
}

interface Provider {
  readonly example: string;
  readonly hook: string;
  readonly scheme: string;
  readonly stream: string;
  /** What `send` prints. */
  readonly answer: RegExp;
  /** The provider's own check; throws or gives false for what is not signed. */
  readonly check: (handed: Handed) => unknown;
}

const RECEIPT = /^202 \{"id":/;

function mac(parts: string, encoding: "hex" | "base64", key: string): string {
  return createHmac("sha256", key).update(parts).digest(encoding);
}

const PROVIDERS: readonly Provider[] = [
  {
    example: "webhook-github.yaml",
    hook: "github",
    scheme: "github",
    stream: "github",
    answer: RECEIPT,
    check: ({ headers, body }) =>
      verifyGithub(SECRETS.GITHUB_SECRET, body, headers.get("x-hub-signature-256") ?? ""),
  },
  {
    example: "webhook-shopify.yaml",
    hook: "shopify",
    scheme: "shopify",
    stream: "shop",
    answer: RECEIPT,
    check: ({ headers, body }) =>
      headers.get("x-shopify-hmac-sha256") === mac(body, "base64", SECRETS.SHOPIFY_SECRET),
  },
  {
    example: "webhook-slack.yaml",
    hook: "slack",
    scheme: "slack",
    stream: "slack",
    answer: /^200\s*$/,
    check: ({ headers, body }) => {
      const signed = `v0:${headers.get("x-slack-request-timestamp") ?? ""}:${body}`;
      const expected = `v0=${mac(signed, "hex", SECRETS.SLACK_SIGNING_SECRET)}`;
      return headers.get("x-slack-signature") === expected;
    },
  },
  {
    example: "webhook-standard.yaml",
    hook: "events",
    scheme: "standard-webhooks",
    stream: "events",
    answer: RECEIPT,
    check: ({ headers, body }) =>
      new Webhook(SECRETS.WEBHOOK_SECRET).verify(body, Object.fromEntries(headers)),
  },
  {
    example: "webhook-stripe.yaml",
    hook: "stripe",
    scheme: "stripe",
    stream: "payments",
    answer: RECEIPT,
    check: ({ headers, body }) =>
      Stripe.webhooks.constructEventAsync(
        body,
        headers.get("stripe-signature") ?? "",
        SECRETS.STRIPE_SECRET,
      ),
  },
  {
    example: "webhook-twilio.yaml",
    hook: "twilio",
    scheme: "twilio",
    stream: "calls",
    answer: /^200 <Response\/>/,
    check: ({ headers, body, search }) =>
      twilio.validateRequestWithBody(
        SECRETS.TWILIO_AUTH_TOKEN,
        headers.get("x-twilio-signature") ?? "",
        `${PUBLIC_URL}/hooks/twilio${search}`,
        body,
      ),
  },
];

let gateway: TestGateway;
let folder: TemporaryFolder;
let env: Record<string, string>;

beforeAll(async () => {
  gateway = await TestGateway.start({ ...SECRETS, ISTHMUS_PUBLIC_URL: PUBLIC_URL });
  folder = await temporaryFolder("webhooks");
  env = { ...SECRETS, ISTHMUS_SERVER: gateway.url, ISTHMUS_TOKEN: gateway.token };
  await writeFile(join(folder.path, "event.json"), BODY);
}, 60_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

/** Runs a command that has to succeed, and gives what it printed. */
async function cli(...args: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await run(args, { folder: folder.path, env });
  expect([args, exitCode, stderr]).toEqual([args, 0, stderr]);
  return stdout;
}

/** A program that answers 200 to what its provider's check takes, and 401 to the rest. */
function program(check: Provider["check"], handed: Handed[]): Bun.Server<undefined> {
  return Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request) => {
      const body = Buffer.from(await request.bytes()).toString("utf8");
      const { headers } = request;
      handed.push({ headers, body, search: new URL(request.url).search });
      const isTaken = await Promise.resolve({ headers, body, search: new URL(request.url).search })
        .then(check)
        .catch(() => false);
      return new Response(null, { status: isTaken === false ? 401 : 200 });
    },
  });
}

test.each(PROVIDERS.map((provider) => [provider.example, provider] as const))(
  "%s: apply, send, check once more, and hand on to a program that checks itself",
  async (example, { hook, scheme, stream, answer, check }) => {
    const path = join(import.meta.dir, "../../examples", example);
    await cli("apply", "-f", path, "--dry-run");
    expect((await gateway.fetch(`/api/hooks/${hook}`)).status).toBe(404);
    await cli("apply", "-f", path);
    expect(await cli("send", hook, "--scheme", scheme, "-f", "event.json")).toMatch(answer);
    const [stored] = await gateway.read(stream);
    expect(stored?.body).toBe(BODY);
    const place = `${stored?.partition}/${stored?.offset}`;
    const verified = await cli("hook", "verify", stream, place);
    expect(verified).toStartWith(`${stream} ${place} holds: hook ${hook}, scheme ${scheme}, env:`);

    const handed: Handed[] = [];
    const local = program(check, handed);
    try {
      const forward = `http://127.0.0.1:${local.port}/in`;
      await using listening = start(["listen", hook, "--forward", forward, "--last", "1"], {
        folder: folder.path,
        env,
      });
      await waitFor("the stored one is handed on", () => listening.stdout().includes("\n"));
      expect(listening.stdout()).toMatch(/^POST\t\/hooks\/\S+\t200\t\d+ ms\t\d+\/\d+\n$/);
      expect(handed.map(({ body }) => body)).toEqual([BODY]);
      listening.kill("SIGINT");
      expect((await listening.ended).exitCode).toBe(0);
    } finally {
      await local.stop(true);
    }
  },
  60_000,
);
