/**
 * The example page in headless Chromium, driven over its debugging socket: the network goes away
 * and comes back, the page is reloaded meanwhile, and every order is shown once.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { ADMIN_TOKEN, testServer } from "../http/support.ts";
import { freePort, temporaryFolder, waitFor } from "../temporary.ts";
import { proxyTo } from "./support.ts";

const chromium = ["chromium", "chromium-browser", "google-chrome"]
  .map((name) => Bun.which(name))
  .find((path) => path !== null);

/** A page of a browser of its own. */
class Page implements AsyncDisposable {
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

test.skipIf(chromium === undefined)(
  "orders sent and received while the network goes away and comes back are shown once",
  async () => {
    await using server = await testServer();
    const { proxy, url } = await proxyTo(server.url);
    await using _proxy = proxy;
    const port = await freePort();
    const script = join(import.meta.dir, "../../examples/web/serve.ts");
    await using stack = new AsyncDisposableStack();
    const child = Bun.spawn([process.execPath, script, String(port)], {
      stdout: "pipe",
      stdin: "ignore",
    });
    stack.defer(async () => {
      child.kill();
      await child.exited;
    });
    await child.stdout.getReader().read();
    const page = stack.use(await Page.open(chromium ?? ""));
    await page.call("Page.navigate", {
      url: `http://127.0.0.1:${port}/#gateway=${url}&token=${ADMIN_TOKEN}`,
    });
    await waitFor(
      "the page is online",
      async () => (await page.value(`document.querySelector("#state")?.textContent`)) === "online",
    );
    await page.send("one");
    await page.shows("messages", ["one"]);
    await proxy.down();
    await page.send("two");
    await page.shows("waiting", ["two"]);
    await server.publish("orders", "three");
    await page.call("Page.reload");
    await waitFor(
      "the page is there again",
      async () =>
        (await page.value(
          "document.readyState === 'complete' && document.querySelectorAll('li').length",
        )) === 0,
    );
    await proxy.up();
    await page.shows("messages", ["one", "three", "two"]);
    // The browser's own event: a client that waits tries again at once.
    proxy.cut();
    await page.value(`dispatchEvent(new Event("online"))`);
    await page.send("four");
    await page.shows("messages", ["one", "three", "two", "four"]);
    expect(await page.lines("waiting")).toEqual([]);
  },
  60_000,
);
