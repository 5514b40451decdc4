/**
 * The bridge to a broker in memory: a whole implementation of the port, for tests of what stands
 * on it. Topics have partitions, groups share them, unsettled messages come again.
 *
 * A document such as `{ kind: "memory", broker: "a" }` leads to `MemoryBroker.named("a")` of
 * `memory-broker.ts`; register `memoryModule()` where bridges are looked up.
 */
import { z } from "zod";
import { parseDocument } from "../../bridges/document.ts";
import type {
  Address,
  Bridge,
  BridgeModule,
  Capabilities,
  Delivery,
  Outcome,
  Outgoing,
  Sink,
  Source,
  SourceOptions,
} from "../../src/bridge.ts";
import { DisconnectedError, InvalidError } from "../../src/errors.ts";
import type { Message } from "../../src/message.ts";
import { MemoryBroker, type MemoryLine } from "./memory-broker.ts";
import type { Group, Topic } from "./memory-topic.ts";

const DELIVERY_MESSAGES_MAX = 100;

const configSchema = z.strictObject({
  broker: z.string().min(1),
  line: z.string().optional(),
  username: z.string().optional(),
});
const sourceSchema = z.strictObject({ topic: z.string(), group: z.string().optional() });
const sinkSchema = z.strictObject({ topic: z.string(), create: z.boolean().optional() });

export type MemoryConfig = z.output<typeof configSchema>;

const defaults: Capabilities = {
  order: "partition",
  replay: true,
  headers: "bytes",
  key: true,
  tombstones: true,
  redeliverOnNack: true,
  sharedGroups: true,
  failure: "independent",
  source: true,
  sink: true,
};

/** The module; what it declares can be changed, and it then behaves so (`failure`). */
export function memoryModule(declared: Partial<Capabilities> = {}): BridgeModule<MemoryConfig> {
  const capabilities = { ...defaults, ...declared };
  return {
    kind: "memory",
    capabilities,
    addressSpecials: { topic: "/" },
    parseConfig: (input) => parseDocument(configSchema, input),
    parseAddress: (input, end) => {
      const fields = parseDocument(end === "source" ? sourceSchema : sinkSchema, input);
      return { text: `topic ${fields.topic}`, fields };
    },
    connect: async (config, context) => {
      const broker = MemoryBroker.named(config.broker);
      const bridge = new MemoryBridge({
        broker,
        line: broker.line(config.line),
        name: context.name,
        failure: capabilities.failure,
      });
      return bridge;
    },
  };
}

interface MemoryParts {
  readonly broker: MemoryBroker;
  readonly line: MemoryLine;
  readonly name: string;
  readonly failure: Capabilities["failure"];
}

class MemoryBridge implements Bridge {
  readonly parts: MemoryParts;
  readonly #closed = Promise.withResolvers<Error | null>();
  readonly #ends: AsyncDisposable[] = [];
  lost: DisconnectedError | null = null;

  constructor(parts: MemoryParts) {
    this.parts = parts;
    parts.line.join(this);
  }

  get closed(): Promise<Error | null> {
    return this.#closed.promise;
  }

  assertOpen(): void {
    if (this.lost !== null) throw this.lost;
  }

  /** The connection is gone: groups notice, ends throw. */
  lose(reason: DisconnectedError): void {
    this.lost ??= reason;
    this.#closed.resolve(reason);
    for (const end of this.#ends) if (end instanceof MemorySource) end.leave();
  }

  async source(address: Address, options: SourceOptions): Promise<Source> {
    this.assertOpen();
    const { topic, group } = parseDocument(sourceSchema, address.fields);
    const found = this.#topic(topic, false);
    const source = new MemorySource(
      this,
      found.group(group ?? options.name, options.start),
      options,
    );
    this.#ends.push(source);
    return source;
  }

  async sink(address: Address): Promise<Sink> {
    this.assertOpen();
    const { topic, create } = parseDocument(sinkSchema, address.fields);
    // An address with `${…}` names no topic yet.
    if (!topic.includes("${")) this.#topic(topic, create === true);
    const sink = new MemorySink(this);
    this.#ends.push(sink);
    return sink;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.resolve(null);
    this.lost ??= new DisconnectedError("the bridge is closed");
    for (const end of this.#ends) await end[Symbol.asyncDispose]();
    this.parts.line.leave(this);
    this.parts.broker.notify();
  }

  #topic(name: string, create: boolean): Topic {
    const { broker } = this.parts;
    const topic = create ? broker.createTopic(name) : broker.topic(name);
    if (topic !== null) return topic;
    throw new InvalidError(`topic ${name} is not there: make it, or add create: true`);
  }
}

class MemorySink implements Sink {
  readonly #bridge: MemoryBridge;
  #tail: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(bridge: MemoryBridge) {
    this.#bridge = bridge;
  }

