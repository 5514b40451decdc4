/**
 * Secrets of documents. A literal in a field known to be secret is encrypted and replaced by
 * `${secret:PATH}` before the document is parsed, stored or shown; what was never stored in clear
 * can't leak from the database, the snapshot, the API or an error.
 *
 * Each secret has a random data key of its own (AES-256-GCM), wrapped by the gateway's key, so a
 * change of that key touches the wrapped data keys only. Both encryptions are bound to the
 * secret's path and version: a ciphertext moved to another place doesn't open.
 */
import {
  createCipheriv,
  createDecipheriv,
  hkdfSync,
  randomBytes,
  timingSafeEqual,
} from "node:crypto";
import { InvalidError } from "../../errors.ts";
import type { Json, JsonObject, Kind } from "../document.ts";
import { referencesIn, secretPathsIn, secretReference, withoutReferences } from "./references.ts";
import type { StoredSecret } from "./state.ts";

const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;

/** Shorter texts can be guessed; the one made at the first start has 43 characters. */
const SECRET_KEY_CHARACTERS_MIN = 32;

/** Documents nest a few levels; deeper ones only exhaust the stack. */
const DOCUMENT_DEPTH_MAX = 64;

/** What one secret's encryption is bound to. */
type SecretPlace = Pick<StoredSecret, "path" | "version">;

/** The gateway's key, as it is used: what it was made from is not kept. */
export class Keyring {
  /** Names the key without telling it. */
  readonly keyId: string;
  /** Stored beside the secrets; another key has another proof. */
  readonly proof: string;
  readonly #key: Buffer;

  /** @throws InvalidError the text is too short to be a key. */
  constructor(text: string) {
    if (text.length < SECRET_KEY_CHARACTERS_MIN) {
      throw new InvalidError(
        `ISTHMUS_SECRET_KEY must have at least ${SECRET_KEY_CHARACTERS_MIN} characters; make one with: openssl rand -base64 32`,
      );
    }
    this.#key = derive(text, "wrap");
    this.proof = derive(text, "proof").toString("hex");
    this.keyId = this.proof.slice(0, 16);
  }

  /** Whether secrets with this proof were encrypted with this key. */
  proves(proof: string): boolean {
    const theirs = Buffer.from(proof, "hex");
    const ours = Buffer.from(this.proof, "hex");
    return theirs.length === ours.length && timingSafeEqual(theirs, ours);
  }

