/**
 * The one error class of the client. Callers decide by `code`, never by the text; what a server
 * refuses keeps the server's own code.
 */

/** Codes that the client itself gives; any other one is the server's, as its pages list them. */
export type ClientErrorCode =
  | "closed"
  | "aborted"
  | "outbox-full"
  | "too-large"
  | "invalid"
  | "unsupported"
  | "store-failed"
  | "token-failed"
  | "token-expired"
  | "unauthorized"
  | "forbidden"
  | "taken-over"
  | "refused"
  | (string & {});

/** What the client rejects and throws with. */
export class ClientError extends Error {
  override readonly name = "ClientError";
  readonly code: ClientErrorCode;

  constructor(code: ClientErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}

/** Whether the server says that the same request may work later. */
export function isPassing(code: string): boolean {
  return /-unavailable$|^(internal|rate-limited)$/.test(code);
}
