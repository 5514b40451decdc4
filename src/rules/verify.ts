/**
 * The `verify` part of a hook's document: which scheme, which keys, and what only that scheme has.
 * What each scheme does is in `http/verify/schemes.ts`; here is which words a document may use.
 */
import { z } from "zod";
import { hookSecretsMax } from "../limits.ts";
import {
  type ChallengeDocument,
  type HookDocument,
  type JsonObject,
  VERIFY_SCHEMES,
  type VerifyDocument,
  type VerifyScheme,
  type VerifySecret,
} from "./document.ts";
import { isObject } from "./place.ts";
import { expected, type Problems, shown } from "./problems.ts";
import * as shapes from "./shapes.ts";
import { didYouMean } from "./suggest.ts";
import { escapePointer } from "./template.ts";
import { parseTimeMs } from "./units.ts";

/** What the contract names and this version can't check. */
const LATER = ["jwt", "mtls"];

const SECRETS = ["secret", "secrets"];
const PUBLIC_KEYS = ["publicKey", "publicKeys"];
const CHALLENGE = ["challenge", "token"];
const HMAC = [
  "header",
  "algorithm",
  "encoding",
  "prefix",
  "base",
  "timestampHeader",
  "idHeader",
  "keyEncoding",
  "url",
];

/** The keys beside `scheme` and those of challenges that each scheme takes. */
const KEYS: Readonly<Record<VerifyScheme, readonly string[]>> = {
  "standard-webhooks": [...SECRETS, "tolerance"],
  github: SECRETS,
  stripe: [...SECRETS, "tolerance"],
  slack: [...SECRETS, "tolerance"],
  shopify: SECRETS,
  twilio: [...SECRETS, "url"],
  gitlab: SECRETS,
  discord: [...PUBLIC_KEYS, "tolerance"],
  zoom: [...SECRETS, "tolerance"],
  sendgrid: [...PUBLIC_KEYS, "tolerance"],
  hmac: [...SECRETS, ...HMAC, "tolerance"],
  basic: [...SECRETS, "username", "password"],
  bearer: SECRETS,
};

const headerName = z
  .string()
  .regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$/, "expected the name of a header");
const until = z.unknown().transform((value, context) => {
  const timeMs = typeof value === "string" ? parseTimeMs(value, null) : null;
  if (timeMs !== null) return timeMs;
  context.addIssue({ code: "custom", message: "expected a time such as 2026-01-31T12:00:00Z" });
  return z.NEVER;
});
const text = z.string().min(1);
const secretShape = shapes.strict({ secret: text, until: until.optional() });
/** Text, or a map with an end; what is wrong within the map is told of the map. */
const secret = z.unknown().transform((value, context): VerifySecret => {
  if (typeof value === "string" && value !== "") return { text: value, untilMs: null };
  if (!isObject(value)) {
    const message = expected("a secret as text, or { secret, until }", value);
    context.addIssue({ code: "custom", message });
    return z.NEVER;
  }
  const shape = secretShape.safeParse(value);
  if (shape.success) return { text: shape.data.secret, untilMs: shape.data.until ?? null };
  const [issue] = shape.error.issues;
  context.addIssue({ code: "custom", message: issue?.message ?? "expected { secret, until }" });
  return z.NEVER;
});
const secrets = z.array(secret).min(1).max(hookSecretsMax);
const parameter = z.string().min(1).max(100);

const verifyShape = z.object({
  secret: secret.optional(),
  secrets: secrets.optional(),
  publicKey: secret.optional(),
  publicKeys: secrets.optional(),
  password: text.optional(),
  username: z
    .string()
    .min(1)
    .regex(/^[^:]*$/, "a user's name has no colon")
    .optional(),
  tolerance: shapes.positiveDurationMs.optional(),
  url: text.optional(),
  header: headerName.optional(),
  algorithm: shapes.word(["sha1", "sha256", "sha384", "sha512"]).optional(),
  encoding: shapes.word(["hex", "base64", "base64url"]).optional(),
  prefix: z.string().max(100).optional(),
  base: z.string().min(1).max(1000).optional(),
  timestampHeader: headerName.optional(),
  idHeader: headerName.optional(),
  keyEncoding: shapes.word(["text", "hex", "base64"]).optional(),
  challenge: z
    .union([shapes.strict({ parameter, token: parameter.optional() }), parameter])
    .optional(),
  token: text.optional(),
});

type Data = z.infer<typeof verifyShape>;
type Verified = Pick<HookDocument, "verify" | "challenge">;

/** Parses `verify`; null when something is wrong with it, which is then among the problems. */
export function parseVerify(verify: JsonObject, problems: Problems): Verified | null {
  const scheme = schemeOf(verify["scheme"], problems);
  if (scheme === null) return null;
  const known = ["scheme", ...(scheme === "none" ? [] : KEYS[scheme]), ...CHALLENGE];
  for (const key of Object.keys(verify).filter((each) => !known.includes(each))) {
    problems.add(`/verify/${escapePointer(key)}`, shapes.unknownKey(key, known));
  }
  const shape = verifyShape.safeParse(verify);
  if (!shape.success) {
    problems.addIssues(verify, shape.error.issues, "/verify");
    return null;
  }
  const { data } = shape;
  const challenge = challengeOf(data, problems);
  if (scheme === "none") return { verify: null, challenge };
  return { verify: documentOf(scheme, data, problems), challenge };
}

