/**
 * Keys of webhooks' senders, made once from a secret's text: MACs are kept with the key already
 * taken in, public keys parsed. Signatures are compared in constant time and in their one canonical
 * text: another spelling of the same bytes is another signature.
 */
import {
  createHash,
  createPublicKey,
  type KeyObject,
  timingSafeEqual,
  verify as verifySignature,
} from "node:crypto";
import { InvalidError } from "../../errors.ts";
import { fingerprintText } from "./certificate.ts";
import type { Algorithm, KeyForm, SignatureForm } from "./schemes.ts";

/** What is signed, part by part. */
export type SignedParts = readonly (string | Uint8Array)[];

/** A key that counts. Its text is not kept, save where a handshake needs it as a MAC. */
export interface VerifyKey {
  /** Names it without telling it. */
  readonly id: string;
  readonly untilMs: number | null;
  readonly material: KeyMaterial;
  /** When it last let something in, Unix milliseconds; null: never, as far as is known. */
  lastUsedMs: number | null;
}

/** A key in the form that its algorithm uses. */
export type KeyMaterial =
  | {
      readonly kind: "mac";
      readonly hasher: Bun.CryptoHasher;
      readonly algorithms: readonly string[];
    }
  | {
      readonly kind: "public";
      readonly algorithm: "ed25519" | "ecdsa-p256";
      readonly key: KeyObject;
    }
  | { readonly kind: "token"; readonly digest: Buffer }
  /** The keys of a token's maker, which are not kept here. */
  | { readonly kind: "jwt" };

type Encoding = SignatureForm["encoding"];
type HashName = "sha1" | "sha256" | "sha384" | "sha512";

const STANDARD_SECRET = "whsec_";
const STANDARD_PUBLIC_KEY = "whpk_";
/** What Standard Webhooks allows, and what some of its senders use all the same. Bytes. */
const standardSecretBytesMin = 16;
const standardSecretBytesMax = 256;
const ed25519KeyBytes = 32;

/** How a secret's text becomes a key. */
export interface KeyRequest {
  readonly form: KeyForm;
  readonly algorithms: readonly Algorithm[];
  readonly text: string;
  /** Form `basic`: whose password it is. */
  readonly username: string | null;
}

/** Makes a key. @throws InvalidError the text is no such key; what is told never shows it. */
export function keyMaterial(request: KeyRequest): KeyMaterial {
  const { form, text } = request;
  if (text === "") throw new InvalidError("it is empty");
  if (form === "webhooks" && text.startsWith(STANDARD_PUBLIC_KEY)) {
    const raw = bytesOf(text.slice(STANDARD_PUBLIC_KEY.length), "base64");
    return { kind: "public", algorithm: "ed25519", key: ed25519Key(raw) };
  }
  if (form === "ed25519") {
    return { kind: "public", algorithm: "ed25519", key: ed25519Key(bytesOf(text, "hex")) };
  }
  if (form === "spki") return { kind: "public", algorithm: "ecdsa-p256", key: p256Key(text) };
  const [algorithm] = request.algorithms;
  if (algorithm === "certificate") {
    return {
      kind: "token",
      digest: digestOf(form === "fingerprint" ? fingerprintText(text) : text),
    };
  }
  if (algorithm === "token") {
    const token = form === "basic" ? basicCredentials(request.username, text) : text;
    return { kind: "token", digest: digestOf(token) };
  }
  const hash = (algorithm ?? "").replace("hmac-", "") as HashName;
  const hasher = new Bun.CryptoHasher(hash, secretBytes(form, text));
  return { kind: "mac", hasher, algorithms: [`hmac-${hash}`] };
}

/** The bytes of a secret that signs. @throws InvalidError */
export function secretBytes(form: KeyForm, text: string): Buffer {
  if (form === "hex" || form === "base64") return bytesOf(text, form);
  if (form !== "webhooks") return Buffer.from(text, "utf8");
  const bytes = bytesOf(
    text.startsWith(STANDARD_SECRET) ? text.slice(STANDARD_SECRET.length) : text,
    "base64",
  );
  if (bytes.length >= standardSecretBytesMin && bytes.length <= standardSecretBytesMax)
    return bytes;
  throw new InvalidError("a secret of Standard Webhooks is whsec_ and base64 of 24 to 64 bytes");
}

