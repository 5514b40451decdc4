/**
 * Whether a webhook's signature holds, and by which key. What is not proven has changed nothing.
 */
import type { Server } from "bun";
import { HookUnavailableError, UnauthorizedError } from "../errors.ts";
import { splitUrl } from "./probes.ts";
import type { Caller } from "./proxies.ts";
import type { HookFace, HttpConfig, HttpContext } from "./services.ts";
import type { VerifyKey } from "./verify/keys.ts";
import { URL_UNKNOWN } from "./verify/verifier.ts";

/** The part of Bun's server that hooks use. */
export type HookServer = Pick<Server<unknown>, "timeout" | "requestIP">;

/** By what a webhook was let in. */
export interface Proof {
  /** Null: nothing was to be proven. */
  readonly key: VerifyKey | null;
  readonly keyId: string;
  /** The URL that was signed, without the query; null where none is. */
  readonly signedUrl: string | null;
}

/** The proof of a hook that asks for none. */
export const UNVERIFIED: Proof = { key: null, keyId: "none", signedUrl: null };

/** @throws UnauthorizedError, HookUnavailableError, KeysUnavailableError: nothing was changed. */
export async function verified(
  call: {
    readonly request: Request;
    readonly hook: HookFace;
    readonly shared: { readonly context: HttpContext };
  },
  came: { readonly body: Uint8Array; readonly atMs: number; readonly caller: Caller },
): Promise<Proof> {
  const { request, hook, shared } = call;
  const { body, atMs, caller } = came;
  const { verifier } = hook;
  if (verifier === undefined) {
    throw new HookUnavailableError("the hook's keys have not been read");
  }
  await verifier.ready();
  const { method, headers } = request;
  const { path, query } = splitUrl(request.url);
  const signedUrl = verifier.signedUrl(shared.context.config.publicUrl ?? urlOf(caller), path);
  const { isProxied } = caller;
  const signed = { method, path, query, headers, body, url: signedUrl, atMs, isProxied };
  let key: VerifyKey;
  try {
    key = verifier.takesTokens ? await verifier.checkToken(signed) : verifier.check(signed);
  } catch (error) {
    // A secret in a file may be another one since it was read.
    const isWrong = error instanceof UnauthorizedError && error.code === "signature-invalid";
    if (!isWrong || !(await verifier.reread())) throw error;
    key = verifier.check(signed);
  }
  return { key, keyId: key.id, signedUrl };
}

/**
 * Why a hook answers 503 to everybody, for its operator; null: it doesn't, as far as is known.
 * Keys that are still being read are no trouble yet.
 */
export function hookTrouble(
  { verifier, document }: HookFace,
  { publicUrl, trustProxies }: Pick<HttpConfig, "publicUrl" | "trustProxies">,
): string | null {
  if (verifier === undefined) return null;
  const { error } = verifier.status();
  if (error !== null || !verifier.signsUrl) return error;
  const own = document.verify?.url ?? null;
  // A trusted proxy tells the URL with each call.
  return own === null && publicUrl === null && trustProxies.length === 0 ? URL_UNKNOWN : null;
}

/** The gateway's own URL, as the caller of a trusted proxy wrote it. */
function urlOf({ protocol, host, isProxied }: Caller): string | null {
  return isProxied && protocol !== null && host !== null ? `${protocol}://${host}` : null;
}
