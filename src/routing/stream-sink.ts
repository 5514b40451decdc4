/**
 * A stream as a target: each message is appended once, by the place that it came from, so that a
 * crash before the route's state is saved repeats nothing.
 */
import { backoffMs } from "../backoff.ts";
import type { Outcome, Outgoing, Sink } from "../bridge.ts";
import { GatewayError, InvalidError, LimitError, StorageError } from "../errors.ts";
import { hopsMax, reconnectDelayMaxMs, reconnectDelayMinMs } from "../limits.ts";
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
    const outcomes: Outcome[] = [];
    const waits: Promise<void>[] = [];
    let isOpen = true;
    for (const each of outgoing) {
      // Behind a message that has to wait nothing is appended: the order holds.
      const outcome: Outcome = isOpen ? this.#append(each, waits) : { unknown: true };
      isOpen &&= !("busyMs" in outcome);
      outcomes.push(outcome);
    }
    try {
      await Promise.all(new Set(waits));
      this.#failures = 0;
      return outcomes;
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      return outgoing.map(() => this.#busy());
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.resolve();
  }

  #append({ message, fields }: Outgoing, waits: Promise<void>[]): Outcome {
    const hops = message.origin?.hops ?? [];
    if (hops.length > hopsMax) {
      const path = hops.slice(-4).join(" → ");
      return { refused: `a loop: passed more than ${hopsMax} streams (… ${path})`, final: true };
    }
    const place = `${message.origin?.partition ?? 0}/${message.origin?.offset ?? ""}`;
    try {
      const stream = this.#streams.stream(String(fields["stream"]));
      const { receipt, durable } = stream.appendOne(message, {
        dedupeKey: `${this.#route}/${place}/stream`,
      });
      waits.push(durable);
      return { sent: `partition ${receipt.partition} offset ${receipt.offset}` };
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
