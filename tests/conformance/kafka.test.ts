/** The conformance suite against a real Kafka. */
import { kafka } from "../../bridges/kafka/module.ts";
import type { BridgeModule } from "../../src/bridge.ts";
import {
  deleteTopic,
  freshTopic,
  kafkaProxy,
  kafkaUrl,
  missingKafka,
} from "../bridges/kafka/cluster.ts";
import { conform } from "./bridge.ts";

/** Above the broker's default of 1 MiB for one record. Bytes. */
const TOO_LARGE = 1_200_000;

conform({
  name: "kafka",
  module: kafka as BridgeModule,
  unavailable: missingKafka,
  config: async () => ({ urls: [await kafkaUrl()] }),
  deadConfig: { url: "127.0.0.1:9" },
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
