/**
 * Handshakes: what providers ask before they send, answered and never stored. Those in a signed
 * body come after the signature; GET challenges and the OPTIONS of CloudEvents carry none.
 */
import { parseBody } from "../../json.ts";
import { decodeText } from "../../message.ts";
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
