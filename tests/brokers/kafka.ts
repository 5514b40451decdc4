/**
 * Kafka for tests: nodes that are broker and controller, run by Java from the jars of Maven
 * Central.
 */
import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../temporary.ts";
import type { Recipe } from "./local.ts";
import { cacheFolder, jars } from "./maven.ts";
import { findProgram } from "./programs.ts";
import { runToEnd } from "./process.ts";

const kafkaVersion = "4.4.0";
/** The version of log4j-core that this Kafka brings; it needs a binding to write to. */
const log4jVersion = "2.25.5";

const jarsName = `kafka-${kafkaVersion}-log4j-${log4jVersion}`;

const javaFlags = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];

/** One node: its ports, and what it has beyond the plain listener. */
export interface KafkaNode {
  readonly folder: string;
  /** The cluster's id. */
  readonly cluster: string;
  readonly id: number;
  /** All nodes of the cluster, this one included. */
  readonly nodes: readonly KafkaPorts[];
  /** More settings; `listeners` and their like are added to, the rest is replaced. */
  readonly more?: Readonly<Record<string, string>>;
  /** More arguments of the storage tool, such as users. */
  readonly format?: readonly string[];
}

export interface KafkaPorts {
  readonly port: number;
  readonly controllerPort: number;
}

export async function kafkaPorts(): Promise<KafkaPorts> {
  return { port: await freePort(), controllerPort: await freePort() };
}

export function kafkaClusterId(): string {
  return randomBytes(16).toString("base64url");
}

/** The broker, its files in the folder. */
export async function kafkaRecipe(folder: string): Promise<Recipe> {
  const nodes = [await kafkaPorts()];
  return await kafkaNodeRecipe({ folder, cluster: kafkaClusterId(), id: 1, nodes });
}

/** A node of a cluster, its files in the folder. */
export async function kafkaNodeRecipe(node: KafkaNode): Promise<Recipe> {
  const { folder, nodes, id } = node;
  const folderOfJars = await kafkaJars();
  const port = nodes[id - 1]?.port ?? 0;
  const config = join(folder, "server.properties");
  const logging = join(folder, "log4j2.properties");
  await writeFile(config, properties(node));
  await writeFile(logging, loggingProperties);
  const java: [string, ...string[]] = [
    findProgram("java"),
    ...javaFlags,
    `-Dlog4j2.configurationFile=${logging}`,
    "-cp",
    join(folderOfJars, "*"),
  ];
  // With `=`, for an id may begin with a dash.
  const format = ["format", `--cluster-id=${node.cluster}`, "-c", config, ...(node.format ?? [])];
  await runToEnd({
    name: "Kafka's storage tool",
    command: [...java, "kafka.tools.StorageTool", ...format],
    cwd: folder,
  });
  return {
    name: "Kafka",
    url: `127.0.0.1:${port}`,
    folder,
    endSignal: "SIGKILL",
    steps: [
      {
        process: { name: "Kafka", command: [...java, "kafka.Kafka", config], cwd: folder },
        ready: { port, request: metadataRequest(), judge: hasBroker },
      },
    ],
  };
}

/** Settings that are lists: what a node has more of is added. */
const lists: ReadonlySet<string> = new Set([
  "listeners",
  "advertised.listeners",
  "listener.security.protocol.map",
]);

function properties({ folder, id, nodes, more = {} }: KafkaNode): string {
  const { port = 0, controllerPort = 0 } = nodes[id - 1] ?? {};
  const copies = Math.min(3, nodes.length);
  const settings: Record<string, string | number | boolean> = {
    "process.roles": "broker,controller",
    "node.id": id,
    "controller.quorum.voters": nodes
      .map((each, index) => `${index + 1}@127.0.0.1:${each.controllerPort}`)
      .join(","),
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    "advertised.listeners": `PLAINTEXT://127.0.0.1:${port}`,
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "log.dirs": join(folder, "data"),
    "auto.create.topics.enable": false,
    "group.initial.rebalance.delay.ms": 0,
    "default.replication.factor": copies,
    "min.insync.replicas": Math.min(2, copies),
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": copies,
    "transaction.state.log.num.partitions": 4,
    "transaction.state.log.replication.factor": copies,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": copies,
    "share.coordinator.state.topic.min.isr": 1,
    // After a kill the node is let in again once its former session has run out.
    "broker.session.timeout.ms": 3_000,
    "broker.heartbeat.interval.ms": 500,
    // A topic of a test holds little, and files are made for each.
    "log.index.size.max.bytes": 1_048_576,
    "log.cleaner.dedupe.buffer.size": 8_388_608,
  };
  for (const [name, value] of Object.entries(more)) {
    settings[name] = lists.has(name) ? `${settings[name]},${value}` : value;
  }
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${value}\n`)
    .join("");
}

const loggingProperties = `
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1} %m%n
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
`;

/** Metadata, version 1, of all topics: its answer starts with the list of brokers. */
function metadataRequest(): Uint8Array {
  const client = Buffer.from("isthmus-tests");
  const request = Buffer.alloc(4 + 2 + 2 + 4 + 2 + client.length + 4);
  let at = request.writeInt32BE(request.length - 4, 0);
  at = request.writeInt16BE(3, at);
  at = request.writeInt16BE(1, at);
  at = request.writeInt32BE(1, at);
  at = request.writeInt16BE(client.length, at);
  at += client.copy(request, at);
  request.writeInt32BE(-1, at);
  return request;
}

/** After the length and the correlation id; none is there before the broker is registered. */
function hasBroker(answer: Buffer): boolean | null {
  return answer.length < 12 ? null : answer.readInt32BE(8) > 0;
}

/** Runs one of Kafka's own tools to its end. */
export async function runKafkaTool(tool: string, args: readonly string[]): Promise<void> {
  const classPath = join(await kafkaJars(), "*");
  await runToEnd({
    name: tool,
    command: [findProgram("java"), ...javaFlags, "-cp", classPath, tool, ...args],
    cwd: tmpdir(),
  });
}

/** Where the jars are once they have been fetched. */
export function kafkaJarsFolder(): string {
  return cacheFolder(jarsName);
}

/** The folder with Kafka's jars, fetched when it is not there yet. */
export function kafkaJars(): Promise<string> {
  return jars(jarsName, [
    { group: "org.apache.kafka", name: "kafka_2.13", version: kafkaVersion },
    { group: "org.apache.logging.log4j", name: "log4j-slf4j-impl", version: log4jVersion },
  ]);
}
