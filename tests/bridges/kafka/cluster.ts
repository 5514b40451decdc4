/**
 * What the Kafka tests share: the broker, topics of their own, and raw clients beside the bridge.
 */
import { Admin, Producer } from "@platformatic/kafka";
import { broker, missingBroker } from "../../brokers/broker.ts";
import { TcpProxy } from "../../proxy.ts";
import { waitFor } from "../../temporary.ts";

/** Why there is no Kafka, or null. */
export const missingKafka = missingBroker("kafka");

export async function kafkaUrl(): Promise<string> {
  return (await broker("kafka")).url;
}

async function options() {
  return {
    clientId: "isthmus-tests",
    bootstrapBrokers: [await kafkaUrl()],
    retries: 10,
    retryDelay: 200,
  };
}

/** A fresh topic's name; it is there, with leaders, when this resolves. */
export async function freshTopic(
  partitions = 3,
  configs: readonly { name: string; value: string }[] = [],
): Promise<string> {
  const topic = `t-${crypto.randomUUID()}`;
  const admin = new Admin(await options());
  try {
    await admin.createTopics({ topics: [topic], partitions, replicas: 1, configs: [...configs] });
    await waitFor("the topic has leaders", async () => {
      const metadata = await admin
        .metadata({ topics: [topic], forceUpdate: true })
        .catch(() => null);
      return metadata?.topics.get(topic)?.partitions.every((item) => item.leader >= 0);
    });
  } finally {
    await admin.close();
  }
  return topic;
}

export async function deleteTopic(topic: string): Promise<void> {
  const admin = new Admin(await options());
  try {
    await admin.deleteTopics({ topics: [topic] });
  } finally {
    await admin.close();
  }
}

/** Removes what a partition has below an offset, as an operator does, or retention. */
export async function purge(topic: string, partition: number, below: bigint): Promise<void> {
  const admin = new Admin(await options());
  try {
    const partitions = [{ partition, offset: below }];
    await admin.deleteRecords({ topics: [{ name: topic, partitions }] });
  } finally {
    await admin.close();
  }
}

/** Makes a topic that is just being deleted, as soon as that can be done. */
export async function makeTopic(topic: string, partitions = 1): Promise<void> {
  const admin = new Admin(await options());
  try {
    await waitFor("the topic is made", () =>
      admin.createTopics({ topics: [topic], partitions, replicas: 1 }).then(
        () => true,
        () => false,
      ),
    );
  } finally {
    await admin.close();
  }
}

/** What a group has committed, by partition. */
export async function committed(group: string, topic: string): Promise<Map<number, bigint>> {
  const admin = new Admin(await options());
  try {
    const groups = await admin.listConsumerGroupOffsets({ groups: [group] });
    const partitions = groups.flatMap((item) =>
      item.topics.filter(({ name }) => name === topic).flatMap((found) => found.partitions),
    );
    return new Map(partitions.map((item) => [item.partitionIndex, item.committedOffset]));
  } finally {
    await admin.close();
  }
}

/** A producer beside the bridge; close it. */
export async function rawProducer(): Promise<Producer<Buffer, Buffer, Buffer, Buffer>> {
  return new Producer<Buffer, Buffer, Buffer, Buffer>(await options());
}

/** A proxy that also turns the address that the broker tells its clients into its own. */
export async function kafkaProxy(): Promise<TcpProxy> {
  const [host = "127.0.0.1", port = "9092"] = (await kafkaUrl()).split(":");
  const place = (toPort: number): Buffer => {
    const bytes = Buffer.alloc(host.length + 4);
    bytes.write(host);
    bytes.writeInt32BE(toPort, host.length);
    return bytes;
  };
  return await TcpProxy.open({
    upstream: { host, port: Number(port) },
    rewrite: (own) => ({ from: place(Number(port)), to: place(own) }),
  });
}
