/**
 * What a hook checks its senders with: the scheme of its document and the keys behind its
 * references. References are resolved when the hook starts, those of files again when a signature
 * does not fit; one that can't be at all makes this hook answer 503, is tried again from time to
 * time, and touches no other hook.
 */
import type { Clock } from "../../clock.ts";
import {
  errorText,
  HookUnavailableError,
  TokenExpiredError,
  UnauthorizedError,
} from "../../errors.ts";
import { hookKeysRetryMs, hookKeysSavedMs } from "../../limits.ts";
import type {
  ChallengeDocument,
  EchoDocument,
  HookDocument,
  VerifyDocument,
} from "../../rules/document.ts";
import { compileExpression, type Expression } from "../../rules/expression.ts";
import { referencesIn } from "../../rules/store/references.ts";
import type { Fetch } from "../jwks.ts";
import { JwtVerifier } from "../jwt.ts";
import { type Checker, checkerOf, checkSignature, type SignedRequest, tokenIn } from "./engine.ts";
import type { Echo } from "./handshake.ts";
import { equalTexts, keyMaterial, type VerifyKey } from "./keys.ts";
import { type Scheme, schemeOf } from "./schemes.ts";
import type { KeyUses } from "./uses.ts";

/** What is wrong with a hook whose scheme signs a URL that nobody has told. */
export const URL_UNKNOWN =
  "the signature is over the public URL, which is not known: set verify.url or ISTHMUS_PUBLIC_URL";

/** What a verifier works with. */
export interface VerifierParts {
  /** The text with its references replaced. Rejects when one is not there. */
  readonly resolve: (text: string) => Promise<string>;
  readonly clock: Clock;
  /** Keeps when keys were last used; absent: that is known until the hook changes. */
  readonly uses?: Pick<KeyUses, "load" | "save">;
  /** How a JWKS is fetched. */
  readonly fetch: Fetch;
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

/** The verifier of a hook; null when the hook neither verifies nor is asked anything. */
export function verifierOf(document: HookDocument, parts: VerifierParts): Verifier | null {
  const { verify, challenge, echo } = document;
  if (verify === null && challenge === null && echo === null) return null;
  return new Verifier(document, parts);
}

/** Checks webhooks of one hook. Made with the hook's running form; never changed. */
export class Verifier {
  /** Null: only challenges are answered. */
  readonly scheme: Scheme | null;
  readonly schemeName: string | null;
  /** The sender's own id in the body, as an expression; null where it isn't there. */
  readonly dedupeExpression: Expression | null;
  /** Null: nothing of a body is given back. */
  readonly echo: Echo | null;
  readonly #tokens: JwtVerifier | null;
  readonly #document: VerifyDocument | null;
  readonly #challenge: ChallengeDocument | null;
  readonly #parts: VerifierParts;
  readonly #checker: Checker | null;
  readonly #hasFiles: boolean;
  #resolving: Promise<void> | null = null;
  #rereading: Promise<boolean> | null = null;
  #readAtMs = 0;
  #resolved: Resolved | null = null;
  #failure: string | null = null;
  #failedAtMs = 0;
  #savedMs = Number.NEGATIVE_INFINITY;
  #saving: Promise<void> = Promise.resolve();

  constructor(hook: Pick<HookDocument, "verify" | "challenge" | "echo">, parts: VerifierParts) {
    const document = hook.verify;
    const jwt = document?.jwt ?? null;
    this.#document = document;
    this.#challenge = hook.challenge;
    this.#parts = parts;
    this.#tokens = jwt === null ? null : new JwtVerifier(jwt.jwt, parts);
    this.echo = hook.echo === null ? null : { document: hook.echo, when: whenOf(hook.echo) };
    this.schemeName = document?.scheme ?? null;
    this.scheme = document === null ? null : schemeOf(document);
    this.#checker = this.scheme === null ? null : checkerOf(this.scheme);
    const references = (document?.secrets ?? []).flatMap(({ text }) => referencesIn(text));
    this.#hasFiles = references.some(({ from }) => from === "file");
    const dedupe = this.scheme?.dedupe ?? null;
    this.dedupeExpression =
      dedupe !== null && "body" in dedupe
        ? compileExpression(dedupe.body, { stored: false })
        : null;
    this.#begin();
  }

  /** Whether `ready` would resolve at once. */
  get isReady(): boolean {
    return this.#resolved !== null;
  }

