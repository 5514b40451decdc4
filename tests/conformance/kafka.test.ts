/** The conformance suite against a real Kafka. */
import { Kafka, logLevel } from "kafkajs";
import { kafka } from "../../bridges/kafka/module.ts";
import type { BridgeModule } from "../../src/bridge.ts";
import {
  deleteTopic,
  freshTopic,
  kafkaProxy,
  kafkaUrl,
  missingKafka,
} from "../bridges/kafka/cluster.ts";
import { testCertificate, testKey } from "../bridges/tls.ts";
import { privateBroker } from "../brokers/broker.ts";
import { guardedPassword, startGuardedKafka } from "../brokers/kafka-cluster.ts";
import { conform, type Credentials, type Mortal } from "./bridge.ts";
import { inFull, PASSWORD } from "./own.ts";

/** Above the broker's default of 1 MiB for one record. Bytes. */
const TOO_LARGE = 1_200_000;

/** A Kafka to be killed, with a topic in it. */
async function mortal(): Promise<Mortal> {
  const own = await privateBroker("kafka");
  const admin = new Kafka({ brokers: [own.url], logLevel: logLevel.NOTHING }).admin();
  const topic = "mortal";
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 3 }], waitForLeaders: true });
  await admin.disconnect();
  return {
    config: { url: own.url },
    place: { source: { topic }, sink: { topic } },
    kill: () => own.kill(),
    restart: () => own.restart(),
    [Symbol.asyncDispose]: () => own.stop(),
  };
}

/** A Kafka with a user whose password changes. */
async function credentials(): Promise<Credentials> {
  const guarded = await startGuardedKafka({ cert: testCertificate, key: testKey });
  let password = guardedPassword;
  const login = { sasl: "scram-sha-512", username: "gw", password: PASSWORD };
  return {
    config: { url: guarded.sasl, ...login },
    get password() {
      return password;
    },
    change: async () => {
      password = "second";
      await guarded.changePassword(password);
    },
    [Symbol.asyncDispose]: () => guarded.stop(),
  };
}

conform({
  name: "kafka",
  module: kafka as BridgeModule,
  unavailable: missingKafka,
  config: async () => ({ urls: [await kafkaUrl()] }),
  deadConfig: { url: "127.0.0.1:9" },
  quick: { heartbeat: "1s" },
  mortal,
  ...inFull({ credentials }),
  missingSink: { topic: "nobody-made-this-topic" },
  refused: (message) => ({ ...message, body: new Uint8Array(TOO_LARGE) }),
  properties: [
    "contentType",
    "contentEncoding",
    "correlationId",
    "replyTo",
    "type",
    "priority",
    "expiresAtMs",
    "messageId",
    "userId",
    "appId",
    "durable",
    "retain",
    "textBody",
  ],
  place: async () => {
    const topic = await freshTopic();
    return { source: { topic }, sink: { topic }, cleanup: () => deleteTopic(topic) };
  },
  proxied: async () => {
    const proxy = await kafkaProxy();
    return { config: { url: `127.0.0.1:${proxy.port}` }, proxy };
  },
});
