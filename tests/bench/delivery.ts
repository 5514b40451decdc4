/**
 * Delivery by a running gateway: lanes beside one lane at a slow HTTP target, and a thousand rules
 * beside one on the same stream.
 */
import { TestGateway } from "../e2e/gateway.ts";
import { waitFor } from "../temporary.ts";
import { benchJourney } from "./journey.ts";
import { benchLanes } from "./lanes.ts";
import { benchPreview } from "./preview.ts";
import { median, type Row, short } from "./table.ts";

const RULES = 1000;
const MESSAGES = 2000;
const ROUNDS = 3;

/** Measures the rows of delivery. */
export async function benchDelivery(): Promise<Row[]> {
  return [await benchLanes(), await manyRules(), await benchJourney(), await benchPreview()];
}

/** How long one rule and message take when a thousand rules read one stream. */
async function manyRules(): Promise<Row> {
  const alone = await rate(1);
  const all = await rate(RULES);
  const value = 1e6 / (all * RULES);
  return {
    what: `${RULES} rules on one stream, µs a rule and message`,
    value,
    bound: 10,
    isAtMost: true,
    detail: `${short(all)} messages/s past all of them; ${short(alone)}/s with one`,
  };
}

/** Messages a second that so many rules have passed, of which one takes each message. */
async function rate(count: number): Promise<number> {
  await using gateway = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
  const rules = Object.fromEntries(
    Array.from({ length: count }, (_, index) => [
      `r${index}`,
      { from: "in", where: `header("to") == "${index}"`, to: { stream: "out" } },
    ]),
  );
  await gateway.apply({ rules });
  const rates: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const lines = Array.from({ length: MESSAGES }, (_, index) =>
      JSON.stringify({ headers: { to: String(index % count) }, body: `message ${index}` }),
    );
    const startMs = performance.now();
    await gateway.json("/streams/in/messages", {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body: lines.join("\n"),
    });
    const end = (round + 1) * MESSAGES;
    await waitFor(
      "all rules have passed all",
      async () => (await gateway.routes()).every(({ offset }) => offset === end),
      { timeoutMs: 120_000 },
    );
    rates.push(MESSAGES / ((performance.now() - startMs) / 1000));
  }
  return median(rates);
}
