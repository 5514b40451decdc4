/**
 * The example page in headless Chromium: the network goes away and comes back, the page is reloaded
 * meanwhile, and every order is shown once.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { ADMIN_TOKEN, testServer } from "../http/support.ts";
import { freePort, waitFor } from "../temporary.ts";
import { chromium, Page } from "./chromium.ts";
import { proxyTo } from "./support.ts";

test.skipIf(chromium === null)(
  "orders sent and received while the network goes away and comes back are shown once",
  async () => {
    const port = await freePort();
    const origins = [`http://127.0.0.1:${port}`];
    await using server = await testServer({ config: { origins } });
    const { proxy, url } = await proxyTo(server.url);
    await using _proxy = proxy;
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
