/**
 * What clients that read slowly or not at all cost the others: the time from a publish to its
 * arrival, p99, while a hundred of each are there, beside the same without them.
 */
import { TestGateway } from "../e2e/gateway.ts";
import { Clients, hello, portOf, publish } from "./fanout-clients-process.ts";
import { inTurns, type Row } from "./table.ts";

const ROUNDS = 3;
const READERS = 50;
const SLOW = 100;
const STUCK = 100;
const MESSAGES = 400;
const EACH_MS = 5;

/** Measures the row. */
export async function benchSlow(): Promise<Row> {
  await using gateway = await TestGateway.start({ ISTHMUS_LOG_LEVEL: "error" });
  for (let round = 0; round < 5; round++) await publish(gateway, "held", 10_000);
  const readers = await Promise.all(Array.from({ length: READERS }, () => Reader.open(gateway)));
  await latency(gateway, readers);
  const found = await inTurns(
    ROUNDS,
    async () => {
      await using slow = new Clients();
      const all = { port: portOf(gateway), hello: hello(gateway, "held", "earliest") };
      await slow.open({ ...all, count: STUCK, readyFrames: 2, isStuck: true });
      await slow.open({ ...all, count: SLOW, readyFrames: 2, slowMs: 1000 });
      return await latency(gateway, readers);
    },
    () => latency(gateway, readers),
  );
  for (const reader of readers) reader.close();
  return {
    what: `p99 to ${READERS} readers beside ${SLOW} slow and ${STUCK} stuck ones / alone`,
    value: found.ratio,
    bound: 2,
    isAtMost: true,
    detail: `${found.first.toFixed(1)} ms, ${found.second.toFixed(1)} ms`,
  };
}

/** The p99 of all arrivals, milliseconds. */
async function latency(gateway: TestGateway, readers: readonly Reader[]): Promise<number> {
  for (const reader of readers) reader.times.length = 0;
  for (let sent = 0; sent < MESSAGES; sent++) {
    const body = String(performance.now());
    const answer = await gateway.fetch("/streams/live/messages", { method: "POST", body });
    if (!answer.ok) throw new Error(await answer.text());
    await Bun.sleep(EACH_MS);
  }
  while (readers.some(({ times }) => times.length < MESSAGES)) await Bun.sleep(10);
  const all = readers.flatMap(({ times }) => times).toSorted((a, b) => a - b);
  return all[Math.floor(all.length * 0.99)] ?? Number.NaN;
}

/** A client that notes how long each message took. */
class Reader {
  readonly times: number[] = [];
  readonly #socket: WebSocket;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
  }

  static async open(gateway: TestGateway): Promise<Reader> {
    const socket = new WebSocket(`${gateway.url.replace("http", "ws")}/socket`);
    const reader = new Reader(socket);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    socket.onopen = () => {
      for (const frame of hello(gateway, "live", "latest")) socket.send(JSON.stringify(frame));
    };
    socket.onclose = () => reject(new Error("a reader was closed"));
    socket.onmessage = ({ data }) => {
      const { op, body } = JSON.parse(String(data)) as { op: string; body?: string };
      if (op === "subscribed") resolve();
      if (op === "message") reader.times.push(performance.now() - Number(body));
    };
    await promise;
    return reader;
  }

  close(): void {
    this.#socket.close();
  }
}
