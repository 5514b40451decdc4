/**
 * Signatures as Standard Webhooks defines them: over `id.timestamp.body`, by HMAC-SHA256
 * (`v1`, `whsec_…`) or ed25519 (`v1a`, `whsk_…`), one for each key, so that a key can be replaced
 * while the receiver still checks by the one before. No text here ever shows a key.
 */
import { createHmac, createPrivateKey, type KeyObject, sign } from "node:crypto";
import { InvalidError } from "../../src/errors.ts";

const SECRET_PREFIX = "whsec_";
const PRIVATE_PREFIX = "whsk_";
/** The least and most that Standard Webhooks allow. Bytes. */
const SECRET_BYTES_MIN = 24;
const SECRET_BYTES_MAX = 64;
/** An ed25519 key: its seed, or the seed and the public key behind it. Bytes. */
const SEED_BYTES = 32;
const SEED_AND_PUBLIC_BYTES = 64;
/** What stands before the seed in PKCS #8. */
const PKCS8_HEAD = Buffer.from("302e020100300506032b657004220420", "hex");

/** Keys that sign one target's requests: as many as a rotation needs. Count. */
export const signKeysMax = 8;

/** One key, its text no longer with it. */
type Key =
  | { readonly version: "v1"; readonly secret: Buffer }
  | { readonly version: "v1a"; readonly key: KeyObject };

/** Why a text is no key, without the text; null: it is one. */
export function keyProblem(text: string): string | null {
  return keyOf(text) === null
    ? "expected whsec_ and base64 of 24 to 64 bytes, or whsk_ and base64 of an ed25519 key"
    : null;
}

/** Signs what one target is sent. */
export class Signer {
  readonly #keys: readonly Key[];

  /** @throws InvalidError a text is no key: which, by its place; never its text. */
  constructor(texts: readonly string[]) {
    this.#keys = texts.map((text, index) => {
      const key = keyOf(text);
      if (key !== null) return key;
      const which = texts.length === 1 ? "the secret" : `secret ${index + 1} of ${texts.length}`;
      throw new InvalidError(`sign: ${which} can't be used: ${keyProblem(text) ?? ""}`);
    });
  }

  /** The value of `webhook-signature`; `id` and `timestamp` as the two other headers have them. */
  signature(id: string, timestamp: string, body: Uint8Array): string {
    const head = Buffer.from(`${id}.${timestamp}.`, "utf8");
    return this.#keys.map((key) => `${key.version},${signatureBy(key, head, body)}`).join(" ");
  }
}

/**
 * An id as a signed `webhook-id` has it: visible ASCII without the dot, which parts what is signed,
 * other bytes as percent and hex. Equal ids stay equal, different ones different.
 */
export function signedId(id: string): string {
  return [...Buffer.from(id, "utf8")]
    .map((byte) => {
      const character = String.fromCharCode(byte);
      if (/[\x21-\x24\x26-\x2d\x2f-\x7e]/.test(character)) return character;
      return `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
    })
    .join("");
}

function signatureBy(key: Key, head: Uint8Array, body: Uint8Array): string {
  if (key.version === "v1") {
    return createHmac("sha256", key.secret).update(head).update(body).digest("base64");
  }
  return sign(null, Buffer.concat([head, body]), key.key).toString("base64");
}

function keyOf(text: string): Key | null {
  if (text.startsWith(PRIVATE_PREFIX)) {
    const bytes = base64Of(text.slice(PRIVATE_PREFIX.length));
    const isKey = bytes?.length === SEED_BYTES || bytes?.length === SEED_AND_PUBLIC_BYTES;
    if (bytes === null || !isKey) return null;
    const der = Buffer.concat([PKCS8_HEAD, bytes.subarray(0, SEED_BYTES)]);
    return { version: "v1a", key: createPrivateKey({ key: der, format: "der", type: "pkcs8" }) };
  }
  if (!text.startsWith(SECRET_PREFIX)) return null;
  const secret = base64Of(text.slice(SECRET_PREFIX.length));
  if (secret === null || secret.length < SECRET_BYTES_MIN || secret.length > SECRET_BYTES_MAX) {
    return null;
  }
  return { version: "v1", secret };
}

function base64Of(text: string): Buffer | null {
  const bytes = Buffer.from(text, "base64");
  const isWhole = bytes.toString("base64").replace(/=+$/, "") === text.replace(/=+$/, "");
  return isWhole && bytes.length > 0 ? bytes : null;
}
