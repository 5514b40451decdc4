/**
 * Why a peer can't be reached, in plain words: what a person reads first when a bridge is down.
 * Decided by the codes of the system and of TLS, never by the text of an error.
 */
import { errorText } from "../src/errors.ts";

const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "refused the connection",
  ECONNRESET: "closed the connection",
  EPIPE: "closed the connection",
  ETIMEDOUT: "did not answer",
  ESOCKETTIMEDOUT: "did not answer",
  EHOSTUNREACH: "can't be reached",
  ENETUNREACH: "can't be reached",
  ENOTFOUND: "is not a known host",
  EAI_AGAIN: "is not a known host for now",
  DEPTH_ZERO_SELF_SIGNED_CERT: "shows a certificate that it signed itself; give tls.ca",
  SELF_SIGNED_CERT_IN_CHAIN: "shows a certificate of an unknown authority; give tls.ca",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "shows a certificate of an unknown authority; give tls.ca",
  CERT_HAS_EXPIRED: "shows a certificate that has expired",
  ERR_TLS_CERT_ALTNAME_INVALID: "shows a certificate for another name",
};

/** The system's code in an error or in what caused it, such as `ECONNREFUSED`; null without one. */
export function codeOf(error: unknown): string | null {
  if (!(error instanceof Error)) return null;
  const { code } = error as { code?: unknown };
  if (typeof code === "string") return code;
  if (error instanceof AggregateError) return codeOf(error.errors[0]);
  return codeOf(error.cause);
}

/** One line: the place and what it did, such as `127.0.0.1:5672 refused the connection`. */
export function reasonText(place: string, error: unknown): string {
  const code = codeOf(error);
  const words = code === null ? undefined : WORDS[code];
  return words === undefined ? `${place}: ${errorText(error)}` : `${place} ${words}`;
}
