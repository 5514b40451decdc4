/**
 * kill -9 while RabbitMQ and an MQTT broker are read: what was appended and not acked comes again,
 * marked as redelivered, and is recognised by its producer's id. At the end the log holds each
 * message once. An id that a program uses again is no duplicate while nothing was redelivered.
 *
 * Replay: ISTHMUS_TEST_SEED=N bun test tests/crash/redelivered
 */
import { expect, test } from "bun:test";
import { connect as connectAmqp } from "amqplib";
import { connectAsync } from "mqtt";
import { broker } from "../brokers/broker.ts";
import { TestGateway } from "../e2e/gateway.ts";
import { Random } from "../sim/random.ts";
import { waitFor } from "../temporary.ts";

const seed = Number(process.env["ISTHMUS_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const KILLS = process.env["ISTHMUS_TEST_FULL"] === "1" ? 100 : 5;
const MESSAGES = 300;
const name = `again-${seed}-${process.pid}`;

test(`what brokers deliver again is once in the log through ${KILLS} kills (seed ${seed})`, async () => {
  console.log(`redelivered: seed ${seed}; replay with ISTHMUS_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const [{ url: amqp }, { url: mqtt }] = await Promise.all([broker("amqp"), broker("mqtt")]);
  const connection = await connectAmqp(amqp);
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(name, { durable: true });
  const client = await connectAsync(mqtt, { protocolVersion: 5 });
  await using gateway = await TestGateway.start();
  await gateway.apply({
    bridges: {
      rabbit: { kind: "amqp", url: amqp },
      plant: { kind: "mqtt", url: mqtt, clientId: name },
    },
    streams: { queue: { partitions: 3 }, topic: { partitions: 3 } },
    sources: {
      q: { from: { bridge: "rabbit", queue: name }, stream: "queue" },
      t: { from: { bridge: "plant", topic: `${name}/#`, qos: 1 }, stream: "topic" },
    },
  });
  await gateway.connected("plant");
  const sent: string[] = [];
  const held = async (): Promise<[number, number]> => {
    const [queue, topic] = await Promise.all([gateway.read("queue"), gateway.read("topic")]);
    return [queue.length, topic.length];
  };
  // Under way before the first message that matters: a session that is not there keeps nothing.
  await waitFor("the topic is subscribed", async () => {
    await client.publishAsync(`${name}/warm`, "warm", { qos: 1 });
    return (await held())[1] > 0;
  });
  for (let kill = 0; kill <= KILLS; kill++) {
    for (let index = 0; index < MESSAGES; index++) {
      const body = `m${sent.length}`;
      sent.push(body);
      channel.sendToQueue(name, Buffer.from(body), { persistent: true, messageId: body });
      const properties = { userProperties: { "isthmus-id": body } };
      client.publish(`${name}/x`, body, { qos: 1, properties });
    }
    await Bun.sleep(random.below(60));
    if (kill === KILLS) break;
    await gateway.kill();
    await gateway.start();
  }
  await channel.waitForConfirms();
  const bodies = async (stream: string): Promise<string[]> => {
    const all = (await gateway.read(stream)).map(({ body }) => body ?? "");
    return all.filter((body) => body !== "warm");
  };
  for (const stream of ["queue", "topic"]) {
    await waitFor(`all of the ${stream} is there`, async () => {
      return new Set(await bodies(stream)).size >= sent.length;
    });
    expect((await bodies(stream)).toSorted()).toEqual(sent.toSorted());
  }
  for (let count = 0; count < 2; count++) {
    channel.sendToQueue(name, Buffer.from("ping"), { messageId: "always the same" });
  }
  await waitFor("both are there", async () => (await held())[0] === sent.length + 2);
  await Promise.all([connection.close(), client.endAsync()]);
}, 300_000);