  async send(outgoing: readonly Outgoing[], signal: AbortSignal): Promise<readonly Outcome[]> {
    const sent = this.#tail.then(() => this.#send(outgoing, signal));
    // A call's failure is its own caller's; the next call only waits for its end.
    this.#tail = sent.catch(() => null);
    return await sent;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#bridge.parts.broker.notify();
    await this.#tail;
  }

  async #send(outgoing: readonly Outgoing[], signal: AbortSignal): Promise<readonly Outcome[]> {
    const { line, broker } = this.#bridge.parts;
    const unknown = outgoing.map((): Outcome => ({ unknown: true }));
    while (line.held && !signal.aborted && this.#bridge.lost === null && !this.#closed) {
      await changedOr(broker, signal);
    }
    if (signal.aborted) return unknown;
    this.#bridge.assertOpen();
    if (this.#closed) throw new DisconnectedError("the sink is closed");
    const outcomes: Outcome[] = [];
    let broken = false;
    for (const one of outgoing) {
      const outcome: Outcome = broken ? { unknown: true } : this.#take(one);
      outcomes.push(outcome);
      broken ||= this.#bridge.parts.failure === "prefix" && !("sent" in outcome);
    }
    broker.notify();
    return outcomes;
  }

  #take(outgoing: Outgoing): Outcome {
    const { broker } = this.#bridge.parts;
    const instead = broker.interfere(outgoing);
    if (instead !== null && !("unknown" in instead)) return instead;
    const { topic: name, create } = parseDocument(sinkSchema, outgoing.fields);
    const topic = create === true ? broker.createTopic(name) : broker.topic(name);
    if (topic === null) return { refused: `topic ${name} is not there` };
    const position = topic.append(outgoing.message);
    return instead ?? { sent: position };
  }
}

class MemorySource implements Source {
  readonly #bridge: MemoryBridge;
  readonly #group: Group;
  readonly #bytesMax: number;
  #bytes = 0;
  #closed = false;

  constructor(bridge: MemoryBridge, group: Group, options: SourceOptions) {
    this.#bridge = bridge;
    this.#group = group;
    this.#bytesMax = options.unsettledBytesMax;
    group.join(this);
    bridge.parts.broker.notify();
  }

  async receive(signal: AbortSignal): Promise<Delivery | null> {
    const { line, broker } = this.#bridge.parts;
    for (;;) {
      if (signal.aborted) return null;
      this.#bridge.assertOpen();
      if (this.#closed) throw new DisconnectedError("the source is closed");
      const taken = line.held
        ? null
        : this.#group.take(this, {
            count: DELIVERY_MESSAGES_MAX,
            bytes: this.#bytesMax - this.#bytes,
            // A message larger than the bound comes alone.
            any: this.#bytes === 0,
          });
      if (taken === null) {
        await changedOr(broker, signal);
        continue;
      }
      this.#bytes += taken.bytes;
      const settle = (how: "ack" | "nack") => async (): Promise<void> => {
        this.#bridge.assertOpen();
        this.#bytes -= taken.bytes;
        taken[how]();
        broker.notify();
      };
      const messages = taken.messages.map((message) => this.#received(message, taken));
      return { messages, ack: settle("ack"), nack: settle("nack") };
    }
  }

  /** Leaves the group, as a broker sees it: what is unsettled will come again. */
  leave(): void {
    this.#closed = true;
    this.#group.leave(this);
    this.#bridge.parts.broker.notify();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.leave();
  }

  #received(
    { offset, ...message }: Message & { readonly offset: number },
    taken: { readonly partition: number },
  ): Message {
    return {
      ...message,
      origin: {
        bridge: this.#bridge.parts.name,
        address: this.#group.topic,
        partition: taken.partition,
        offset: String(offset),
        hops: [],
      },
    };
  }
}

async function changedOr(broker: MemoryBroker, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<void>();
  const abort = (): void => aborted.resolve();
  signal.addEventListener("abort", abort, { once: true });
  await Promise.race([broker.changed, aborted.promise]);
  signal.removeEventListener("abort", abort);
}
