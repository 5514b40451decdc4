/** The bridge to MQTT, held to the port's promises with MQTT 5 on a real Mosquitto. */
import { mqtt } from "../../bridges/mqtt/module.ts";
import { broker, missingBroker } from "../brokers/broker.ts";
import { TcpProxy } from "../proxy.ts";
import { conform } from "./bridge.ts";

let places = 0;

conform({
  name: "mqtt",
  module: mqtt,
  unavailable: missingBroker("mqtt"),
  config: async () => ({ url: (await broker("mqtt")).url }),
  place: async () => {
    places += 1;
    const topic = `conform/${process.pid}/${places}`;
    return { source: { topic }, sink: { topic } };
  },
  deadConfig: { url: "mqtt://127.0.0.1:9" },
  refused: (message) => ({
    ...message,
    headers: [{ name: "a\0b", value: null }],
  }),
  properties: [
    "contentType",
    "contentEncoding",
    "correlationId",
    "replyTo",
    "type",
    "priority",
    "expiresAtMs",
    "messageId",
    "appId",
    "textBody",
  ],
  proxied: async () => {
    const upstream = new URL((await broker("mqtt")).url);
    const proxy = await TcpProxy.open({
      upstream: { host: upstream.hostname, port: Number(upstream.port) },
    });
    upstream.port = String(proxy.port);
    return { config: { url: upstream.href }, proxy };
  },
});
