/**
 * The kind `kafka`: documents and capabilities. The client libraries are loaded by `connect`, so
 * that a gateway without Kafka does not pay for them.
 * Reading is kafkajs's and writing @platformatic/kafka's, each where it is the better one.
 */
import { type BridgeModule, type Capabilities, noLosses } from "../../src/bridge.ts";
import { mapping } from "../mapping.ts";
import { kafkaPlaces } from "../places.ts";
import { type KafkaConfig, parseKafkaAddress, parseKafkaConfig } from "./config.ts";

const capabilities: Capabilities = {
  order: "partition",
  replay: true,
  headers: "bytes",
  key: true,
  tombstones: true,
  redeliverOnNack: true,
  sharedGroups: true,
  failure: "prefix",
  source: true,
  sink: true,
};

/** The module; see `bridges/registry.ts`. */
export const kafka: BridgeModule<KafkaConfig> = {
  kind: "kafka",
  capabilities,
  // A topic has no separators that mean something: an illegal character is refused as such.
  addressSpecials: {},
  places: kafkaPlaces,
  events: { prefix: "ce_" },
  parseConfig: parseKafkaConfig,
  parseAddress: parseKafkaAddress,
  translation: { rows: () => mapping.kafka, losses: () => noLosses, refusal: () => null },
  connect: async (config, context) => {
    const { connectKafka } = await import("./connection.ts");
    return await connectKafka(config, context);
  },
};
