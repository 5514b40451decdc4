/** What a preview that goes on takes from deliveries: a rule's rate beside one, and without. */
import { TestGateway } from "../e2e/gateway.ts";
import { waitFor } from "../temporary.ts";
import { inTurns, type Row, short } from "./table.ts";

const RECORDED = 200_000;
const MESSAGES = 100_000;
const LINES = 2000;
const ROUNDS = 5;

/** Measures deliveries while a preview runs beside deliveries without one. */
export async function benchPreview(): Promise<Row> {
  await using gateway = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
  const where = "body.n % 7 == 0";
  await gateway.apply({
    rules: {
      live: { from: "in", to: { stream: "out" } },
      looked: { from: "old", where, to: { stream: "seen" } },
    },
  });
  await publish(gateway, "old", RECORDED);
  await gateway.drained("looked");
  let end = 0;
  const rate = async (): Promise<number> => {
    end += MESSAGES;
    await gateway.json("/api/routes/live/pause", { method: "POST" });
    await publish(gateway, "in", MESSAGES);
    const startedMs = performance.now();
    await gateway.json("/api/routes/live/resume", { method: "POST" });
    const isDone = async (): Promise<boolean> =>
      (await gateway.routes()).some(({ rule, offset }) => rule === "live" && offset === end);
    await waitFor("all went out", isDone, { timeoutMs: 60_000 });
    return MESSAGES / ((performance.now() - startedMs) / 1000);
  };
  const beside = async (): Promise<number> => {
    const stop = new AbortController();
    const preview = gateway.fetch("/api/rules/looked/preview?last=1h", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ from: "old", where: "body.n % 5 == 0", to: { stream: "seen" } }),
      signal: stop.signal,
    });
    const response = await preview;
    if (!response.ok) throw new Error(`preview: ${response.status} ${await response.text()}`);
    let isOver = false;
    const ended = response.text().then(
      () => (isOver = true),
      () => false,
    );
    try {
      const value = await rate();
      if (isOver) throw new Error("the preview ended before the deliveries did");
      return value;
    } finally {
      stop.abort();
      await ended;
    }
  };
  await rate();
  const { first, second, ratio } = await inTurns(ROUNDS, beside, rate);
  return {
    what: "deliveries while a preview runs, share of those without",
    value: ratio,
    bound: 0.9,
    detail: `${short(first)} and ${short(second)} messages/s`,
  };
}

async function publish(gateway: TestGateway, stream: string, count: number): Promise<void> {
  for (let at = 0; at < count; at += LINES) {
    const lines = Array.from({ length: LINES }, (_, index) =>
      JSON.stringify({ body: { n: at + index, text: "some words of a message" } }),
    );
    await gateway.json(`/streams/${stream}/messages`, {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body: lines.join("\n"),
    });
  }
}
