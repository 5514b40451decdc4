/** `npm run bench`: tables of ratios, each measured side by side in one run. Asserts nothing. */
import { benchIngest } from "./ingest.ts";

if (Bun.which("wrk") === null) {
  console.error("the bench needs wrk (Debian: apt-get install wrk)");
  process.exitCode = 1;
} else {
  await benchIngest();
}
