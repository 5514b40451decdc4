/** What the suites of all MQTT brokers have in common; each has a test file of its own. */
import { execFileSync } from "node:child_process";
import { chmod, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mqtt } from "../../bridges/mqtt/module.ts";
import type { BridgeModule } from "../../src/bridge.ts";
import type { BrokerKind } from "../brokers/broker.ts";
import { LocalBroker } from "../brokers/local.ts";
import { mosquittoRecipe } from "../brokers/mosquitto.ts";
import { rabbitNode, type RabbitNode } from "../bridges/rabbitmq-node.ts";
import { TcpProxy } from "../proxy.ts";
import { freePort } from "../temporary.ts";
import type { Conformance, Credentials, Mortal, Place } from "./bridge.ts";
import { mortalBroker, PASSWORD } from "./own.ts";

const ONLY_BODY = "MQTT 3.1.1 carries a topic and a body, and nothing else of a message";

let places = 0;

function freshPlace(): Promise<Place> {
  places += 1;
  const topic = `conform/${process.pid}/${places}`;
  return Promise.resolve({ source: { topic }, sink: { topic } });
}

/** The subject of one broker and version; `url` is asked for at each test. */
export function mqttSubject(
  parts: Pick<Conformance, "name"> &
    Partial<Conformance> & {
      readonly version: "5" | "3.1.1";
      readonly url: () => Promise<string>;
    },
): Conformance {
  const { version, url, skips, ...rest } = parts;
  return {
    config: async () => ({ url: await url(), version }),
    place: freshPlace,
    deadConfig: { url: "mqtt://127.0.0.1:9" },
    quick: { keepalive: "1s" },
    proxied: async () => {
      const upstream = new URL(await url());
      const proxy = await TcpProxy.open({
        upstream: { host: upstream.hostname, port: Number(upstream.port) },
      });
      upstream.port = String(proxy.port);
      return { config: { url: upstream.href, version }, proxy };
    },
    ...(version === "5" ? five : old),
    ...rest,
    skips: { ...(version === "5" ? {} : oldSkips), ...skips },
  };
}

const five = {
  module: mqtt as BridgeModule,
  refused: (message) => ({ ...message, headers: [{ name: "a\0b", value: null }] }),
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
} satisfies Partial<Conformance>;

const old = {
  // The module declares what MQTT 5 can do.
  module: {
    ...(mqtt as BridgeModule),
    capabilities: { ...mqtt.capabilities, headers: "none", key: false, tombstones: false },
  },
  properties: [],
} satisfies Partial<Conformance>;

const oldSkips = {
  "keeps the message id": ONLY_BODY,
  "keeps the timestamp": ONLY_BODY,
  "carries headers as far as declared": ONLY_BODY,
  "carries the properties of the mapping table": ONLY_BODY,
} satisfies Conformance["skips"];

/** A RabbitMQ with its MQTT plugin, and where that listens. */
export async function rabbitWithMqtt(): Promise<{ node: RabbitNode; url: string; ws: string }> {
  const [port, wsPort] = [await freePort(), await freePort()];
  const node = await rabbitNode({
    plugins: ["rabbitmq_mqtt", "rabbitmq_web_mqtt"],
    config: () =>
      Promise.resolve([
        `mqtt.listeners.tcp.1 = 127.0.0.1:${port}`,
        "web_mqtt.tcp.ip = 127.0.0.1",
        `web_mqtt.tcp.port = ${wsPort}`,
      ]),
  });
  return { node, url: `mqtt://127.0.0.1:${port}`, ws: `ws://127.0.0.1:${wsPort}/ws` };
}

/** The same, to be killed. */
export async function mortalRabbitWithMqtt(): Promise<Mortal> {
  const { node, url } = await rabbitWithMqtt();
  return {
    config: { url, version: "3.1.1" },
    place: await freshPlace(),
    kill: () => node.broker.kill(),
    restart: () => node.broker.restart(),
    [Symbol.asyncDispose]: () => node.broker.stop(),
  };
}

/** MQTT's URL of a broker that speaks it on the port of its AMQP. */
export function mqttUrl(url: string): string {
  return url.replace(/^amqp:/, "mqtt:");
}

/** A broker that speaks MQTT on the port of its AMQP, to be killed. */
export function mqttMortal(kind: BrokerKind, version: "5" | "3.1.1"): () => Promise<Mortal> {
  const topic = "mortal/topic";
  return mortalBroker(kind, {
    config: (url) => ({ url: mqttUrl(url), version }),
    place: { source: { topic }, sink: { topic } },
  });
}

/** A Mosquitto that asks for a password, which changes. */
export async function mosquittoWithLogin(version: "5" | "3.1.1"): Promise<Credentials> {
  const folder = await mkdtemp(join(tmpdir(), "isthmus-mosquitto-"));
  await chmod(folder, 0o711);
  const recipe = await mosquittoRecipe(folder);
  const [config, passwords] = [join(folder, "mosquitto.conf"), join(folder, "passwords")];
  const lines = await readFile(config, "utf8");
  const asking = `allow_anonymous false\npassword_file ${passwords}`;
  await writeFile(config, lines.replace("allow_anonymous true", asking));
  let password = "first";
  const write = async (): Promise<void> => {
    execFileSync("mosquitto_passwd", ["-b", "-c", passwords, "gateway", password]);
    await chmod(passwords, 0o644);
  };
  await write();
  const broker = new LocalBroker(recipe);
  await broker.start();
  return {
    config: { url: recipe.url, username: "gateway", password: PASSWORD, version },
    get password() {
      return password;
    },
    change: async () => {
      password = "second";
      await write();
      await broker.restart();
    },
    [Symbol.asyncDispose]: () => broker.stop(),
  };
}
