/**
 * One HTTP request and what its answer means. Redirects are not followed, answers are not
 * decompressed, and at most 4 KiB of one are read. The connection is made by a guarded lookup, and
 * a kept connection was made by one. A request on a kept connection that the server closed at that
 * moment is made once more on a new one: webhooks may arrive twice and carry an id for it.
 */
import { Agent as HttpAgent, type ClientRequest, type IncomingMessage, request } from "node:http";
import { Agent as HttpsAgent, request as secureRequest } from "node:https";
import type { Outcome } from "../../src/bridge.ts";
import type { Clock } from "../../src/clock.ts";
import { codeOf, reasonText } from "../reason.ts";
import type { WebhookRequest } from "./codec.ts";
import { ForbiddenAddressError, type Guard } from "./guard.ts";

/** How much of an answer is read. Bytes. */
const ANSWER_BYTES_MAX = 4096;
/** The headers of an answer, all together: a few cookies fit, a flood does not. Bytes. */
const ANSWER_HEADER_BYTES_MAX = 16 * 1024;
/** When to try again where the answer does not say. Milliseconds. */
const RETRY_MS = 1000;
/** The longest wait that an answer may ask for. Milliseconds. */
const RETRY_AFTER_MS_MAX = 24 * 3_600_000;
/** Connections to one target, kept or in use. Count. */
export const connectionsMax = 64;
/** How long an unused connection is kept. Milliseconds. */
const KEEP_MS = 30_000;

/** Statuses of the 4xx that mean "later". */
const LATER: ReadonlySet<number> = new Set([408, 425, 429]);

/** Where and how a target is reached; every reference is resolved. */
export interface Target {
  readonly url: URL;
  readonly guard: Guard;
  readonly timeoutMs: number;
  readonly tls: Readonly<Record<string, string>>;
}

/** What came of a request: an outcome, or a connection that could not be made or broke. */
export type Answer =
  | Outcome
  | { readonly disconnected: string; readonly cause: unknown }
  /** The target wants nothing more, in its words. */
  | { readonly gone: string };

/** A request of one method to one path. */
export interface Post extends WebhookRequest {
  readonly method: string;
  /** With its query. */
  readonly path: string;
}

/** Makes requests to one target over a few kept connections. */
export class Requester {
  readonly #target: Target;
  readonly #clock: Clock;
  readonly #agent: HttpAgent | HttpsAgent;

  constructor(target: Target, clock: Clock) {
    this.#target = target;
    this.#clock = clock;
    const options = { keepAlive: true, maxSockets: connectionsMax, timeout: KEEP_MS };
    this.#agent =
      target.url.protocol === "https:"
        ? new HttpsAgent({ ...options, ...target.tls })
        : new HttpAgent(options);
  }

  /** Sends one request. Never rejects; an abort is `unknown`. */
  async send(post: Post, signal: AbortSignal): Promise<Answer> {
    const literal = this.#target.guard.literalProblem(this.#target.url.hostname);
    if (literal !== null) return { refused: literal };
    const first = await this.#once(post, signal);
    return first === "stale" ? await this.#last(post, signal) : first;
  }

  /** Closes every connection; requests under way end as unknown. */
  close(): void {
    this.#agent.destroy();
  }

