/**
 * Every failure that is expected has a class here; anything else thrown is a bug.
 * `code` is stable and shown outside; `retryable` says whether the same call can succeed later.
 * The HTTP status of each class is in one table, `http/problem.ts`.
 */

/** One thing wrong with an input: a JSON pointer to it, and what would be right. */
export interface InvalidDetail {
  readonly pointer: string;
  readonly detail: string;
  /** 1-based, where the input is text. */
  readonly line?: number;
  readonly column?: number;
}

/** The base of all expected failures. React to `code` or the class, never to the text. */
export abstract class GatewayError extends Error {
  abstract readonly code: string;
  abstract readonly retryable: boolean;
  override get name(): string {
    return this.constructor.name;
  }
}

/** The input is wrong: correct it, the same call cannot succeed. Nothing was applied. */
export class InvalidError extends GatewayError {
  readonly code: string;
  readonly retryable = false;
  readonly errors: readonly InvalidDetail[];
  constructor(
    message: string,
    errors: readonly InvalidDetail[] = [],
    options: { code?: "invalid" | "definition-invalid"; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.code = options.code ?? "invalid";
    this.errors = errors;
  }
}

/**
 * HTTP's own refusals: the body came too slowly (408: send it again), its type or coding is not
 * taken (415), the headers are too long (431). `headers` go with the answer.
 */
export class RequestError extends GatewayError {
  readonly code: "too-slow" | "unsupported-media-type" | "headers-too-large";
  readonly retryable: boolean;
  readonly headers: Readonly<Record<string, string>>;
  constructor(
    code: "too-slow" | "unsupported-media-type" | "headers-too-large",
    message: string,
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
    this.code = code;
    this.retryable = code === "too-slow";
    this.headers = headers;
  }
}

/** No such thing by that name. */
export class NotFoundError extends GatewayError {
  readonly code = "not-found";
  readonly retryable = false;
}

/** The caller is not known (401). The text never says what would have been right. */
export class UnauthorizedError extends GatewayError {
  readonly retryable = false;
  readonly code: "unauthorized" | "signature-invalid" | "timestamp-outside-tolerance";
  constructor(
    message: string,
    code: "unauthorized" | "signature-invalid" | "timestamp-outside-tolerance" = "unauthorized",
  ) {
    super(message);
    this.code = code;
  }
}

/** The caller's token was good and is over (401): get another one, then do the same again. */
export class TokenExpiredError extends UnauthorizedError {}

/** The caller is known and may not (403). */
export class ForbiddenError extends GatewayError {
  readonly code = "forbidden";
  readonly retryable = false;
}

/**
 * The state is not what the caller expected: `in-use` (409), `conflict` by a condition (412) or
 * `idempotency-key-reused` with another body (422). Read again, then decide.
 */
export class ConflictError extends GatewayError {
  readonly retryable = false;
  readonly code: "in-use" | "conflict" | "idempotency-key-reused";
  /** Members shown beside the problem, such as `end` after a failed `If-Match`. */
  readonly members: Readonly<Record<string, unknown>>;
  constructor(
    code: "in-use" | "conflict" | "idempotency-key-reused",
    message: string,
    members: Readonly<Record<string, unknown>> = {},
  ) {
    super(message);
    this.code = code;
    this.members = members;
  }
}

/** A bound of `limits.ts` would be passed: send less, or later when `retryable`. */
export class LimitError extends GatewayError {
  readonly code: "too-large" | "rate-limited";
  readonly retryable: boolean;
  readonly retryAfterMs: number | null;
  /** Which bound it is, for counters: the code, unless there are several of one code. */
  readonly reason: string;
  constructor(
    code: "too-large" | "rate-limited",
    message: string,
    retryAfterMs: number | null = null,
    reason: string = code,
  ) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.retryable = code === "rate-limited";
    this.retryAfterMs = retryAfterMs;
  }
}

/** A client is over one of its own limits (429): the log could take it, but not now from this one. */
export class ClientLimitError extends LimitError {}

/** The offset lies past the end. Read from `latest`, or wait. */
export class OffsetError extends GatewayError {
  readonly code = "offset-out-of-range";
  readonly retryable = false;
  readonly earliest: number;
  readonly latest: number;
  constructor(message: string, range: { earliest: number; latest: number }) {
    super(message);
    this.earliest = range.earliest;
    this.latest = range.latest;
  }
}

/** Why messages between two offsets are not there to be read. */
export type GapReason = "retention" | "epoch" | "corrupt" | "source";

/** The offsets `from` (inclusive) to `to` (exclusive) are gone: go on at `to` and say so. */
export class GapError extends GatewayError {
  readonly code = "gap";
  readonly retryable = false;
  readonly from: number;
  readonly to: number;
  readonly reason: GapReason;
  constructor(gap: { from: number; to: number; reason: GapReason }) {
    super(`offsets ${gap.from} to ${gap.to} are gone (${gap.reason})`);
    this.from = gap.from;
    this.to = gap.to;
    this.reason = gap.reason;
  }
}

/** The far side is away: reconnect with backoff and do the same again. */
export class DisconnectedError extends GatewayError {
  readonly code = "disconnected";
  readonly retryable = true;
}

/** The log can't take or keep a message. `fatal`: a sync failed and the process must end (70). */
export class StorageError extends GatewayError {
  readonly code = "storage-unavailable";
  readonly retryable = true;
  readonly fatal: boolean;
  constructor(message: string, options: { fatal?: boolean; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.fatal = options.fatal ?? false;
  }
}

/**
 * A stream that is kept until it is routed is full of what a rule has yet to pass: nothing was
 * appended. The same call succeeds once the rule has gone on, or no longer reads the stream.
 */
export class StreamFullError extends StorageError {
  readonly rule: string;
  constructor(stream: string, rule: string, heldMessages: number) {
    const holds = `rule ${rule} has yet to pass ${heldMessages} messages of it`;
    super(`stream ${stream} is full: ${holds}, and it keeps what is not routed`);
    this.rule = rule;
  }
}

/** A hook can't check its senders now: its keys are not to be had. Nothing was looked at. */
export class HookUnavailableError extends GatewayError {
  readonly code = "hook-unavailable";
  readonly retryable = true;
}

/** The keys that tokens are checked with can't be had now: the same token may hold soon. */
export class KeysUnavailableError extends GatewayError {
  readonly code = "keys-unavailable";
  readonly retryable = true;
}

/** Definitions can't be read or changed now; traffic goes on with the last good set. */
export class DatabaseError extends GatewayError {
  readonly code = "database-unavailable";
  readonly retryable = true;
}

/** Bytes on disk are not what was synced: an operator decides. */
export class CorruptionError extends GatewayError {
  readonly code = "corrupt";
  readonly retryable = false;
  readonly path: string;
  readonly byte: number;
  constructor(message: string, place: { path: string; byte: number }) {
    super(`${message} (${place.path}, byte ${place.byte})`);
    this.path = place.path;
    this.byte = place.byte;
  }
}

/** Another process owns the data folder. */
export class FencedError extends GatewayError {
  readonly code = "fenced";
  readonly retryable = false;
}

/** The message of anything thrown, in one line. */
export function errorText(error: unknown): string {
  const text = error instanceof Error ? error.message || error.name : String(error);
  return text.replaceAll(/\s*\n\s*/g, " ");
}
