/**
 * Definitions: the documents that say what the gateway does, as `apply` and the API take them.
 * Two forms: the bare document as its author wrote it (stored, shown, exported, secrets replaced
 * by references) and the parsed one below, with every default filled in (run).
 */
import type { Rate } from "./units.ts";

/** The kinds of definitions, in the order in which they depend on one another. */
export const KINDS = ["bridges", "streams", "sources", "hooks", "rules", "access"] as const;
export type Kind = (typeof KINDS)[number];

/** A JSON value, as a document holds it. */
export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [name: string]: Json };
export type JsonObject = { readonly [name: string]: Json };

/** One definition: its bare document, its parsed form, and which change made it. */
export interface Definition<Parsed = unknown> {
  readonly kind: Kind;
  readonly name: string;
  /** Grows with each accepted change of this definition, from 1. */
  readonly revision: number;
  readonly project: string | null;
  /** As written; a secret's text is replaced by `${secret:KIND.NAME.PATH}`. */
  readonly document: JsonObject;
  readonly parsed: Parsed;
}

/** The whole accepted set. Immutable: a change makes another one with a greater version. */
export interface Definitions {
  readonly version: number;
  readonly bridges: ReadonlyMap<string, Definition<BridgeDocument>>;
  readonly streams: ReadonlyMap<string, Definition<StreamDocument>>;
  readonly sources: ReadonlyMap<string, Definition<SourceDocument>>;
  readonly hooks: ReadonlyMap<string, Definition<HookDocument>>;
  readonly rules: ReadonlyMap<string, Definition<RuleDocument>>;
  readonly access: ReadonlyMap<string, Definition<AccessDocument>>;
}

/** `earliest`, `latest` or a time. */
export type Start = "earliest" | "latest" | { readonly timestampMs: number };

export interface BridgeDocument {
  /** The module's kind, aliases resolved. */
  readonly kind: string;
  /** What the module's `parseConfig` made of the rest; references are still unresolved. */
  readonly config: unknown;
}

export interface StreamDocument {
  readonly partitions: number;
  readonly retention: Retention;
  /** Whether sealed segments keep lists of keys. */
  readonly indexKey: boolean;
}

/** A bound that is null does not apply. With none of them named: 7 days and 10 GiB. */
export interface Retention {
  readonly ageMs: number | null;
  readonly bytes: number | null;
  readonly messages: number | null;
  /** Kept until every enabled rule of the stream has passed it, and `keepMs` longer. */
  readonly afterRouted: boolean;
  readonly keepMs: number;
  readonly whenFull: "block" | "dropOldest";
}

/** A place in an outside system, as a document names it: the bridge, and the rest of the fields. */
export interface BridgeAddress {
  readonly bridge: string;
  /** The bridge's kind, aliases resolved: which module knows the fields. */
  readonly kind: string;
  /** The fields beside `bridge`, as the module's `parseAddress` normalized them. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** The address as text: its identity. */
  readonly text: string;
  /** What holds no templates and is no part of the identity: see the port's `Address`. */
  readonly fixed?: Readonly<Record<string, unknown>>;
}

export interface SourceDocument {
  readonly from: BridgeAddress;
  readonly stream: string;
  /** CEL, or null. */
  readonly key: string | null;
  readonly dedupe: string | null;
  readonly start: Start;
}

/** How the senders of webhooks prove who they are. */
export const VERIFY_SCHEMES = [
  "standard-webhooks",
  "github",
  "stripe",
  "slack",
  "shopify",
  "twilio",
  "gitlab",
  "discord",
  "zoom",
  "sendgrid",
  "hmac",
  "basic",
  "bearer",
  "jwt",
  "mtls",
] as const;
export type VerifyScheme = (typeof VERIFY_SCHEMES)[number];

/** One key that counts; its text may hold references, which are resolved when the hook starts. */
export interface VerifySecret {
  readonly text: string;
  /** When it stops to count, Unix milliseconds; null: never. */
  readonly untilMs: number | null;
}

/** A header that holds entries such as `t=1,v1=ab`: one signature or several, and the time. */
export interface HmacListDocument {
  readonly separator: string;
  readonly assign: string;
  readonly signature: string;
  /** Null: the time stands in a header of its own, or nowhere. */
  readonly timestamp: string | null;
}

