/**
 * The kind `http`: a URL that messages are sent to as webhooks. A sink only; what comes in over
 * HTTP comes by a hook. Documents and capabilities; nothing is loaded before a bridge connects.
 */
import { z } from "zod";
import type { Address, BridgeModule, ConnectContext } from "../../src/bridge.ts";
import {
  durationMs,
  invalid,
  isTemplate,
  parseDocument,
  referenceText,
  type Tls,
  tlsSchema,
} from "../document.ts";
import { httpPlaces } from "../places.ts";
import { mapping } from "../mapping.ts";
import { batchForms, batchLosses, batchProblem } from "./batch.ts";
import { encodeMessage, isHeaderName, lossesOf } from "./codec.ts";
import { Guard, isAllowEntry } from "./guard.ts";
import { pathProblem, pathSpecials } from "./path.ts";
import { keyProblem, signKeysMax } from "./sign.ts";

/** How long a request may take, answer included. Milliseconds. */
const TIMEOUT_MS = 10_000;
/** The longest that makes sense for one request. Milliseconds. */
const TIMEOUT_MS_MAX = 10 * 60_000;

const METHODS = ["POST", "PUT", "PATCH", "DELETE"] as const;

/** The configuration of a bridge; its texts may still hold references. */
export interface HttpConfig {
  readonly url: string;
  readonly method: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  /** Ranges (`10.0.0.0/8`), addresses or hosts that are allowed though they are not public. */
  readonly allowPrivate: readonly string[];
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly tls?: Tls | undefined;
}

const method = z.enum(METHODS);
const headers = z.record(z.string(), z.string());

const configSchema = z.strictObject({
  url: referenceText,
  method: method.optional(),
  headers: headers.optional(),
  timeout: durationMs
    .refine((ms) => ms >= 1 && ms <= TIMEOUT_MS_MAX, "expected 1ms to 10m")
    .optional(),
  allowPrivate: z.array(z.string()).optional(),
  username: referenceText.optional(),
  password: referenceText.optional(),
  tls: tlsSchema.optional(),
});

const signSchema = z.strictObject({
  secret: referenceText.optional(),
  secrets: z
    .array(referenceText)
    .min(1, "expected at least one secret")
    .max(signKeysMax, `expected at most ${signKeysMax} secrets`)
    .optional(),
});

const sinkSchema = z.strictObject({
  method: method.optional(),
  path: z.string().optional(),
  headers: headers.optional(),
  sign: signSchema.optional(),
});

/** The keys that sign a target's requests; their texts may still hold references. */
export interface SignConfig {
  readonly secrets: readonly string[];
}

/** The module of the kind `http`. */
export const http: BridgeModule<HttpConfig> = {
  kind: "http",
  capabilities: {
    order: "address",
    replay: false,
    headers: "table",
    key: false,
    tombstones: false,
    redeliverOnNack: false,
    sharedGroups: false,
    failure: "independent",
    source: false,
    sink: true,
  },
  addressSpecials: { path: pathSpecials },
  fixedKeys: ["sign"],
  batchForms,
  places: httpPlaces,
  events: { prefix: "ce-", isPercentEncoded: true },
  translation: {
    rows: () => mapping.http,
    losses: (message, _config, form = null) =>
      form === null ? lossesOf(message) : batchLosses(message, form),
    refusal(message, { headers }, nowMs, form = null) {
      if (form !== null) return batchProblem(message);
      const encoded = encodeMessage(message, { fixed: headers, nowMs, signer: null });
      return "refused" in encoded ? encoded.refused : null;
    },
  },
  parseConfig,
  parseAddress,
  async connect(config: HttpConfig, context: ConnectContext) {
    const { HttpBridge } = await import("./bridge.ts");
    return await HttpBridge.open(config, context);
  },
};

function parseConfig(input: unknown): HttpConfig {
  const { timeout, tls, allowPrivate = [], ...rest } = parseDocument(configSchema, input);
  const entry = allowPrivate.findIndex((text) => !isTemplate(text) && !isAllowEntry(text));
  if (entry >= 0) {
    const detail = "expected a range such as 10.0.0.0/8, an address, or a host's name";
    throw invalid([{ pointer: `/allowPrivate/${entry}`, detail }]);
  }
  const problem = placeProblem(rest.url, allowPrivate);
  if (problem !== null) throw invalid([{ pointer: "/url", detail: problem }]);
  if (tls === false && rest.url.startsWith("https:")) {
    throw invalid([{ pointer: "/tls", detail: "an https:// URL can't be without TLS" }]);
  }
  return {
    ...rest,
    method: rest.method ?? "POST",
    headers: headersOf(rest.headers ?? {}),
    timeoutMs: timeout ?? TIMEOUT_MS,
    allowPrivate,
    tls,
  };
}

