/** What the suites of all AMQP 1.0 brokers have in common; each has a test file of its own. */
import { amqp1 } from "../../bridges/amqp1/module.ts";
import { broker, type BrokerKind, missingBroker } from "../brokers/broker.ts";
import { TcpProxy } from "../proxy.ts";
import type { Conformance } from "./bridge.ts";
import { mortalBroker } from "./own.ts";

let places = 0;

/** The subject of one broker: a fresh queue for each test, made by its first use. */
export function amqp1Subject(
  parts: Pick<Conformance, "name"> &
    Partial<Conformance> & {
      readonly kind: BrokerKind;
      readonly place?: Conformance["place"];
    },
): Conformance {
  const { kind, ...rest } = parts;
  return {
    module: amqp1,
    unavailable: missingBroker(kind),
    config: async () => ({ url: (await broker(kind)).url }),
    place: () => {
      places += 1;
      const address = { queue: `conform-${process.pid}-${places}`, create: true };
      return Promise.resolve({ source: address, sink: address });
    },
    deadConfig: { url: "amqp://127.0.0.1:9" },
    quick: { heartbeat: "1s" },
    refused: (message) => ({
      ...message,
      properties: { ...message.properties, contentType: "text/ü" },
    }),
    proxied: async () => {
      const upstream = new URL((await broker(kind)).url);
      const proxy = await TcpProxy.open({
        upstream: { host: upstream.hostname, port: Number(upstream.port) },
      });
      upstream.port = String(proxy.port);
      return { config: { url: upstream.href }, proxy };
    },
    ...rest,
  };
}

/** A broker to be killed, with a queue in it from its first use on. */
export function amqp1Mortal(kind: BrokerKind): NonNullable<Conformance["mortal"]> {
  const address = { queue: "mortal", create: true };
  const place = { source: address, sink: address };
  return mortalBroker(kind, { config: (url) => ({ url }), place });
}
