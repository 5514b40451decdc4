/**
 * Brokers of the suite's own: one to kill, and one that asks for a login, which changes. Each costs
 * a start of a broker, so in a sampled run only some subjects have them.
 */
import { chmod, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { activemqRecipe, askForLogin as askOnClassic } from "../brokers/activemq.ts";
import { artemisRecipe, askForLogin as askOnArtemis } from "../brokers/artemis.ts";
import { type BrokerKind, privateBroker } from "../brokers/broker.ts";
import { LocalBroker, type Recipe } from "../brokers/local.ts";
import { rabbitNode, type RabbitNode } from "../bridges/rabbitmq-node.ts";
import type { Conformance, Credentials, Mortal, Place } from "./bridge.ts";
import { isFull } from "./sample.ts";

/** A reference, as a document has it; what it stands for is in the test's hands. */
// oxlint-disable-next-line no-template-curly-in-string -- no template of ours
export const PASSWORD = "${env:PASSWORD}";

/** What only a full run starts. */
export function inFull<Parts extends Pick<Conformance, "mortal" | "credentials">>(
  parts: Parts,
): Partial<Parts> & Pick<Conformance, "skips"> {
  if (isFull) return parts;
  const reason = "in a full run";
  const skips = {
    ...(parts.mortal === undefined
      ? {}
      : { "loses nothing while its broker is killed again and again": reason }),
    ...(parts.credentials === undefined ? {} : { "takes a password that has changed": reason }),
  };
  return { skips } as Partial<Parts> & Pick<Conformance, "skips">;
}

/** A broker to be killed, whose URL a test makes its bridge document of. */
export function mortalBroker(
  kind: BrokerKind,
  parts: { config: (url: string) => unknown; place: Place },
): () => Promise<Mortal> {
  return async () => {
    const own = await privateBroker(kind);
    return {
      config: parts.config(own.url),
      place: parts.place,
      kill: () => own.kill(),
      restart: () => own.restart(),
      [Symbol.asyncDispose]: () => own.stop(),
    };
  };
}

/** A broker of these two that asks for a login; `config` makes a bridge document of its URL. */
export function loginAt(
  kind: "artemis" | "activemq",
  config: (url: string) => object,
): () => Promise<Credentials> {
  const [recipeOf, ask] = (
    { artemis: [artemisRecipe, askOnArtemis], activemq: [activemqRecipe, askOnClassic] } as const
  )[kind];
  return async () => {
    const folder = await mkdtemp(join(tmpdir(), `isthmus-${kind}-`));
    await chmod(folder, 0o711);
    const recipe: Recipe = await recipeOf(folder);
    let password = "first";
    const username = "gateway";
    await ask(folder, { username, password });
    const broker = new LocalBroker(recipe);
    await broker.start();
    return {
      config: { ...config(recipe.url), username, password: PASSWORD },
      get password() {
        return password;
      },
      change: async () => {
        password = "second";
        await ask(folder, { username, password });
        await broker.restart();
      },
      [Symbol.asyncDispose]: () => broker.stop(),
    };
  };
}

/** A RabbitMQ with a user whose password changes. */
export function loginAtRabbit(
  start: () => Promise<{ readonly node: RabbitNode; readonly url: string }>,
  config: (url: string) => object,
): () => Promise<Credentials> {
  return async () => {
    const { node, url: text } = await start();
    let password = "first";
    await node.ctl("add_user", "gateway", password);
    await node.ctl("set_permissions", "gateway", ".*", ".*", ".*");
    const url = new URL(text);
    url.username = url.password = "";
    return {
      config: { ...config(url.href), username: "gateway", password: PASSWORD },
      get password() {
        return password;
      },
      change: async () => {
        password = "second";
        await node.ctl("change_password", "gateway", password);
      },
      [Symbol.asyncDispose]: () => node[Symbol.asyncDispose](),
    };
  };
}

/** A RabbitMQ node of its own with AMQP 1.0 beside 0-9-1. */
export async function rabbitForAmqp(): Promise<{ node: RabbitNode; url: string }> {
  const node = await rabbitNode({ plugins: ["rabbitmq_amqp1_0"] });
  return { node, url: node.url };
}
