/**
 * The client SDK where it says that it runs: Node (bundled), Deno (from its sources), a runtime
 * with no more than React Native has, and Chromium with the events of its network and its page.
 * Each publishes, reads, loses its connection and goes on.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { createContext, runInContext } from "node:vm";
import { chromium, Page } from "../client/chromium.ts";
import { proxyTo } from "../client/support.ts";
import { ADMIN_TOKEN, testServer } from "../http/support.ts";
import { temporaryFolder, waitFor } from "../temporary.ts";
import { mustSkip, pypiTools } from "./pypi.ts";

const entry = join(import.meta.dir, "../../src/client/client.ts");
const node = Bun.which("node");
const tools = await pypiTools();
const why = tools.missing === null ? "" : ` (${tools.missing})`;

async function bundle(format: "esm" | "cjs"): Promise<string> {
  const built = await Bun.build({ entrypoints: [entry], minify: true, target: "browser", format });
  return await (built.outputs[0]?.text() ?? "");
}

/** Publishes `first`, and reads until `last`; `print` says what came. */
const program = (url: string, print: string): string => `
  const client = connect({
    url: ${JSON.stringify(url)},
    token: () => Promise.resolve(${JSON.stringify(ADMIN_TOKEN)}),
    tuning: { minMs: 20, maxMs: 200 },
  });
  await client.publish("s", { body: "first", headers: { bytes: Uint8Array.of(255) } });
  for await (const { body } of client.subscribe("s", { from: "earliest", name: "n" })) {
    ${print}(body);
    if (body === "last") break;
  }
  await client.close();
`;

/** Runs the program in a runtime, and cuts its connection between the two messages. */
async function runsIn(command: (script: string) => readonly string[], client?: string) {
  await using server = await testServer();
  const { proxy, url } = await proxyTo(server.url);
  await using _proxy = proxy;
  await using folder = await temporaryFolder("sdk");
  const bundled = join(folder.path, "client.mjs");
  await Bun.write(bundled, await bundle("esm"));
  const script = join(folder.path, "program.mjs");
  const from = JSON.stringify(client ?? bundled);
  await Bun.write(script, `import { connect } from ${from};${program(url, "console.log")}`);
  const child = Bun.spawn([...command(script)], {
    env: { ...process.env, DENO_DIR: folder.path, NO_COLOR: "1" },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const errors = new Response(child.stderr).text();
  const lines: string[] = [];
  for await (const line of createInterface({ input: Readable.fromWeb(child.stdout as never) })) {
    lines.push(line);
    if (line !== "first") continue;
    proxy.cut();
    await server.publish("s", "last");
  }
  const code = await child.exited;
  expect({ lines, errors: await errors, code }).toEqual({
    lines: ["first", "last"],
    errors: "",
    code: 0,
  });
}

test.skipIf(node === null)("it publishes and reads under Node, over a cut", async () => {
  // Node has the WebSocket without this flag from version 22 on.
  const flags = ["--experimental-websocket", "--no-warnings"];
  await runsIn((script) => [node ?? "", ...flags, script]);
});

test.skipIf(mustSkip(tools))(
  `it publishes and reads under Deno from its sources, over a cut${why}`,
  async () => {
    if (tools.missing !== null) throw new Error(tools.missing);
    const flags = ["run", "--quiet", "--no-config", "--no-remote", "--no-npm", "--allow-net"];
    await runsIn((script) => [tools.deno, ...flags, script], entry);
  },
  60_000,
);

test("it needs no more of a runtime than React Native has, over a cut", async () => {
  await using server = await testServer();
  const { proxy, url } = await proxyTo(server.url);
  await using _proxy = proxy;
  const lines: string[] = [];
  // No document, no events of a window, no crypto, no IndexedDB, no fetch, no process.
  const names = ["WebSocket", "setTimeout", "clearTimeout", "queueMicrotask", "performance"];
  const texts = ["TextEncoder", "Uint8Array", "atob", "btoa"];
  const has = (name: string): [string, unknown] => [name, Reflect.get(globalThis, name)];
  const context = createContext({
    ...Object.fromEntries([...names, ...texts].map(has)),
    module: { exports: {} },
    print: (line: string) => lines.push(line),
  });
  runInContext(await bundle("cjs"), context);
  const text = `(async () => { const { connect } = module.exports; ${program(url, "print")} })()`;
  const running = runInContext(text, context) as Promise<void>;
  await waitFor("the first has come", () => lines.length === 1);
  proxy.cut();
  await server.publish("s", "last");
  await running;
  expect(lines).toEqual(["first", "last"]);
});

test.skipIf(chromium === null)(
  "in Chromium, a network that is back and a page that is seen again end the wait at once",
  async () => {
    await using server = await testServer();
    const { proxy, url } = await proxyTo(server.url);
    await using _proxy = proxy;
    await using page = await Page.open(chromium ?? "");
    await page.call("Page.navigate", { url: `${url}/health/live` });
    await waitFor("the page is there", () => page.value(`location.pathname === "/health/live"`));
    // Waits of an hour: only the events can end them in time.
    await page.value(`
      var module = { exports: {} };
      ${await bundle("cjs")};
      const hour = { minMs: 3600000, maxMs: 3600000 };
      window.client = module.exports.connect({
        url: ${JSON.stringify(url)},
        token: ${JSON.stringify(ADMIN_TOKEN)},
        tuning: hour,
        platform: { random: () => 0.999 },
      });
    `);
    const is = (status: string): Promise<unknown> =>
      waitFor(`it is ${status}`, async () => (await page.value("client.state.status")) === status);
    await is("online");
    await page.call("Network.enable");
    const network = (offline: boolean): Promise<unknown> => {
      const conditions = { latency: 0, downloadThroughput: -1, uploadThroughput: -1 };
      return page.call("Network.emulateNetworkConditions", { offline, ...conditions });
    };
    await network(true);
    proxy.cut();
    await is("offline");
    await network(false);
    await is("online");
    proxy.cut();
    await is("offline");
    await page.value(`document.dispatchEvent(new Event("visibilitychange"))`);
    await is("online");
  },
  60_000,
);
