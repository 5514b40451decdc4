/**
 * What a hook checks its senders with: the scheme of its document and the keys behind its
 * references. References are resolved once, when the hook starts; one that can't be makes this
 * hook answer 503 with the reason, is tried again from time to time, and touches no other hook.
 */
import type { Clock } from "../../clock.ts";
import { errorText, HookUnavailableError, UnauthorizedError } from "../../errors.ts";
import { hookKeysRetryMs } from "../../limits.ts";
import type { ChallengeDocument, HookDocument, VerifyDocument } from "../../rules/document.ts";
import { compileExpression, type Expression } from "../../rules/expression.ts";
import { referencesIn } from "../../rules/store/references.ts";
import { type Checker, checkerOf, checkSignature, type SignedRequest } from "./engine.ts";
import { equalTexts, keyMaterial, type VerifyKey } from "./keys.ts";
import { type Scheme, schemeOf } from "./schemes.ts";

/** What a verifier works with. */
export interface VerifierParts {
  /** The text with its references replaced. Rejects when one is not there. */
  readonly resolve: (text: string) => Promise<string>;
  readonly clock: Clock;
}

/** What was resolved. None of it is shown. */
interface Resolved {
  readonly keys: readonly VerifyKey[];
  readonly url: string | null;
  readonly challengeToken: string | null;
}

/** One key, as the hook's status shows it. */
export interface KeyStatus {
  readonly id: string;
  readonly until: number | null;
  readonly lastUsedAt: number | null;
  readonly state: "active" | "ended";
}

/** The verifier of a hook; null when the hook neither verifies nor is challenged. */
export function verifierOf(document: HookDocument, parts: VerifierParts): Verifier | null {
  if (document.verify === null && document.challenge === null) return null;
  return new Verifier(document.verify, document.challenge, parts);
}

/** Checks webhooks of one hook. Made with the hook's running form; never changed. */
export class Verifier {
  /** Null: only challenges are answered. */
  readonly scheme: Scheme | null;
  readonly schemeName: string | null;
  /** The sender's own id in the body, as an expression; null where it isn't there. */
  readonly dedupeExpression: Expression | null;
  readonly #document: VerifyDocument | null;
  readonly #challenge: ChallengeDocument | null;
  readonly #parts: VerifierParts;
  readonly #checker: Checker | null;
  #resolving: Promise<void> | null = null;
  #resolved: Resolved | null = null;
  #failure: string | null = null;
  #failedAtMs = 0;

  constructor(
    document: VerifyDocument | null,
    challenge: ChallengeDocument | null,
    parts: VerifierParts,
  ) {
    this.#document = document;
    this.#challenge = challenge;
    this.#parts = parts;
    this.schemeName = document?.scheme ?? null;
    this.scheme = document === null ? null : schemeOf(document);
    this.#checker = this.scheme === null ? null : checkerOf(this.scheme);
    const dedupe = this.scheme?.dedupe ?? null;
    this.dedupeExpression =
      dedupe !== null && "body" in dedupe
        ? compileExpression(dedupe.body, { stored: false })
        : null;
    this.#begin();
  }

