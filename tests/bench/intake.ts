/**
 * Intake of the whole gateway: NDJSON beside single durable posts, and a stream that 100 rules with
 * a header filter read at its end beside one that a single such rule reads.
 */
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { temporaryFolder } from "../temporary.ts";
import { load } from "./ingest.ts";
import { inTurns, type Row, short } from "./table.ts";

const ROUNDS = 5;
const SECONDS = 2;
const CONNECTIONS = 64;
const LINES = 100;
const RULES = 100;

/** Measures both rows. */
export async function benchIntake(): Promise<Row[]> {
  await using folder = await temporaryFolder("bench-intake");
  await using gateway = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
  const rule = (from: string) => ({
    from,
    where: 'headers["x-region"] == "none"',
    to: { stream: "never" },
  });
  const many = Array.from({ length: RULES }, (_, index) => [`many-${index}`, rule("many")]);
  await gateway.apply({
    hooks: { many: { stream: "many" }, one: { stream: "one" }, single: { stream: "single" } },
    rules: { ...Object.fromEntries(many), one: rule("one") },
  });
  const single = await script(folder.path, "single", body(), {});
  const lines = Array.from({ length: LINES }, () => JSON.stringify({ body: body() })).join("\n");
  const batch = await script(folder.path, "batch", lines, {
    "content-type": "application/x-ndjson",
    authorization: `Bearer ${gateway.token}`,
  });
  const at = async (path: string, file: string): Promise<number> => {
    const server = { name: path, url: `${gateway.url}${path}`, pid: gateway.pid };
    const options = { connections: CONNECTIONS, script: file, seconds: SECONDS };
    return (await load(server, options)).rate;
  };
  const publish = await inTurns(
    ROUNDS,
    async () => LINES * (await at("/streams/lines/messages", batch)),
    () => at("/hooks/single", single),
  );
  const filtered = await inTurns(
    ROUNDS,
    async () => {
      const rate = await at("/hooks/many", single);
      await gateway.drained();
      return rate;
    },
    async () => {
      const rate = await at("/hooks/one", single);
      await gateway.drained();
      return rate;
    },
  );
  return [
    {
      what: `NDJSON publish, ${LINES} a request, messages/s / single posts`,
      value: publish.ratio,
      bound: 10,
      detail: `${short(publish.first)}/s, ${short(publish.second)}/s`,
    },
    {
      what: `intake with ${RULES} filtering rules at the end / with 1 rule`,
      value: filtered.ratio,
      bound: 0.6,
      detail: `${short(filtered.first)}/s, ${short(filtered.second)}/s`,
    },
  ];
}

function body(): string {
  return JSON.stringify({ id: 1, region: "eu", filler: "x".repeat(985) });
}

/** A script for wrk that posts one body. */
async function script(
  folder: string,
  name: string,
  text: string,
  headers: Readonly<Record<string, string>>,
): Promise<string> {
  const path = join(folder, `${name}.lua`);
  const set = Object.entries(headers).map(([key, value]) => `wrk.headers["${key}"] = "${value}"`);
  await Bun.write(path, [`wrk.method = "POST"`, `wrk.body = [[${text}]]`, ...set, ""].join("\n"));
  return path;
}
