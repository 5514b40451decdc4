/**
 * What a trusted proxy says of the certificate that its client has shown: scheme `mtls`. A proxy
 * writes the header itself, so it counts only from a proxy; of a list the last element counts, the
 * one that the nearest proxy has put there.
 */
import { X509Certificate } from "node:crypto";
import { InvalidError } from "../../errors.ts";
import type { MtlsDocument } from "../../rules/document.ts";

/** SHA-1, as nginx writes it, or SHA-256, in hex. */
const FINGERPRINT = /^([0-9a-f]{40}|[0-9a-f]{64})$/;
/** What proxies say of a certificate that they have checked. */
const CHECKED = /^(success|0|true)$/i;
const XFCC_NAMES: Readonly<Record<MtlsDocument["part"], string>> = {
  fingerprint: "hash",
  subject: "subject",
  uri: "uri",
};

/** A request, as far as a proxy speaks through it. */
interface ProxiedRequest {
  readonly headers: Pick<Headers, "get">;
  /** Whether the peer of the connection is a trusted proxy. */
  readonly isProxied: boolean;
}

/**
 * What the certificate is known by; several where it has several URIs. What `refusal` makes is
 * thrown when no proxy has said it.
 */
export function certificateNames(
  { header, format, part, verifiedHeader }: MtlsDocument,
  { headers, isProxied }: ProxiedRequest,
  refusal: (detail: string) => Error,
): readonly string[] {
  if (!isProxied) throw refusal(`the header ${header} counts only from a trusted proxy`);
  if (verifiedHeader !== null && !CHECKED.test(headers.get(verifiedHeader) ?? "")) {
    throw refusal(`the header ${verifiedHeader} does not say that a certificate was checked`);
  }
  const value = headers.get(header) ?? "";
  const texts =
    format === "xfcc"
      ? lastElement(value, XFCC_NAMES[part])
      : [format === "pem" ? fromPem(value, part, refusal) : value];
  const names = texts.filter((text) => text !== "");
  if (names.length === 0) throw refusal(`the header ${header} names no ${part}`);
  return part === "fingerprint" ? names.map(plainHex) : names;
}

/** A fingerprint in the one way that is compared. @throws InvalidError it is none. */
export function fingerprintText(text: string): string {
  const hex = plainHex(text);
  if (FINGERPRINT.test(hex)) return hex;
  throw new InvalidError("a fingerprint is 40 or 64 hex digits, with or without colons");
}

function plainHex(text: string): string {
  return text.trim().replaceAll(":", "").toLowerCase();
}

/** The values of one name in the last element of `Name=value;Name="quoted, value"`. */
function lastElement(value: string, name: string): readonly string[] {
  const [last = ""] = split(value, ",").slice(-1);
  return split(last, ";").flatMap((pair) => {
    const at = pair.indexOf("=");
    if (pair.slice(0, Math.max(0, at)).trim().toLowerCase() !== name) return [];
    return [unquoted(pair.slice(at + 1).trim())];
  });
}

/** The parts between separators that no quotes are around. */
function split(text: string, separator: string): readonly string[] {
  const parts: string[] = [];
  let start = 0;
  let isQuoted = false;
  for (let index = 0; index < text.length; index++) {
    const character = text[index];
    if (character === "\\" && isQuoted) index++;
    else if (character === '"') isQuoted = !isQuoted;
    else if (character === separator && !isQuoted) {
      parts.push(text.slice(start, index));
      start = index + 1;
    }
  }
  return [...parts, text.slice(start)];
}

function unquoted(text: string): string {
  if (!text.startsWith('"') || !text.endsWith('"') || text.length < 2) return text;
  return text.slice(1, -1).replaceAll(/\\(.)/g, "$1");
}

/** From a certificate as PEM, percent-encoded or with its line breaks left out. */
function fromPem(
  value: string,
  part: MtlsDocument["part"],
  refusal: (detail: string) => Error,
): string {
  try {
    const text = value.includes("%") ? decodeURIComponent(value) : value;
    const base64 = text.replaceAll(/-----(BEGIN|END) CERTIFICATE-----|\s/g, "");
    const certificate = new X509Certificate(Buffer.from(base64, "base64"));
    return part === "subject" ? certificate.subject : certificate.fingerprint256;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    throw refusal("the header holds no certificate");
  }
}