  /**
   * Waits until the keys are there: a webhook may come before they have been read.
   * @throws HookUnavailableError they can't be read: the sender comes again.
   */
  async ready(): Promise<void> {
    if (this.#resolved !== null) return;
    const waitedMs = this.#parts.clock.monotonicMs() - this.#failedAtMs;
    if (this.#resolving === null && waitedMs >= hookKeysRetryMs) this.#begin();
    await this.#resolving;
    if (this.#failure !== null) throw new HookUnavailableError(this.#failure);
  }

  /**
   * The URL that the sender signs, without the query: the document's own, else the public URL's.
   * Null for schemes that sign none. @throws HookUnavailableError nobody has said it.
   */
  signedUrl(publicUrl: string | null, path: string): string | null {
    if (this.scheme?.base.includes("{url}") !== true) return null;
    const own = this.#resolved?.url ?? null;
    if (own !== null) return own;
    if (publicUrl !== null) return `${publicUrl.replace(/\/+$/, "")}${path}`;
    throw new HookUnavailableError(
      "the signature is over the public URL, which is not known: set verify.url or ISTHMUS_PUBLIC_URL",
    );
  }

  /** The key it was signed with, which is noted as used. After `ready`. @throws UnauthorizedError */
  check(request: SignedRequest): VerifyKey {
    const key = this.recheck(request);
    key.lastUsedMs = request.atMs;
    return key;
  }

  /** As `check`, for a webhook that is kept: nothing is noted. @throws UnauthorizedError */
  recheck(request: SignedRequest): VerifyKey {
    if (this.#checker === null || this.#resolved === null) {
      throw new HookUnavailableError("the hook's keys have not been read");
    }
    return checkSignature(this.#checker, this.#resolved.keys, request);
  }

  /** What a GET is given back; null when it asks for nothing. @throws UnauthorizedError */
  async challengeAnswer(query: URLSearchParams): Promise<string | null> {
    const challenge = this.#challenge;
    const asked = challenge === null ? null : query.get(challenge.parameter);
    if (challenge === null || asked === null) return null;
    if (challenge.token === null) return asked;
    await this.ready();
    const shown = query.get(challenge.token.parameter) ?? "";
    if (equalTexts(shown, this.#resolved?.challengeToken ?? "")) return asked;
    throw new UnauthorizedError(
      `the token in ${challenge.token.parameter} is not the hook's`,
      "signature-invalid",
    );
  }

  /** How the keys stand; the error is for operators and names no secret's text. */
  status(): { readonly error: string | null; readonly keys: readonly KeyStatus[] } {
    const nowMs = this.#parts.clock.nowMs();
    const keys = (this.#resolved?.keys ?? []).map(({ id, untilMs, lastUsedMs }): KeyStatus => {
      const state = untilMs !== null && untilMs <= nowMs ? "ended" : "active";
      return { id, until: untilMs, lastUsedAt: lastUsedMs, state };
    });
    return { error: this.#failure, keys };
  }

  #begin(): void {
    this.#resolving = this.#resolve().then(
      (resolved) => {
        this.#resolved = resolved;
        this.#failure = null;
      },
      (error: unknown) => {
        // Whatever it is, this hook alone can't work; its status and each answer say so.
        this.#failure = errorText(error);
        this.#failedAtMs = this.#parts.clock.monotonicMs();
        this.#resolving = null;
      },
    );
  }

  async #resolve(): Promise<Resolved> {
    const { resolve } = this.#parts;
    const document = this.#document;
    const scheme = this.scheme;
    const token = this.#challenge?.token ?? null;
    const challengeToken = token === null ? null : await resolve(token.text);
    if (document === null || scheme === null) return { keys: [], url: null, challengeToken };
    const keys: VerifyKey[] = [];
    for (const [index, { text, untilMs }] of document.secrets.entries()) {
      const id = keyId(text, index);
      const material = await keyOf(id, text, { document, scheme, resolve });
      keys.push({ id, untilMs, material, lastUsedMs: null });
    }
    const url = document.url === null ? null : await resolve(document.url);
    return { keys, url, challengeToken };
  }
}

async function keyOf(
  id: string,
  text: string,
  {
    document,
    scheme,
    resolve,
  }: {
    readonly document: VerifyDocument;
    readonly scheme: Scheme;
    readonly resolve: (text: string) => Promise<string>;
  },
): Promise<VerifyKey["material"]> {
  const resolved = await resolve(text);
  try {
    return keyMaterial({
      form: scheme.keyForm,
      algorithms: Object.values(scheme.algorithms),
      text: resolved,
      username: document.username,
    });
  } catch (error) {
    throw new HookUnavailableError(`the key ${id} can't be used: ${errorText(error)}`, {
      cause: error,
    });
  }
}

/** A key's name: the reference behind which it is, which is no secret; a public key's place. */
function keyId(text: string, index: number): string {
  const references = referencesIn(text).map(({ from, name }) => `${from}:${name}`);
  return references.length === 0 ? `key ${index + 1}` : references.join(" ");
}
