/**
 * What went wrong, said once for both client libraries: an error of theirs becomes a class of ours
 * with a sentence in plain words. Nothing is decided by a library's message text, only by its
 * codes: `apiId` or `type` for what the broker answered, `code` for what the network did.
 */
import { DisconnectedError, errorText } from "../../src/errors.ts";

/** How deep causes and lists of errors are followed. Levels. */
const DEPTH_MAX = 8;

const NETWORK_CODES: ReadonlySet<string> = new Set([
  "PLT_KFK_NETWORK",
  "PLT_KFK_TIMEOUT",
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
]);

/** An answer of the broker that is not success. */
export interface Answer {
  /** Kafka's name of it, such as `MESSAGE_TOO_LARGE`. */
  readonly id: string;
  readonly text: string;
}

/** The error and everything under it, through `cause` and lists of errors, outermost first. */
function tree(error: unknown, depth = 0): Error[] {
  if (!(error instanceof Error) || depth > DEPTH_MAX) return [];
  const inner = error instanceof AggregateError ? (error.errors as unknown[]) : [];
  const under = [...inner, error.cause].flatMap((next) => tree(next, depth + 1));
  return [error, ...under];
}

function member(error: Error, name: string): unknown {
  return (error as unknown as Readonly<Record<string, unknown>>)[name];
}

function textMember(error: Error, name: string): string | null {
  const value = member(error, name);
  return typeof value === "string" ? value : null;
}

/** The broker's own answer inside an error, when there is one; the last when there are several. */
export function answerOf(error: unknown): Answer | null {
  for (const inner of tree(error).reverse()) {
    const id = textMember(inner, "apiId") ?? textMember(inner, "type");
    if (id === null || id === "" || id === "NONE") continue;
    return { id, text: textMember(inner, "serverErrorMessage") ?? inner.message };
  }
  return null;
}

/** Whether an error's cause is that nobody could be reached or that a connection ended. */
export function isNetworkFailure(error: unknown): boolean {
  if (answerOf(error) !== null) return false;
  return tree(error).some((inner) => {
    const code = textMember(inner, "code");
    return code !== null && NETWORK_CODES.has(code);
  });
}

/** Whether what is known of the cluster is out of date: a partition without a leader. */
export function isStale(error: unknown): boolean {
  return tree(error).some((inner) => member(inner, "hasStaleMetadata") === true);
}

/** Whether a request for a topic's metadata found no such topic. */
export function isUnknownTopic(error: unknown): boolean {
  if (answerOf(error)?.id === "UNKNOWN_TOPIC_OR_PARTITION") return true;
  return tree(error).some((inner) => textMember(inner, "code") === "PLT_KFK_USER");
}

/** The error of a lost or impossible connection, in plain words that name the place. */
export function disconnected(error: unknown, place: string): DisconnectedError {
  if (error instanceof DisconnectedError) return error;
  return new DisconnectedError(plainText(error, place), { cause: error });
}

/** What the network's and the libraries' codes mean, the first that fits. */
const sentences: readonly (readonly [RegExp, (place: string) => string])[] = [
  [/^ECONNREFUSED$/, (place) => `${place} refused the connection`],
  [/^(ENOTFOUND|EAI_AGAIN)$/, (place) => `the host name of ${place} is not known`],
  [/^(EHOSTUNREACH|ENETUNREACH)$/, (place) => `${place} cannot be reached`],
  [/^PLT_KFK_AUTHENTICATION$/, (place) => `${place} refused the user name or the password`],
  [/^(ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO|UNABLE_|SELF_SIGNED)/, (place) => `no TLS with ${place}`],
  [/^ETIMEDOUT$/, (place) => `${place} did not answer in time`],
  [/^(ECONNRESET|EPIPE)$/, (place) => `${place} closed the connection`],
];

/** What the broker's refusals mean for a person. */
const refusals: ReadonlyMap<string, string> = new Map([
  ["SASL_AUTHENTICATION_FAILED", "refused the user name, the password or the token"],
  // What a broker says to whatever follows a token that it has refused.
  ["ILLEGAL_SASL_STATE", "refused the user name, the password or the token"],
  ["TOPIC_AUTHORIZATION_FAILED", "does not permit this user to use the topic"],
  ["GROUP_AUTHORIZATION_FAILED", "does not permit this user to use the consumer group"],
  ["CLUSTER_AUTHORIZATION_FAILED", "does not permit this user to do that in the cluster"],
  ["UNSUPPORTED_SASL_MECHANISM", "does not take this kind of login (sasl)"],
]);

/** The libraries' classes for a connection that ended without a code of the system. */
const ENDED: ReadonlySet<string> = new Set(["NetworkError", "KafkaJSConnectionClosedError"]);

function plainText(error: unknown, place: string): string {
  const inner = tree(error);
  const answer = answerOf(error);
  const refusal = refusals.get(answer?.id ?? "");
  if (refusal !== undefined) return `${place} ${refusal}`;
  const codes = inner.map((item) => textMember(item, "code") ?? "");
  for (const [pattern, sentence] of sentences) {
    const at = codes.findIndex((code) => pattern.test(code));
    const detail = pattern.source.includes("TLS") ? `: ${errorText(inner[at])}` : "";
    if (at >= 0) return `${sentence(place)}${detail}`;
  }
  if (answer !== null) {
    return `${place} answered ${answer.id}: ${errorText(new Error(answer.text))}`;
  }
  const classes = inner.map((item) => item.constructor.name);
  if (classes.includes("TimeoutError")) return `${place} did not answer in time`;
  if (classes.some((name) => ENDED.has(name))) return `${place} closed the connection`;
  return `${place}: ${errorText(inner.at(-1) ?? error)}`;
}
