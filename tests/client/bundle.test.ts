/** The client as browsers get it: one file, small, without imports. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { gzipSync } from "bun";

const entry = join(import.meta.dir, "../../src/client/client.ts");
const gzipBytesMax = 6 * 1024;

async function bundle(): Promise<string> {
  const built = await Bun.build({ entrypoints: [entry], minify: true, target: "browser" });
  return await (built.outputs[0]?.text() ?? "");
}

test("it takes at most 6 KB with gzip and imports nothing", async () => {
  const text = await bundle();
  expect(text).not.toMatch(/\bimport\b|\brequire\(|node:|process\./);
  expect(gzipSync(new TextEncoder().encode(text), { level: 9 }).length).toBeLessThan(gzipBytesMax);
});
