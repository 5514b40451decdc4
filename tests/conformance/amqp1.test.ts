/** The bridge to AMQP 1.0, held to the port's promises on a real Artemis. */
import { conform } from "./bridge.ts";
import { amqp1Mortal, amqp1Subject } from "./amqp1.ts";
import { inFull, loginAt } from "./own.ts";

conform(
  amqp1Subject({
    name: "amqp1 (Artemis)",
    kind: "amqp1",
    missingSink: { queue: "strict.not-there" },
    ...inFull({
      mortal: amqp1Mortal("amqp1"),
      credentials: loginAt("artemis", (url) => ({ url })),
    }),
  }),
);
