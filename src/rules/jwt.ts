/**
 * The settings by which JSON Web Tokens are checked, as an access's `jwt` and a hook's `verify`
 * write them: which keys count, which algorithms, and what a token must say. Algorithms are fixed
 * here and never taken from a token; secrets and public keys can't stand together, so neither can
 * pass for the other.
 */
import { z } from "zod";
import { jwtKeysMax, jwtLeewayMsMax } from "../limits.ts";
import type { JsonObject, JwtAlgorithm, JwtDocument, JwtKeys } from "./document.ts";
import { expected, oneOf, type Problems } from "./problems.ts";
import * as shapes from "./shapes.ts";

/** What keys of each sort can sign with; all of a sort count unless the document says which. */
const OF_SECRETS: readonly JwtAlgorithm[] = ["HS256"];
const OF_PUBLIC_KEYS: readonly JwtAlgorithm[] = ["RS256", "ES256", "EdDSA"];
const LEEWAY_MS_DEFAULT = 30_000;
/** The name of an issuer, an audience or a claim. Characters. */
const NAME_CHARS_MAX = 1000;
/** The parts of a document that say where keys come from; exactly one stands there. */
const KEYS = ["jwks", "secret", "secrets", "publicKey", "publicKeys"] as const;
/** Numbers of an IPv4 host on this machine. */
const LOOPBACK = /^(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])$/;

const name = z.string().min(1).max(NAME_CHARS_MAX);
const names = z
  .union([z.array(name).min(1).max(jwtKeysMax), name])
  .transform((value) => (typeof value === "string" ? [value] : value));
const key = z.string().min(1);
const keys = z.array(key).min(1).max(jwtKeysMax);

/** The members of these settings, for shapes that have others beside them. */
export const JWT_MEMBERS = {
  jwks: z.string().optional(),
  secret: key.optional(),
  secrets: keys.optional(),
  publicKey: key.optional(),
  publicKeys: keys.optional(),
  algorithms: z
    .array(shapes.word([...OF_SECRETS, ...OF_PUBLIC_KEYS]))
    .min(1)
    .optional(),
  audience: names.optional(),
  issuer: names.optional(),
  leeway: shapes.durationMs.optional(),
  subject: name.optional(),
} as const;

const jwtShape = shapes.strict(JWT_MEMBERS);
type Data = z.infer<typeof jwtShape>;

/**
 * Parses the settings, which stand at `pointer`; null when something is wrong with them, which is
 * then among the problems. What must stand beside them (`scheme` of a hook) is not for this parser.
 */
export function parseJwt(value: unknown, pointer: string, problems: Problems): JwtDocument | null {
  const shape = jwtShape.safeParse(value);
  if (!shape.success) {
    problems.addIssues(value as JsonObject, shape.error.issues, pointer);
    return null;
  }
  const { data } = shape;
  const found = keysOf(data, pointer, problems);
  if (found === null) return null;
  const algorithms = algorithmsOf(found, data, pointer, problems);
  const leewayMs = data.leeway ?? LEEWAY_MS_DEFAULT;
  if (leewayMs > jwtLeewayMsMax) {
    problems.add(`${pointer}/leeway`, `expected at most ${jwtLeewayMsMax / 1000}s`);
  }
  const audiences = data.audience ?? [];
  const issuers = data.issuer ?? [];
  if (found.from === "jwks" && audiences.length + issuers.length === 0) {
    // The keys of an identity provider sign the tokens of all its applications.
    problems.add(`${pointer}/audience`, "is missing: keys of a JWKS need an audience or an issuer");
  }
  return {
    keys: found,
    algorithms,
    audiences,
    issuers,
    leewayMs,
    subjectClaim: data.subject ?? "sub",
  };
}

function keysOf(data: Data, pointer: string, problems: Problems): JwtKeys | null {
  const given = KEYS.filter((each) => data[each] !== undefined);
  const [first, second] = given;
  if (first === undefined) {
    problems.add(`${pointer}/jwks`, "is missing: expected jwks, secret or publicKey");
    return null;
  }
  if (second !== undefined) {
    problems.add(`${pointer}/${second}`, `stands beside ${first}: expected one of ${oneOf(KEYS)}`);
    return null;
  }
  if (data.jwks !== undefined) {
    const problem = urlProblem(data.jwks);
    if (problem !== null) problems.add(`${pointer}/jwks`, problem);
    return { from: "jwks", url: data.jwks };
  }
  const secrets = data.secrets ?? (data.secret === undefined ? null : [data.secret]);
  if (secrets !== null) return { from: "secrets", texts: secrets };
  return { from: "publicKeys", texts: data.publicKeys ?? [data.publicKey ?? ""] };
}

/** Who can change an answer in plain HTTP can make any token: only this machine is near enough. */
function urlProblem(text: string): string | null {
  if (!URL.canParse(text)) return expected("a URL such as https://id.example/jwks.json", text);
  const url = new URL(text);
  if (url.username !== "" || url.password !== "") return "a JWKS is public: no password in its URL";
  if (url.protocol === "https:") return null;
  if (url.protocol === "http:" && LOOPBACK.test(url.hostname)) return null;
  return "expected https: over plain http anyone on the way could put in keys";
}

function algorithmsOf(
  { from }: JwtKeys,
  { algorithms }: Data,
  pointer: string,
  problems: Problems,
): readonly JwtAlgorithm[] {
  const possible = from === "secrets" ? OF_SECRETS : OF_PUBLIC_KEYS;
  for (const [index, each] of (algorithms ?? []).entries()) {
    if (possible.includes(each)) continue;
    problems.add(
      `${pointer}/algorithms/${index}`,
      `${each} does not go with ${from}: expected ${oneOf(possible)}`,
    );
  }
  return [...new Set(algorithms ?? possible)];
}