/** How a signature of one's own is made: scheme `hmac`. */
export interface HmacDocument {
  readonly header: string;
  readonly algorithm: "sha1" | "sha256" | "sha384" | "sha512";
  readonly encoding: "hex" | "base64" | "base64url";
  /** What stands before the signature in its header. */
  readonly prefix: string;
  /** Null: the header holds one signature and nothing else. */
  readonly list: HmacListDocument | null;
  /** What is signed: text with `{body}`, `{timestamp}`, `{id}`, `{method}`, `{path}`, `{url}`. */
  readonly base: string;
  readonly timestampHeader: string | null;
  readonly idHeader: string | null;
  readonly keyEncoding: "text" | "hex" | "base64";
}

/** Where a proxy says whose certificate it has seen, and what of it counts: scheme `mtls`. */
export interface MtlsDocument {
  readonly header: string;
  /** `xfcc`: Envoy's `x-forwarded-client-cert`; `pem`: the certificate; `value`: nothing else. */
  readonly format: "xfcc" | "pem" | "value";
  readonly part: "fingerprint" | "subject" | "uri";
  /** The header that must say `SUCCESS`; null where a proxy passes only what it has checked. */
  readonly verifiedHeader: string | null;
}

/** The header in which a hook's JSON Web Token comes, and how it is checked: scheme `jwt`. */
export interface HookJwtDocument {
  readonly header: string;
  readonly jwt: JwtDocument;
}

export interface VerifyDocument {
  readonly scheme: VerifyScheme;
  readonly secrets: readonly VerifySecret[];
  /** How far the sender's time may be from ours; null: as the scheme has it. */
  readonly toleranceMs: number | null;
  /** The hook's address as its sender calls it, where that is signed; null: the public URL's. */
  readonly url: string | null;
  /** Scheme `basic` only. */
  readonly username: string | null;
  /** Scheme `hmac` only. */
  readonly hmac: HmacDocument | null;
  /** Scheme `mtls` only; its secrets are what certificates are known by. */
  readonly mtls: MtlsDocument | null;
  /** Scheme `jwt` only, which has its keys here and no secrets. */
  readonly jwt: HookJwtDocument | null;
}

/** A GET that asks for one of its parameters back. */
export interface ChallengeDocument {
  readonly parameter: string;
  /** The parameter in which the sender shows a token, and the token; null: anyone may ask. */
  readonly token: { readonly parameter: string; readonly text: string } | null;
}

/** A member of a POST's JSON that is given back, and not stored. */
export interface EchoDocument {
  /** Names, from the outside in. */
  readonly path: readonly string[];
  /** CEL that says which bodies ask; null: those that hold this member and nothing else. */
  readonly when: string | null;
  readonly as: "text" | "json";
}

export interface HookAnswer {
  readonly status: number;
  readonly body: string;
  readonly contentType: string | null;
}

export interface HookLimits {
  readonly bodyBytes: number;
  /** So many webhooks in so long, and so many at once. */
  readonly rate: { readonly count: number; readonly perMs: number } | null;
  /** How many may be under way. */
  readonly concurrency: number | null;
  /** All header lines together; null: the server's own bound. */
  readonly headerBytes: number | null;
  /** What a body must come with, at least, after its grace. */
  readonly bytesPerSecond: number;
}

export interface HookDocument {
  readonly stream: string;
  readonly key: string | null;
  /** CEL; null when none was given; false when turned off. */
  readonly dedupe: string | null | false;
  /** How the sender is verified; null is an open hook. */
  readonly verify: VerifyDocument | null;
  readonly challenge: ChallengeDocument | null;
  readonly echo: EchoDocument | null;
  /** Media types that are taken, lower case, `type/*` for all of a type; null: everything. */
  readonly accept: readonly string[] | null;
  /** Whether a gzip body is kept inflated; otherwise its bytes are kept as they came. */
  readonly inflate: boolean;
  /** Headers that are not kept, lower case, beside those that never are. */
  readonly dropHeaders: readonly string[];
  /** What is answered instead of a receipt; null: as the scheme has it. */
  readonly answer: HookAnswer | null;
  readonly limits: HookLimits;
  /** The methods by which webhooks come. */
  readonly methods: readonly string[];
}

export interface RetryDocument {
  /** How long an outage is waited out before the message is given up; null: for ever. */
  readonly maxAgeMs: number | null;
  /** How many refusals of one message before it is given up. */
  readonly attempts: number;
  readonly delayMinMs: number;
  readonly delayMaxMs: number;
}