function schemeOf(scheme: unknown, problems: Problems): VerifyScheme | "none" | null {
  if (scheme === "none") return "none";
  const found = VERIFY_SCHEMES.find((each) => each === scheme);
  if (found !== undefined) return found;
  if (typeof scheme !== "string") {
    problems.add("/verify/scheme", `expected the name of a scheme, found ${shown(scheme)}`);
  } else if (LATER.includes(scheme)) {
    problems.add("/verify/scheme", shapes.notAvailable(`scheme ${JSON.stringify(scheme)}`));
  } else {
    const names = [...VERIFY_SCHEMES, "none"];
    const near = didYouMean(scheme, names) || `; known are ${names.join(", ")}`;
    problems.add(
      "/verify/scheme",
      `there is no scheme ${JSON.stringify(scheme.slice(0, 60))}${near}`,
    );
  }
  return null;
}

function documentOf(scheme: VerifyScheme, data: Data, problems: Problems): VerifyDocument | null {
  if (scheme === "basic" && data.username === undefined) {
    problems.add("/verify/username", "is missing: expected text");
    return null;
  }
  const found = secretsOf(scheme, data, problems);
  if (found === null) return null;
  const hmac = scheme === "hmac" ? hmacOf(data, problems) : null;
  return {
    scheme,
    secrets: found,
    toleranceMs: data.tolerance ?? null,
    url: data.url ?? null,
    username: data.username ?? null,
    hmac,
  };
}

function secretsOf(
  scheme: VerifyScheme,
  data: Data,
  problems: Problems,
): readonly VerifySecret[] | null {
  const isPublic = KEYS[scheme].includes("publicKey");
  const wanted = isPublic ? "publicKey" : "secret";
  const one = isPublic ? data.publicKey : (data.secret ?? passwordOf(data));
  const many = isPublic ? data.publicKeys : data.secrets;
  if ((one === undefined) === (many === undefined)) {
    const what = one === undefined ? "is missing: expected" : "stands beside the other: expected";
    problems.add(`/verify/${wanted}`, `${what} ${wanted} or ${wanted}s`);
    return null;
  }
  return many ?? (one === undefined ? [] : [one]);
}

function passwordOf({ password }: Data): VerifySecret | undefined {
  return password === undefined ? undefined : { text: password, untilMs: null };
}

function hmacOf(data: Data, problems: Problems): VerifyDocument["hmac"] {
  const { header, base = "{body}", timestampHeader = null, idHeader = null } = data;
  if (header === undefined) {
    problems.add("/verify/header", "is missing: expected the name of the signature's header");
    return null;
  }
  checkBase(base, { timestamp: timestampHeader, id: idHeader }, problems);
  if (data.tolerance !== undefined && timestampHeader === null) {
    problems.add("/verify/tolerance", "needs timestampHeader");
  }
  return {
    header: header.toLowerCase(),
    algorithm: data.algorithm ?? "sha256",
    encoding: data.encoding ?? "hex",
    prefix: data.prefix ?? "",
    base,
    timestampHeader: timestampHeader?.toLowerCase() ?? null,
    idHeader: idHeader?.toLowerCase() ?? null,
    keyEncoding: data.keyEncoding ?? "text",
  };
}

/** What stands in braces must be known, the body must be signed, and so must time and id. */
function checkBase(
  base: string,
  headers: { readonly timestamp: string | null; readonly id: string | null },
  problems: Problems,
): void {
  const known = ["body", "timestamp", "id", "method", "path", "url"];
  const named = [...base.matchAll(/\{([^{}]*)\}/g)].map(([, name]) => name ?? "");
  for (const name of named.filter((each) => !known.includes(each))) {
    problems.add("/verify/base", `there is no {${name}}; known are ${known.join(", ")}`);
  }
  if (!named.includes("body"))
    problems.add("/verify/base", "must hold {body}: it has to be signed");
  for (const part of ["timestamp", "id"] as const) {
    const isNamed = named.includes(part);
    if (isNamed && headers[part] === null) {
      problems.add(`/verify/${part}Header`, `is missing: the base holds {${part}}`);
    }
    if (!isNamed && headers[part] !== null && part === "timestamp") {
      problems.add("/verify/base", `must hold {${part}}: a time that is not signed proves nothing`);
    }
  }
}

function challengeOf(data: Data, problems: Problems): ChallengeDocument | null {
  const { challenge, token } = data;
  if (challenge === undefined) {
    if (token !== undefined) problems.add("/verify/token", "needs challenge");
    return null;
  }
  if (typeof challenge === "string") {
    if (token !== undefined) {
      problems.add("/verify/challenge", "expected { parameter, token } beside a token");
    }
    return { parameter: challenge, token: null };
  }
  const { parameter: name, token: tokenName } = challenge;
  if (tokenName === undefined && token === undefined) return { parameter: name, token: null };
  if (tokenName === undefined || token === undefined) {
    problems.add(
      "/verify/token",
      "token and challenge.token (the parameter it comes in) go together",
    );
    return null;
  }
  return { parameter: name, token: { parameter: tokenName, text: token } };
}
