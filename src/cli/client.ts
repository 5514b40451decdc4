/**
 * Calls to a running gateway over HTTP. An answer that is no success becomes one CliError in the
 * gateway's own words. Calls are not repeated: whoever typed the command decides.
 */
import { parseJson } from "../json.ts";
import { type Connection, type ConnectionFlags, findConnection } from "./connection.ts";
import { CliError, EXIT_FAILED, EXIT_USAGE } from "./failure.ts";

/** One call. `path` begins with a slash and is encoded already. */
export interface Call {
  readonly method?: "GET" | "POST" | "PUT" | "DELETE";
  readonly path: string;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
  /** Statuses beside the successful ones that the caller handles itself. */
  readonly accept?: readonly number[];
}

/** What came back: the status, and the body as JSON (`undefined` when there is none). */
export interface Answer {
  readonly status: number;
  readonly json: unknown;
  readonly problem: Problem | null;
}

/** A problem document (RFC 9457), as far as it is one. */
export interface Problem {
  readonly code: string | null;
  readonly detail: string;
  readonly errors: readonly ProblemEntry[];
  readonly members: Readonly<Record<string, unknown>>;
}

export interface ProblemEntry {
  readonly pointer: string;
  readonly detail: string;
  readonly line: number | null;
  readonly column: number | null;
}

/** The gateway that the flags and the environment name. Nothing is sent yet. */
export async function connect(flags: ConnectionFlags): Promise<Client> {
  return new Client(await findConnection(flags));
}

/** A gateway that answers over HTTP. Holds nothing open. */
export class Client {
  readonly connection: Connection;

  constructor(connection: Connection) {
    this.connection = connection;
  }

  /**
   * Calls the gateway. @throws CliError nothing answered, or it said no: end with its code
   */
  async call(call: Call): Promise<Answer> {
    const response = await this.#send(call);
    const accepted = response.ok || call.accept?.includes(response.status) === true;
    const text = await this.#text(response);
    if (response.ok) return { status: response.status, json: jsonOf(text), problem: null };
    const problem = problemOf(response, text);
    if (accepted) return { status: response.status, json: undefined, problem };
    throw this.failure(response.status, problem);
  }

  /**
   * Calls the gateway for an answer of JSON lines, handed over as they come. `onProblem` may make
   * the error of a refusal. @throws CliError as `call`, or the answer broke off
   */
  async *lines(
    call: Omit<Call, "accept"> & { readonly onProblem?: (problem: Problem) => CliError | null },
  ): AsyncGenerator<unknown, void> {
    const { origin } = new URL(this.#url(call));
    const response = await this.#send(call);
    if (!response.ok || response.body === null) {
      const problem = problemOf(response, await this.#text(response));
      throw call.onProblem?.(problem) ?? this.failure(response.status, problem);
    }
    const decoder = new TextDecoder();
    let rest = "";
    try {
      for await (const chunk of response.body as ReadableStream<Uint8Array>) {
        const parts = `${rest}${decoder.decode(chunk, { stream: true })}`.split("\n");
        rest = parts.pop() ?? "";
        for (const line of parts) yield jsonOf(line);
      }
    } catch (cause) {
      if (cause instanceof CliError) throw cause;
      throw new CliError(`the connection to ${origin} was lost in the middle of an answer`, {
        cause,
      });
    }
  }

  /** All items of a list, page by page. */
  async list(path: string): Promise<readonly unknown[]> {
    const items: unknown[] = [];
    let after: string | undefined;
    do {
      const { json } = await this.call({ path, query: { after } });
      const page = json as { items?: unknown; next?: unknown } | undefined;
      if (!Array.isArray(page?.items))
        throw new CliError(
          `${this.connection.adminUrl} is no Isthmus gateway: ${path} answered without items`,
        );
      items.push(...(page.items as unknown[]));
      after = typeof page.next === "string" && page.next !== after ? page.next : undefined;
    } while (after !== undefined);
    return items;
  }

  /** The error that tells a refusal. */
  failure(status: number, problem: Problem): CliError {
    const [only] = problem.errors;
    const isOne = problem.errors.length === 1 && only !== undefined;
    const isSaid = isOne && only.detail === problem.detail;
    const isTold = isOne && tells(problem.detail, only);
    const sentence = isSaid ? entryText(only) : problem.detail;
    const details = isSaid || isTold ? [] : problem.errors.map(entryText);
    const { token, tokenMissing } = this.connection;
    if (status === 401 && token === null && tokenMissing !== null) {
      details.push(`no token was sent: ${tokenMissing}; give one with --token or ISTHMUS_TOKEN`);
    }
    // What was asked for was wrong, not the gateway or its state.
    const exitCode = status === 400 ? EXIT_USAGE : EXIT_FAILED;
    return new CliError(sentence, { details, exitCode });
  }

  /** The error for a gateway that doesn't answer. */
  unreachable(url: string, cause: unknown): CliError {
    const { origin } = new URL(url);
    const code = (cause as { code?: unknown }).code;
    if (typeof code === "string" && /CERT|SELF_SIGNED|VERIFY|TLS|SSL/.test(code)) {
      return new CliError(
        `the certificate of ${origin} is not trusted (${code}); name its authority in NODE_EXTRA_CA_CERTS`,
        { cause },
      );
    }
    return new CliError(`nothing answers at ${origin}: is the gateway running? (isthmus serve)`, {
      cause,
    });
  }

  #url(call: Call): string {
    const base = call.path.startsWith("/api/") ? this.connection.adminUrl : this.connection.url;
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(call.query ?? {})) {
      if (value !== undefined) query.set(name, value);
    }
    const text = query.toString();
    return `${base}${call.path}${text === "" ? "" : `?${text}`}`;
  }

