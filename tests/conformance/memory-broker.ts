/**
 * The broker in memory itself, as a test holds it: `MemoryBroker.named("a")` is one broker however
 * many bridges connect to it. A test can look into its topics, make it refuse, be busy and lose
 * confirmations, and cut, hold and close the lines to it. The bridge is in `memory.ts`.
 */
import type { Outcome, Outgoing } from "../../src/bridge.ts";
import { DisconnectedError } from "../../src/errors.ts";
import type { Message } from "../../src/message.ts";
import { Topic } from "./memory-topic.ts";

/** The far end of a line. */
export interface Connection {
  /** The connection is gone. */
  lose(reason: DisconnectedError): void;
}

/** One broker; everything it holds ends with the process. */
export class MemoryBroker {
  static readonly #named = new Map<string, MemoryBroker>();
  readonly name: string;
  readonly #topics = new Map<string, Topic>();
  readonly #lines = new Map<string, MemoryLine>();
  #changed = Promise.withResolvers<void>();
  /**
   * Asked for each message that is sent: an outcome instead of taking it, or null to take it.
   * `{ unknown: true }` takes the message and loses the confirmation.
   */
  interfere: (outgoing: Outgoing) => Outcome | null = () => null;

  private constructor(name: string) {
    this.name = name;
  }

  /** The broker of that name, made at the first call. */
  static named(name: string): MemoryBroker {
    const broker = MemoryBroker.#named.get(name) ?? new MemoryBroker(name);
    MemoryBroker.#named.set(name, broker);
    return broker;
  }

  /** The way of connections to it; without a name the one that documents take without `line`. */
  line(name = "direct"): MemoryLine {
    const line = this.#lines.get(name) ?? new MemoryLine(this);
    this.#lines.set(name, line);
    return line;
  }

  createTopic(name: string, partitions = 1): Topic {
    const topic = this.#topics.get(name) ?? new Topic(name, partitions);
    this.#topics.set(name, topic);
    return topic;
  }

  topic(name: string): Topic | null {
    return this.#topics.get(name) ?? null;
  }

  /** Everything that a topic took, in the order in which it took it. */
  messages(topic: string): readonly Message[] {
    return this.#topics.get(topic)?.log ?? [];
  }

  /** Puts a message into a topic, as a producer beside the gateway does. */
  publish(topic: string, message: Message): string {
    const position = this.createTopic(topic).append(message);
    this.notify();
    return position;
  }

  /** Resolves at the next change of anything. */
  get changed(): Promise<void> {
    return this.#changed.promise;
  }

  notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}

/** Connections of one kind to a broker, and what happens to them. */
export class MemoryLine implements AsyncDisposable {
  readonly #broker: MemoryBroker;
  readonly #bridges = new Set<Connection>();
  #isDown = false;
  #held = false;

  constructor(broker: MemoryBroker) {
    this.#broker = broker;
  }

  get connections(): number {
    return this.#bridges.size;
  }

  /** Whether sends and reads stand still. */
  get held(): boolean {
    return this.#held;
  }

  cut(): void {
    const lost = new DisconnectedError(`broker ${this.#broker.name} closed the connection`);
    for (const bridge of this.#bridges) bridge.lose(lost);
    this.#bridges.clear();
    this.#broker.notify();
  }

  async down(): Promise<void> {
    this.#isDown = true;
    this.cut();
  }

  async up(): Promise<void> {
    this.#isDown = false;
  }

  blackhole(on: boolean): void {
    this.#held = on;
    this.#broker.notify();
  }

  join(bridge: Connection): void {
    if (this.#isDown) {
      throw new DisconnectedError(`broker ${this.#broker.name} refused the connection`);
    }
    this.#bridges.add(bridge);
  }

  leave(bridge: Connection): void {
    this.#bridges.delete(bridge);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.down();
    this.#held = false;
    this.#broker.notify();
  }
}