  async #last(post: Post, signal: AbortSignal): Promise<Answer> {
    const answer = await this.#once(post, signal);
    return answer === "stale" ? busy("the target closed the connection") : answer;
  }

  async #once(post: Post, signal: AbortSignal): Promise<Answer | "stale"> {
    if (signal.aborted) return { unknown: true };
    const made = this.#request(post);
    const done = Promise.withResolvers<Answer | "stale">();
    const finished = new AbortController();
    const abort = (): void => end({ unknown: true });
    const end = (answer: Answer | "stale"): void => {
      done.resolve(answer);
      made.destroy();
    };
    signal.addEventListener("abort", abort, { once: true });
    let status: IncomingMessage | null = null;
    made.on("error", (error) => done.resolve(this.#failure(error, made)));
    made.on("response", (response) => {
      status = response;
      readAnswer(response, (text) => done.resolve(this.#outcome(response, text)));
    });
    made.end(post.body);
    const late = this.#clock.sleep(this.#target.timeoutMs, finished.signal).then(() => {
      // A status is an answer, even when its body does not come to an end.
      if (!finished.signal.aborted) {
        end(status === null ? this.#silence() : this.#outcome(status, ""));
      }
    });
    const answer = await done.promise;
    finished.abort();
    await late;
    signal.removeEventListener("abort", abort);
    return answer;
  }

  #silence(): Outcome {
    return busy(`the target did not answer within ${this.#target.timeoutMs} ms`);
  }

  #request({ method, path, headers, body }: Post): ClientRequest {
    const { url, guard } = this.#target;
    const make = url.protocol === "https:" ? secureRequest : request;
    return make({
      protocol: url.protocol,
      hostname: url.hostname.replace(/^\[|\]$/g, ""),
      port: url.port === "" ? undefined : Number(url.port),
      path,
      method,
      headers: { ...headers, "content-length": String(body.byteLength) },
      maxHeaderSize: ANSWER_HEADER_BYTES_MAX,
      agent: this.#agent,
      lookup: guard.lookup,
    });
  }

  #failure(error: unknown, made: ClientRequest): Answer | "stale" {
    const forbidden = forbiddenIn(error);
    if (forbidden !== null) return { refused: forbidden.message };
    if (codeOf(error) === "HPE_HEADER_OVERFLOW") {
      return busy(`the target's answer has more than ${ANSWER_HEADER_BYTES_MAX} bytes of headers`);
    }
    const broke = codeOf(error) === "ECONNRESET" || codeOf(error) === "EPIPE";
    if (broke && made.reusedSocket) return "stale";
    return { disconnected: reasonText(this.#target.url.host, error), cause: error };
  }

  #outcome(response: IncomingMessage, text: string): Answer {
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) return { sent: `status ${status}` };
    const shown = response.headers["content-encoding"] === undefined ? printable(text) : "";
    const said = `the target answered ${status}${shown === "" ? "" : `: ${shown}`}`;
    if (status >= 500 || LATER.has(status)) {
      const after = retryAfterMs(response.headers["retry-after"], this.#clock.nowMs());
      return { busyMs: after ?? RETRY_MS, reason: said };
    }
    return status === 410 ? { gone: said } : { refused: said };
  }
}

function busy(reason: string): Outcome {
  return { busyMs: RETRY_MS, reason };
}

/** Reads as much of an answer as is kept, then lets go of the rest. */
function readAnswer(response: IncomingMessage, done: (text: string) => void): void {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const end = (): void => done(Buffer.concat(chunks).subarray(0, ANSWER_BYTES_MAX).toString());
  response.on("data", (chunk: Buffer) => {
    bytes += chunk.byteLength;
    chunks.push(chunk);
    if (bytes < ANSWER_BYTES_MAX) return;
    end();
    response.destroy();
  });
  response.on("end", end);
  response.on("error", end);
  response.on("close", end);
}

function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\s]+/gu, " ").trim();
}

/** `Retry-After` in seconds or as a date; null when it is neither. */
export function retryAfterMs(value: string | undefined, nowMs: number): number | null {
  if (value === undefined) return null;
  const text = value.trim();
  const ms = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - nowMs;
  return Number.isNaN(ms) ? null : Math.min(RETRY_AFTER_MS_MAX, Math.max(0, ms));
}

/** The guard's refusal in an error or in what caused it. */
export function forbiddenIn(error: unknown): ForbiddenAddressError | null {
  if (error instanceof ForbiddenAddressError) return error;
  if (error instanceof AggregateError) return forbiddenIn(error.errors[0]);
  return error instanceof Error && error.cause !== undefined ? forbiddenIn(error.cause) : null;
}
