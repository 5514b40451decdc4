/**
 * A webhook target as a bridge. HTTP has no standing connection: opening the bridge makes one and
 * closes it, to tell a target that can't be reached, shows a bad certificate or lies where it may
 * not.
 */
import { connect as connectPlain, isIP, type Socket } from "node:net";
import { connect as connectSecure } from "node:tls";
import type { Address, Bridge, ConnectContext, Sink, Source } from "../../src/bridge.ts";
import { systemClock } from "../../src/clock.ts";
import { DisconnectedError, InvalidError } from "../../src/errors.ts";
import { resolveAll } from "../document.ts";
import { pemOf } from "../endpoint.ts";
import { reasonText } from "../reason.ts";
import { Guard } from "./guard.ts";
import { type HttpConfig, type SignConfig, urlProblem } from "./module.ts";
import { forbiddenIn, Requester, type Target } from "./request.ts";
import { Signer } from "./sign.ts";
import { HttpSink } from "./sink.ts";

/** A target that was reached. */
export class HttpBridge implements Bridge {
  readonly #config: HttpConfig;
  readonly #url: URL;
  readonly #resolve: ConnectContext["resolve"];
  readonly #headers: Readonly<Record<string, string>>;
  readonly #requester: Requester;
  readonly #ending = new AbortController();
  readonly #closed = Promise.withResolvers<Error | null>();

  private constructor(config: HttpConfig, target: Target, resolve: ConnectContext["resolve"]) {
    this.#config = config;
    this.#url = target.url;
    this.#resolve = resolve;
    this.#headers = { ...loginHeader(config), ...config.headers };
    this.#requester = new Requester(target, systemClock);
  }

  /** @throws DisconnectedError @throws InvalidError the URL is wrong or leads where it may not. */
  static async open(config: HttpConfig, context: ConnectContext): Promise<HttpBridge> {
    const resolved = await resolveAll(config, context.resolve);
    const problem = urlProblem(resolved.url);
    if (problem !== null) throw new InvalidError(problem);
    const target: Target = {
      url: new URL(resolved.url),
      guard: new Guard(resolved.allowPrivate),
      timeoutMs: resolved.timeoutMs,
      tls: pemOf(resolved.tls),
    };
    await reach(target, context.signal);
    return new HttpBridge(resolved, target, context.resolve);
  }

  get closed(): Promise<Error | null> {
    return this.#closed.promise;
  }

  async source(): Promise<Source> {
    throw new InvalidError("an HTTP target has no source; a hook takes requests in");
  }

  async sink(address: Address): Promise<Sink> {
    if (this.#ending.signal.aborted) throw new DisconnectedError("the bridge is closed");
    const { method } = address.fields;
    const sign = address.fixed?.["sign"] as SignConfig | undefined;
    const batch = address.fixed?.["batch"];
    const secrets = sign === undefined ? null : await resolveAll(sign.secrets, this.#resolve);
    return new HttpSink({
      requester: this.#requester,
      url: this.#url,
      signer: secrets === null ? null : new Signer(secrets),
      batch: typeof batch === "string" ? batch : null,
      method: typeof method === "string" ? method : this.#config.method,
      headers: this.#headers,
      clock: systemClock,
      ending: this.#ending.signal,
      onLost: (error) => this.#end(error),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end(null);
  }

  #end(reason: Error | null): void {
    this.#closed.resolve(reason);
    this.#ending.abort();
    this.#requester.close();
  }
}

/** Basic credentials; a header of the document wins. */
function loginHeader({ username = "", password = "" }: HttpConfig) {
  if (username === "" && password === "") return {};
  return { authorization: `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}` };
}

/** Makes a connection to the target and closes it. */
async function reach(target: Target, signal: AbortSignal): Promise<void> {
  const { url, guard } = target;
  const literal = guard.literalProblem(url.hostname);
  if (literal !== null) throw new InvalidError(literal);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const secure = url.protocol === "https:";
  const port = url.port === "" ? (secure ? 443 : 80) : Number(url.port);
  const options = { host, port, lookup: guard.lookup };
  const done = Promise.withResolvers<Error | null>();
  const socket: Socket = secure
    ? connectSecure({
        ...options,
        ...(isIP(host) === 0 ? { servername: host } : {}),
        ...target.tls,
      })
    : connectPlain(options);
  socket.on(secure ? "secureConnect" : "connect", () => done.resolve(null));
  socket.on("error", done.resolve);
  const abort = (): void => done.resolve(new Error("connecting was aborted"));
  signal.addEventListener("abort", abort, { once: true });
  const waiting = new AbortController();
  const late = systemClock
    .sleep(target.timeoutMs, waiting.signal)
    .then(() => new Error("did not answer in time"));
  const failure = await Promise.race([done.promise, late]);
  waiting.abort();
  signal.removeEventListener("abort", abort);
  socket.destroy();
  if (failure === null) return;
  const forbidden = forbiddenIn(failure);
  if (forbidden !== null) throw new InvalidError(forbidden.message, [], { cause: failure });
  throw new DisconnectedError(reasonText(`${host}:${port}`, failure), { cause: failure });
}
