/**
 * The brokers at both ends of a measured route: filled before it, counted while it runs, read back
 * after it. Messages are numbered in their first bytes and have one of 64 keys.
 */
import { connect as connectAmqp } from "amqplib";
import { Kafka, logLevel } from "kafkajs";
import { broker } from "../brokers/broker.ts";
import { waitFor } from "../temporary.ts";

export const BODY_BYTES = 1024;
export const TOPIC_PARTITIONS = 4;
const KEYS = 64;
const NUMBER_DIGITS = 10;
const FILL_BATCH = 1000;

export type EndKind = "kafka" | "amqp";

/** A broker that a route starts or ends at. */
export interface End {
  readonly kind: EndKind;
  readonly url: string;
  /** What stands in a definition beside `bridge`. */
  address(name: string): Record<string, string>;
  /** Makes an empty place. */
  make(name: string): Promise<void>;
  fill(name: string, count: number): Promise<void>;
  /** How many messages the place holds. */
  count(name: string): Promise<number>;
  /** The numbers of all its messages, in its order. */
  read(name: string, count: number): Promise<number[]>;
}

/** The message of a number. */
export function messageOf(number: number): { key: string; value: Buffer } {
  const value = Buffer.alloc(BODY_BYTES, "x");
  value.write(String(number).padStart(NUMBER_DIGITS, "0"));
  return { key: keyOf(number), value };
}

function keyOf(number: number): string {
  return `k${number % KEYS}`;
}

/** The number of a message. */
export function numberOf(body: Buffer | null): number {
  return Number(body?.subarray(0, NUMBER_DIGITS).toString() ?? Number.NaN);
}

/** What is wrong with what arrived. */
export function faultsOf(numbers: readonly number[], count: number) {
  const seen = new Set<number>();
  const newest = new Map<number, number>();
  let duplicates = 0;
  let outOfOrder = 0;
  for (const number of numbers) {
    if (seen.has(number)) duplicates++;
    seen.add(number);
    const key = number % KEYS;
    if (number < (newest.get(key) ?? -1)) outOfOrder++;
    newest.set(key, number);
  }
  return { lost: count - seen.size, duplicates, outOfOrder };
}

export function kafkaClient(url: string): Kafka {
  return new Kafka({ brokers: [url], logLevel: logLevel.NOTHING });
}

async function kafkaEnd(): Promise<End> {
  const { url } = await broker("kafka");
  const kafka = kafkaClient(url);
  return {
    kind: "kafka",
    url,
    address: (topic) => ({ topic }),
    make: async (topic) => {
      const admin = kafka.admin();
      await admin.connect();
      const topics = [{ topic, numPartitions: TOPIC_PARTITIONS }];
      await admin.createTopics({ topics, waitForLeaders: true });
      await admin.disconnect();
    },
    fill: async (topic, count) => {
      const producer = kafka.producer();
      await producer.connect();
      for (let from = 0; from < count; from += FILL_BATCH) {
        const length = Math.min(FILL_BATCH, count - from);
        const messages = Array.from({ length }, (_, index) => messageOf(from + index));
        await producer.send({ topic, messages });
      }
      await producer.disconnect();
    },
    count: async (topic) => {
      const admin = kafka.admin();
      await admin.connect();
      const offsets = await admin.fetchTopicOffsets(topic);
      await admin.disconnect();
      return offsets.reduce((sum, { high }) => sum + Number(high), 0);
    },
    read: async (topic, count) => {
      const groupId = `read-${crypto.randomUUID()}`;
      const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 100 });
      const numbers: number[] = [];
      await consumer.connect();
      await consumer.subscribe({ topic, fromBeginning: true });
      await consumer.run({
        eachBatch: async ({ batch }) => {
          for (const { value } of batch.messages) numbers.push(numberOf(value));
        },
      });
      await waitFor("all is read back", () => numbers.length >= count, { timeoutMs: 60_000 });
      await consumer.disconnect();
      return numbers;
    },
  };
}

async function amqpEnd(): Promise<End> {
  const { url } = await broker("amqp");
  const withChannel = async <T>(
    use: (
      channel: Awaited<ReturnType<Awaited<ReturnType<typeof connectAmqp>>["createConfirmChannel"]>>,
    ) => Promise<T>,
  ): Promise<T> => {
    const connection = await connectAmqp(url);
    const channel = await connection.createConfirmChannel();
    try {
      return await use(channel);
    } finally {
      await connection.close();
    }
  };
  return {
    kind: "amqp",
    url,
    address: (queue) => ({ queue }),
    make: (queue) =>
      withChannel(async (channel) => {
        await channel.assertQueue(queue, { durable: true });
      }),
    fill: (queue, count) =>
      withChannel(async (channel) => {
        for (let number = 0; number < count; number++) {
          const { value } = messageOf(number);
          channel.sendToQueue(queue, value, { persistent: true });
          if (number % FILL_BATCH === FILL_BATCH - 1) await channel.waitForConfirms();
        }
        await channel.waitForConfirms();
      }),
    count: (queue) =>
      withChannel(async (channel) => (await channel.checkQueue(queue)).messageCount),
    read: (queue, count) =>
      withChannel(async (channel) => {
        const numbers: number[] = [];
        await channel.prefetch(2000);
        await channel.consume(queue, (message) => {
          if (message === null) return;
          numbers.push(numberOf(message.content));
          if (numbers.length % 1000 === 0) channel.ack(message, true);
        });
        await waitFor("all is read back", () => numbers.length >= count, { timeoutMs: 60_000 });
        channel.ackAll();
        return numbers;
      }),
  };
}

/** An end of a kind, on the broker of the tests. */
export function endOf(kind: EndKind): Promise<End> {
  return kind === "kafka" ? kafkaEnd() : amqpEnd();
}