  async #send(call: Call): Promise<Response> {
    const headers: Record<string, string> = { accept: "application/json", ...call.headers };
    if (this.connection.token !== null)
      headers["authorization"] = `Bearer ${this.connection.token}`;
    return await this.#fetch(this.#url(call), {
      method: call.method ?? "GET",
      headers,
      redirect: "manual",
      ...(call.body === undefined ? {} : { body: call.body }),
    });
  }

  async #fetch(url: string, init: RequestInit): Promise<Response> {
    try {
      return await fetch(url, init);
    } catch (cause) {
      throw this.unreachable(url, cause);
    }
  }

  async #text(response: Response): Promise<string> {
    try {
      return await response.text();
    } catch (cause) {
      const { origin } = new URL(response.url);
      throw new CliError(`the connection to ${origin} was lost in the middle of an answer`, {
        cause,
      });
    }
  }
}

/** Whether a sentence says all that its one entry says, such as `rate: expected …` of `/rate`. */
function tells(sentence: string, { pointer, detail }: ProblemEntry): boolean {
  return (
    sentence.startsWith(`${pointer.slice(1).replaceAll("/", ".")}: `) && sentence.endsWith(detail)
  );
}

/** One entry of a problem: where, what. */
function entryText(entry: ProblemEntry): string {
  const place = [
    entry.pointer,
    entry.line === null ? "" : `line ${entry.line}`,
    entry.column === null ? "" : `column ${entry.column}`,
  ].filter((part) => part !== "");
  return place.length === 0 ? entry.detail : `${place.join(", ")}: ${entry.detail}`;
}

function jsonOf(text: string): unknown {
  if (text === "") return undefined;
  try {
    return parseJson(text);
  } catch (cause) {
    throw new CliError("the answer is not JSON: this is no Isthmus gateway", { cause });
  }
}

function problemOf(response: Response, text: string): Problem {
  const fallback =
    `${new URL(response.url).origin} answered ${response.status} ${response.statusText}`.trim();
  const type = response.headers.get("content-type") ?? "";
  const members = type.includes("json") ? membersOf(text) : {};
  const detail = textMember(members["detail"]) ?? textMember(members["title"]) ?? fallback;
  const errors = Array.isArray(members["errors"]) ? members["errors"].map(entryOf) : [];
  return { code: textMember(members["code"]), detail, errors, members };
}

/** The members of a JSON object; of anything else, none: the status then speaks for itself. */
function membersOf(text: string): Readonly<Record<string, unknown>> {
  try {
    const value = parseJson(text);
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch {
    return {};
  }
  return {};
}

function entryOf(entry: unknown): ProblemEntry {
  const members = (typeof entry === "object" && entry !== null ? entry : {}) as Record<
    string,
    unknown
  >;
  return {
    pointer: textMember(members["pointer"]) ?? "",
    detail: textMember(members["detail"]) ?? "invalid",
    line: numberMember(members["line"]),
    column: numberMember(members["column"]),
  };
}

function textMember(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}

function numberMember(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}
