/**
 * Which pages may call: those of the gateway's own origin, and of the origins that a setting
 * lists. A browser says the page's origin with each call that crosses one; programs say none and
 * are let through. Pages that may not are refused before anything else happens; those that may
 * get the headers that their browser asks for (CORS). No cookies, so no credentials.
 */
import { ForbiddenError, InvalidError } from "../errors.ts";
import { originsMax, preflightAgeS } from "../limits.ts";

const FORM = "https://app.example, https://*.example, http://localhost:*, null or *";
const PATTERN = /^([a-z][a-z0-9+.-]*):\/\/(\*\.)?([^/?#@*\s]+?)(:\*)?$/i;
/** What a page may send beside what every page may. */
const HEADER_NAME = /^[a-z0-9!#$%&'*+.^_`|~-]{1,100}$/;
const METHODS = "GET, HEAD, POST, PUT, DELETE";
const EXPOSED = "etag, retry-after, ratelimit, ratelimit-policy";
const REQUESTED_HEADERS_MAX = 100;

type Test = (origin: URL) => boolean;

/** The origins that are let in. */
export class Origins {
  readonly #tests: readonly Test[];
  readonly #publicHost: string | null;
  readonly #takesAny: boolean;
  readonly #takesNull: boolean;

  /** @throws InvalidError a pattern can't mean an origin. */
  constructor(patterns: readonly string[], publicUrl: string | null) {
    if (patterns.length > originsMax) {
      throw new InvalidError(`ISTHMUS_ORIGINS: at most ${originsMax} origins`);
    }
    this.#takesAny = patterns.includes("*");
    this.#takesNull = patterns.includes("null");
    this.#tests = patterns.filter((each) => each !== "*" && each !== "null").map(testOf);
    const isUrl = publicUrl !== null && URL.canParse(publicUrl);
    this.#publicHost = isUrl ? new URL(publicUrl).host : null;
  }

  /**
   * The headers that the answer to a page of another origin needs; null when the call comes from
   * no page, or from one of our own. @throws ForbiddenError pages of this origin may not call.
   */
  admit(request: Request): Readonly<Record<string, string>> | null {
    const origin = request.headers.get("origin");
    if (origin === null) return null;
    if (this.#isOwn(origin, request.url)) return null;
    if (!this.#takes(origin)) {
      throw new ForbiddenError(
        `pages of ${origin.slice(0, 200)} may not call: it is not among ISTHMUS_ORIGINS`,
      );
    }
    return {
      "access-control-allow-origin": origin,
      "access-control-expose-headers": EXPOSED,
      vary: "origin",
    };
  }

  /** The answer to a browser that asks what a page may do; null: it asks for something else. */
  preflight(request: Request, headers: Readonly<Record<string, string>>): Response | null {
    if (request.method !== "OPTIONS") return null;
    if (request.headers.get("access-control-request-method") === null) return null;
    const wanted = (request.headers.get("access-control-request-headers") ?? "")
      .toLowerCase()
      .split(",")
      .map((each) => each.trim())
      .filter((each) => HEADER_NAME.test(each))
      .slice(0, REQUESTED_HEADERS_MAX);
    return new Response(null, {
      status: 204,
      headers: {
        ...headers,
        "access-control-allow-methods": METHODS,
        ...(wanted.length === 0 ? {} : { "access-control-allow-headers": wanted.join(", ") }),
        "access-control-max-age": String(preflightAgeS),
      },
    });
  }

  /** A proxy may have taken the TLS off: the host decides, not the scheme. */
  #isOwn(origin: string, url: string): boolean {
    if (!URL.canParse(origin)) return false;
    const { host } = new URL(origin);
    return host !== "" && (host === this.#publicHost || host === hostOf(url));
  }

  #takes(origin: string): boolean {
    if (this.#takesAny) return true;
    if (origin === "null") return this.#takesNull;
    if (!URL.canParse(origin)) return false;
    const url = new URL(origin);
    return this.#tests.some((test) => test(url));
  }
}

function hostOf(url: string): string | null {
  return URL.canParse(url) ? new URL(url).host : null;
}

function testOf(pattern: string): Test {
  const match = PATTERN.exec(pattern);
  const [, scheme = "", wild, host = "", anyPort] = match ?? [];
  const text = `${scheme}://${host}`;
  if (match === null || !URL.canParse(text)) {
    throw new InvalidError(`ISTHMUS_ORIGINS: "${pattern}" is no origin; expected ${FORM}`);
  }
  const { protocol, hostname, port } = new URL(text);
  return (origin) => {
    if (origin.protocol !== protocol) return false;
    if (anyPort === undefined && origin.port !== port) return false;
    // Only whole labels: evilexample.com is no subdomain of example.com.
    if (wild !== undefined) return origin.hostname.endsWith(`.${hostname}`);
    return origin.hostname === hostname;
  };
}

/** The answer with these headers beside its own. */
export function withHeaders(
  response: Response,
  headers: Readonly<Record<string, string>> | null,
): Response {
  if (headers === null) return response;
  for (const [name, value] of Object.entries(headers)) response.headers.set(name, value);
  return response;
}
