/**
 * A live connection to a cluster: its clients, its sources and sinks, and its pulse. A cluster has
 * many sockets, and one of them breaking is not a loss: the bridge is lost when no broker answers,
 * which a failed send, a failed source and a regular pulse each make it find out.
 */
import type {
  Address,
  Bridge,
  ConnectContext,
  Sink,
  Source,
  SourceOptions,
} from "../../src/bridge.ts";
import { type Clock, systemClock } from "../../src/clock.ts";
import { DisconnectedError } from "../../src/errors.ts";
import {
  type BytesProducer,
  type Cluster,
  createAdmin,
  createProducer,
  type KafkaAdmin,
  resolveCluster,
} from "./clients.ts";
import { isTemplate } from "../document.ts";
import { type KafkaConfig, sinkFields, sourceFields } from "./config.ts";
import { disconnected } from "./failure.ts";
import { Producing } from "./producing.ts";
import { KafkaSink } from "./sink.ts";
import type { KafkaSource } from "./source.ts";
import { subjectOf } from "./subject.ts";
import { type Topic, Topics } from "./topics.ts";

/** One retry: a single idle connection that a broker closed is no loss. Count. */
const PULSE_TRIES = 2;
/**
 * For an answer to the pulse, and never longer than from one to the next, so that what is half open
 * is found within two of them; there is no second try after a silence. Milliseconds.
 */
const PULSE_ANSWER_MS_MAX = 4000;
const SILENT = Symbol("silent");

/** Connects to a cluster; resolves once a broker has answered. @throws DisconnectedError */
export async function connectKafka(
  config: KafkaConfig,
  context: ConnectContext,
  clock: Clock = systemClock,
): Promise<Bridge> {
  const cluster = await resolveCluster(config, context);
  const admin = createAdmin(cluster);
  try {
    if (context.signal.aborted) throw new DisconnectedError("connecting was aborted");
    await admin.metadata({ topics: [], forceUpdate: true, retries: 0 });
  } catch (error) {
    await admin.close();
    throw disconnected(error, cluster.place);
  }
  return new KafkaBridge({ name: context.name, cluster, admin, clock });
}

class KafkaBridge implements Bridge {
  readonly #name: string;
  readonly #cluster: Cluster;
  readonly #admin: KafkaAdmin;
  readonly #topics: Topics;
  readonly #clock: Clock;
  readonly #ends = new Set<KafkaSource | KafkaSink>();
  readonly #stop = new AbortController();
  readonly #closed = Promise.withResolvers<Error | null>();
  readonly #pulse: Promise<void>;
  #producer: BytesProducer | null = null;
  #looking: Promise<void> | null = null;
  #failure: DisconnectedError | null = null;
  #ending: Promise<void> | null = null;

  constructor(parts: { name: string; cluster: Cluster; admin: KafkaAdmin; clock: Clock }) {
    this.#name = parts.name;
    this.#cluster = parts.cluster;
    this.#admin = parts.admin;
    this.#clock = parts.clock;
    this.#topics = new Topics(parts.admin, parts.cluster.place, parts.clock);
    this.#pulse = this.#watch();
  }

  get closed(): Promise<Error | null> {
    return this.#closed.promise;
  }

  async source(address: Address, options: SourceOptions): Promise<Source> {
    this.#assertOpen();
    const fields = sourceFields(address.fields);
    const { openSource } = await import("./source.ts");
    const look = (): Promise<readonly Topic[]> =>
      subjectOf(this.#topics, fields, this.#stop.signal);
    const topics = await look();
    const source = await openSource({
      bridge: this.#name,
      cluster: this.#cluster,
      admin: this.#admin,
      clock: this.#clock,
      fields,
      topics,
      look,
      options,
      failed: () => this.#look(),
      ended: (end) => this.#ends.delete(end),
    });
    return await this.#adopt(source);
  }

  async sink(address: Address): Promise<Sink> {
    this.#assertOpen();
    const fields = sinkFields(address.fields);
    if (!isTemplate(fields.topic)) {
      await this.#topics.ensure(fields.topic, fields.create, this.#stop.signal);
    }
    this.#assertOpen();
    this.#producer ??= createProducer(this.#cluster);
    const producing = new Producing(this.#producer, this.#cluster.place, this.#clock);
    const sink = new KafkaSink({
      producing,
      topics: this.#topics,
      failed: () => this.#look(),
      ended: (end) => this.#ends.delete(end),
    });
    return await this.#adopt(sink);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.resolve(null);
    await this.#end(new DisconnectedError("the bridge is closed"));
  }

  #assertOpen(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  async #adopt<End extends KafkaSource | KafkaSink>(end: End): Promise<End> {
    const failure = this.#failure;
    if (failure === null) {
      this.#ends.add(end);
      return end;
    }
    await end[Symbol.asyncDispose]();
    throw failure;
  }

  async #watch(): Promise<void> {
    for (;;) {
      await this.#clock.sleep(this.#cluster.heartbeatMs, this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      await this.#look();
    }
  }

  /** Finds out whether the cluster answers; the bridge is lost when it doesn't. Never rejects. */
  #look(): Promise<void> {
    this.#looking ??= this.#ask().finally(() => {
      this.#looking = null;
    });
    return this.#looking;
  }

  async #ask(): Promise<void> {
    for (let tries = 1; !this.#stop.signal.aborted; tries += 1) {
      const failure = await this.#answer();
      if (failure === null) return;
      if (failure !== SILENT && tries < PULSE_TRIES) continue;
      const { place } = this.#cluster;
      const lost =
        failure === SILENT
          ? new DisconnectedError(`${place} did not answer in time`)
          : disconnected(failure, place);
      this.#closed.resolve(lost);
      // The end waits for whoever asked, so it is only started here; dispose awaits it.
      this.#ending ??= this.#close(lost);
    }
  }

  /** Null when the cluster answers; else why not. */
  async #answer(): Promise<unknown> {
    const done = new AbortController();
    const answer = this.#admin.metadata({ topics: [], forceUpdate: true, retries: 0 }).then(
      () => null,
      (error: unknown) => error,
    );
    const waitMs = Math.min(PULSE_ANSWER_MS_MAX, this.#cluster.heartbeatMs);
    const silence = this.#clock.sleep(waitMs, done.signal).then(() => SILENT);
    const first = await Promise.race([answer, silence]);
    done.abort();
    return first;
  }

  async #end(reason: DisconnectedError): Promise<void> {
    this.#ending ??= this.#close(reason);
    await this.#ending;
    await this.#pulse;
  }

  async #close(reason: DisconnectedError): Promise<void> {
    this.#failure = reason;
    this.#stop.abort();
    const ends = [...this.#ends];
    for (const end of ends) end.fail(reason);
    await Promise.all(ends.map((end) => end[Symbol.asyncDispose]()));
    await this.#producer?.close(true);
    await this.#admin.close();
  }
}
