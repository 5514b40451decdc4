/**
 * Test webhooks whose proof is not a signature over them: a token that an issuer would make, by the
 * settings of the hook that will check it, and the headers in which a proxy tells of a certificate.
 */
import { createHmac, createPrivateKey, sign } from "node:crypto";
import { InvalidError } from "../../errors.ts";
import type { JwtAlgorithm, JwtDocument, MtlsDocument } from "../../rules/document.ts";

/** How long a token for one test event lives. Seconds. */
const tokenS = 60;
/** Who a token names where nobody is named. */
const SUBJECT = "isthmus send";

/** A token that the hook takes. @throws InvalidError the key is none, or of no algorithm of it. */
export function testToken(document: JwtDocument, key: string, atMs: number): string {
  const nowS = Math.floor(atMs / 1000);
  const [audience] = document.audiences;
  const [issuer] = document.issuers;
  const claims = {
    sub: SUBJECT,
    [document.subjectClaim]: SUBJECT,
    ...(audience === undefined ? {} : { aud: audience }),
    ...(issuer === undefined ? {} : { iss: issuer }),
    iat: nowS,
    exp: nowS + tokenS,
  };
  const signer = signerOf(document, key);
  const header = { alg: signer.algorithm, typ: "JWT" };
  const text = [header, claims].map((each) => base64Url(JSON.stringify(each))).join(".");
  return `${text}.${base64Url(signer.sign(Buffer.from(text)))}`;
}

interface Signer {
  readonly algorithm: JwtAlgorithm;
  readonly sign: (bytes: Buffer) => Uint8Array;
}

function signerOf({ keys, algorithms }: JwtDocument, text: string): Signer {
  if (keys.from === "secrets") {
    return {
      algorithm: "HS256",
      sign: (bytes) => createHmac("sha256", text).update(bytes).digest(),
    };
  }
  const key = privateKeyOf(text);
  const hash = key.asymmetricKeyType === "ed25519" ? null : "sha256";
  const algorithm = ALGORITHMS[key.asymmetricKeyType ?? ""];
  if (algorithm === undefined || !algorithms.includes(algorithm)) {
    const name = key.asymmetricKeyType ?? "unknown";
    throw new InvalidError(`a key of type ${name} signs nothing that the hook takes`);
  }
  const dsaEncoding = "ieee-p1363";
  return { algorithm, sign: (bytes) => sign(hash, bytes, { key, dsaEncoding }) };
}

const ALGORITHMS: Readonly<Record<string, JwtAlgorithm>> = {
  rsa: "RS256",
  ec: "ES256",
  ed25519: "EdDSA",
};

function privateKeyOf(text: string): ReturnType<typeof createPrivateKey> {
  try {
    return createPrivateKey(text);
  } catch (cause) {
    throw new InvalidError("tokens are signed with a private key: give --private-key", [], {
      cause,
    });
  }
}

function base64Url(data: string | Uint8Array): string {
  return Buffer.from(data).toString("base64url");
}

/** What a proxy would write of a certificate; it counts where the sender is a trusted proxy. */
export function certificateHeaders(
  { header, format, part, verifiedHeader }: MtlsDocument,
  name: string,
): Readonly<Record<string, string>> {
  const value = {
    xfcc: () => `${XFCC_NAMES[part]}="${name.replaceAll(/[\\"]/g, (each) => `\\${each}`)}"`,
    pem: () => encodeURIComponent(name),
    value: () => name,
  }[format]();
  return { [header]: value, ...(verifiedHeader === null ? {} : { [verifiedHeader]: "SUCCESS" }) };
}

const XFCC_NAMES: Readonly<Record<MtlsDocument["part"], string>> = {
  fingerprint: "Hash",
  subject: "Subject",
  uri: "URI",
};
