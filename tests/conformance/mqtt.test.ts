/** The bridge to MQTT, held to the port's promises with both versions on a real Mosquitto. */
import { broker, missingBroker } from "../brokers/broker.ts";
import { conform } from "./bridge.ts";
import { mosquittoWithLogin, mqttSubject } from "./mqtt.ts";

const FORGETS = "Mosquitto has its sessions in memory: what it acked is gone when it is killed";

for (const version of ["5", "3.1.1"] as const) {
  conform(
    mqttSubject({
      name: `mqtt ${version} (Mosquitto)`,
      version,
      unavailable: missingBroker("mqtt"),
      url: async () => (await broker("mqtt")).url,
      credentials: () => mosquittoWithLogin(version),
      skips: { "loses nothing while its broker is killed again and again": FORGETS },
    }),
  );
}
