/**
 * The other side of the route benches, in a process of its own: a careful script with the same
 * clients and nothing in between. It takes a batch, writes it with every confirmation, and only
 * then tells the source; of MQTT the library tells it, too early. Arguments: KIND URL PLACE of
 * both ends.
 */
import { Producer } from "@platformatic/kafka";
import { type ConfirmChannel, connect as connectAmqp, type ConsumeMessage } from "amqplib";
import { connect as connectMqtt } from "mqtt";
import { kafkaClient, mqttSession, TOPIC_PARTITIONS } from "./bridges-ends.ts";

interface Item {
  readonly key: Buffer | null;
  readonly value: Buffer;
}

/** Resolves when all of it is confirmed. */
type Write = (items: readonly Item[]) => Promise<void>;

const AMQP_PREFETCH = 1000;
/** More of 1 KiB would be over what Kafka takes in one batch. */
const BATCH_MAX = 800;
const [fromKind, fromUrl = "", from = "", toKind, toUrl = "", to = ""] = process.argv.slice(2);

const write = toKind === "amqp" ? await amqpWriter() : await kafkaWriter();
if (fromKind === "amqp") await readAmqp(write);
else if (fromKind === "mqtt") readMqtt(write);
else await readKafka(write);

async function kafkaWriter(): Promise<Write> {
  if (fromKind === "kafka") {
    const producer = kafkaClient(toUrl).producer();
    await producer.connect();
    return async (items) => {
      await producer.send({ topic: to, acks: -1, messages: [...items] });
    };
  }
  const producer = new Producer<Buffer, Buffer, Buffer, Buffer>({
    clientId: "bare",
    bootstrapBrokers: [toUrl],
  });
  return async (items) => {
    const messages = items.map(({ key, value }) => ({
      topic: to,
      value,
      ...(key === null ? { partition: 0 } : { key }),
    }));
    await producer.send({ messages, acks: -1 });
  };
}

async function amqpWriter(): Promise<Write> {
  const connection = await connectAmqp(toUrl);
  const channel: ConfirmChannel = await connection.createConfirmChannel();
  return async (items) => {
    for (const { value } of items) channel.sendToQueue(to, value, { persistent: true });
    await channel.waitForConfirms();
  };
}

async function readKafka(writeAll: Write): Promise<void> {
  const consumer = kafkaClient(fromUrl).consumer({
    groupId: `bare-${crypto.randomUUID()}`,
    maxWaitTimeInMs: 200,
  });
  await consumer.connect();
  await consumer.subscribe({ topic: from, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    // Partitions one beside the other: what a batch waits for, the others use.
    partitionsConsumedConcurrently: toKind === "kafka" ? TOPIC_PARTITIONS : 1,
    eachBatch: async (payload) => {
      const { batch } = payload;
      await writeAll(
        batch.messages.map(({ key, value }) => ({ key, value: value ?? Buffer.of() })),
      );
      payload.resolveOffset(batch.lastOffset());
      const offset = String(BigInt(batch.lastOffset()) + 1n);
      const partitions = [{ partition: batch.partition, offset }];
      await payload.commitOffsetsIfNecessary({ topics: [{ topic: from, partitions }] });
    },
  });
}

async function readAmqp(writeAll: Write): Promise<void> {
  const connection = await connectAmqp(fromUrl);
  const channel = await connection.createChannel();
  await channel.prefetch(AMQP_PREFETCH);
  const push = inBatches<ConsumeMessage>(async (batch) => {
    await writeAll(batch.map(({ content }) => ({ key: null, value: content })));
    const last = batch.at(-1);
    if (last !== undefined) channel.ack(last, true);
  });
  await channel.consume(from, (message) => {
    if (message !== null) push(message);
  });
}

function readMqtt(writeAll: Write): void {
  const push = inBatches<Buffer>((batch) => writeAll(batch.map((value) => ({ key: null, value }))));
  const client = connectMqtt(fromUrl, mqttSession(from));
  client.on("message", (_, payload) => push(payload));
}

/** What has come while the batch before was being written is the next one. */
function inBatches<T>(writeBatch: (batch: readonly T[]) => Promise<void>): (one: T) => void {
  const waiting: T[] = [];
  let isWriting = false;
  const writeWaiting = async (): Promise<void> => {
    if (isWriting) return;
    isWriting = true;
    while (waiting.length > 0) {
      await writeBatch(waiting.splice(0, BATCH_MAX));
    }
    isWriting = false;
  };
  return (one) => {
    waiting.push(one);
    setImmediate(() => void writeWaiting());
  };
}
