/**
 * What the log adds to a message's way at 1,000 messages a second: Kafka → log → Kafka beside the
 * script, from a message's writing to its arrival at a reader, medians.
 */
import { join } from "node:path";
import { TestGateway } from "../e2e/gateway.ts";
import { type End, endOf, kafkaClient } from "./bridges-ends.ts";
import { inTurns, median, type Row } from "./table.ts";

const SECONDS = Number(process.env["ISTHMUS_BENCH_SECONDS"] ?? 8);
const ROUNDS = Number(process.env["ISTHMUS_BENCH_ROUNDS"] ?? 3);
const STEP_MS = 5;
const PER_STEP = 5;
/** What comes before is joining and warming up. */
const WARM_SHARE = 0.3;

/** Measures the row. */
export async function benchAddedLatency(): Promise<Row> {
  await using kafka = await endOf("kafka");
  const { first, second } = await inTurns(
    ROUNDS,
    () => through(kafka, withGateway),
    () => through(kafka, withScript),
  );
  return {
    what: "Kafka → log → Kafka at 1,000/s: ms added at p50",
    value: first - second,
    bound: 1,
    isAtMost: true,
    detail: `${first.toFixed(2)} ms, ${second.toFixed(2)} ms`,
  };
}

type Start = (kafka: End, from: string, to: string) => Promise<AsyncDisposable>;

async function withGateway(kafka: End, from: string, to: string): Promise<AsyncDisposable> {
  const gateway = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
  await gateway.apply({
    bridges: { k: { kind: "kafka", url: kafka.url } },
    sources: { s: { from: { bridge: "k", topic: from }, stream: "s", start: "earliest" } },
    rules: { r: { from: "s", start: "earliest", to: { bridge: "k", topic: to } } },
  });
  return gateway;
}

function withScript(kafka: End, from: string, to: string): Promise<AsyncDisposable> {
  const script = join(import.meta.dir, "bridges-bare.ts");
  const ends = ["kafka", kafka.url, from, "kafka", kafka.url, to];
  const child = Bun.spawn([process.execPath, script, ...ends], { stderr: "inherit" });
  return Promise.resolve({
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await child.exited;
    },
  });
}

/** The middle latency of a route, milliseconds. */
async function through(kafka: End, start: Start): Promise<number> {
  const [from, to] = [`bench-in-${crypto.randomUUID()}`, `bench-out-${crypto.randomUUID()}`];
  await kafka.make(from);
  await kafka.make(to);
  await using _running = await start(kafka, from, to);
  const latencies: number[] = [];
  const client = kafkaClient(kafka.url);
  const consumer = client.consumer({ groupId: `read-${to}`, maxWaitTimeInMs: 200 });
  await consumer.connect();
  await consumer.subscribe({ topic: to, fromBeginning: true });
  await consumer.run({
    eachBatch: async ({ batch }) => {
      const nowMs = performance.now();
      for (const { value } of batch.messages) latencies.push(nowMs - Number(value));
    },
  });
  const producer = client.producer();
  await producer.connect();
  const sends: Promise<unknown>[] = [];
  const begunMs = performance.now();
  for (let step = 0; step < (SECONDS * 1000) / STEP_MS; step++) {
    const value = String(performance.now()).padEnd(1024);
    const messages = Array.from({ length: PER_STEP }, (_, index) => ({ key: `k${index}`, value }));
    sends.push(producer.send({ topic: from, messages }));
    await Bun.sleep(Math.max(0, begunMs + (step + 1) * STEP_MS - performance.now()));
  }
  await Promise.all(sends);
  await Promise.all([producer.disconnect(), consumer.disconnect()]);
  return median(latencies.slice(Math.floor(latencies.length * WARM_SHARE)));
}
