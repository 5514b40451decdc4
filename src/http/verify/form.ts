/**
 * What Twilio signs beside the URL: the fields of a form in order, names and values one after
 * another with nothing between. Of any other body the URL holds the hash, and that is checked here.
 */
import { isUtf8 } from "node:buffer";
import { hookFormFieldsMax } from "../../limits.ts";
import { equalTexts, type SignedParts } from "./keys.ts";

/** The part of a request that is looked at. */
interface FormRequest {
  readonly query: string;
  readonly headers: Pick<Headers, "get">;
  readonly body: Uint8Array;
}

const BODY_HASH = "bodySHA256";

/** The fields as they were signed. What `refusal` makes is thrown when the body isn't covered. */
export function formParts(
  { query, headers, body }: FormRequest,
  refusal: (detail: string) => Error,
): SignedParts {
  const hash = new URLSearchParams(query).get(BODY_HASH);
  if (hash !== null) {
    const own = new Bun.CryptoHasher("sha256").update(body).digest("hex");
    if (equalTexts(hash, own)) return [];
    throw refusal(`the body does not fit ${BODY_HASH} of the URL`);
  }
  if (body.length === 0) return [];
  const type = (headers.get("content-type") ?? "").split(";")[0]?.trim().toLowerCase();
  if (type !== "application/x-www-form-urlencoded") {
    throw refusal(`the body is no form, and the URL holds no ${BODY_HASH}`);
  }
  const text = Buffer.from(body.buffer, body.byteOffset, body.length).toString("utf8");
  if (!isUtf8(body) || !isDecodable(text)) throw refusal("the form holds bytes that are no text");
  return signedFields(text, refusal);
}

/** What is no UTF-8 would all read as the same U+FFFD: other bytes under the same signature. */
function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

function signedFields(text: string, refusal: (detail: string) => Error): SignedParts {
  const fields = new Map<string, Set<string>>();
  let count = 0;
  for (const [name, value] of new URLSearchParams(text)) {
    count += 1;
    if (count > hookFormFieldsMax)
      throw refusal(`the form has more than ${hookFormFieldsMax} fields`);
    const values = fields.get(name) ?? new Set();
    fields.set(name, values.add(value));
  }
  // The order is that of code units, as the sender's libraries sort.
  return [...fields]
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .flatMap(([name, values]) => [...values].sort().map((value) => `${name}${value}`));
}
