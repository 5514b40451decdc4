/**
 * Parts of a connection that every protocol takes the same way from its URL and document: the login
 * and the PEM texts of TLS.
 */
import { InvalidError } from "../src/errors.ts";
import type { Tls } from "./document.ts";

/** Credentials, each only where it was given. */
export interface Login {
  readonly username?: string;
  readonly password?: string;
}

/**
 * The login of a document, else the one in the URL.
 * @throws InvalidError when the URL's one is not well formed.
 */
export function loginOf(
  url: URL,
  given: { readonly username?: string | undefined; readonly password?: string | undefined },
): Login {
  const username = given.username ?? decodedPart(url.username);
  const password = given.password ?? decodedPart(url.password);
  return {
    ...(username === "" ? {} : { username }),
    ...(password === "" ? {} : { password }),
  };
}

/**
 * A part of a URL without its percent signs. @throws InvalidError when they are not well formed.
 */
export function decodedPart(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new InvalidError(
      "the URL holds a % that is not followed by the hex of a UTF-8 text",
      [],
      {
        cause,
      },
    );
  }
}

/** The parts of TLS that were given, by the names that sockets know. */
export function pemOf(tls: Tls | undefined): Partial<Record<"ca" | "cert" | "key", string>> {
  if (tls === undefined || typeof tls === "boolean") return {};
  const { ca, cert, key } = tls;
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  };
}
