/** The bridge to AMQP 1.0, held to the port's promises on a real ActiveMQ Classic. */
import { conform } from "./bridge.ts";
import { amqp1Mortal, amqp1Subject } from "./amqp1.ts";
import { inFull, loginAt } from "./own.ts";

conform(
  amqp1Subject({
    name: "amqp1 (ActiveMQ Classic)",
    kind: "activemq",
    ...inFull({
      mortal: amqp1Mortal("activemq"),
      credentials: loginAt("activemq", (url) => ({ url })),
    }),
  }),
);
