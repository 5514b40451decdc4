/**
 * A process with many clients of the storm: each publishes its own sequence under its own key and
 * reads everything, every second one by a durable name. Told over its standard input what to do
 * next, one JSON object a line, and answers each with one line; it judges what its readers saw.
 */
import { createInterface } from "node:readline";
import { type Client, connect } from "../../src/client/client.ts";
import type { Tuning } from "../../src/client/closes.ts";
import type { Receipt } from "../../src/client/outbox.ts";
import type { Message } from "../../src/client/subscription.ts";
import { Random } from "../sim/random.ts";

/** What the process is told in its environment, as `STORM`. */
export interface StormSettings {
  readonly url: string;
  readonly token: string;
  /** The clients' numbers: `first` up to, not including, `first + count`. */
  readonly first: number;
  readonly count: number;
  readonly publishesPerS: number;
  readonly seed: number;
  readonly tuning: Partial<Tuning>;
}

/** `settle`: publish no more and wait for the receipts; `ends`: wait until all was read. */
export interface StormOrder {
  readonly do: "settle" | "ends";
  /** The end of each partition. */
  readonly ends?: readonly number[];
  readonly timeoutMs: number;
}

/** What a reader saw: `fault` is the first message that was not the next one, or its error. */
export interface ReaderReport {
  readonly who: number;
  readonly fault: string | null;
  readonly read: readonly number[];
  /** Of each partition's ids and bodies, in the order given to the program. */
  readonly digests: readonly string[];
}

/** A publish that was settled. */
export type SettledPublish = Receipt & { readonly who: number; readonly body: string };

const partitions = [0, 1, 2, 3];

class StormReader {
  readonly who: number;
  readonly #read = partitions.map(() => 0);
  readonly #digests = partitions.map(() => new Bun.CryptoHasher("sha256"));
  #fault: string | null = null;

  constructor(who: number, client: Client) {
    this.who = who;
    const name = who % 2 === 0 ? { name: `n${who}`, window: 16 } : {};
    this.#run(client.subscribe("orders", { from: "earliest", ...name })).catch((error: unknown) => {
      this.#fault ??= String(error);
    });
  }

  get report(): ReaderReport {
    const digests = this.#digests.map((each) => each.copy().digest("hex"));
    return { who: this.who, fault: this.#fault, read: [...this.#read], digests };
  }

  hasRead(ends: readonly number[]): boolean {
    return this.#fault !== null || ends.every((end, index) => (this.#read[index] ?? 0) >= end);
  }

  async #run(messages: AsyncIterable<Message>): Promise<void> {
    for await (const { partition, offset, id, body } of messages) {
      const next = this.#read[partition] ?? 0;
      if (offset !== next) this.#fault ??= `${partition}/${offset} came instead of ${next}`;
      this.#read[partition] = offset + 1;
      this.#digests[partition]?.update(`${id} ${String(body)}\n`);
    }
    this.#fault ??= "the loop ended";
  }
}

const settings = JSON.parse(process.env["STORM"] ?? "{}") as StormSettings;
const { url, token, first, count, tuning } = settings;
const random = new Random(settings.seed);
const clients = Array.from({ length: count }, () => connect({ url, token, tuning }));
const readers = clients.map((client, index) => new StormReader(first + index, client));
const published = clients.map(() => 0);
const receipts: Promise<SettledPublish>[] = [];

function publishOne(): void {
  const index = random.below(count);
  const who = first + index;
  const body = String(published[index]);
  published[index] = Number(body) + 1;
  const settled = clients[index]?.publish("orders", { key: `k${who}`, body });
  if (settled !== undefined) receipts.push(settled.then((receipt) => ({ ...receipt, who, body })));
  // Whoever asks for the receipts hears of it.
  receipts.at(-1)?.catch(() => undefined);
}

async function until(isDone: () => boolean, timeoutMs: number): Promise<void> {
  const startMs = performance.now();
  while (!isDone() && performance.now() - startMs < timeoutMs) await Bun.sleep(50);
}

async function obey(order: StormOrder): Promise<unknown> {
  if (order.do === "settle") {
    clearInterval(publishing);
    let isSettled = false;
    const all = Promise.allSettled(receipts).finally(() => (isSettled = true));
    await until(() => isSettled, order.timeoutMs);
    if (!isSettled) return { error: clients.map(({ state }) => state.status).join(" ") };
    const failed = (await all).find(({ status }) => status === "rejected");
    return failed === undefined ? await Promise.all(receipts) : { error: JSON.stringify(failed) };
  }
  const ends = order.ends ?? [];
  await until(() => readers.every((reader) => reader.hasRead(ends)), order.timeoutMs);
  return readers.map(({ report }) => report);
}

const publishing = setInterval(publishOne, 1000 / settings.publishesPerS);
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await obey(JSON.parse(line) as StormOrder))}\n`);
}
process.exit(0);
