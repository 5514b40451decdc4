/** The bridge to AMQP 1.0, held to the port's promises on RabbitMQ's plugin. */
import { conform } from "./bridge.ts";
import { amqp1Mortal, amqp1Subject } from "./amqp1.ts";
import { inFull, loginAtRabbit, rabbitForAmqp } from "./own.ts";

conform(
  amqp1Subject({
    name: "amqp1 (RabbitMQ)",
    kind: "amqp",
    missingSink: { queue: "not-there" },
    ...inFull({
      mortal: amqp1Mortal("amqp"),
      credentials: loginAtRabbit(rabbitForAmqp, (url) => ({ url })),
    }),
  }),
);
