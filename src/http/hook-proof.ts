/**
 * Whether a webhook's signature holds, and by which key. What is not proven has changed nothing.
 */
import type { Server } from "bun";
import { HookUnavailableError, UnauthorizedError } from "../errors.ts";
import { splitUrl } from "./probes.ts";
import type { Caller } from "./proxies.ts";
import type { HookFace, HttpConfig, HttpContext } from "./services.ts";
import type { SignedRequest } from "./verify/engine.ts";
import type { VerifyKey } from "./verify/keys.ts";
import { URL_UNKNOWN, type Verifier } from "./verify/verifier.ts";

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

/** A webhook whose body is there, and who has sent it. */
interface Came {
  readonly body: Uint8Array;
  readonly atMs: number;
  readonly caller: Caller;
}

/** What is asked for a proof. */
interface Asked {
  readonly request: Request;
  readonly hook: HookFace;
  readonly shared: { readonly context: HttpContext };
}

/**
 * The proof; at once, where the keys are there and a signature fits, as nearly always.
 * @throws UnauthorizedError, HookUnavailableError, KeysUnavailableError: nothing was changed.
 */
export function verified(asked: Asked, came: Came): Proof | Promise<Proof> {
  const { verifier } = asked.hook;
  if (verifier === undefined) {
    throw new HookUnavailableError("the hook's keys have not been read");
  }
  if (!verifier.isReady) return verifiedLater(verifier, asked, came);
  const signed = signedRequest(verifier, asked, came);
  if (verifier.takesTokens) {
    return verifier.checkToken(signed).then((key) => proofBy(key, signed));
  }
  try {
    return proofBy(verifier.check(signed), signed);
  } catch (error) {
    return verifiedAgain(verifier, signed, error);
  }
}

async function verifiedLater(verifier: Verifier, asked: Asked, came: Came): Promise<Proof> {
  await verifier.ready();
  return await verified(asked, came);
}

/** A secret in a file may be another one since it was read. */
async function verifiedAgain(
  verifier: Verifier,
  signed: SignedRequest,
  error: unknown,
): Promise<Proof> {
  const isWrong = error instanceof UnauthorizedError && error.code === "signature-invalid";
  if (!isWrong || !(await verifier.reread())) throw error;
  return proofBy(verifier.check(signed), signed);
}

function proofBy(key: VerifyKey, { url }: SignedRequest): Proof {
  return { key, keyId: key.id, signedUrl: url };
}

function signedRequest(verifier: Verifier, { request, shared }: Asked, came: Came): SignedRequest {
  const { body, atMs, caller } = came;
  const { method, headers } = request;
  const { path, query } = splitUrl(request.url);
  const url = verifier.signedUrl(shared.context.config.publicUrl ?? urlOf(caller), path);
  return { method, path, query, headers, body, url, atMs, isProxied: caller.isProxied };
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
