/**
 * Kafkas of a test's own beyond the plain one: a cluster of several nodes that are killed one by
 * one, and a node that asks who comes: logins by SASL, certificates by TLS, and permissions.
 */
import { chmod, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../temporary.ts";
import {
  kafkaClusterId,
  type KafkaNode,
  kafkaNodeRecipe,
  kafkaPorts,
  runKafkaTool,
} from "./kafka.ts";
import { LocalBroker } from "./local.ts";

/** Nodes that a test kills and brings back, by number from 0. */
export interface KafkaCluster {
  readonly urls: readonly string[];
  kill(node: number): Promise<void>;
  restart(node: number): Promise<void>;
  stop(): Promise<void>;
}

/** Resolves when every node has seen a broker. Stop it at the end of the test. */
export async function startKafkaCluster(count: number): Promise<KafkaCluster> {
  const cluster = kafkaClusterId();
  const nodes = [];
  for (let index = 0; index < count; index += 1) nodes.push(await kafkaPorts());
  const brokers: LocalBroker[] = [];
  for (let id = 1; id <= count; id += 1) {
    brokers.push(await localNode({ cluster, id, nodes }));
  }
  const stop = async (): Promise<void> => {
    await Promise.all(brokers.map((each) => each.stop()));
  };
  const node = (index: number): LocalBroker => {
    const found = brokers[index];
    if (found === undefined) throw new RangeError(`no node ${index}`);
    return found;
  };
  try {
    await Promise.all(brokers.map((each) => each.start()));
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    urls: brokers.map(({ url }) => url),
    kill: (index) => node(index).kill(),
    restart: (index) => node(index).restart(),
    stop,
  };
}

async function localNode(node: Omit<KafkaNode, "folder">): Promise<LocalBroker> {
  const folder = await mkdtemp(join(tmpdir(), `isthmus-kafka${node.id}-`));
  await chmod(folder, 0o711);
  return new LocalBroker(await kafkaNodeRecipe({ ...node, folder }));
}

/** A node with a plain door, one for logins, and one for certificates. */
export interface GuardedKafka {
  /** Nobody is asked who they are; everything is permitted. */
  readonly plain: string;
  /** SASL: `gw` may everything and `guest` nothing. */
  readonly sasl: string;
  /** TLS with a certificate of the client's, which may everything. */
  readonly mutual: string;
  /** Changes what `gw` logs in with by SCRAM-SHA-512. */
  changePassword(password: string): Promise<void>;
  stop(): Promise<void>;
}

/** The password of both users. */
export const guardedPassword = "not-a-secret";

const MODULES = {
  plain: `plain.PlainLoginModule required user_gw="${guardedPassword}" user_guest="${guardedPassword}"`,
  "scram-sha-256": "scram.ScramLoginModule required",
  "scram-sha-512": "scram.ScramLoginModule required",
  oauthbearer: 'oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="x"',
};

/** Tokens are taken unsigned, as Kafka does where nobody has said who signs them. */
export async function startGuardedKafka(tls: { cert: string; key: string }): Promise<GuardedKafka> {
  const [ports, sasl, mutual] = [await kafkaPorts(), await freePort(), await freePort()];
  const secrets = await mkdtemp(join(tmpdir(), "isthmus-kafka-tls-"));
  await writeFile(join(secrets, "key.pem"), `${tls.key}\n${tls.cert}\n`);
  await writeFile(join(secrets, "trust.pem"), `${tls.cert}\n`);
  const doors = `LOGIN://127.0.0.1:${sasl},MUTUAL://127.0.0.1:${mutual}`;
  const more: Record<string, string> = {
    listeners: doors,
    "advertised.listeners": doors,
    "listener.security.protocol.map": "LOGIN:SASL_PLAINTEXT,MUTUAL:SSL",
    "sasl.enabled.mechanisms": Object.keys(MODULES).join(",").toUpperCase(),
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS;User:gw;User:CN=isthmus tests",
    "ssl.client.auth": "required",
    "ssl.keystore.type": "PEM",
    "ssl.keystore.location": join(secrets, "key.pem"),
    "ssl.truststore.type": "PEM",
    "ssl.truststore.location": join(secrets, "trust.pem"),
  };
  for (const [mechanism, module] of Object.entries(MODULES)) {
    more[`listener.name.login.${mechanism}.sasl.jaas.config`] =
      `org.apache.kafka.common.security.${module};`;
  }
  const users = ["gw", "guest"].flatMap((name) =>
    ["SCRAM-SHA-256", "SCRAM-SHA-512"].flatMap((mechanism) => [
      "--add-scram",
      `${mechanism}=[name=${name},password=${guardedPassword}]`,
    ]),
  );
  const node = { cluster: kafkaClusterId(), id: 1, nodes: [ports], more, format: users };
  const broker = await localNode(node);
  await broker.start();
  return {
    plain: broker.url,
    sasl: `127.0.0.1:${sasl}`,
    mutual: `127.0.0.1:${mutual}`,
    changePassword: (password) =>
      runKafkaTool("kafka.admin.ConfigCommand", [
        `--bootstrap-server=${broker.url}`,
        "--alter",
        `--add-config=SCRAM-SHA-512=[password=${password}]`,
        "--entity-type=users",
        "--entity-name=gw",
      ]),
    stop: () => broker.stop(),
  };
}
