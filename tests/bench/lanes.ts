/**
 * Lanes beside one lane: messages to an HTTP target that takes 100 ms for each, once all of one key
 * and once each of a key of its own.
 */
import { TestGateway } from "../e2e/gateway.ts";
import { freePort, waitFor } from "../temporary.ts";
import { type Row, short } from "./table.ts";

const ANSWER_MS = 100;
/** So that each measurement takes some seconds. */
const ONE_LANE = 50;
const MANY_LANES = 3200;

/** Measures both and their ratio. */
export async function benchLanes(): Promise<Row> {
  let done = 0;
  const server = Bun.serve({
    port: await freePort(),
    hostname: "127.0.0.1",
    async fetch(request) {
      await request.bytes();
      await Bun.sleep(ANSWER_MS);
      done++;
      return new Response("");
    },
  });
  await using gateway = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
  try {
    await gateway.apply({
      bridges: {
        slow: {
          kind: "http",
          url: `http://127.0.0.1:${server.port}/`,
          allowPrivate: ["127.0.0.0/8"],
        },
      },
      rules: { lanes: { from: "in", to: { bridge: "slow" }, order: "key" } },
    });
    const measure = async (count: number, keyOf: (index: number) => string): Promise<number> => {
      const before = done;
      const lines = Array.from({ length: count }, (_, index) =>
        JSON.stringify({ key: keyOf(index), body: `message ${index}` }),
      );
      const startedMs = performance.now();
      const response = await fetch(`${gateway.url}/streams/in/messages`, {
        method: "POST",
        headers: {
          authorization: `Bearer ${gateway.token}`,
          "content-type": "application/x-ndjson",
        },
        body: lines.join("\n"),
      });
      if (response.status !== 202) throw new Error(`publish: ${response.status}`);
      await waitFor("all are there", () => done - before === count, { timeoutMs: 120_000 });
      return count / ((performance.now() - startedMs) / 1000);
    };
    await measure(200, (index) => `warm ${index}`);
    const one = await measure(ONE_LANE, () => "one");
    const many = await measure(MANY_LANES, (index) => `key ${index}`);
    return {
      what: `64 lanes / one, HTTP target of ${ANSWER_MS} ms a message`,
      value: many / one,
      bound: 50,
      detail: `${short(many)}/s, ${one.toFixed(1)}/s`,
    };
  } finally {
    await server.stop(true);
  }
}