/** What stands after `Basic `. */
export function basicCredentials(username: string | null, password: string): string {
  return Buffer.from(`${username ?? ""}:${password}`, "utf8").toString("base64");
}

function bytesOf(text: string, encoding: "hex" | "base64"): Buffer {
  const bytes = Buffer.from(text, encoding);
  const isWhole =
    encoding === "hex"
      ? bytes.length * 2 === text.length
      : bytes.toString("base64").replace(/=+$/, "") === text.replace(/=+$/, "");
  if (isWhole && bytes.length > 0) return bytes;
  throw new InvalidError(`it is not ${encoding}`);
}

function ed25519Key(raw: Buffer): KeyObject {
  if (raw.length !== ed25519KeyBytes) {
    throw new InvalidError(`an ed25519 key has ${ed25519KeyBytes} bytes`);
  }
  const x = raw.toString("base64url");
  return publicKey(() =>
    createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" }),
  );
}

/** An ECDSA key on P-256 as base64 of its DER, or as PEM. */
function p256Key(text: string): KeyObject {
  const isPem = text.includes("-----BEGIN");
  const key = publicKey(() =>
    isPem
      ? createPublicKey(text)
      : createPublicKey({ key: bytesOf(text, "base64"), format: "der", type: "spki" }),
  );
  if (key.asymmetricKeyDetails?.namedCurve === "prime256v1") return key;
  throw new InvalidError("it is no public key on the curve P-256");
}

function publicKey(make: () => KeyObject): KeyObject {
  try {
    return make();
  } catch (cause) {
    if (cause instanceof InvalidError) throw cause;
    throw new InvalidError("it is no public key", [], { cause });
  }
}

/** Whether one of the signatures was made with the key over these parts. */
export function isSignedBy(
  material: KeyMaterial,
  signatures: readonly { readonly algorithm: Algorithm; readonly text: string }[],
  signed: { readonly parts: SignedParts; readonly encoding: Encoding },
): boolean {
  switch (material.kind) {
    case "jwt":
      return false;
    case "token":
      return signatures.some(({ text }) => timingSafeEqual(digestOf(text), material.digest));
    case "mac": {
      const own = signatures.filter(({ algorithm }) => material.algorithms.includes(algorithm));
      if (own.length === 0) return false;
      const expected = macText(material.hasher, signed.parts, signed.encoding);
      return own.some(({ text }) => equalTexts(text, expected));
    }
    case "public": {
      const own = signatures.filter(({ algorithm }) => algorithm === material.algorithm);
      if (own.length === 0) return false;
      const bytes = Buffer.concat(signed.parts.map(partBytes));
      return own.some(({ text }) => {
        const signature = canonicalBytes(text, signed.encoding);
        if (signature === null) return false;
        const hash = material.algorithm === "ed25519" ? null : "sha256";
        return verifySignature(hash, bytes, material.key, signature);
      });
    }
  }
}

function partBytes(part: string | Uint8Array): Uint8Array {
  return typeof part === "string" ? Buffer.from(part, "utf8") : part;
}

/** The MAC of some parts, as its header writes it. The hasher stays as it is. */
export function macText(hasher: Bun.CryptoHasher, parts: SignedParts, encoding: Encoding): string {
  const copy = hasher.copy();
  for (const part of parts) copy.update(part);
  if (encoding === "hex" || encoding === "base64") return copy.digest(encoding);
  return Buffer.from(copy.digest()).toString(encoding === "text" ? "hex" : encoding);
}

/** Whether two texts are equal, in a time that tells only their lengths. */
export function equalTexts(left: string, right: string): boolean {
  const [one, other] = [Buffer.from(left, "utf8"), Buffer.from(right, "utf8")];
  return one.length === other.length && timingSafeEqual(one, other);
}

function canonicalBytes(text: string, encoding: Encoding): Buffer | null {
  if (encoding === "text") return null;
  const bytes = Buffer.from(text, encoding);
  return bytes.toString(encoding) === text ? bytes : null;
}

function digestOf(text: string): Buffer {
  return createHash("sha256").update(text, "utf8").digest();
}
