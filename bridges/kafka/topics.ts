/**
 * Which topics there are, how many partitions they have, and making the missing ones. Nothing is
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

  /** How many partitions a topic has; null when it is not there. @throws DisconnectedError */
  async partitions(topic: string): Promise<number | null> {
    try {
      const metadata = await this.#admin.metadata({
        topics: [topic],
        forceUpdate: true,
        retries: 0,
      });
      const found = metadata.topics.get(topic);
      const led = found?.partitions.every((partition) => partition.leader >= 0) ?? false;
      return found !== undefined && led ? found.partitionsCount : null;
    } catch (error) {
      if (isUnknownTopic(error)) return null;
      throw disconnected(error, this.#place);
    }
  }

  /**
   * Makes sure that a topic is there and answers how many partitions it has.
   * @throws InvalidError it is missing and `create` is null, or the broker refuses to make it.
   * @throws DisconnectedError try again later.
   */
  async ensure(topic: string, create: Create | null, signal?: AbortSignal): Promise<number> {
    const partitions = await this.partitions(topic);
    if (partitions !== null) return partitions;
    if (create === null) {
      throw new InvalidError(
        `topic ${topic} is not there, or has no leader: make it, or add create: true`,
        [{ pointer: "/topic", detail: "missing topic: make it, or add create: true" }],
      );
    }
    await this.#create(topic, create);
    const deadline = this.#clock.monotonicMs() + CREATED_MS_MAX;
    for (;;) {
      const made = await this.partitions(topic);
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