/** Why a resolved URL can't be a target, or null. */
export function urlProblem(text: string): string | null {
  const url = URL.canParse(text) ? new URL(text) : null;
  const scheme = url?.protocol;
  if (url === null || (scheme !== "http:" && scheme !== "https:") || url.hostname === "") {
    return "expected a URL that begins with http:// or https://";
  }
  if (url.hash !== "") return "a URL's part after # is never sent; leave it out";
  if (url.port === "0") return "port 0 is no port that can be reached";
  const hasLogin = url.username !== "" || url.password !== "";
  return hasLogin ? LOGIN_PROBLEM : null;
}

/** Credentials in a URL, whether or not its texts are known yet. */
const LOGIN = /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*@/i;
const LOGIN_PROBLEM = "a URL holds no credentials here: give username and password";

function placeProblem(text: string, allowPrivate: readonly string[]): string | null {
  if (LOGIN.test(text)) return LOGIN_PROBLEM;
  if (isTemplate(text)) return null;
  const problem = urlProblem(text);
  if (problem !== null || allowPrivate.some(isTemplate)) return problem;
  return new Guard(allowPrivate).literalProblem(new URL(text).hostname);
}

function parseAddress(input: Readonly<Record<string, unknown>>, end: "source" | "sink"): Address {
  if (end === "source") {
    const detail = "an HTTP target has no source; a hook takes requests in";
    throw invalid([{ pointer: "", detail }]);
  }
  const { sign, ...parsed } = parseDocument(sinkSchema, input);
  const { path } = parsed;
  const problem = path === undefined ? null : pathProblem(path);
  if (problem !== null) throw invalid([{ pointer: "/path", detail: problem }]);
  const own = headersOf(parsed.headers ?? {});
  const digest = new Bun.CryptoHasher("sha256").update(JSON.stringify(own)).digest("hex");
  const names = Object.keys(own);
  // Values can be secrets, so the text tells them apart without showing them.
  const shown = names.length === 0 ? "" : ` with ${names.join(", ")} (${digest.slice(0, 8)})`;
  const fields = parsed.headers === undefined ? parsed : { ...parsed, headers: own };
  const words = ["webhook", parsed.method, path].filter((word) => word !== undefined);
  return {
    text: `${words.join(" ")}${shown}`,
    fields,
    ...(sign === undefined ? {} : { fixed: { sign: signOf(sign) } }),
  };
}

/** @throws InvalidError what was written is no key; the text is not told. */
function signOf({ secret, secrets }: z.output<typeof signSchema>): SignConfig {
  if (secret !== undefined && secrets !== undefined) {
    throw invalid([
      { pointer: "/sign/secrets", detail: "give either secret or secrets, not both" },
    ]);
  }
  const all = secrets ?? (secret === undefined ? [] : [secret]);
  if (all.length === 0) {
    throw invalid([{ pointer: "/sign", detail: "expected secret or secrets" }]);
  }
  for (const [index, text] of all.entries()) {
    const problem = isTemplate(text) ? null : keyProblem(text);
    const pointer = secrets === undefined ? "/sign/secret" : `/sign/secrets/${index}`;
    if (problem !== null) throw invalid([{ pointer, detail: problem }]);
  }
  return { secrets: all };
}

/** Headers with names in lower case. */
function headersOf(given: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const entries: [string, string][] = [];
  for (const [name, value] of Object.entries(given)) {
    const pointer = `/headers/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
    if (!isHeaderName(name)) {
      throw invalid([{ pointer, detail: `${JSON.stringify(name)} can't be a header's name` }]);
    }
    // oxlint-disable-next-line no-control-regex -- the very characters that are looked for
    if (/[\0-\x08\x0a-\x1f\x7f]/.test(value)) {
      throw invalid([{ pointer, detail: "holds a line break or control character" }]);
    }
    entries.push([name.toLowerCase(), value]);
  }
  return Object.fromEntries(entries);
}