  /** Encrypts a text for one place. */
  seal(text: string, place: SecretPlace): Pick<StoredSecret, "keyId" | "wrapped" | "sealed"> {
    const dataKey = randomBytes(keyBytes);
    return {
      keyId: this.keyId,
      wrapped: encrypt(dataKey, this.#key, place),
      sealed: encrypt(Buffer.from(text, "utf8"), dataKey, place),
    };
  }

  /** The text of a secret. @throws InvalidError it was encrypted with another key, or changed. */
  open(secret: StoredSecret): string {
    try {
      const dataKey = decrypt(secret.wrapped, this.#key, secret);
      return decrypt(secret.sealed, dataKey, secret).toString("utf8");
    } catch (error) {
      throw new InvalidError(
        `the stored secret ${secret.path} can't be decrypted: it was encrypted with another key or was changed`,
        [],
        { cause: error },
      );
    }
  }
}

/** A new key as text, for the file made at the first start. */
export function newSecretKey(): string {
  return randomBytes(keyBytes).toString("base64url");
}

function derive(text: string, use: string): Buffer {
  return Buffer.from(hkdfSync("sha256", text, "isthmus", `definitions ${use}`, keyBytes));
}

function encrypt(plain: Uint8Array, key: Uint8Array, place: SecretPlace): string {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(boundTo(place));
  const parts = [nonce, cipher.update(plain), cipher.final()];
  return Buffer.concat([...parts, cipher.getAuthTag()]).toString("base64");
}

function decrypt(text: string, key: Uint8Array, place: SecretPlace): Buffer {
  const bytes = Buffer.from(text, "base64");
  const cipher = createDecipheriv("aes-256-gcm", key, bytes.subarray(0, nonceBytes), {
    authTagLength: tagBytes,
  });
  cipher.setAAD(boundTo(place)).setAuthTag(bytes.subarray(-tagBytes));
  return Buffer.concat([cipher.update(bytes.subarray(nonceBytes, -tagBytes)), cipher.final()]);
}

function boundTo(place: SecretPlace): Buffer {
  return Buffer.from(`${place.path}:${place.version}`, "utf8");
}

/** A document on its way in, and what is stored of its kind and name. */
export interface SealRequest {
  readonly kind: Kind;
  readonly name: string;
  readonly document: JsonObject;
  /** All stored secrets, by path. */
  readonly held: ReadonlyMap<string, StoredSecret>;
  readonly atMs: number;
}

/** A document without literal secrets. */
export interface SealedDocument {
  readonly document: JsonObject;
  /** Secrets that are new or have another text than before. */
  readonly secrets: readonly StoredSecret[];
}

/**
 * Replaces literal secrets by references. A literal equal to the one stored changes nothing; a
 * reference leaves its secret as it is.
 * @throws InvalidError a reference names a secret that this definition doesn't have.
 */
export function sealDocument(request: SealRequest, keyring: Keyring): SealedDocument {
  checkDepth(request.document, 0);
  const named = secretPathsIn(request.document);
  checkNamed(named, request);
  const taken = new Set(named);
  const secrets: StoredSecret[] = [];
  const seal = (text: string, path: readonly string[]): string => {
    const place = freePlace(path, taken, request);
    taken.add(place);
    const before = request.held.get(place);
    if (before !== undefined && keyring.open(before) === text) return secretReference(place);
    const at = { path: place, version: (before?.version ?? 0) + 1 };
    const { kind, name, atMs } = request;
    secrets.push({ ...at, kind, name, ...keyring.seal(text, at), atMs });
    return secretReference(place);
  };
  const document = mapTexts(request.document, [], (text, path) => {
    return sealText(text, path, { kind: request.kind, seal });
  });
  return { document: document as JsonObject, secrets };
}

function checkDepth(value: Json, depth: number): void {
  if (depth > DOCUMENT_DEPTH_MAX) {
    throw new InvalidError(`a document nests deeper than ${DOCUMENT_DEPTH_MAX} levels`, [], {
      code: "definition-invalid",
    });
  }
  if (value === null || typeof value !== "object") return;
  for (const member of Object.values(value)) checkDepth(member, depth + 1);
}

function checkNamed(named: ReadonlySet<string>, request: SealRequest): void {
  for (const path of named) {
    const secret = request.held.get(path);
    if (secret?.kind === request.kind && secret.name === request.name) continue;
    throw new InvalidError(
      `${request.kind} ${request.name}: no secret is stored as ${secretReference(path)}: write the secret itself, or \${env:NAME}`,
      [{ pointer: "", detail: `${secretReference(path)} is not there` }],
      { code: "definition-invalid" },
    );
  }
}

/**
 * The path for a literal: where it stands, unless the document names that secret elsewhere too
 * (a list in another order) or another definition owns the path (names may hold dots).
 */
function freePlace(
  path: readonly string[],
  taken: ReadonlySet<string>,
  request: SealRequest,
): string {
  const fields = path.map((field) => field.replaceAll(/[^A-Za-z0-9_-]/g, "_"));
  const natural = [request.kind, request.name, ...fields].join(".");
  for (let suffix = 1; ; suffix += 1) {
    const place = suffix === 1 ? natural : `${natural}.${suffix}`;
    const owner = request.held.get(place);
    const ours =
      owner === undefined || (owner.kind === request.kind && owner.name === request.name);
    if (ours && !taken.has(place)) return place;
  }
}

function mapTexts(
  value: Json,
  path: readonly string[],
  change: (text: string, path: readonly string[]) => string,
): Json {
  if (typeof value === "string") return change(value, path);
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) {
    return (value as readonly Json[]).map((item, index) =>
      mapTexts(item, [...path, String(index)], change),
    );
  }
  const members = Object.entries(value as JsonObject).map(([name, member]) => {
    return [name, mapTexts(member, [...path, name], change)] as const;
  });
  return Object.fromEntries(members);
}

/** `scheme://user:` and the password up to the last `@` before the path. */
const urlPasswordPattern = /^([a-z][a-z0-9+.-]*:\/\/[^/?#@:]*:)([^/?#]+)(@.*)$/is;
/** Words before a credential that are no secret themselves. */
const schemeWordPattern = /^\s*(?:(?:bearer|basic|token|apikey|digest)\s*)?$/i;
const secretHeaderPattern = /authorization|cookie|api-?key|token|secret|password/i;

/** Fields that hold a secret, under these parents. */
const secretFields: Readonly<Record<string, ReadonlySet<string>>> = {
  verify: new Set(["secret", "secrets", "password", "token", "tokens"]),
  secret: new Set(["secret"]),
  secrets: new Set(["secret"]),
  sign: new Set(["secret", "secrets"]),
  jwt: new Set(["secret", "secrets"]),
  tls: new Set(["key", "passphrase"]),
};

interface Sealing {
  readonly kind: Kind;
  readonly seal: (text: string, path: readonly string[]) => string;
}

function sealText(text: string, path: readonly string[], sealing: Sealing): string {
  if (isSecretField(sealing.kind, path)) {
    return isClear(text) ? sealing.seal(text, path) : text;
  }
  // A rule's texts are templates: a password in one is part of what the rule writes.
  if (sealing.kind === "rules") return text;
  const url = urlPasswordPattern.exec(text);
  if (url === null) return text;
  const [, before = "", password = "", after = ""] = url;
  return isClear(password) ? `${before}${sealing.seal(password, path)}${after}` : text;
}

function isSecretField(kind: Kind, path: readonly string[]): boolean {
  const names = path.filter((part) => !/^\d+$/.test(part));
  const field = names.at(-1) ?? "";
  const parent = names.at(-2) ?? "";
  if (secretFields[parent]?.has(field) === true) return true;
  if (kind !== "bridges") return false;
  if (path.length === 1) return field === "password";
  return path.length === 2 && parent === "headers" && secretHeaderPattern.test(field);
}

/** Whether a text says a secret itself, and not only where it is to be found. */
function isClear(text: string): boolean {
  if (referencesIn(text).length === 0) return text !== "";
  const rest = withoutReferences(text);
  if (schemeWordPattern.test(rest)) return false;
  if (referencesIn(text).some((reference) => reference.from === "secret")) {
    throw new InvalidError("a ${secret:…} reference stands alone in its field", [], {
      code: "definition-invalid",
    });
  }
  return true;
}
