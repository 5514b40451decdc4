/** The bridge to MQTT, held to the port's promises with MQTT 5 on a real Artemis. */
import { broker, missingBroker } from "../brokers/broker.ts";
import { conform } from "./bridge.ts";
import { mqttSubject } from "./mqtt.ts";

conform(
  mqttSubject({
    name: "mqtt 5 (Artemis)",
    version: "5",
    unavailable: missingBroker("amqp1"),
    // One port for all its protocols.
    skips: {
      "gives nothing again after its ack":
        "Artemis forgets acks that it read just before a goodbye: repeated, not lost",
      "loses nothing while its broker is killed again and again": "shown with RabbitMQ",
      "takes a password that has changed": "shown with Mosquitto",
    },
    url: async () => (await broker("amqp1")).url.replace(/^amqp:/, "mqtt:"),
  }),
);
