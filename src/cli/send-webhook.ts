/**
 * What `isthmus send` does: signs a file as a provider would and posts it to a hook, to try the
 * hook out without the provider. The scheme and its settings are read from the hook; the secret is
 * not to be had from the gateway and comes from a flag, or the variable that the hook refers to.
 */
import { readFile } from "node:fs/promises";
import { InvalidError } from "../errors.ts";
import { signWebhook } from "../http/verify/sign.ts";
import type { HookDocument, Json, JsonObject, VerifyDocument } from "../rules/document.ts";
import { parseDefinition } from "../rules/parse.ts";
import { referencesIn, withoutReferences } from "../rules/store/references.ts";
import { type Client, connect } from "./client.ts";
import type { ConnectionFlags } from "./connection.ts";
import { CliError, UsageError } from "./failure.ts";
import { Output } from "./output.ts";
import { readInput } from "./publish.ts";

/** Its flags. */
export interface SendFlags extends ConnectionFlags {
  readonly file: string;
  readonly scheme?: string;
  readonly secret?: string;
  readonly privateKey?: string;
  readonly type: string;
  readonly id?: string;
}

/** Runs the command. */
export async function send(hook: string, flags: SendFlags): Promise<void> {
  const client = await connect(flags);
  const output = new Output(flags);
  const body = await bodyOf(flags.file);
  const path = `/hooks/${encodeURIComponent(hook)}`;
  const { verify, url, trouble } = await lookUp(client, hook, flags);
  const headers: Record<string, string> = { "content-type": flags.type };
  let query = "";
  if (verify !== null) {
    const signed = signWebhook(verify, await keyOf(verify, flags), {
      method: "POST",
      url: url ?? `${client.connection.url}${path}`,
      body,
      contentType: flags.type,
      id: flags.id ?? `msg_${crypto.randomUUID()}`,
      atMs: Date.now(),
    });
    Object.assign(headers, signed.headers);
    query = signed.query;
  }
  const target = `${client.connection.url}${path}${query}`;
  await post(client, target, { headers, body, output, trouble });
}

interface Posted {
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
  readonly output: Output;
  /** What the gateway says is wrong with the hook; null: nothing. */
  readonly trouble: string | null;
}

async function post(
  client: Client,
  url: string,
  { headers, body, output, trouble }: Posted,
): Promise<void> {
  const response = await fetch(url, { method: "POST", headers, body, redirect: "manual" }).catch(
    (cause: unknown) => {
      throw client.unreachable(url, cause);
    },
  );
  const text = await response.text();
  if (output.json) await output.value({ status: response.status, body: text });
  else if (response.ok) await output.line(`${response.status} ${text}`.trimEnd());
  if (response.ok) return;
  const why = trouble === null ? "" : `: ${trouble}`;
  throw new CliError(`the hook answered ${response.status} ${text}`.trimEnd() + why);
}

interface Known {
  readonly verify: VerifyDocument | null;
  /** As the gateway knows itself; null when it has no public URL. */
  readonly url: string | null;
  readonly trouble: string | null;
}

/** How the hook verifies, and the URL that it takes for its own. */
async function lookUp(client: Client, hook: string, flags: SendFlags): Promise<Known> {
  const { json } = await client.call({ path: `/api/hooks/${encodeURIComponent(hook)}` });
  const { document, status } = (json ?? {}) as {
    readonly document?: JsonObject;
    readonly status?: { readonly url?: unknown; readonly error?: unknown };
  };
  const own = (document?.["verify"] ?? { scheme: "none" }) as JsonObject;
  const isOwn = flags.scheme === undefined || flags.scheme === own["scheme"];
  const verify = verifyOf(isOwn ? own : bareVerify(flags.scheme ?? "none"));
  const url = verify?.url ?? status?.url;
  const error = status?.error;
  return {
    verify,
    url: typeof url === "string" && URL.canParse(url) ? url : null,
    trouble: typeof error === "string" ? error : null,
  };
}

/** A scheme without settings of its own: what has some is sent to a hook that has them. */
function bareVerify(scheme: string): JsonObject {
  if (scheme === "none") return { scheme };
  const isPublic = scheme === "discord" || scheme === "sendgrid";
  return { scheme, [isPublic ? "publicKey" : "secret"]: "-" };
}

function verifyOf(verify: Json): VerifyDocument | null {
  const context = { modules: new Map(), bridges: new Map() };
  try {
    return (parseDefinition("hooks", "it", { stream: "s", verify }, context) as HookDocument)
      .verify;
  } catch (error) {
    if (error instanceof InvalidError) throw new UsageError(error.message);
    throw error;
  }
}

/** The text of a secret, or of a private key. */
async function keyOf(verify: VerifyDocument, flags: SendFlags): Promise<string> {
  const { secret, privateKey } = flags;
  if (privateKey !== undefined && secret !== undefined) {
    throw new UsageError("--secret and --private-key: give one of them");
  }
  if (privateKey !== undefined) return Buffer.from(await bodyOf(privateKey)).toString("utf8");
  if (secret !== undefined) return secret;
  for (const text of textsOf(verify)) {
    const [reference] = referencesIn(text);
    if (reference?.from !== "env" || withoutReferences(text) !== "") continue;
    const value = process.env[reference.name];
    if (value !== undefined && value !== "") return value;
  }
  throw new UsageError("no secret to sign with: give --secret");
}

function textsOf({ secrets, jwt }: VerifyDocument): readonly string[] {
  if (jwt === null) return secrets.map(({ text }) => text);
  return jwt.jwt.keys.from === "secrets" ? jwt.jwt.keys.texts : [];
}

async function bodyOf(path: string): Promise<Uint8Array> {
  if (path === "-") return await readInput();
  try {
    return await readFile(path);
  } catch (cause) {
    const code = (cause as { code?: string }).code ?? "unknown";
    throw new UsageError(`${path} can't be read (${code})`);
  }
}
