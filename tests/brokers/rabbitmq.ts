/**
 * RabbitMQ for tests: a private node with its own name, cookie and port mapper (epmd), so that it
 * knows of no other node on the machine and no other knows of it.
 */
import { randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freePort } from "../temporary.ts";
import type { Recipe } from "./local.ts";
import { findProgram } from "./programs.ts";

/** AMQP's protocol header; the broker answers with the frame of `connection.start`, a method. */
const amqpHeader = Buffer.from("AMQP\0\0\x09\x01", "latin1");
const methodFrame = 1;
/** NAMES_REQ of epmd; it answers with its own port and the names that it knows. */
const epmdNames = Uint8Array.of(0, 1, 110);

/** The broker, its files in the folder. */
export async function rabbitmqRecipe(folder: string): Promise<Recipe> {
  const [port, distPort, epmdPort] = [await freePort(), await freePort(), await freePort()];
  const node = `isthmus-${randomBytes(8).toString("hex")}@localhost`;
  const path = (name: string): string => join(folder, name);
  await Promise.all(["mnesia", "log", "schema", "generated"].map((name) => mkdir(path(name))));
  await writeFile(path("rabbitmq.conf"), `listeners.tcp.1 = 127.0.0.1:${port}\n`);
  await writeFile(path("advanced.config"), "[].\n");
  // AMQP 1.0 beside 0-9-1, on the same port.
  await writeFile(path("plugins"), "[rabbitmq_amqp1_0].\n");
  await writeFile(path(".erlang.cookie"), randomBytes(24).toString("hex"), { mode: 0o400 });
  const env = {
    HOME: folder,
    ERL_EPMD_ADDRESS: "127.0.0.1",
    ERL_EPMD_PORT: String(epmdPort),
    RABBITMQ_NODENAME: node,
    RABBITMQ_DIST_PORT: String(distPort),
    RABBITMQ_MNESIA_BASE: path("mnesia"),
    RABBITMQ_LOG_BASE: path("log"),
    RABBITMQ_LOGS: "-",
    RABBITMQ_CONFIG_FILE: path("rabbitmq.conf"),
    RABBITMQ_ADVANCED_CONFIG_FILE: path("advanced.config"),
    RABBITMQ_ENABLED_PLUGINS_FILE: path("plugins"),
    RABBITMQ_GENERATED_CONFIG_DIR: path("generated"),
    RABBITMQ_SCHEMA_DIR: path("schema"),
    RABBITMQ_CONF_ENV_FILE: "/dev/null",
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS:
      "+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
  };
  const epmd = findProgram("epmd");
  return {
    name: "RabbitMQ",
    url: `amqp://guest:guest@127.0.0.1:${port}`,
    folder,
    // Its own way of stopping takes 8 to 10 s.
    endSignal: "SIGKILL",
    steps: [
      {
        // In the foreground: the one that a node starts by itself outlives it as a daemon.
        process: { name: "epmd", command: [epmd, "-port", String(epmdPort)], cwd: folder, env },
        ready: { port: epmdPort, request: epmdNames, judge: (answer) => answer.length >= 4 },
      },
      {
        process: { name: "RabbitMQ", command: [findProgram("rabbitmq-server")], cwd: folder, env },
        ready: { port, request: amqpHeader, judge: (answer) => answer[0] === methodFrame },
      },
    ],
  };
}
