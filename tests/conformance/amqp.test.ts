/** The bridge to AMQP 0-9-1, held to the port's promises on a real RabbitMQ. */
import { connect } from "amqplib";
import { amqp } from "../../bridges/amqp/module.ts";
import { broker, missingBroker } from "../brokers/broker.ts";
import { TcpProxy } from "../proxy.ts";
import { rabbitNode } from "../bridges/rabbitmq-node.ts";
import { conform, type Mortal } from "./bridge.ts";
import { loginAtRabbit, rabbitForAmqp } from "./own.ts";

let places = 0;

async function withChannel(
  work: (
    channel: Awaited<ReturnType<Awaited<ReturnType<typeof connect>>["createChannel"]>>,
  ) => Promise<unknown>,
): Promise<void> {
  const connection = await connect((await broker("amqp")).url);
  await work(await connection.createChannel());
  await connection.close();
}

/** A RabbitMQ to be killed, with a queue in it. */
async function mortal(): Promise<Mortal> {
  const node = await rabbitNode({});
  const connection = await connect(node.url);
  const queue = "mortal";
  await (await connection.createChannel()).assertQueue(queue, { durable: true });
  await connection.close();
  return {
    config: { url: node.url },
    place: { source: { queue }, sink: { queue } },
    kill: () => node.broker.kill(),
    restart: () => node.broker.restart(),
    [Symbol.asyncDispose]: () => node.broker.stop(),
  };
}

conform({
  name: "amqp (RabbitMQ)",
  module: amqp,
  unavailable: missingBroker("amqp"),
  config: async () => ({ url: (await broker("amqp")).url }),
  place: async () => {
    places += 1;
    const queue = `conform-${process.pid}-${places}`;
    await withChannel((channel) => channel.assertQueue(queue));
    return {
      source: { queue },
      sink: { queue },
      cleanup: () => withChannel((channel) => channel.deleteQueue(queue)),
    };
  },
  deadConfig: { url: "amqp://127.0.0.1:9" },
  missingSink: { exchange: "not-there", routingKey: "a" },
  refused: (message) => ({
    ...message,
    properties: { ...message.properties, contentType: "x".repeat(256) },
  }),
  timestampUnitMs: 1000,
  quick: { heartbeat: "1s" },
  mortal,
  credentials: loginAtRabbit(rabbitForAmqp, (url) => ({ url })),
  proxied: async () => {
    const upstream = new URL((await broker("amqp")).url);
    const proxy = await TcpProxy.open({
      upstream: { host: upstream.hostname, port: Number(upstream.port) },
    });
    upstream.port = String(proxy.port);
    return { config: { url: upstream.href }, proxy };
  },
});
