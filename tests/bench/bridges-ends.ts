/**
 * The brokers at both ends of a measured route: filled before it, counted while it runs, read back
 * after it. Messages are numbered in their first bytes and have keys in turns.
 */
import { connect as connectAmqp } from "amqplib";
import { Kafka, logLevel } from "kafkajs";
import { connectAsync as connectMqtt } from "mqtt";
import { broker } from "../brokers/broker.ts";
import { waitFor } from "../temporary.ts";

export const BODY_BYTES = 1024;
export const TOPIC_PARTITIONS = 4;
/** Order is kept for each of them; RabbitMQ has one unconfirmed message of each. */
const KEYS = Number(process.env["ISTHMUS_BENCH_KEYS"] ?? 1000);
const NUMBER_DIGITS = 10;
const FILL_BATCH = 1000;
const SESSION_S = 3600;

export type EndKind = "kafka" | "amqp" | "mqtt";

/** A broker that a route starts or ends at; its connections are kept until it is disposed of. */
export interface End extends AsyncDisposable {
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
  const admin = kafka.admin();
  await admin.connect();
  return {
    kind: "kafka",
    url,
    address: (topic) => ({ topic }),
    make: async (topic) => {
      const topics = [{ topic, numPartitions: TOPIC_PARTITIONS }];
      await admin.createTopics({ topics, waitForLeaders: true });
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
      const offsets = await admin.fetchTopicOffsets(topic);
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
    [Symbol.asyncDispose]: () => admin.disconnect(),
  };
}

async function amqpEnd(): Promise<End> {
  const { url } = await broker("amqp");
  const connection = await connectAmqp(url);
  const channel = await connection.createConfirmChannel();
  return {
    kind: "amqp",
    url,
    address: (queue) => ({ queue }),
    make: async (queue) => {
      await channel.assertQueue(queue, { durable: true });
    },
    fill: async (queue, count) => {
      for (let number = 0; number < count; number++) {
        const { value } = messageOf(number);
        channel.sendToQueue(queue, value, { persistent: true });
        if (number % FILL_BATCH === FILL_BATCH - 1) await channel.waitForConfirms();
      }
      await channel.waitForConfirms();
    },
    count: async (queue) => (await channel.checkQueue(queue)).messageCount,
    read: async (queue, count) => {
      const reader = await connection.createChannel();
      const numbers: number[] = [];
      await reader.prefetch(2000);
      await reader.consume(queue, (message) => {
        if (message === null) return;
        numbers.push(numberOf(message.content));
        if (numbers.length % 1000 === 0) reader.ack(message, true);
      });
      await waitFor("all is read back", () => numbers.length >= count, { timeoutMs: 60_000 });
      reader.ackAll();
      await reader.close();
      await channel.deleteQueue(queue);
      return numbers;
    },
    [Symbol.asyncDispose]: () => connection.close(),
  };
}

/** A place that is read only: a topic, and the session of its reader, which keeps what comes. */
async function mqttEnd(): Promise<End> {
  const { url } = await broker("mqtt");
  const isReadOnly = (): never => {
    throw new Error("nothing is sent to MQTT here");
  };
  return {
    kind: "mqtt",
    url,
    address: (topic) => ({ topic }),
    make: async (topic) => {
      const reader = await connectMqtt(url, mqttSession(topic));
      await reader.subscribeAsync(topic, { qos: 1 });
      await reader.endAsync();
    },
    fill: async (topic, count) => {
      const client = await connectMqtt(url, { protocolVersion: 5 });
      for (let from = 0; from < count; from += FILL_BATCH) {
        const length = Math.min(FILL_BATCH, count - from);
        const sends = Array.from({ length }, (_, index) =>
          client.publishAsync(topic, messageOf(from + index).value, { qos: 1 }),
        );
        await Promise.all(sends);
      }
      await client.endAsync();
    },
    count: isReadOnly,
    read: isReadOnly,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** The session of a topic's reader: the source `s` of the bridge `from` has the same. */
export function mqttSession(topic: string) {
  const mark = new Bun.CryptoHasher("sha256").update(topic).digest("hex").slice(0, 8);
  return {
    clientId: `isthmus-from-s-${mark}`,
    clean: false,
    protocolVersion: 5,
    properties: { sessionExpiryInterval: SESSION_S, receiveMaximum: 2000 },
  } as const;
}

const ENDS: Readonly<Record<EndKind, () => Promise<End>>> = {
  kafka: kafkaEnd,
  amqp: amqpEnd,
  mqtt: mqttEnd,
};

/** An end of a kind, on the broker of the tests. */
export function endOf(kind: EndKind): Promise<End> {
  return ENDS[kind]();
}
