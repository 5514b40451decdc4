/**
 * A headless Chromium for tests, driven over its debugging socket: one page of a browser of its
 * own. Tests that need it are skipped where there is none.
 */
import { locateProgram } from "../brokers/programs.ts";
import { freePort, temporaryFolder, waitFor } from "../temporary.ts";

/** The browser's program. */
export const chromium =
  locateProgram("chromium") ?? Bun.which("chromium-browser") ?? Bun.which("google-chrome");

/** A page of a browser of its own. */
export class Page implements AsyncDisposable {
  readonly #stack: AsyncDisposableStack;
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, (answer: { result?: unknown }) => void>();
  #count = 0;

  private constructor(stack: AsyncDisposableStack, socket: WebSocket) {
    this.#stack = stack;
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      const answer = JSON.parse(String(data)) as { id?: number; result?: unknown };
      this.#waiting.get(answer.id ?? 0)?.(answer);
      this.#waiting.delete(answer.id ?? 0);
    };
  }

  static async open(program: string): Promise<Page> {
    const stack = new AsyncDisposableStack();
    const folder = stack.use(await temporaryFolder("chromium"));
    const port = await freePort();
    const child = Bun.spawn(
      [
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        // It would look for updates, and for its maker's hosts, otherwise.
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        `--user-data-dir=${folder.path}`,
        `--remote-debugging-port=${port}`,
        "about:blank",
      ],
      { stdin: "ignore", stdout: "ignore", stderr: "ignore" },
    );
    stack.defer(async () => {
      child.kill("SIGKILL");
      await child.exited;
    });
    const url = await waitFor("the browser is there", async () => {
      try {
        const answer = await fetch(`http://127.0.0.1:${port}/json/list`);
        const pages = (await answer.json()) as { type: string; webSocketDebuggerUrl: string }[];
        return pages.find(({ type }) => type === "page")?.webSocketDebuggerUrl ?? null;
      } catch {
        return null;
      }
    });
    const socket = new WebSocket(url);
    await new Promise((resolve) => (socket.onopen = resolve));
    return new Page(stack, socket);
  }

  async call(method: string, params: object = {}): Promise<unknown> {
    const id = ++this.#count;
    const answered = new Promise<{ result?: unknown }>((resolve) => this.#waiting.set(id, resolve));
    this.#socket.send(JSON.stringify({ id, method, params }));
    return (await answered).result;
  }

  /** The value of an expression in the page. */
  async value(expression: string): Promise<unknown> {
    const result = await this.call("Runtime.evaluate", { expression, returnByValue: true });
    return (result as { result?: { value?: unknown } } | undefined)?.result?.value;
  }

  /** What a list of the page shows. */
  async lines(list: string): Promise<unknown> {
    return await this.value(
      `[...document.querySelectorAll("#${list} li")].map((each) => each.textContent)`,
    );
  }

  async send(text: string): Promise<void> {
    await this.value(
      `document.querySelector("#text").value = ${JSON.stringify(text)}; document.querySelector("#form").requestSubmit()`,
    );
  }

  async shows(list: string, expected: readonly string[]): Promise<void> {
    const wanted = JSON.stringify(expected);
    await waitFor(
      `#${list} shows ${wanted}`,
      async () => JSON.stringify(await this.lines(list)) === wanted,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    await this.#stack.disposeAsync();
  }
}
