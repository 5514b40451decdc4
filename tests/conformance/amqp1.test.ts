/** The bridge to AMQP 1.0, held to the port's promises on a real Artemis. */
import { conform } from "./bridge.ts";
import { amqp1Subject } from "./amqp1.ts";

conform(
  amqp1Subject({
    name: "amqp1 (Artemis)",
    kind: "amqp1",
    missingSink: { queue: "strict.not-there" },
  }),
);
