/** Checks a webhook by a hook's document, as the gateway does, with no server between. */
import { type Clock, systemClock } from "../../../src/clock.ts";
import { UnauthorizedError } from "../../../src/errors.ts";
import { verifierOf, type Verifier } from "../../../src/http/verify/verifier.ts";
import { encodeText } from "../../../src/message.ts";
import type { HookDocument, Json } from "../../../src/rules/document.ts";
import { parseDefinition } from "../../../src/rules/parse.ts";

/** A webhook that a test sends. */
export interface Sent {
  readonly verify: Readonly<Record<string, Json>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array;
  /** Seconds; when it comes. */
  readonly at?: number;
  readonly url?: string;
  readonly method?: string;
  /** Whether it came through a trusted proxy. */
  readonly isProxied?: boolean;
}

/** The verifier of a hook with this `verify`, its references resolved by `resolve`. */
export function verifierFor(
  verify: Readonly<Record<string, Json>>,
  resolve: (text: string) => Promise<string> = (text) => Promise.resolve(text),
  clock: Clock = systemClock,
): Verifier {
  const document = parseDefinition("hooks", "h", { stream: "s", verify }, CONTEXT) as HookDocument;
  const verifier = verifierOf(document, {
    resolve,
    clock,
    fetch: (url, init) => fetch(url, init),
  });
  if (verifier === null) throw new Error("nothing is verified");
  return verifier;
}

const CONTEXT = { modules: new Map(), bridges: new Map() };

/** The id of the key that let it in, or the code of its refusal. */
export async function outcomeOf(sent: Sent): Promise<string> {
  return await checkWith(verifierFor(sent.verify), sent);
}

/** As `outcomeOf`, by a verifier that is there. */
export async function checkWith(verifier: Verifier, sent: Omit<Sent, "verify">): Promise<string> {
  await verifier.ready();
  const { url = null, body, headers, at = 0, method = "POST" } = sent;
  const start = url?.indexOf("?") ?? -1;
  const [base, query] =
    start < 0 ? [url, ""] : [url?.slice(0, start) ?? "", url?.slice(start) ?? ""];
  try {
    const key = verifier.check({
      method,
      path: "/hooks/h",
      query,
      headers: { get: (name) => headers[name] ?? null },
      body: typeof body === "string" ? encodeText(body) : body,
      url: base,
      atMs: at * 1000,
      isProxied: sent.isProxied ?? false,
    });
    return key.id;
  } catch (error) {
    if (error instanceof UnauthorizedError) return error.code;
    throw error;
  }
}
