/** The client as it is shipped: one file, small, without imports, and at home in other runtimes. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { gzipSync } from "bun";
import { ADMIN_TOKEN, testServer } from "../http/support.ts";
import { temporaryFolder } from "../temporary.ts";

const entry = join(import.meta.dir, "../../src/client/client.ts");
const gzipBytesMax = 6 * 1024;
const node = Bun.which("node");

async function bundle(): Promise<string> {
  const built = await Bun.build({ entrypoints: [entry], minify: true, target: "browser" });
  return await (built.outputs[0]?.text() ?? "");
}

test("it takes at most 6 KB with gzip and imports nothing", async () => {
  const text = await bundle();
  expect(text).not.toMatch(/\bimport\b|\brequire\(|node:|process\./);
  expect(gzipSync(new TextEncoder().encode(text), { level: 9 }).length).toBeLessThan(gzipBytesMax);
});

test.skipIf(node === null)("it publishes and reads under Node", async () => {
  await using server = await testServer();
  await using folder = await temporaryFolder("bundle");
  const file = join(folder.path, "client.mjs");
  await Bun.write(file, await bundle());
  const program = `
    import { connect } from ${JSON.stringify(file)};
    const client = connect({ url: process.env.URL_OF_SERVER, token: process.env.TOKEN });
    await client.publish("s", { body: "from node" });
    for await (const message of client.subscribe("s", { from: "earliest" })) {
      console.log(process.version, message.body);
      break;
    }
    await client.close();
  `;
  const script = join(folder.path, "program.mjs");
  await Bun.write(script, program);
  // Node has the WebSocket without this flag from version 22 on.
  const flags = ["--experimental-websocket", "--no-warnings"];
  const child = Bun.spawn([node ?? "", ...flags, script], {
    env: { URL_OF_SERVER: server.url, TOKEN: ADMIN_TOKEN },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  expect({ out: out.replace(/^\S+ /, ""), errors, code: await child.exited }).toEqual({
    out: "from node\n",
    errors: "",
    code: 0,
  });
});
