/**
 * Handshakes: what providers ask before they send, answered and never stored. Those in a signed
 * body come after the signature; GET challenges and the OPTIONS of CloudEvents carry none.
 */
import { parseBody } from "../../json.ts";
import { decodeText, type Message } from "../../message.ts";
import type { EchoDocument } from "../../rules/document.ts";
import type { Expression } from "../../rules/expression.ts";
import { readable } from "../../rules/readable.ts";
import { hookChallengeCharsMax } from "../../limits.ts";
import { macText, type VerifyKey } from "./keys.ts";
import type { HandshakeName } from "./schemes.ts";

/** A longer body is no handshake: they are small. Bytes. */
const handshakeBytesMax = 65_536;

type Members = Readonly<Record<string, unknown>>;

/** The answer to a signed handshake; null when the body is none. */
export function handshakeAnswer(
  handshake: HandshakeName,
  body: Uint8Array,
  key: VerifyKey,
): Response | null {
  if (body.length > handshakeBytesMax) return null;
  const json = parseBody(body, decodeText(body));
  if (typeof json !== "object" || json === null) return null;
  return ANSWERS[handshake](json as Members, key);
}

const ANSWERS: Readonly<Record<HandshakeName, (json: Members, key: VerifyKey) => Response | null>> =
  {
    slack: ({ type, challenge }) => {
      if (type !== "url_verification" || typeof challenge !== "string") return null;
      return textResponse(challenge);
    },
    zoom: ({ event, payload }, { material }) => {
      if (event !== "endpoint.url_validation" || material.kind !== "mac") return null;
      const plainToken = (payload as Members | null | undefined)?.["plainToken"];
      if (typeof plainToken !== "string") return null;
      const encryptedToken = macText(material.hasher, [plainToken], "hex");
      return jsonResponse({ plainToken, encryptedToken });
    },
    // Interactions ping with 1; webhook events ping with 0, and their 1 is an event.
    discord: (json) => {
      if (json["type"] === 1 && !("event" in json)) return jsonResponse({ type: 1 });
      return json["type"] === 0 ? new Response(null, { status: 204 }) : null;
    },
  };

/** A hook's own echo, with its condition compiled. */
export interface Echo {
  readonly document: EchoDocument;
  readonly when: Expression | null;
}

/**
 * A member of the body given back; null when the body doesn't ask for it. Without a condition only
 * a body that holds nothing else asks: an event that happens to have the member is an event.
 */
export function echoAnswer({ document, when }: Echo, message: Message): Response | null {
  const { body } = message;
  if (body === null || body.length > handshakeBytesMax) return null;
  const json = parseBody(body, decodeText(body));
  const names = document.path;
  const value = names.reduce<unknown>((at, name) => memberOf(at, name, when === null), json);
  if (typeof value !== "string" || value.length > hookChallengeCharsMax) return null;
  if (when !== null && when.test(readable(message)) !== "yes") return null;
  if (document.as === "text") return textResponse(value);
  return jsonResponse({ [names.at(-1) ?? ""]: value });
}

function memberOf(value: unknown, name: string, isOnly: boolean): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  if (!Object.hasOwn(value, name) || (isOnly && Object.keys(value).length > 1)) return undefined;
  return (value as Members)[name];
}

/** Text given back as it came: never as a page. */
export function textResponse(text: string): Response {
  return new Response(text, {
    headers: {
      "content-type": "text/plain; charset=utf-8",
      "x-content-type-options": "nosniff",
      "content-security-policy": "default-src 'none'",
    },
  });
}

function jsonResponse(value: unknown): Response {
  return new Response(JSON.stringify(value), {
    headers: { "content-type": "application/json", "x-content-type-options": "nosniff" },
  });
}
