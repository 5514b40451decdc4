/** The bridge to MQTT, held to the port's promises with MQTT 3.1.1 on RabbitMQ's plugin. */
import { afterAll } from "bun:test";
import { missingBroker } from "../brokers/broker.ts";
import { conform } from "./bridge.ts";
import { mortalRabbitWithMqtt, mqttSubject, rabbitWithMqtt } from "./mqtt.ts";
import { inFull, loginAtRabbit } from "./own.ts";

let starting: ReturnType<typeof rabbitWithMqtt> | null = null;

afterAll(async () => {
  if (starting !== null) await (await starting).node[Symbol.asyncDispose]();
});

async function shared(): ReturnType<typeof rabbitWithMqtt> {
  starting ??= rabbitWithMqtt();
  return await starting;
}

conform(
  mqttSubject({
    name: "mqtt 3.1.1 (RabbitMQ)",
    version: "3.1.1",
    unavailable: missingBroker("amqp"),
    url: async () => (await shared()).url,
    mortal: mortalRabbitWithMqtt,
    ...inFull({
      credentials: loginAtRabbit(rabbitWithMqtt, (url) => ({ url, version: "3.1.1" })),
    }),
  }),
);

conform(
  mqttSubject({
    name: "mqtt 3.1.1 over WebSocket (RabbitMQ)",
    version: "3.1.1",
    unavailable: missingBroker("amqp"),
    url: async () => (await shared()).ws,
    skips: {
      "loses nothing while its broker is killed again and again": "shown over TCP",
      "takes a password that has changed": "shown over TCP",
    },
  }),
);
