/**
 * What a hook does that is the same for each of its webhooks, worked out once: which checks it
 * needs at all, what it leaves out, what it answers, and the origins that its messages have. A
 * hook whose definition or keys change is another `HookFace`, and gets another plan.
 */
import { hookOriginsMax } from "../limits.ts";
import { type HttpOrigin, type Origin, sharedOrigin } from "../message.ts";
import type { HookAnswer } from "../rules/document.ts";
import type { IntakeCounts } from "../telemetry.ts";
import type { BodyBounds } from "./hook-body.ts";
import { HookLimiter } from "./hook-limits.ts";
import { droppedHeaders } from "./hook-message.ts";
import { splitUrl } from "./probes.ts";
import type { HookFace, HttpContext } from "./services.ts";
import type { Scheme } from "./verify/schemes.ts";

/** What does not change between two messages of a hook. */
export interface HookPlan {
  readonly counts: IntakeCounts;
  readonly origins: HookOrigins;
  readonly dedupe: { readonly name: string; readonly failed: () => void };
  readonly takesPost: boolean;
  /** Whether a POST may be something else than a webhook. */
  readonly mayBeProbe: boolean;
  /** The body that comes is the message's, and nothing is proven about it. */
  readonly isPlain: boolean;
  readonly bounds: BodyBounds;
  /** Whether headers say if a body is read at all, or in which coding it comes. */
  readonly checksHeaders: boolean;
  readonly dropped: ReadonlySet<string>;
  /** Null: nothing is limited. */
  readonly limiter: HookLimiter | null;
  /** Null: a receipt. */
  readonly answer: HookAnswer | null;
  /** What a refusal asks for by HTTP's own means; null: the proof is none of HTTP's. */
  readonly authenticate: string | null;
}

/** Works out a hook's plan. */
export function planOf(hook: HookFace, { telemetry, clock }: HttpContext): HookPlan {
  const { document, name, verifier } = hook;
  const { limits, methods } = document;
  const scheme = verifier?.scheme ?? null;
  const schemeAnswer = scheme?.answer ?? null;
  const isLimited = limits.rate !== null || limits.concurrency !== null;
  return {
    counts: telemetry.intake(`hook/${name}`),
    origins: new HookOrigins(name, verifier?.schemeName ?? "none"),
    dedupe: { name: `hook:${name}`, failed: () => telemetry.expressionFailed("hook", name) },
    takesPost: methods.includes("POST"),
    mayBeProbe: !methods.includes("POST") || document.challenge !== null,
    isPlain: isPlain(hook),
    bounds: { bytesMax: limits.bodyBytes, bytesPerSecond: limits.bytesPerSecond },
    checksHeaders: limits.headerBytes !== null || document.accept !== null || document.inflate,
    dropped: droppedHeaders(document, scheme),
    limiter: isLimited ? new HookLimiter(limits, clock, "hook") : null,
    answer:
      document.answer ??
      (schemeAnswer === null ? null : { status: schemeAnswer.status, body: "", contentType: null }),
    authenticate: authenticateOf(scheme),
  };
}

/** Many clients show a user's name and password only to who has asked for them. */
function authenticateOf(scheme: Scheme | null): string | null {
  const isOwn = scheme?.headers.some(({ signature }) => signature === "authorization") === true;
  const word = scheme?.form.prefix.trim() ?? "";
  return isOwn && /^(Basic|Bearer)$/.test(word) ? `${word} realm="isthmus"` : null;
}

function isPlain({ document, verifier }: HookFace): boolean {
  return document.verify === null && !document.inflate && (verifier?.echo ?? null) === null;
}

/** A request, as far as its origin tells of it. */
export interface Called {
  readonly method: string;
  readonly url: string;
  readonly address: string | null;
  /** Null: the scheme signs none. */
  readonly signedUrl: string | null;
  readonly keyId: string;
  readonly inflated: "gzip" | null;
}

/**
 * The origins of one hook's messages. Nearly all webhooks come from few addresses to one URL: their
 * origins are kept and used again, at most `hookOriginsMax`. Those with a query are made each time.
 */
export class HookOrigins {
  readonly #base: Omit<Origin, "http">;
  readonly #scheme: string;
  readonly #known = new Map<string, Origin>();
  #last: { readonly called: Called; readonly origin: Origin } | null = null;

  constructor(hook: string, scheme: string) {
    this.#base = { bridge: "http", address: hook, partition: null, offset: null, hops: [] };
    this.#scheme = scheme;
  }

  /** The origin of what a call has brought. */
  of(called: Called): Origin {
    // Senders post many at a time: the comparison costs a tenth of the look-up.
    if (this.#last !== null && isSameCall(this.#last.called, called)) return this.#last.origin;
    const { method, url, address, signedUrl, keyId, inflated } = called;
    if (url.includes("?")) return this.#made(called);
    const name = `${method} ${url} ${address} ${signedUrl} ${inflated} ${keyId}`;
    let origin = this.#known.get(name);
    if (origin === undefined) {
      if (this.#known.size >= hookOriginsMax) this.#known.clear();
      origin = sharedOrigin(this.#made(called));
      this.#known.set(name, origin);
    }
    this.#last = { called, origin };
    return origin;
  }

  #made({ method, url, address, signedUrl, keyId, inflated }: Called): Origin {
    const { path, query } = splitUrl(url);
    const http: HttpOrigin = {
      method,
      path,
      ...(query === "" ? {} : { query }),
      ...(address === null ? {} : { remoteAddress: address }),
      ...(signedUrl === null ? {} : { url: signedUrl }),
      scheme: this.#scheme,
      keyId,
      ...(inflated === null ? {} : { inflated }),
    };
    return { ...this.#base, http };
  }
}

function isSameCall(one: Called, other: Called): boolean {
  return (
    one.url === other.url &&
    one.address === other.address &&
    one.keyId === other.keyId &&
    one.method === other.method &&
    one.signedUrl === other.signedUrl &&
    one.inflated === other.inflated
  );
}
