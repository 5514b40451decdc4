/**
 * Runs the conformance suite against every broker and writes what it found into
 * docs/conformance.md, bridge by behaviour: `bun tests/conformance/table.ts`. With
 * ISTHMUS_TEST_FULL=1 nothing is sampled.
 */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RESULTS_FOLDER, type ResultFile } from "./results.ts";
import { isFull } from "./sample.ts";

const root = join(import.meta.dir, "..", "..");
const page = join(root, "docs", "conformance.md");
const START = "<!-- table -->";
const END = "<!-- /table -->";

const folder = await mkdtemp(join(tmpdir(), "isthmus-conformance-"));
const { exitCode } = Bun.spawnSync(
  [process.execPath, "test", "--timeout", "60000", "tests/conformance"],
  {
    cwd: root,
    env: { ...process.env, [RESULTS_FOLDER]: folder },
    stdio: ["ignore", "inherit", "inherit"],
  },
);
const files = (await readdir(folder)).sort();
const all = await Promise.all(
  files.map(async (file) => (await Bun.file(join(folder, file)).json()) as ResultFile),
);
await rm(folder, { recursive: true });
const bridges = all.filter(({ name }) => !name.startsWith("memory"));
const text = await Bun.file(page).text();
const [before, after] = [text.split(START)[0] ?? "", text.split(END)[1] ?? ""];
await Bun.write(page, `${before}${START}\n\n${tableOf(bridges)}\n${END}${after}`);
process.exit(exitCode);

/** One row a behaviour, one column a bridge; reasons of skips as notes below. */
function tableOf(results: readonly ResultFile[]): string {
  const notes: string[] = [];
  const noteOf = (reason: string): number => {
    if (!notes.includes(reason)) notes.push(reason);
    return notes.indexOf(reason) + 1;
  };
  const behaviours = [...new Set(results.flatMap((each) => Object.keys(each.behaviours)))];
  const rows = behaviours.map((behaviour) => {
    const cells = results.map(({ behaviours: found }) => {
      const reason = found[behaviour];
      if (reason === null) return "yes";
      return reason === "failed" ? "**FAILED**" : `– ${noteOf(reason ?? "not run")}`;
    });
    return `| ${behaviour} | ${cells.join(" | ")} |`;
  });
  const how = isFull ? "in full" : "as the seeded sample of `npm test`";
  return [
    `Written by \`bun tests/conformance/table.ts\` from a run ${how}.`,
    "",
    `| behaviour | ${results.map(({ name }) => name).join(" | ")} |`,
    `| --- | ${results.map(() => "---").join(" | ")} |`,
    ...rows,
    "",
    "Where it is not shown, why:",
    "",
    ...notes.map((note, index) => `${index + 1}. ${note}`),
    "",
  ].join("\n");
}
