/** The bridge to MQTT, held to the port's promises with MQTT 3.1.1 on a real ActiveMQ Classic. */
import { broker, missingBroker } from "../brokers/broker.ts";
import { conform } from "./bridge.ts";
import { mqttMortal, mqttSubject, mqttUrl } from "./mqtt.ts";
import { inFull, loginAt } from "./own.ts";

conform(
  mqttSubject({
    name: "mqtt 3.1.1 (ActiveMQ Classic)",
    version: "3.1.1",
    unavailable: missingBroker("activemq"),
    ...inFull({
      mortal: mqttMortal("activemq", "3.1.1"),
      credentials: loginAt("activemq", (url) => ({ url: mqttUrl(url), version: "3.1.1" })),
    }),
    // One port for all its protocols.
    url: async () => mqttUrl((await broker("activemq")).url),
  }),
);
