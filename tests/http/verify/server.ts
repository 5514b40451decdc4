/** The server of the HTTP tests, with hooks that verify their senders. */
import { systemClock } from "../../../src/clock.ts";
import { InvalidError } from "../../../src/errors.ts";
import type { HookFace } from "../../../src/http/services.ts";
import { KeyUses } from "../../../src/http/verify/uses.ts";
import { verifierOf } from "../../../src/http/verify/verifier.ts";
import { signWebhook } from "../../../src/http/verify/sign.ts";
import type { HookDocument, Json, VerifyDocument } from "../../../src/rules/document.ts";
import { parseDefinition } from "../../../src/rules/parse.ts";
import { type Answer, type TestOptions, type TestServer, testServer } from "../support.ts";

/** What references stand for: `${env:KEY}`; literals of documents are `SECRET` too. */
export const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/** A server whose hooks have verifiers, as the gateway makes them. */
export async function verifiedServer(
  hooks: Readonly<Record<string, Readonly<Record<string, Json>>>>,
  options: TestOptions = {},
): Promise<TestServer> {
  const server = await testServer(options);
  const { gateway } = server;
  const plain = gateway.hook.bind(gateway);
  const made = new WeakMap<HookDocument, HookFace>();
  const { clock = systemClock } = options;
  const resolve = (text: string): Promise<string> =>
    text.includes("MISSING")
      ? Promise.reject(new InvalidError(`${text} can't be resolved`))
      : Promise.resolve(text.includes("${") ? SECRET : text);
  gateway.hook = (name) => {
    const hook = plain(name);
    if (hook === undefined) return undefined;
    const known = made.get(hook.document);
    if (known !== undefined) return known;
    const verifier = verifierOf(hook.document, {
      resolve,
      clock,
      uses: new KeyUses(gateway.states, name),
      fetch: (url, init) => fetch(url, init),
    });
    const face = verifier === null ? hook : { ...hook, verifier };
    made.set(hook.document, face);
    return face;
  };
  for (const [name, document] of Object.entries(hooks)) await define(server, name, document);
  return server;
}

/** Makes or changes a hook. */
export async function define(
  server: TestServer,
  name: string,
  document: Readonly<Record<string, Json>>,
): Promise<void> {
  const answer = await server.call("PUT", `/api/hooks/${name}`, { body: JSON.stringify(document) });
  if (answer.status > 201) throw new Error(answer.text);
}

/** What is sent, and by which scheme. */
export interface Delivery {
  readonly scheme: string;
  readonly body: string;
  readonly id?: string;
  readonly secret?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly url?: string;
}

/** Headers and query of a webhook signed in this moment. */
export function signedNow(delivery: Delivery): { headers: Record<string, string>; query: string } {
  const { scheme, body, id = "msg_1", secret = SECRET, url = "http://x/hooks/in" } = delivery;
  const { headers, query } = signWebhook(documentOf(scheme), secret, {
    method: "POST",
    url,
    body: Buffer.from(body),
    contentType: "application/json",
    id,
    atMs: systemClock.nowMs(),
  });
  return {
    headers: { "content-type": "application/json", ...headers, ...delivery.headers },
    query,
  };
}

function documentOf(scheme: string): VerifyDocument {
  const context = { modules: new Map(), bridges: new Map() };
  const document = { stream: "s", verify: { scheme, secret: "x" } };
  const { verify } = parseDefinition("hooks", "in", document, context) as HookDocument;
  if (verify === null) throw new Error("nothing is verified");
  return verify;
}

/** Signs and posts a webhook. */
export async function deliver(
  server: TestServer,
  hook: string,
  delivery: Delivery,
): Promise<Answer> {
  const { headers, query } = signedNow(delivery);
  const { body } = delivery;
  return await server.call("POST", `/hooks/${hook}${query}`, { body, headers, token: null });
}
