/**
 * The `verify` part of a hook's document: which scheme, which keys, and what only that scheme has.
 * What each scheme does is in `http/verify/schemes.ts`; here is which words a document may use.
 */
import { z } from "zod";
import { hookSecretsMax } from "../limits.ts";
import { CHALLENGE_KEYS, CHALLENGE_MEMBERS, challengeOf, echoOf } from "./challenge.ts";
import {
  type HmacListDocument,
  type HookDocument,
  type HookJwtDocument,
  type JsonObject,
  VERIFY_SCHEMES,
  type VerifyDocument,
  type VerifyScheme,
  type VerifySecret,
} from "./document.ts";
import { JWT_MEMBERS, parseJwt } from "./jwt.ts";
import { MTLS_KEYS, mtlsOf } from "./mtls.ts";
import { isObject } from "./place.ts";
import { expected, type Problems, shown } from "./problems.ts";
import * as shapes from "./shapes.ts";
import { didYouMean } from "./suggest.ts";
import { escapePointer } from "./template.ts";
import { parseTimeMs } from "./units.ts";

const SECRETS = ["secret", "secrets"];
const PUBLIC_KEYS = ["publicKey", "publicKeys"];
const HMAC = [
  "header",
  "algorithm",
  "encoding",
  "prefix",
  "list",
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
  jwt: ["header", ...Object.keys(JWT_MEMBERS)],
  mtls: MTLS_KEYS,
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
const listMark = z.string().regex(/^[ -~]{1,10}$/, "expected one to ten ASCII characters");
const listName = z.string().regex(/^[!-~]{1,100}$/, "expected the name of an entry");
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
  list: shapes
    .strict({
      separator: listMark.optional(),
      assign: listMark.optional(),
      signature: listName,
      timestamp: listName.optional(),
    })
    .optional(),
  base: z.string().min(1).max(1000).optional(),
  timestampHeader: headerName.optional(),
  idHeader: headerName.optional(),
  keyEncoding: shapes.word(["text", "hex", "base64"]).optional(),
  format: shapes.word(["xfcc", "pem", "value"]).optional(),
  verifiedHeader: headerName.optional(),
  fingerprint: secret.optional(),
  fingerprints: secrets.optional(),
  subject: secret.optional(),
  subjects: secrets.optional(),
  uri: secret.optional(),
  uris: secrets.optional(),
  ...CHALLENGE_MEMBERS,
});

type Data = z.infer<typeof verifyShape>;
type Verified = Pick<HookDocument, "verify" | "challenge" | "echo">;

/** Parses `verify`; null when something is wrong with it, which is then among the problems. */
export function parseVerify(verify: JsonObject, problems: Problems): Verified | null {
  const scheme = schemeOf(verify["scheme"], problems);
  if (scheme === null) return null;
  const known = ["scheme", ...(scheme === "none" ? [] : KEYS[scheme]), ...CHALLENGE_KEYS];
  for (const key of Object.keys(verify).filter((each) => !known.includes(each))) {
    problems.add(`/verify/${escapePointer(key)}`, shapes.unknownKey(key, known));
  }
  const shape = verifyShape.safeParse(verify);
  if (!shape.success) {
    problems.addIssues(verify, shape.error.issues, "/verify");
    return null;
  }
  const { data } = shape;
  const asked = { challenge: challengeOf(data, problems), echo: echoOf(data, problems) };
  if (scheme === "none") return { verify: null, ...asked };
  if (scheme === "jwt") return { verify: jwtDocument(verify, data, problems), ...asked };
  return { verify: documentOf(scheme, data, problems), ...asked };
}

function schemeOf(scheme: unknown, problems: Problems): VerifyScheme | "none" | null {
  if (scheme === "none") return "none";
  const found = VERIFY_SCHEMES.find((each) => each === scheme);
  if (found !== undefined) return found;
  if (typeof scheme !== "string") {
    problems.add("/verify/scheme", `expected the name of a scheme, found ${shown(scheme)}`);
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
  if (scheme === "mtls") {
    const certificates = mtlsOf(data, problems);
    return certificates === null ? null : { ...NOTHING_MORE, scheme, ...certificates };
  }
  const found = secretsOf(scheme, data, problems);
  if (found === null) return null;
  const hmac = scheme === "hmac" ? hmacOf(data, problems) : null;
  return {
    ...NOTHING_MORE,
    scheme,
    secrets: found,
    toleranceMs: data.tolerance ?? null,
    url: data.url ?? null,
    username: data.username ?? null,
    hmac,
  };
}

const NOTHING_MORE: Omit<VerifyDocument, "scheme" | "secrets"> = {
  toleranceMs: null,
  url: null,
  username: null,
  hmac: null,
  mtls: null,
  jwt: null,
};

/** The settings of tokens are those of `access`, with the header beside them. */
function jwtDocument(verify: JsonObject, data: Data, problems: Problems): VerifyDocument | null {
  const own = Object.entries(verify).filter(([key]) => Object.hasOwn(JWT_MEMBERS, key));
  const jwt = parseJwt(Object.fromEntries(own), "/verify", problems);
  if (jwt === null) return null;
  const found: HookJwtDocument = { header: (data.header ?? "authorization").toLowerCase(), jwt };
  return { ...NOTHING_MORE, scheme: "jwt", secrets: [], jwt: found };
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
  const { header, timestampHeader, idHeader } = data;
  const { algorithm = "sha256", encoding = "hex", keyEncoding = "text" } = data;
  const { prefix = "", base = "{body}" } = data;
  if (header === undefined) {
    problems.add("/verify/header", "is missing: expected the name of the signature's header");
    return null;
  }
  const list = listOf(data, problems);
  checkSigned(data, list, problems);
  return {
    header: header.toLowerCase(),
    algorithm,
    encoding,
    prefix,
    list,
    base,
    timestampHeader: timestampHeader?.toLowerCase() ?? null,
    idHeader: idHeader?.toLowerCase() ?? null,
    keyEncoding,
  };
}

function listOf(
  { list, prefix, timestampHeader }: Data,
  problems: Problems,
): HmacListDocument | null {
  if (list === undefined) return null;
  const { separator = ",", assign = "=", signature, timestamp = null } = list;
  if (prefix !== undefined) problems.add("/verify/prefix", "stands beside list, which has names");
  if (timestamp !== null && timestampHeader !== undefined) {
    problems.add("/verify/timestampHeader", "stands beside list.timestamp: expected one of them");
  }
  if (signature === timestamp) problems.add("/verify/list/timestamp", "is the signature's name");
  if (separator === assign) problems.add("/verify/list/assign", "is the separator");
  for (const name of [signature, timestamp ?? ""]) {
    if (!name.includes(separator) && !name.includes(assign)) continue;
    problems.add("/verify/list", `the name ${JSON.stringify(name)} holds a separator`);
  }
  return { separator, assign, signature, timestamp };
}

function checkSigned(data: Data, list: HmacListDocument | null, problems: Problems): void {
  const { timestampHeader, idHeader = null, base = "{body}", tolerance } = data;
  const timestamp = timestampHeader ?? list?.timestamp ?? null;
  checkBase(base, { timestamp, id: idHeader }, problems);
  if (tolerance !== undefined && timestamp === null) {
    problems.add("/verify/tolerance", "needs timestampHeader");
  }
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
