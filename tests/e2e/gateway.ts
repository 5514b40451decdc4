/**
 * The gateway as its users run it: a process of its own on a data folder, spoken to over HTTP and
 * by the command line. It can be killed and started again on the same folder and port.
 */
import { join } from "node:path";
import { freePort, temporaryFolder, waitFor } from "../temporary.ts";

const PROJECT = join(import.meta.dir, "../..");
const TOKEN = "token-of-the-tests-0123456789abcdef";

export interface RouteRow {
  readonly circuit?: unknown;
  readonly rule: string;
  readonly target: string;
  readonly state: string;
  readonly offset: number;
  readonly end: number;
  readonly error: string | null;
  readonly counts: Readonly<Record<string, number>>;
}

export interface MessageJson {
  readonly id: string;
  readonly partition: number;
  readonly offset: number;
  readonly key?: string | null;
  readonly headers: readonly (readonly [string, unknown])[];
  readonly properties: Readonly<Record<string, unknown>>;
  readonly origin: Readonly<Record<string, unknown>> | null;
  readonly body?: string | null;
  readonly bodyBase64?: string;
}

/** A gateway of one test. Disposing of it stops it and removes its folder. */
export class TestGateway implements AsyncDisposable {
  readonly url: string;
  readonly token = TOKEN;
  readonly dataFolder: string;
  readonly #port: number;
  readonly #folder: AsyncDisposable;
  readonly #environment: Readonly<Record<string, string>>;
  #child: Bun.Subprocess<"ignore", "pipe", "pipe"> | null = null;
  #output: Promise<string> = Promise.resolve("");

  private constructor(parts: {
    port: number;
    folder: AsyncDisposable & { path: string };
    environment: Readonly<Record<string, string>>;
  }) {
    this.#port = parts.port;
    this.#folder = parts.folder;
    this.#environment = parts.environment;
    this.dataFolder = join(parts.folder.path, "data");
    this.url = `http://127.0.0.1:${parts.port}`;
  }

  /** Starts one on an empty folder and waits until it is ready. */
  static async start(environment: Readonly<Record<string, string>> = {}): Promise<TestGateway> {
    const folder = await temporaryFolder("gateway");
    const gateway = new TestGateway({ port: await freePort(), folder, environment });
    await gateway.start();
    return gateway;
  }

  get pid(): number {
    if (this.#child === null) throw new Error("the gateway does not run");
    return this.#child.pid;
  }

  /** Starts it (again) and waits until it is ready, or only lives. */
  async start(until: "ready" | "live" = "ready"): Promise<void> {
    const child = Bun.spawn([process.execPath, join(PROJECT, "src/cli/main.ts"), "serve"], {
      cwd: PROJECT,
      env: {
        ...process.env,
        ISTHMUS_DATA: this.dataFolder,
        ISTHMUS_PORT: String(this.#port),
        ISTHMUS_ADMIN_TOKEN: TOKEN,
        ...this.#environment,
      },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#child = child;
    const out = new Response(child.stdout).text();
    const err = new Response(child.stderr).text();
    this.#output = Promise.all([out, err]).then((texts) => texts.join("\n"));
    await waitFor("the gateway is ready", async () => {
      if (child.exitCode !== null) throw new Error(`it ended: ${await this.#output}`);
      return await this.#answers(until);
    });
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    this.#child?.kill("SIGKILL");
    await this.#child?.exited;
  }

  /** A signal, and the exit code with everything that it printed. */
  async end(signal: "SIGTERM" | "SIGINT" = "SIGTERM"): Promise<{ code: number; output: string }> {
    this.#child?.kill(signal);
    const code = (await this.#child?.exited) ?? -1;
    this.#child = null;
    return { code, output: await this.#output };
  }

  /** Waits until it has ended by itself. */
  async ended(): Promise<{ code: number; output: string }> {
    const code = (await this.#child?.exited) ?? -1;
    this.#child = null;
    return { code, output: await this.#output };
  }

  /** A call with the admin token. */
  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (!headers.has("authorization")) headers.set("authorization", `Bearer ${TOKEN}`);
    return fetch(`${this.url}${path}`, { ...init, headers });
  }

  /** A call whose answer has to be JSON and a success. */
  async json<T>(path: string, init: RequestInit = {}): Promise<T> {
    const response = await this.fetch(path, init);
    const text = await response.text();
    if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`);
    return JSON.parse(text) as T;
  }

  /** Applies a whole document of definitions. */
  async apply(definitions: unknown): Promise<void> {
    await this.json("/api/apply", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(definitions),
    });
  }

  async routes(): Promise<readonly RouteRow[]> {
    return (await this.json<{ items: RouteRow[] }>("/api/routes")).items;
  }

  /** Waits until every route (of one rule) has finished all that its stream holds. */
  async drained(rule?: string, timeoutMs = 60_000): Promise<void> {
    let last: readonly RouteRow[] = [];
    const isDrained = async (): Promise<boolean> => {
      last = (await this.routes()).filter((each) => rule === undefined || each.rule === rule);
      return last.every(({ offset, end }) => offset === end);
    };
    try {
      await waitFor(`the routes ${rule ?? ""} have caught up`, isDrained, { timeoutMs });
    } catch (error) {
      throw new Error(`routes: ${JSON.stringify(last)}`, { cause: error });
    }
  }

  /** Waits until a bridge is connected. */
  async connected(bridge: string): Promise<void> {
    await waitFor(
      `bridge ${bridge} is connected`,
      async () => {
        const { status } = await this.json<{ status: { state: string } }>(`/api/bridges/${bridge}`);
        return status.state === "connected";
      },
      { timeoutMs: 60_000 },
    );
  }

  /** Waits until a source runs. */
  async sourceRuns(name: string): Promise<void> {
    await waitFor(
      `source ${name} runs`,
      async () => {
        const { items } = await this.json<{ items: { name: string; status: { state: string } }[] }>(
          "/api/sources",
        );
        return items.some((each) => each.name === name && each.status.state === "running");
      },
      { timeoutMs: 60_000 },
    );
  }

  /** Everything that a stream holds, in order within each partition. */
  async read(stream: string): Promise<MessageJson[]> {
    const all: MessageJson[] = [];
    let from = "earliest";
    for (;;) {
      const query = `from=${encodeURIComponent(from)}&max=10000`;
      const page = await this.json<{ messages: MessageJson[]; next: string; atEnd: boolean }>(
        `/streams/${stream}/messages?${query}`,
      );
      all.push(...page.messages);
      if (page.atEnd) return all;
      from = page.next;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child !== null && this.#child.exitCode === null) await this.kill();
    await this.#folder[Symbol.asyncDispose]();
  }

  async #answers(until: "ready" | "live"): Promise<boolean> {
    try {
      return (await fetch(`${this.url}/health/${until}`)).ok;
    } catch {
      return false;
    }
  }
}
