/** The bridge to MQTT, held to the port's promises with MQTT 5 on a real Artemis. */
import { broker, missingBroker } from "../brokers/broker.ts";
import { conform } from "./bridge.ts";
import { mqttMortal, mqttSubject, mqttUrl } from "./mqtt.ts";
import { inFull, loginAt } from "./own.ts";

const own = inFull({
  mortal: mqttMortal("amqp1", "5"),
  credentials: loginAt("artemis", (url) => ({ url: mqttUrl(url), version: "5" })),
});

conform(
  mqttSubject({
    name: "mqtt 5 (Artemis)",
    version: "5",
    unavailable: missingBroker("amqp1"),
    ...own,
    skips: {
      ...own.skips,
      "gives nothing again after its ack":
        "Artemis forgets acks that it read just before a goodbye: repeated, not lost",
    },
    // One port for all its protocols.
    url: async () => mqttUrl((await broker("amqp1")).url),
  }),
);
