/**
 * `GET /api/verifications/:stream/:partition/:offset`: checks the signature of a stored webhook
 * once more, from the bytes and headers that are kept, by the keys that the hook has today and at
 * the time when it came.
 */
import { ForbiddenError, InvalidError, NotFoundError, UnauthorizedError } from "../../errors.ts";
import { decodeText, type HttpOrigin, type StoredMessage } from "../../message.ts";
import { isWithin, type Principal } from "../../rules/store/roles.ts";
import { readableStream, storedAt } from "../append.ts";
import { requireRead } from "../auth.ts";
import type { ReceiptPath } from "../receipts.ts";
import type { HookFace, HttpServices } from "../services.ts";
import type { Algorithm } from "./schemes.ts";

/** Proofs that hold once, and are not kept. */
const UNCHECKABLE: Partial<Record<Algorithm, string>> = {
  token: "shows its secret itself, which is not kept",
  jwt: "shows a token, which is not kept",
  certificate: "is a proxy's word for one connection",
};

const WHOLE = /^\d{1,15}$/;

/**
 * The outcome; a signature that does not hold is an answer, not a failure.
 * @throws NotFoundError nothing is there, or no longer a hook. @throws InvalidError it was never
 * verified, so there is nothing to check.
 */
export async function verificationResponse(
  path: ReceiptPath,
  principal: Principal,
  services: HttpServices,
): Promise<Response> {
  if (!WHOLE.test(path.partition) || !WHOLE.test(path.offset)) {
    throw new InvalidError("a message is STREAM/PARTITION/OFFSET, both whole numbers");
  }
  const stream = readableStream(services, path.stream);
  const place = { partition: Number(path.partition), offset: Number(path.offset) };
  const message = await storedAt(stream, place);
  const name = `${path.stream}/${path.partition}/${path.offset}`;
  if (message === null) throw new NotFoundError(`there is no message at ${name}`);
  const key = message.key === null ? null : decodeText(message.key);
  if (!isWithin(requireRead(principal, path.stream, key), message)) {
    throw new ForbiddenError(`this token may not read ${name}`);
  }
  const { origin } = message;
  if (origin?.http === undefined || origin.http.scheme === "none") {
    throw new InvalidError(`the message at ${name} did not come by a verified hook`);
  }
  const hook = services.gateway.hook(origin.address);
  if (hook === undefined)
    throw new NotFoundError(`its hook ${origin.address} is not there any more`);
  return await checked(message, origin.http, hook);
}

async function checked(
  message: StoredMessage,
  http: HttpOrigin,
  hook: HookFace,
): Promise<Response> {
  const about = { hook: hook.name, scheme: http.scheme, verifiedWith: http.keyId };
  const answer = (outcome: object): Response => {
    return Response.json({ ...outcome, ...about }, { headers: { "cache-control": "no-store" } });
  };
  const { verifier } = hook;
  const scheme = verifier?.scheme ?? null;
  if (verifier === undefined || scheme === null || verifier.schemeName !== http.scheme) {
    throw new InvalidError(`hook ${hook.name} does not use scheme ${http.scheme} any more`);
  }
  const why = Object.values(scheme.algorithms).map((each) => UNCHECKABLE[each]);
  const [reason] = why.filter((each) => each !== undefined);
  if (reason !== undefined) throw new InvalidError(`scheme ${http.scheme} ${reason}`);
  if (http.inflated !== undefined) {
    throw new InvalidError("the signature was over the compressed body, which is not kept");
  }
  await verifier.ready();
  try {
    const key = verifier.recheck({
      method: http.method,
      path: http.path,
      query: http.query ?? "",
      headers: headersOf(message),
      body: message.body ?? new Uint8Array(0),
      url: http.url ?? null,
      atMs: message.timestampMs,
      isProxied: false,
    });
    return answer({ valid: true, keyId: key.id });
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
    return answer({ valid: false, code: error.code, detail: error.message });
  }
}

/** The kept headers as a request has them: bytes as Latin-1 characters. */
function headersOf({ headers, properties }: StoredMessage): Pick<Headers, "get"> {
  const values = new Map<string, string>();
  if (properties.contentType !== undefined) values.set("content-type", properties.contentType);
  for (const { name, value } of headers) {
    if (value === null) continue;
    const text = Buffer.from(value).toString("latin1");
    const before = values.get(name.toLowerCase());
    values.set(name.toLowerCase(), before === undefined ? text : `${before}, ${text}`);
  }
  return { get: (name) => values.get(name) ?? null };
}
