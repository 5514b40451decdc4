/** The page on webhooks, held against what there is. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { VERIFY_SCHEMES } from "../../../src/rules/document.ts";

test("the page lists every scheme, and none that there isn't", async () => {
  const path = join(import.meta.dir, "../../../docs/webhooks.md");
  const text = await Bun.file(path).text();
  const section = text.slice(text.indexOf("## Schemes"), text.indexOf("## Answers"));
  const rows = [...section.matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, name]) => name ?? "");
  expect(rows.toSorted()).toEqual([...VERIFY_SCHEMES, "none"].toSorted());
});
