/** Independent clients at the far side of the gateway: what a user's own program would see. */
import { connect as connectAmqp, type ConsumeMessage } from "amqplib";
import { Kafka, type KafkaMessage, logLevel } from "kafkajs";
import { connectAsync, type IPublishPacket } from "mqtt";
import { waitFor } from "../temporary.ts";

/** Makes a topic. */
export async function makeTopic(url: string, topic: string, partitions = 1): Promise<void> {
  const admin = new Kafka({ brokers: [url], logLevel: logLevel.NOTHING }).admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: partitions }] });
  await admin.disconnect();
}

/** Reads a topic from its start until it has given `count` messages. */
export async function readTopic(
  url: string,
  topic: string,
  count: number,
): Promise<readonly KafkaMessage[]> {
  const kafka = new Kafka({ brokers: [url], logLevel: logLevel.NOTHING });
  const consumer = kafka.consumer({ groupId: `read-${topic}-${Date.now()}`, maxWaitTimeInMs: 100 });
  const messages: KafkaMessage[] = [];
  const admin = kafka.admin();
  await admin.connect();
  await waitFor(`${topic} is there`, async () => (await admin.listTopics()).includes(topic));
  await admin.disconnect();
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    eachMessage: ({ message }) => {
      messages.push(message);
      return Promise.resolve();
    },
  });
  try {
    await waitFor(`${topic} holds ${count} messages`, () => messages.length >= count);
  } finally {
    await consumer.disconnect();
  }
  return messages;
}

/** A queue bound to an exchange, and what has come to it. */
export interface Listener extends AsyncDisposable {
  readonly messages: ConsumeMessage[];
}

/** Makes an exchange (topic) and listens to it; an empty exchange listens to the queue `key`. */
export async function listenAmqp(url: string, exchange: string, key: string): Promise<Listener> {
  const connection = await connectAmqp(url);
  const channel = await connection.createChannel();
  const messages: ConsumeMessage[] = [];
  let queue = key;
  if (exchange === "") await channel.assertQueue(key, { durable: true });
  else {
    await channel.assertExchange(exchange, "topic", { durable: true });
    queue = (await channel.assertQueue("", { exclusive: true })).queue;
    await channel.bindQueue(queue, exchange, key);
  }
  await channel.consume(
    queue,
    (message) => {
      if (message !== null) messages.push(message);
    },
    { noAck: true },
  );
  return { messages, [Symbol.asyncDispose]: () => connection.close() };
}

/** Publishes to a queue with confirms. */
export async function publishAmqp(
  url: string,
  queue: string,
  bodies: readonly Buffer[],
): Promise<void> {
  const connection = await connectAmqp(url);
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(queue, { durable: true });
  for (const [index, body] of bodies.entries()) {
    channel.sendToQueue(queue, body, {
      persistent: true,
      messageId: `m${index}`,
      headers: { index: String(index) },
      contentType: "application/octet-stream",
    });
  }
  await channel.waitForConfirms();
  await connection.close();
}

/** Subscribes to a filter; what has come stands in `packets`. */
export async function listenMqtt(
  url: string,
  filter: string,
): Promise<AsyncDisposable & { readonly packets: IPublishPacket[] }> {
  const client = await connectAsync(url, { protocolVersion: 5 });
  const packets: IPublishPacket[] = [];
  client.on("message", (_topic, _payload, packet) => packets.push(packet));
  await client.subscribeAsync(filter, { qos: 1 });
  return { packets, [Symbol.asyncDispose]: () => client.endAsync() };
}

/** Runs a program with input; its output. */
export async function runProgram(command: readonly string[], input = ""): Promise<string> {
  const child = Bun.spawn([...command], {
    stdin: new TextEncoder().encode(input),
    stdout: "pipe",
    stderr: "pipe",
  });
  const output = await new Response(child.stdout).text();
  const errors = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) throw new Error(`${command[0]}: ${errors}`);
  return output;
}
