/**
 * The outside world of a simulation: a queue that sources read from and a place that sinks write
 * to. It lives longer than any process, and it does what brokers do: it hangs up, loses acks,
 * delivers again, refuses, is busy, takes a message and does not say so. Order holds as far as
 * brokers keep it: what was not acked comes again first, in its old order.
 */
import type {
  Bridge,
  BridgeModule,
  Delivery,
  Outcome,
  Outgoing,
  Sink,
  Source,
} from "../../src/bridge.ts";
import { DisconnectedError } from "../../src/errors.ts";
import type { Message, StoredMessage } from "../../src/message.ts";
import type { Life } from "./life.ts";

/** Kinds of trouble that a story may have. Chances for each call or message. */
export interface Trouble {
  readonly hangUp: number;
  readonly refuse: number;
  readonly busy: number;
  readonly unsure: number;
}

export const NO_TROUBLE: Trouble = { hangUp: 0, refuse: 0, busy: 0, unsure: 0 };

/** Deliveries that may be unsettled at once. */
const UNSETTLED_MAX = 12;

/** Where a message stood in the log that the sink was sent. */
export interface Arrival {
  readonly place: string;
  readonly id: string;
}

/** The broker. */
export class SimBroker {
  trouble: Trouble = NO_TROUBLE;
  /** In the order in which they were produced; those that are acked are gone. */
  #queue: Message[] = [];
  /** Those of the queue that a live source has taken. */
  readonly #taken = new Set<Message>();
  /** All that arrived at the sink, copies too. */
  readonly arrivals: Arrival[] = [];
  /** Times at which somebody could not know what had become of what was under way. */
  doubts = 0;
  readonly ackedIds = new Set<string>();
  #waiting: (() => void) | null = null;
  #hangUps = new Set<() => void>();

  /** Messages that no source has acked. */
  get left(): number {
    return this.#queue.length;
  }

  produce(messages: readonly Message[]): void {
    this.#queue.push(...messages);
    this.#wake();
  }

  /** Cuts every connection. */
  hangUp(): void {
    this.doubts++;
    const ending = [...this.#hangUps];
    for (const end of ending) end();
  }

  /** The process is gone, and its connections. */
  forget(isInPeace: boolean): void {
    if (!isInPeace) this.doubts++;
    this.#hangUps = new Set();
    this.#taken.clear();
    this.#waiting = null;
  }

  /** The kind of bridge by which one life of the process knows it. */
  module(life: Life, failure: "prefix" | "independent", isLying = false): BridgeModule {
    return {
      kind: "test",
      capabilities: {
        order: "address",
        replay: false,
        headers: "bytes",
        key: true,
        tombstones: true,
        redeliverOnNack: true,
        sharedGroups: false,
        failure,
        source: true,
        sink: true,
      },
      addressSpecials: {},
      parseConfig: () => ({}),
      parseAddress: (fields) => ({ text: JSON.stringify(fields), fields }),
      connect: async () => {
        await life.latency("connect");
        if (life.random.chance(this.trouble.hangUp)) throw new DisconnectedError("not reached");
        return this.#connection({ life, failure, isLying });
      },
    };
  }

  #connection(how: SinkHow): Bridge {
    const { promise, resolve } = Promise.withResolvers<Error | null>();
    const line = { isUp: true };
    const end = (): void => {
      line.isUp = false;
      this.#hangUps.delete(end);
      resolve(new DisconnectedError("it hung up"));
    };
    this.#hangUps.add(end);
    return {
      source: () => Promise.resolve(this.#source(how.life, line)),
      sink: () => Promise.resolve(this.#sink(how, line)),
      closed: promise,
      [Symbol.asyncDispose]: async () => {
        end();
        await Promise.resolve();
      },
    };
  }

  #source(life: Life, line: { isUp: boolean }): Source {
    this.#taken.clear();
    return {
      receive: async (signal) => {
        for (;;) {
          await life.goOn();
          if (signal.aborted) return null;
          if (!line.isUp) throw new DisconnectedError("it hung up");
          const free = this.#queue.filter((each) => !this.#taken.has(each));
          if (free.length > 0 && this.#taken.size < UNSETTLED_MAX) {
            const messages = free.slice(0, 1 + life.random.below(4));
            for (const each of messages) this.#taken.add(each);
            return this.#delivery({ messages, life, line });
          }
          await this.#untilChange(signal);
        }
      },
      [Symbol.asyncDispose]: async () => {
        line.isUp = false;
        await Promise.resolve();
      },
    };
  }

  #delivery({ messages, life, line }: Taken): Delivery {
    return {
      messages,
      ack: async () => {
        await life.event("ack", messages.map(({ id }) => id).join(" "));
        if (!line.isUp) throw new DisconnectedError("it hung up");
        const isLost = life.random.chance(this.trouble.hangUp);
        // An ack that is lost on its way may have been heard.
        if (!isLost || life.random.chance(0.5)) this.#acked(messages);
        if (isLost) this.hangUp();
        this.#wake();
        if (isLost) throw new DisconnectedError("it hung up");
      },
      nack: async () => {
        for (const each of messages) this.#taken.delete(each);
        this.#wake();
        await Promise.resolve();
      },
    };
  }

