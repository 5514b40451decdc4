/**
 * A stream as a target: each message is appended once, by the place that it came from, so that a
 * crash before the route's state is saved repeats nothing.
 */
import { backoffMs } from "../backoff.ts";
import type { Outcome, Outgoing, Sink } from "../bridge.ts";
import { GatewayError, InvalidError, LimitError } from "../errors.ts";
import { hopsMax, reconnectDelayMaxMs, reconnectDelayMinMs } from "../limits.ts";
import type { Receipt } from "../log/log.ts";
import type { Streams } from "../log/stream.ts";

/** Appends to the stream that each message's address names. `route` stands in dedupe keys. */
export class StreamSink implements Sink {
  readonly #streams: Streams;
  readonly #route: string;
  readonly #random: () => number;
  #failures = 0;

  constructor(streams: Streams, route: string, random: () => number) {
    this.#streams = streams;
    this.#route = route;
    this.#random = random;
  }

  async send(outgoing: readonly Outgoing[]): Promise<readonly Outcome[]> {
    const outcomes: (() => Outcome)[] = [];
    const waits: Promise<void>[] = [];
    let isOpen = true;
    for (const each of outgoing) {
      // Behind a message that has to wait nothing is appended: the order holds.
      const result: Outcome | Receipt = isOpen ? this.#append(each, waits) : { unknown: true };
      isOpen &&= !("busyMs" in result);
      outcomes.push(() => ("duplicate" in result ? sentTo(result) : result));
    }
    try {
      await Promise.all(new Set(waits));
      this.#failures = 0;
      return outcomes.map((outcome) => outcome());
    } catch (error) {
      if (!(error instanceof GatewayError) || !error.retryable) throw error;
      return outgoing.map(() => this.#busy());
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.resolve();
  }

  /** The receipt is true once the waits are over. */
  #append({ message, fields }: Outgoing, waits: Promise<void>[]): Outcome | Receipt {
    const hops = message.origin?.hops ?? [];
    if (hops.length > hopsMax) {
      const path = hops.slice(-4).join(" → ");
      return { refused: `a loop: passed more than ${hopsMax} streams (… ${path})`, final: true };
    }
    const { partition = 0, offset = "", again } = message.origin ?? {};
    // What an operator sends again is one more message of the same place.
    const place = `${again === undefined ? "" : `${again}/`}${partition ?? 0}/${offset ?? ""}`;
    // Of a message that `each` made into several, by its place among them.
    const index = typeof fields["index"] === "number" ? `/${fields["index"]}` : "";
    try {
      const stream = this.#streams.stream(String(fields["stream"]));
      const { receipt, durable } = stream.appendOne(message, {
        dedupeKey: `${this.#route}/${place}/stream${index}`,
      });
      waits.push(durable);
      return receipt;
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error;
      const isOver = error instanceof InvalidError || error instanceof LimitError;
      return isOver && !error.retryable ? { refused: error.message, final: true } : this.#busy();
    }
  }

  #busy(): Outcome {
    this.#failures++;
    const bounds = { delayMinMs: reconnectDelayMinMs, delayMaxMs: reconnectDelayMaxMs };
    return { busyMs: backoffMs(this.#failures, bounds, this.#random) };
  }
}

function sentTo({ partition, offset }: Receipt): Outcome {
  return { sent: `partition ${partition} offset ${offset}` };
}
