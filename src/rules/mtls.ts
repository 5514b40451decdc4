/**
 * Scheme `mtls` of a hook's `verify`: which header of a trusted proxy tells of the client's
 * certificate, and which certificates may send. What they are known by stands where other schemes
 * have their secrets: it may be a reference, and have an end.
 */
import type { MtlsDocument, VerifySecret } from "./document.ts";
import type { Problems } from "./problems.ts";

/** Envoy's header, which Istio and others write too. */
const XFCC = "x-forwarded-client-cert";
const PARTS = ["fingerprint", "subject", "uri"] as const;

/** The keys of `verify` that are read here. */
export const MTLS_KEYS = [
  "header",
  "format",
  "verifiedHeader",
  ...PARTS.flatMap((part) => [part, `${part}s`]),
];

type Names = `${(typeof PARTS)[number]}${"" | "s"}`;

/** What of `verify` is looked at. */
interface Data extends Partial<Record<Names, VerifySecret | VerifySecret[] | undefined>> {
  readonly header?: string | undefined;
  readonly format?: MtlsDocument["format"] | undefined;
  readonly verifiedHeader?: string | undefined;
}

/** The settings and the certificates; null: what is wrong is among the problems. */
export function mtlsOf(
  data: Data,
  problems: Problems,
): { readonly mtls: MtlsDocument; readonly secrets: readonly VerifySecret[] } | null {
  const given = PARTS.flatMap((part) => {
    return [part, `${part}s` as const].flatMap((name) => {
      const found = data[name];
      return found === undefined ? [] : [{ part, name, found }];
    });
  });
  const [first, second] = given;
  if (first === undefined) {
    const detail = "is missing: expected fingerprint, subject or uri of those who may send";
    problems.add("/verify/fingerprint", detail);
    return null;
  }
  if (second !== undefined) {
    problems.add(`/verify/${second.name}`, `stands beside ${first.name}: expected one of them`);
    return null;
  }
  const { part, name, found } = first;
  const header = (data.header ?? XFCC).toLowerCase();
  const format = data.format ?? (header === XFCC ? "xfcc" : "value");
  if (format === "pem" && part === "uri") {
    problems.add(`/verify/${name}`, "expected fingerprint or subject with format pem");
  }
  const verifiedHeader = data.verifiedHeader?.toLowerCase() ?? null;
  const secrets = Array.isArray(found) ? found : [found];
  return { mtls: { header, format, part, verifiedHeader }, secrets };
}
