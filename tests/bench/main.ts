/**
 * `npm run bench`: tables of ratios, each measured side by side in one run. Asserts nothing.
 * `npm run bench -- rules delivery` measures those parts alone; `--json` prints the rows as JSON
 * lines at the end.
 */
import { benchBridges } from "./bridges.ts";
import { benchDelivery } from "./delivery.ts";
import { benchIngest } from "./ingest.ts";
import { benchIntake } from "./intake.ts";
import { benchFanout } from "./fanout.ts";
import { benchKeys } from "./keys.ts";
import { benchLog } from "./log.ts";
import { benchOpening } from "./opening.ts";
import { benchRules } from "./rules.ts";
import { passes, printRow, type Row } from "./table.ts";
import { benchWebhooks } from "./webhooks.ts";

const PARTS: Readonly<Record<string, () => Promise<readonly Row[]>>> = {
  http: benchHttp,
  webhooks: benchWebhooks,
  log: benchLog,
  opening: benchOpening,
  rules: benchRules,
  delivery: benchDelivery,
  fanout: benchFanout,
  keys: benchKeys,
  bridges: benchBridges,
};

const words = process.argv.slice(2).filter((word) => !word.startsWith("--"));
const unknown = words.filter((word) => !Object.hasOwn(PARTS, word));
if (unknown.length > 0) {
  console.error(`no such part: ${unknown.join(", ")}; there are ${Object.keys(PARTS).join(", ")}`);
  process.exit(2);
}
const rows: Row[] = [];
for (const [name, bench] of Object.entries(PARTS)) {
  if (words.length === 0 || words.includes(name)) rows.push(...(await bench()));
}
for (const row of rows) printRow(row);
if (process.argv.includes("--json")) {
  for (const row of rows) console.log(JSON.stringify({ ...row, passes: passes(row) }));
}

async function benchHttp(): Promise<Row[]> {
  if (Bun.which("wrk") !== null) return [...(await benchIngest()), ...(await benchIntake())];
  console.error("the rows of HTTP need wrk (Debian: apt-get install wrk)");
  process.exitCode = 1;
  return [];
}
