/**
 * Errors as problem documents (RFC 9457): the one table from a class of error to a status. `code`
 * is stable and what programs react to; the text is for people. What is not expected is a bug of
 * ours: it is logged here with an id, and the caller sees the id alone.
 */
import {
  ConflictError,
  CorruptionError,
  DatabaseError,
  DisconnectedError,
  FencedError,
  ForbiddenError,
  GapError,
  GatewayError,
  HookUnavailableError,
  InvalidError,
  KeysUnavailableError,
  LimitError,
  NotFoundError,
  OffsetError,
  RequestError,
  StorageError,
  StreamFullError,
  UnauthorizedError,
} from "../errors.ts";
import { problemsMax } from "../limits.ts";
import type { Telemetry } from "../telemetry.ts";

/** What is told of a failure. */
export interface Problem {
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly members?: Readonly<Record<string, unknown>>;
  readonly headers?: Readonly<Record<string, string>>;
}

const PROBLEM_TYPE = "application/problem+json";
/** How long callers should wait for a disk or a database. Seconds. */
const STORAGE_RETRY_S = 1;
/** How long callers should wait for a rule to go on. Seconds. */
const FULL_RETRY_S = 5;
const DATABASE_RETRY_S = 5;

const TITLES: Readonly<Record<string, string>> = {
  invalid: "The request is not valid",
  "definition-invalid": "The definition is not valid",
  unauthorized: "A token is needed",
  "signature-invalid": "The signature is not valid",
  "timestamp-outside-tolerance": "The signature's time is too far from now",
  forbidden: "Not allowed",
  "not-found": "Not found",
  "method-not-allowed": "Method not allowed",
  "in-use": "Still in use",
  conflict: "Another state than expected",
  "idempotency-key-reused": "The idempotency key was used with another body",
  "too-large": "Too large",
  "offset-out-of-range": "The offset is out of range",
  "rate-limited": "Too much at once",
  "too-slow": "The body came too slowly",
  "unsupported-media-type": "A type or coding that is not taken",
  "headers-too-large": "The headers are too large",
  "storage-unavailable": "The log can't be used now",
  "hook-unavailable": "The hook can't check its senders now",
  "keys-unavailable": "Tokens can't be checked now",
  "database-unavailable": "Definitions can't be read or changed now",
  "upgrade-required": "This is a WebSocket",
  internal: "A failure of the gateway itself",
};

/** The answer that tells a problem. */
export function problemResponse(problem: Problem, instance: string | null = null): Response {
  const { status, code, detail, members = {}, headers = {} } = problem;
  const body = {
    type: `urn:isthmus:problem:${code}`,
    title: TITLES[code] ?? code,
    status,
    detail,
    ...(instance === null ? {} : { instance }),
    code,
    ...members,
  };
  return new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": PROBLEM_TYPE, "x-content-type-options": "nosniff", ...headers },
  });
}

/** The answer for anything thrown; what an operator has to know is logged. */
export function failureResponse(error: unknown, telemetry: Telemetry): Response {
  const { problem, instance } = explained(error, telemetry);
  return problemResponse(problem, instance);
}

/**
 * What may be said of a failure. A bug is logged with an id, and a failure of the disk with its
 * files: the caller sees the id, and that it can try again.
 */
export function explained(
  error: unknown,
  telemetry: Telemetry,
): { readonly problem: Problem; readonly instance: string | null } {
  if (error instanceof GatewayError) {
    if (isOfDisk(error)) telemetry.storageFailed(error.message);
    return { problem: problemOf(error), instance: null };
  }
  const instance = `urn:uuid:${crypto.randomUUID()}`;
  telemetry.logger.error({ err: error, instance }, "a request failed unexpectedly");
  const detail = "an unexpected failure; the gateway's own log says more under this instance";
  return { problem: { status: 500, code: "internal", detail }, instance };
}

function isOfDisk(error: GatewayError): boolean {
  return error instanceof StorageError
    ? !(error.cause instanceof LimitError) && !(error instanceof StreamFullError)
    : error instanceof CorruptionError;
}

