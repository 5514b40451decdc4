/**
 * A broker from compose.yaml, for machines that have a Docker engine and nothing else. Each start
 * is a compose project of its own with free ports, so it is not in the way of the developer's.
 */
import { randomBytes } from "node:crypto";
import { resolve } from "node:path";
import { freePort } from "../temporary.ts";
import type { Broker, BrokerKind } from "./broker.ts";
import { guardProject } from "./guard.ts";
import { runToEnd } from "./process.ts";

const composePath = resolve(import.meta.dir, "../../compose.yaml");

interface Service {
  readonly name: string;
  readonly portVariable: string;
  url(port: number): string;
}

const services: Readonly<Record<BrokerKind, Service>> = {
  kafka: {
    name: "kafka",
    portVariable: "ISTHMUS_KAFKA_PORT",
    url: (port) => `127.0.0.1:${port}`,
  },
  amqp: {
    name: "rabbitmq",
    portVariable: "ISTHMUS_AMQP_PORT",
    url: (port) => `amqp://guest:guest@127.0.0.1:${port}`,
  },
  amqp1: {
    name: "artemis",
    portVariable: "ISTHMUS_AMQP1_PORT",
    url: (port) => `amqp://127.0.0.1:${port}`,
  },
  activemq: {
    name: "activemq",
    portVariable: "ISTHMUS_ACTIVEMQ_PORT",
    url: (port) => `amqp://127.0.0.1:${port}`,
  },
  mqtt: {
    name: "mosquitto",
    portVariable: "ISTHMUS_MQTT_PORT",
    url: (port) => `mqtt://127.0.0.1:${port}`,
  },
  postgres: {
    name: "postgres",
    portVariable: "ISTHMUS_POSTGRES_PORT",
    url: (port) => `postgres://postgres:postgres@127.0.0.1:${port}/postgres`,
  },
};

/** True when there is an engine that answers, and the compose plugin. */
export function hasDocker(): boolean {
  if (Bun.which("docker") === null) return false;
  return [["info"], ["compose", "version"]].every(
    (args) => Bun.spawnSync(["docker", ...args], { timeout: 10_000 }).exitCode === 0,
  );
}

/** Starts the service and resolves once its own health check says that it is ready. */
export async function startInDocker(kind: BrokerKind): Promise<Broker> {
  const service = services[kind];
  const port = await freePort();
  const project = `isthmus-test-${randomBytes(6).toString("hex")}`;
  const compose = (...args: string[]): Promise<void> =>
    runToEnd({
      name: `docker compose ${args[0]}`,
      command: ["docker", "compose", "-p", project, "-f", composePath, ...args],
      cwd: "/",
      env: { [service.portVariable]: String(port) },
    });
  guardProject(project, composePath);
  await compose("up", "-d", "--wait", service.name);
  return {
    kind,
    url: service.url(port),
    stop: () => compose("down", "-v", "-t", "0"),
    kill: () => compose("kill", "-s", "SIGKILL", service.name),
    restart: async () => {
      await compose("stop", service.name);
      await compose("up", "-d", "--wait", service.name);
    },
    pause: () => compose("pause", service.name),
    resume: () => compose("unpause", service.name),
  };
}