  /**
   * Waits until the keys are there: a webhook may come before they have been read.
   * @throws HookUnavailableError they can't be read: the sender comes again. Why is in `status`:
   * senders are told no names of variables and no paths.
   */
  async ready(): Promise<void> {
    if (this.#resolved !== null) return;
    const waitedMs = this.#parts.clock.monotonicMs() - this.#failedAtMs;
    if (this.#resolving === null && waitedMs >= hookKeysRetryMs) this.#begin();
    await this.#resolving;
    if (this.#failure !== null) {
      throw new HookUnavailableError("the hook's keys can't be read now; its status says why");
    }
  }

  /**
   * Reads secrets that stand in files once more, at most every `hookKeysRetryMs`: one that was
   * replaced counts without a restart. True: they were read, so `check` may say something else.
   */
  async reread(): Promise<boolean> {
    if (!this.#hasFiles) return false;
    const nowMs = this.#parts.clock.monotonicMs();
    if (this.#rereading === null && nowMs - this.#readAtMs >= hookKeysRetryMs) {
      this.#readAtMs = nowMs;
      this.#rereading = this.#resolve()
        .then(
          (resolved) => {
            this.#resolved = resolved;
            return true;
          },
          // A file that is away for a moment takes nothing from the keys that are there.
          () => false,
        )
        .finally(() => {
          this.#rereading = null;
        });
    }
    return (await this.#rereading) ?? false;
  }

  /** Waits until it is known whether the keys can be read; `status` tells. */
  async settled(): Promise<void> {
    await this.#resolving;
  }

  /**
   * The URL that the sender signs, without the query: the document's own, else the public URL's.
   * Null for schemes that sign none. @throws HookUnavailableError nobody has said it.
   */
  signedUrl(publicUrl: string | null, path: string): string | null {
    if (!this.signsUrl) return null;
    const own = this.#resolved?.url ?? null;
    if (own !== null) return own;
    if (publicUrl !== null) return `${publicUrl.replace(/\/+$/, "")}${path}`;
    throw new HookUnavailableError(URL_UNKNOWN);
  }

  /** Whether the sender signs the URL that it calls. */
  get signsUrl(): boolean {
    return this.scheme?.base.includes("{url}") === true;
  }

  /** Whether the proof is a token, for `checkToken` instead of `check`. */
  get takesTokens(): boolean {
    return this.#tokens !== null;
  }

  /** The key it was signed with, which is noted as used. After `ready`. @throws UnauthorizedError */
  check(request: SignedRequest): VerifyKey {
    return this.#used(this.recheck(request), request.atMs);
  }

  /**
   * As `check`, of a token. @throws KeysUnavailableError its maker's keys can't be had now: the
   * sender comes again.
   */
  async checkToken(request: SignedRequest): Promise<VerifyKey> {
    const [key] = this.#resolved?.keys ?? [];
    if (this.#checker === null || this.#tokens === null || key === undefined) {
      throw new HookUnavailableError("the hook's keys have not been read");
    }
    const token = tokenIn(this.#checker, request);
    const signature = token.slice(token.lastIndexOf(".") + 1);
    // The last digit has bits that mean nothing: a token has one text, not four.
    if (Buffer.from(signature, "base64url").toString("base64url") !== signature) {
      throw new UnauthorizedError("the token's signature is no base64url", "signature-invalid");
    }
    try {
      await this.#tokens.verify(token);
    } catch (error) {
      if (error instanceof TokenExpiredError) {
        throw new UnauthorizedError(error.message, "timestamp-outside-tolerance");
      }
      if (!(error instanceof UnauthorizedError)) throw error;
      throw new UnauthorizedError(error.message, "signature-invalid");
    }
    return this.#used(key, request.atMs);
  }

  #used(key: VerifyKey, atMs: number): VerifyKey {
    key.lastUsedMs = atMs;
    if (this.#parts.uses !== undefined && atMs - this.#savedMs >= hookKeysSavedMs) {
      this.#savedMs = atMs;
      this.#saving = this.#saving.then(() => this.#saveUses());
    }
    return key;
  }

  async #saveUses(): Promise<void> {
    const keys = this.#resolved?.keys ?? [];
    const used = keys.flatMap(({ id, lastUsedMs }): [string, number][] => {
      return lastUsedMs === null ? [] : [[id, lastUsedMs]];
    });
    try {
      await this.#parts.uses?.save(new Map(used));
    } catch {
      // The log says itself what is wrong with it; the next use is kept at once instead.
      this.#savedMs = Number.NEGATIVE_INFINITY;
    }
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
    return { error: this.#failure ?? this.#tokens?.status.error ?? null, keys };
  }

  #begin(): void {
    this.#readAtMs = this.#parts.clock.monotonicMs();
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
    const uses = await this.#parts.uses?.load().catch(() => null);
    const before = new Map(this.#resolved?.keys.map((key) => [key.id, key.lastUsedMs]));
    const lastUse = (id: string): number | null => before.get(id) ?? uses?.get(id) ?? null;
    const keys: VerifyKey[] = [];
    if (document.jwt !== null) {
      const { from } = document.jwt.jwt.keys;
      const material: VerifyKey["material"] = { kind: "jwt" };
      keys.push({ id: from, untilMs: null, material, lastUsedMs: lastUse(from) });
    }
    for (const [index, { text, untilMs }] of document.secrets.entries()) {
      const id = keyId(text, index);
      const material = await keyOf(id, text, { document, scheme, resolve });
      keys.push({ id, untilMs, material, lastUsedMs: lastUse(id) });
    }
    const url = document.url === null ? null : await resolve(document.url);
    return { keys, url, challengeToken };
  }
}

function whenOf({ when }: EchoDocument): Expression | null {
  return when === null ? null : compileExpression(when, { stored: false });
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
