/**
 * `isthmus send` against the providers' own packages: what the program signs and posts is read
 * back from a hook that verifies nothing, as it came, and each package takes it by its own check,
 * with the right secret only.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { verify as verifyGithub } from "@octokit/webhooks-methods";
import { Webhook as StandardWebhook } from "standardwebhooks";
import { Stripe } from "stripe";
import { Webhook as SvixWebhook } from "svix";
import twilio from "twilio";
import { TestGateway } from "../e2e/gateway.ts";
import { type TemporaryFolder, temporaryFolder } from "../temporary.ts";
import { run } from "./run.ts";

const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const JSON_TEXT = '{ "id":"evt_1", "text":"é漢😀",\t"n":1.0 }\r\n';
const FIELDS = { From: "+14158675309", Body: "é漢 & more = 1+1%", Empty: "", CallSid: "CA1" };
const FORM_TYPE = "application/x-www-form-urlencoded";

/** A webhook as the hook got it. */
interface Came {
  readonly headers: Record<string, string>;
  readonly body: string;
  readonly url: string;
}

interface Oracle {
  readonly scheme: string;
  readonly isForm?: true;
  /** Throws, or gives false, where the package does not take it. */
  readonly check: (secret: string, came: Came) => unknown;
}

const ORACLES: Readonly<Record<string, Oracle>> = {
  standardwebhooks: {
    scheme: "standard-webhooks",
    check: (secret, { headers, body }) => new StandardWebhook(secret).verify(body, headers),
  },
  svix: {
    scheme: "standard-webhooks",
    check: (secret, { headers, body }) => {
      new SvixWebhook(secret).verify(body, headers);
    },
  },
  stripe: {
    scheme: "stripe",
    check: (secret, { headers, body }) =>
      Stripe.webhooks.constructEventAsync(body, headers["stripe-signature"] ?? "", secret),
  },
  "@octokit/webhooks-methods": {
    scheme: "github",
    check: (secret, { headers, body }) =>
      verifyGithub(secret, body, headers["x-hub-signature-256"] ?? ""),
  },
  "twilio, JSON": {
    scheme: "twilio",
    check: (secret, { headers, body, url }) =>
      twilio.validateRequestWithBody(secret, headers["x-twilio-signature"] ?? "", url, body),
  },
  "twilio, form": {
    scheme: "twilio",
    isForm: true,
    check: (secret, { headers, url }) =>
      twilio.validateRequest(secret, headers["x-twilio-signature"] ?? "", url, FIELDS),
  },
};

let gateway: TestGateway;
let folder: TemporaryFolder;

beforeAll(async () => {
  gateway = await TestGateway.start();
  folder = await temporaryFolder("send-oracles");
  await writeFile(join(folder.path, "event.json"), JSON_TEXT);
  await writeFile(join(folder.path, "event.form"), new URLSearchParams(FIELDS).toString());
  await gateway.apply({ hooks: { open: { stream: "came" } } });
}, 60_000);

afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

async function sent({ scheme, isForm }: Oracle): Promise<Came> {
  const file = isForm ? ["event.form", "--type", FORM_TYPE] : ["event.json"];
  const args = ["send", "open", "--scheme", scheme, "--secret", SECRET, "-f", ...file];
  const env = { ISTHMUS_SERVER: gateway.url, ISTHMUS_TOKEN: gateway.token };
  const { exitCode, stderr } = await run(args, { folder: folder.path, env });
  expect([exitCode, stderr]).toEqual([0, ""]);
  const last = (await gateway.read("came")).at(-1);
  const { path, query = "" } = (last?.origin?.["http"] ?? {}) as { path?: string; query?: string };
  const headers = Object.fromEntries(
    (last?.headers ?? []).map(([name, value]) => [name, String(value)]),
  );
  return { headers, body: last?.body ?? "", url: `${gateway.url}${path}${query}` };
}

async function takes(oracle: Oracle, secret: string, came: Came): Promise<boolean> {
  try {
    return (await oracle.check(secret, came)) !== false;
  } catch {
    return false;
  }
}

test.each(Object.entries(ORACLES))("what it sends is taken by %s", async (_name, oracle) => {
  const came = await sent(oracle);
  expect(came.body).toBe(oracle.isForm ? new URLSearchParams(FIELDS).toString() : JSON_TEXT);
  expect(await takes(oracle, SECRET, came)).toBe(true);
  expect(await takes(oracle, OTHER, came)).toBe(false);
});
