/**
 * Posts messages to a URL. Messages of equal key go strictly one after another, others side by
 * side; each has its own outcome. An answer that is no success is the message's outcome; a target
 * that nobody reaches ends the bridge, which is then opened anew with backoff. With a batch the
 * messages of a call are one request, with one outcome.
 */
import type { Outcome, Outgoing, Sink } from "../../src/bridge.ts";
import type { Clock } from "../../src/clock.ts";
import type { Message } from "../../src/message.ts";
import { DisconnectedError } from "../../src/errors.ts";
import { Call } from "../call.ts";
import { batchMessage, batchProblem } from "./batch.ts";
import { encodeMessage, isHeaderName } from "./codec.ts";
import { Lanes } from "./lanes.ts";
import { pathProblem, requestPath } from "./path.ts";
import { connectionsMax, type Post, type Requester } from "./request.ts";
import type { Signer } from "./sign.ts";

/**
 * When a message is tried again whose connection broke while others were answered. Milliseconds.
 */
const BROKEN_RETRY_MS = 1000;

/** What a sink needs of its bridge. */
export interface SinkParts {
  readonly requester: Requester;
  /** The bridge's URL, below which every request goes. */
  readonly url: URL;
  readonly method: string;
  /** The bridge's own headers, names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** Null: requests are not signed. */
  readonly signer: Signer | null;
  /** The form in which the messages of a call go as one request; null: a request for each. */
  readonly batch: string | null;
  readonly clock: Clock;
  /** Aborted when the bridge ends. */
  readonly ending: AbortSignal;
  /** Nobody was reached. */
  readonly onLost: (error: DisconnectedError) => void;
}

/** The writing end. */
export class HttpSink implements Sink {
  readonly #parts: SinkParts;
  readonly #lanes = new Lanes(connectionsMax);
  #disabled: string | null = null;

  constructor(parts: SinkParts) {
    this.#parts = parts;
  }

  /** The target has answered 410: it wants nothing more, and nothing is sent to it. */
  get disabled(): string | null {
    return this.#disabled;
  }

  async send(outgoing: readonly Outgoing[], signal: AbortSignal): Promise<readonly Outcome[]> {
    const { ending } = this.#parts;
    if (ending.aborted) throw new DisconnectedError("the bridge is closed");
    const { batch } = this.#parts;
    if (batch !== null)
      return await this.#sendBatch(outgoing, batch, AbortSignal.any([signal, ending]));
    const call = new Call(outgoing.length);
    const tally: Tally = { answered: 0, failure: null };
    const either = AbortSignal.any([signal, ending]);
    const posts = outgoing.map(async (one, index) => {
      const post = async (): Promise<Outcome> => await this.#post(one, tally, either);
      call.settle(index, await this.#lanes.run(one.message.key, post));
    });
    // After an abort the rest of them end by themselves, each when its turn comes.
    await Promise.race([Promise.all(posts), call.allSettled(either)]);
    if (tally.answered > 0 || signal.aborted) return call.outcomes();
    if (tally.failure !== null) {
      this.#parts.onLost(tally.failure);
      throw tally.failure;
    }
    if (ending.aborted) throw new DisconnectedError("the bridge was closed");
    return call.outcomes();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Connections are the bridge's; nothing here outlives it.
  }

  /** One request for all, up to one that can't be in it: that one is refused when it is the first. */
  async #sendBatch(
    outgoing: readonly Outgoing[],
    form: string,
    signal: AbortSignal,
  ): Promise<readonly Outcome[]> {
    const [first] = outgoing;
    if (first === undefined) return [];
    const bad = outgoing.findIndex(({ message }) => batchProblem(message) !== null);
    const good = bad < 0 ? outgoing : outgoing.slice(0, bad);
    const after = outgoing.slice(good.length).map(({ message }, index): Outcome => {
      const problem = index === 0 ? batchProblem(message) : null;
      return problem === null ? { unknown: true } : { refused: problem, final: true };
    });
    if (good.length === 0) return after;
    const messages = good.map(({ message }) => message);
    const message = batchMessage(messages, form, this.#parts.clock.nowMs());
    const tally: Tally = { answered: 0, failure: null };
    const outcome = await this.#post({ message, fields: first.fields }, tally, signal);
    if (tally.failure !== null) {
      this.#parts.onLost(tally.failure);
      throw tally.failure;
    }
    // Behind what was not sent nothing is refused: it comes to be the first.
    const rest = "sent" in outcome ? after : after.map((): Outcome => ({ unknown: true }));
    return [...good.map((): Outcome => outcome), ...rest];
  }

  async #post({ message, fields }: Outgoing, tally: Tally, signal: AbortSignal): Promise<Outcome> {
    if (signal.aborted) return { unknown: true };
    if (this.#disabled !== null) return { busyMs: BROKEN_RETRY_MS, reason: this.#disabled };
    const post = this.#encode(message, fields);
    if ("refused" in post) return { refused: post.refused, final: true };
    const answer = await this.#parts.requester.send(post, signal);
    if ("gone" in answer) {
      tally.answered += 1;
      this.#disabled = `${answer.gone}; it is disabled until its rule is changed or its route resumed`;
      return { busyMs: BROKEN_RETRY_MS, reason: this.#disabled };
    }
    if ("disconnected" in answer) {
      tally.failure ??= new DisconnectedError(answer.disconnected, { cause: answer.cause });
      return { busyMs: BROKEN_RETRY_MS };
    }
    if (!("unknown" in answer)) tally.answered += 1;
    return answer;
  }

  #encode(message: Message, fields: Outgoing["fields"]): Post | { readonly refused: string } {
    const { method, path = null } = fields;
    const own = headersOf(fields["headers"]);
    if ("refused" in own) return own;
    if (path !== null && typeof path !== "string") {
      return { refused: "the path did not come to a text" };
    }
    const problem = path === null ? null : pathProblem(path);
    if (problem !== null) return { refused: problem };
    const { url, headers, signer, clock } = this.#parts;
    const request = encodeMessage(message, {
      fixed: { ...headers, ...own.headers },
      nowMs: clock.nowMs(),
      signer,
    });
    if ("refused" in request) return request;
    return {
      ...request,
      method: typeof method === "string" ? method : this.#parts.method,
      path: requestPath(url, path),
    };
  }
}

/** What the posts of one call met: a target that answers some is there. */
interface Tally {
  answered: number;
  failure: DisconnectedError | null;
}

/** The rendered headers of an address, names in lower case. */
function headersOf(
  given: unknown,
): { readonly headers: Readonly<Record<string, string>> } | { readonly refused: string } {
  const headers: Record<string, string> = {};
  if (typeof given !== "object" || given === null) return { headers };
  for (const [name, value] of Object.entries(given)) {
    if (!isHeaderName(name)) return { refused: `the header name "${name}" can't be in HTTP` };
    if (typeof value === "object" || value === undefined) {
      return { refused: `the header "${name}" did not come to a text` };
    }
    headers[name.toLowerCase()] = String(value);
  }
  return { headers };
}