/** Messages that go to a target together. */
export interface BatchDocument {
  /** At most so many, and so many bytes of bodies; one message goes whatever its size. */
  readonly messages: number;
  readonly bytes: number;
  /** How long the first of them waits for others; 0: not at all. */
  readonly waitMs: number;
  /** Where they go as one: the form of it. */
  readonly as?: string;
}

/** The change that a rule makes. Texts hold `${CEL}`; an absent member leaves its part as it is. */
export interface SetDocument {
  readonly key?: Json;
  readonly headers?: Readonly<Record<string, Json>>;
  readonly body?: Json;
  readonly properties?: Readonly<Record<string, Json>>;
}

export interface TargetDocument {
  /** The route's identity within its rule: given, or the bridge and address as written. */
  readonly name: string;
  /** A stream's name may hold `${CEL}`, as every text of an address. */
  readonly to: BridgeAddress | { readonly stream: string };
  /** Of a stream: CEL that gives a list, one message for each element (`${item}`). */
  readonly each?: string;
  /** Of a stream: text with `${CEL}`, the key in place of the one that `set` gave. */
  readonly key?: string;
  readonly retry: RetryDocument;
  /** At most so many messages, or batches, in so long: of all partitions together. */
  readonly limit?: Rate;
  /** At most so many messages, or batches, under way: of all partitions together. */
  readonly concurrency?: number;
  /** Messages go together; absent: each by itself. */
  readonly batch?: BatchDocument;
  /** CEL that gives the time before which a message does not go out, or null. */
  readonly notBefore: string | null;
  /** How long after its append a message goes out at the earliest; 0: at once. */
  readonly delayMs: number;
  /** Messages go out as CloudEvents, in their headers or all of it in the body; absent: as is. */
  readonly format?: "binary" | "structured";
  /** A message that would come back to where it has been is left out; absent: a dead letter. */
  readonly echo?: "drop";
  /** A message that would lose something at a bridge is not sent; absent: no. */
  readonly strict?: boolean;
}

export interface RuleDocument {
  /** A stream's name, or a source's address (a source of its own, shared by equal addresses). */
  readonly from: { readonly stream: string } | BridgeAddress;
  readonly where: string | null;
  readonly start: Start;
  readonly order: "partition" | "key" | "none";
  readonly set: SetDocument;
  readonly to: readonly TargetDocument[];
  readonly onFailure: "dead-letter" | "block" | "park";
  readonly enabled: boolean;
}

/** The algorithms that a token may be signed with. */
export type JwtAlgorithm = "HS256" | "RS256" | "ES256" | "EdDSA";

/** Where the keys of tokens come from; texts may hold references. */
export type JwtKeys =
  | { readonly from: "jwks"; readonly url: string }
  | { readonly from: "secrets" | "publicKeys"; readonly texts: readonly string[] };

/** How JSON Web Tokens are checked. An empty list: not looked at. */
export interface JwtDocument {
  readonly keys: JwtKeys;
  readonly algorithms: readonly JwtAlgorithm[];
  readonly audiences: readonly string[];
  readonly issuers: readonly string[];
  /** How far the clocks may be apart. */
  readonly leewayMs: number;
  /** The claim that names the bearer. */
  readonly subjectClaim: string;
}

/** Which streams (patterns with `*`) and which of their keys a client may read or write. */
export interface Grant {
  readonly stream: string;
  /** A literal key, or `claims.NAME` of the caller's token; null: any key. */
  readonly key: string | null;
  /** CEL over a message and `claims`: only messages for which it is true; absent: all. */
  readonly where?: string;
}

export interface AccessDocument {
  readonly read: readonly Grant[];
  readonly write: readonly Grant[];
  /** How the tokens of these clients are checked; null: the document lets nobody in. */
  readonly jwt: JwtDocument | null;
}

/** One wanted change; `document: null` deletes. */
export interface Change {
  readonly kind: Kind;
  readonly name: string;
  readonly document: JsonObject | null;
  /** The change happens only when the definition stands at this revision (0: not there). */
  readonly ifRevision?: number;
}

/** Who asks for changes, for the record. */
export interface ChangeContext {
  readonly by: string;
  readonly project?: string | null;
  readonly why?: string | null;
}
