/** The conformance suite against the broker in memory, in both ways of failing. */
import type { BridgeModule } from "../../src/bridge.ts";
import { decodeText, encodeText } from "../../src/message.ts";
import { conform } from "./bridge.ts";
import { memoryModule } from "./memory.ts";
import { MemoryBroker } from "./memory-broker.ts";

const REFUSED = "refuse me";

for (const failure of ["independent", "prefix"] as const) {
  const broker = MemoryBroker.named(`conformance-${failure}`);
  broker.interfere = ({ message }) =>
    message.body !== null && decodeText(message.body) === REFUSED
      ? { refused: "as asked", final: true }
      : null;
  conform({
    name: `memory, failure ${failure}`,
    module: memoryModule({ failure }) as BridgeModule,
    config: async () => ({ broker: broker.name }),
    deadConfig: { broker: broker.name, line: "dead" },
    missingSink: { topic: "missing" },
    refused: (message) => ({ ...message, body: encodeText(REFUSED) }),
    place: async () => {
      const topic = crypto.randomUUID();
      broker.createTopic(topic, 3);
      return { source: { topic }, sink: { topic } };
    },
    proxied: async () => {
      const line = crypto.randomUUID();
      return { config: { broker: broker.name, line }, proxy: broker.line(line) };
    },
    noCuts: "a line in memory has no frames and no delay",
    skips: { "says in plain words that nobody listens": "a broker in memory has no address" },
  });
}