/** Classes, each with what it becomes. The first that fits counts. */
const TABLE: readonly {
  readonly is: (error: GatewayError) => boolean;
  readonly to: (error: GatewayError) => Problem;
}[] = [
  row(InvalidError, (error) => ({
    status: error.code === "definition-invalid" ? 422 : 400,
    code: error.code,
    detail: error.message,
    members: { errors: error.errors.slice(0, problemsMax) },
  })),
  row(UnauthorizedError, (error) => ({
    status: 401,
    code: error.code,
    detail: error.message,
    headers: error.code === "unauthorized" ? { "www-authenticate": 'Bearer realm="isthmus"' } : {},
  })),
  row(ForbiddenError, (error) => ({ status: 403, code: error.code, detail: error.message })),
  row(NotFoundError, (error) => ({ status: 404, code: error.code, detail: error.message })),
  row(ConflictError, (error) => ({
    status: { "in-use": 409, conflict: 412, "idempotency-key-reused": 422 }[error.code],
    code: error.code,
    detail: error.message,
    members: error.members,
  })),
  row(LimitError, (error) =>
    error.code === "too-large"
      ? { status: 413, code: error.code, detail: error.message }
      : {
          status: 429,
          code: error.code,
          detail: error.message,
          headers: { "retry-after": retryAfter(error.retryAfterMs) },
        },
  ),
  row(RequestError, ({ code, message, headers }) => ({
    status: { "too-slow": 408, "unsupported-media-type": 415, "headers-too-large": 431 }[code],
    code,
    detail: message,
    headers,
  })),
  row(OffsetError, (error) => ({
    status: 416,
    code: error.code,
    detail: error.message,
    members: { earliest: error.earliest, latest: error.latest },
  })),
  row(GapError, (error) => ({
    status: 410,
    code: error.code,
    detail: error.message,
    members: { gap: { from: error.from, to: error.to, reason: error.reason } },
  })),
  row(StreamFullError, (error) => ({
    ...unavailable("storage-unavailable", FULL_RETRY_S),
    detail: error.message,
    members: { rule: error.rule },
  })),
  row(StorageError, (error) => ({
    ...unavailable("storage-unavailable", STORAGE_RETRY_S),
    detail: storageDetail(error),
  })),
  row(CorruptionError, () => ({
    ...unavailable("storage-unavailable", STORAGE_RETRY_S),
    detail: "messages here are damaged on disk: an operator has to look",
  })),
  row(FencedError, (error) => ({
    ...unavailable("storage-unavailable", STORAGE_RETRY_S),
    detail: error.message,
  })),
  row(HookUnavailableError, (error) => ({
    ...unavailable("hook-unavailable", DATABASE_RETRY_S),
    detail: error.message,
  })),
  row(KeysUnavailableError, (error) => ({
    ...unavailable("keys-unavailable", DATABASE_RETRY_S),
    detail: error.message,
  })),
  row(DatabaseError, (error) => ({
    ...unavailable("database-unavailable", DATABASE_RETRY_S),
    detail: error.message,
  })),
  row(DisconnectedError, (error) => ({
    ...unavailable("disconnected", DATABASE_RETRY_S),
    detail: error.message,
  })),
];

function row<E extends GatewayError>(
  type: abstract new (...args: never[]) => E,
  to: (error: E) => Problem,
): (typeof TABLE)[number] {
  return { is: (error) => error instanceof type, to: (error) => to(error as E) };
}

function unavailable(code: string, retryS: number): Omit<Problem, "detail"> {
  return { status: 503, code, headers: { "retry-after": String(retryS) } };
}

/** Files and system calls are the operator's business, not a sender's. */
function storageDetail(error: StorageError): string {
  if (error.fatal) return "the log has failed and the gateway is stopping";
  return isOfDisk(error) ? "the log can't be used now; try again soon" : error.message;
}

function retryAfter(ms: number | null): string {
  return String(Math.max(1, Math.ceil((ms ?? STORAGE_RETRY_S * 1000) / 1000)));
}

/** What an expected error becomes. */
export function problemOf(error: GatewayError): Problem {
  const found = TABLE.find(({ is }) => is(error));
  if (found !== undefined) return found.to(error);
  // A class that no table row names: evaluation failures, or one that was made later.
  return { status: error.retryable ? 503 : 400, code: error.code, detail: error.message };
}
