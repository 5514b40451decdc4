/**
 * The writing end. Calls wait in one queue; one produce request is under way at a time, with at
 * most one batch for each partition, so what was called first is written first, in every partition.
 * Failure is `prefix`: at the first message that is not written, the rest of its call and whatever
 * waits behind it is `unknown`, so that no later message overtakes one that is sent again.
 */
import type { Outcome, Outgoing, Sink } from "../../src/bridge.ts";
import { DisconnectedError } from "../../src/errors.ts";
import { Placing, type PlacingParts } from "./placing.ts";
import { type Placed, writeRound } from "./round.ts";

/** Messages of one request: enough to fill it, few enough to answer soon. Count. */
const ROUND_MESSAGES_MAX = 5000;
/** Records of one request, estimated; a larger message goes alone. Bytes. */
const ROUND_BYTES_MAX = 8 * 1024 * 1024;
/** Records of one batch: below the broker's default of 1,048,588 for `message.max.bytes`. Bytes. */
const BATCH_BYTES_MAX = 900_000;
const UNKNOWN: Outcome = { unknown: true };

/** One `send`. Settled once; a settled call's remaining messages are not sent. */
class Call {
  readonly outgoing: readonly Outgoing[];
  readonly outcomes: Outcome[];
  /** How many are confirmed; also the next one to send. */
  confirmed = 0;
  settled = false;
  readonly #promise = Promise.withResolvers<readonly Outcome[]>();

  constructor(outgoing: readonly Outgoing[]) {
    this.outgoing = outgoing;
    this.outcomes = outgoing.map(() => UNKNOWN);
  }

  get result(): Promise<readonly Outcome[]> {
    return this.#promise.promise;
  }

  /** Answers with what is confirmed so far, the rest unknown. */
  settle(): void {
    this.settled = true;
    this.#promise.resolve(this.outcomes);
  }

  fail(error: unknown): void {
    this.settled = true;
    this.#promise.reject(error);
  }
}

/** A message of a call on its way, with its place in the target or why it has none. */
interface Item {
  readonly call: Call;
  readonly index: number;
  readonly placed: Placed | null;
  readonly outcome: Outcome | null;
}

/** What a sink is made of. */
export interface SinkParts extends PlacingParts {
  /** Called when a send found the cluster away. */
  readonly failed: () => Promise<void>;
  readonly ended: (sink: KafkaSink) => void;
}

/** A sink of one address. */
export class KafkaSink implements Sink {
  readonly #parts: SinkParts;
  readonly #placing: Placing;
  readonly #queue: Call[] = [];
  #running: Promise<void> | null = null;
  #failure: DisconnectedError | null = null;

  constructor(parts: SinkParts) {
    this.#parts = parts;
    this.#placing = new Placing(parts);
  }

  async send(outgoing: readonly Outgoing[], signal: AbortSignal): Promise<readonly Outcome[]> {
    if (this.#failure !== null) throw this.#failure;
    const call = new Call(outgoing);
    if (signal.aborted || outgoing.length === 0) return call.outcomes;
    const abort = (): void => call.settle();
    signal.addEventListener("abort", abort, { once: true });
    this.#queue.push(call);
    this.#running ??= this.#run();
    try {
      return await call.result;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /** Ends every call; the bridge calls it when the connection is lost or closed. */
  fail(error: DisconnectedError): void {
    this.#failure ??= error;
    this.#failAll(this.#failure);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.fail(new DisconnectedError("the sink is closed"));
    this.#parts.ended(this);
    await this.#running;
  }

  /** Writes until the queue is empty. Never rejects. */
  async #run(): Promise<void> {
    while (this.#queue.length > 0) {
      try {
        await this.#writeSome();
      } catch (error) {
        // Whatever it is, the callers decide; the bridge looks whether the cluster is away.
        this.#failAll(error);
        if (error instanceof DisconnectedError) await this.#parts.failed();
      }
    }
    this.#running = null;
  }

  async #writeSome(): Promise<void> {
    const items = await this.#gather();
    const placed = items.flatMap((item) => (item.placed === null ? [] : [item.placed]));
    const outcomes = placed.length === 0 ? [] : await writeRound(this.#parts.producing, placed);
    let written = 0;
    for (const item of items) {
      const outcome = item.outcome ?? outcomes[written++] ?? UNKNOWN;
      if (!item.call.settled) item.call.outcomes[item.index] = outcome;
      if (!("sent" in outcome)) {
        this.#settleAll();
        return;
      }
      item.call.confirmed = item.index + 1;
    }
    this.#settleDone();
  }

  /** Something was not written: the rest of every waiting call stays unknown. */
  #settleAll(): void {
    for (const call of this.#queue.splice(0)) {
      if (call.settled) continue;
      call.settle();
    }
  }

  #failAll(error: unknown): void {
    for (const call of this.#queue.splice(0)) if (!call.settled) call.fail(error);
  }

  #settleDone(): void {
    const waiting = this.#queue.filter((call) => {
      if (!call.settled && call.confirmed === call.outgoing.length) call.settle();
      return !call.settled;
    });
    this.#queue.splice(0, this.#queue.length, ...waiting);
  }

  /** The next messages in call order, up to a round's bounds or the first that has no place. */
  async #gather(): Promise<Item[]> {
    const items: Item[] = [];
    // Calls may come and go while topics are looked up.
    const calls = this.#queue.slice();
    const bounds = new RoundBounds();
    this.#placing.begin();
    for (const call of calls) {
      for (let index = call.confirmed; index < call.outgoing.length; index += 1) {
        const outgoing = call.outgoing[index];
        if (call.settled || outgoing === undefined) break;
        const place = await this.#placing.place(outgoing);
        if (!("record" in place)) return [...items, { call, index, placed: null, outcome: place }];
        if (!bounds.take(place)) return items;
        items.push({ call, index, placed: place, outcome: null });
      }
    }
    return items;
  }
}

/** How full a round is. The first record always fits. */
class RoundBounds {
  #messages = 0;
  #bytes = 0;
  readonly #batchBytes = new Map<string, number>();

  take({ topic, partition, record }: Placed): boolean {
    const name = `${topic}/${partition}`;
    const batchBytes = (this.#batchBytes.get(name) ?? 0) + record.bytes;
    const over =
      this.#messages >= ROUND_MESSAGES_MAX ||
      this.#bytes + record.bytes > ROUND_BYTES_MAX ||
      batchBytes > BATCH_BYTES_MAX;
    if (over && this.#messages > 0) return false;
    this.#messages += 1;
    this.#bytes += record.bytes;
    this.#batchBytes.set(name, batchBytes);
    return true;
  }
}