  #acked(messages: readonly Message[]): void {
    for (const each of messages) {
      this.ackedIds.add(each.id);
      this.#taken.delete(each);
    }
    this.#queue = this.#queue.filter((each) => !messages.includes(each));
  }

  #sink({ life, failure, isLying }: SinkHow, line: { isUp: boolean }): Sink {
    return {
      send: async (outgoing) => {
        await life.event("send", placesOf(outgoing));
        if (!line.isUp) throw new DisconnectedError("it hung up");
        if (isLying) return this.#later(outgoing, life);
        const outcomes = this.#take(outgoing, life, failure);
        await life.latency("send");
        if (outcomes === null) throw new DisconnectedError("it hung up");
        return outcomes;
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }

  /** Says that it has taken what it will take later: what no bridge may do. */
  async #later(outgoing: readonly Outgoing[], life: Life): Promise<readonly Outcome[]> {
    const arriving = life.clock.sleep(200).then(() => {
      for (const each of outgoing) this.#arrive(each);
    });
    arriving.catch(() => undefined);
    await life.latency("send");
    return outgoing.map(() => ({ sent: null }));
  }

  /** Takes what it takes; null: it hung up meanwhile. */
  #take(
    outgoing: readonly Outgoing[],
    life: Life,
    failure: "prefix" | "independent",
  ): readonly Outcome[] | null {
    const outcomes: Outcome[] = [];
    let isOpen = true;
    for (const each of outgoing) {
      const outcome: Outcome | null = isOpen
        ? this.#answer(each, life)
        : ({ unknown: true } as const);
      if (outcome === null) {
        this.hangUp();
        return null;
      }
      isOpen &&= "sent" in outcome || failure === "independent";
      outcomes.push(outcome);
    }
    return outcomes;
  }

  #answer(outgoing: Outgoing, { random }: Life): Outcome | null {
    const { hangUp, refuse, busy, unsure } = this.trouble;
    if (random.chance(hangUp)) return null;
    if (random.chance(refuse)) {
      return random.chance(0.3) ? { refused: "never", final: true } : { refused: "no" };
    }
    if (random.chance(busy)) return { busyMs: random.pick([1, 6000, 60_000]) };
    const isUnsure = random.chance(unsure);
    if (isUnsure) this.doubts++;
    if (!isUnsure || random.chance(0.5)) this.#arrive(outgoing);
    return isUnsure ? { unknown: true } : { sent: null };
  }

  #arrive(outgoing: Outgoing): void {
    this.arrivals.push({ id: outgoing.message.id, place: placeOf(outgoing) });
  }

  async #untilChange(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const onAbort = (): void => resolve();
    this.#waiting = resolve;
    this.#hangUps.add(onAbort);
    signal.addEventListener("abort", onAbort, { once: true });
    await promise;
    signal.removeEventListener("abort", onAbort);
    this.#hangUps.delete(onAbort);
  }

  #wake(): void {
    this.#waiting?.();
    this.#waiting = null;
  }
}

interface SinkHow {
  readonly life: Life;
  readonly failure: "prefix" | "independent";
  readonly isLying: boolean;
}

interface Taken {
  readonly messages: readonly Message[];
  readonly life: Life;
  readonly line: { isUp: boolean };
}

/** A rule that changes nothing sends the message as it was read, with its place. */
function placeOf({ message }: Outgoing): string {
  const { partition, offset } = message as StoredMessage;
  return `${partition}/${offset}`;
}

function placesOf(outgoing: readonly Outgoing[]): string {
  return outgoing.map(placeOf).join(" ");
}
