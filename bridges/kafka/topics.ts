/**
 * Which topics there are, as they are at this moment, and making the missing ones. Nothing is
 * created that was not asked for.
 */
import { type Clock, systemClock } from "../../src/clock.ts";
import { InvalidError } from "../../src/errors.ts";
import type { KafkaAdmin } from "./clients.ts";
import type { Create } from "./config.ts";
import { answerOf, disconnected, isNetworkFailure, isUnknownTopic } from "./failure.ts";

/** A created topic is known to every broker and has leaders within so long. Milliseconds. */
const CREATED_MS_MAX = 10_000;
const CREATED_POLL_MS = 50;

/** A topic as it is at this moment: its id is another one when it is made anew. */
export interface Topic {
  readonly name: string;
  readonly id: string;
  readonly partitions: number;
}

/** The topics of one cluster. */
export class Topics {
  readonly #admin: KafkaAdmin;
  readonly #place: string;
  readonly #clock: Clock;

  constructor(admin: KafkaAdmin, place: string, clock: Clock = systemClock) {
    this.#admin = admin;
    this.#place = place;
    this.#clock = clock;
  }

  /** A topic; null when it is not there, or has no leader. @throws DisconnectedError */
  async describe(topic: string): Promise<Topic | null> {
    const [found] = await this.describeAll([topic]);
    return found ?? null;
  }

  /** Those of the topics that are there, with leaders. @throws DisconnectedError */
  async describeAll(names: readonly string[]): Promise<readonly Topic[]> {
    if (names.length === 0) return [];
    try {
      const metadata = await this.#admin.metadata({
        topics: [...names],
        forceUpdate: true,
        retries: 0,
      });
      return names.flatMap((name) => {
        const found = metadata.topics.get(name);
        const led = found?.partitions.every((partition) => partition.leader >= 0) ?? false;
        if (found === undefined || !led) return [];
        return [{ name, id: found.id, partitions: found.partitionsCount }];
      });
    } catch (error) {
      if (!isUnknownTopic(error)) throw disconnected(error, this.#place);
      // One that is missing fails the whole question: the others are asked about by themselves.
      if (names.length === 1) return [];
      const each = [];
      for (const name of names) each.push(...(await this.describeAll([name])));
      return each;
    }
  }

  /** The names of all topics but Kafka's own. @throws DisconnectedError */
  async names(): Promise<readonly string[]> {
    try {
      return await this.#admin.listTopics({ includeInternals: false });
    } catch (error) {
      throw disconnected(error, this.#place);
    }
  }

  /**
   * Makes sure that a topic is there and answers how it is.
   * @throws InvalidError it is missing and `create` is null, or the broker refuses to make it.
   * @throws DisconnectedError try again later.
   */
  async ensure(topic: string, create: Create | null, signal?: AbortSignal): Promise<Topic> {
    const known = await this.describe(topic);
    if (known !== null) return known;
    if (create === null) {
      throw new InvalidError(
        `topic ${topic} is not there, or has no leader: make it, or add create: true`,
        [{ pointer: "/topic", detail: "missing topic: make it, or add create: true" }],
      );
    }
    await this.#create(topic, create);
    const deadline = this.#clock.monotonicMs() + CREATED_MS_MAX;
    for (;;) {
      const made = await this.describe(topic);
      if (made !== null) return made;
      if (this.#clock.monotonicMs() > deadline || signal?.aborted === true) {
        throw disconnected(new Error(`topic ${topic} has no leader yet`), this.#place);
      }
      await this.#clock.sleep(CREATED_POLL_MS, signal);
    }
  }

  async #create(topic: string, create: Create): Promise<void> {
    try {
      await this.#admin.createTopics({
        topics: [topic],
        partitions: create.partitions ?? -1,
        replicas: create.replication ?? -1,
      });
    } catch (error) {
      const answer = answerOf(error);
      if (answer?.id === "TOPIC_ALREADY_EXISTS") return;
      if (answer === null || isNetworkFailure(error)) throw disconnected(error, this.#place);
      const detail = `the broker does not make topic ${topic}: ${answer.id}: ${answer.text}`;
      throw new InvalidError(detail, [{ pointer: "/create", detail }], { cause: error });
    }
  }
}
