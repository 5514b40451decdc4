/**
 * Real brokers for tests. Where one comes from, in this order: a URL in the environment, a program
 * on the machine, one that is installed, a Docker engine. All tests of an `npm test` share one of
 * each kind, whose URLs it puts into the environment; a test file that runs alone starts what it
 * asks for. Whatever was started ends with the process that started it.
 */
import { existsSync } from "node:fs";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { activemqArtifact, activemqRecipe } from "./activemq.ts";
import { artemisArtifact, artemisRecipe } from "./artemis.ts";
import { hasDocker, startInDocker } from "./docker.ts";
import { kafkaJars, kafkaJarsFolder, kafkaRecipe } from "./kafka.ts";
import { LocalBroker, type Recipe } from "./local.ts";
import { type Artifact, cacheFolder, distribution } from "./maven.ts";
import { mosquittoRecipe } from "./mosquitto.ts";
import { postgresRecipe } from "./postgres.ts";
import {
  ensurePrograms,
  locateProgram,
  mayInstall,
  type ProgramName,
  UnavailableError,
} from "./programs.ts";
import { rabbitmqRecipe } from "./rabbitmq.ts";

/** Kinds of brokers, named as in a definition's `kind`; `amqp1` is Artemis, `activemq` Classic. */
export type BrokerKind = "kafka" | "amqp" | "amqp1" | "activemq" | "mqtt" | "postgres";

/** All kinds, the slowest to start first. */
export const brokerKinds: readonly BrokerKind[] = [
  "amqp",
  "kafka",
  "amqp1",
  "activemq",
  "postgres",
  "mqtt",
];

/** A broker that others use too: make topics, queues and databases of your own in it. */
export interface SharedBroker {
  readonly kind: BrokerKind;
  /** `HOST:PORT` for kafka, else a URL: `amqp://…`, `mqtt://…`, `postgres://…`. */
  readonly url: string;
}

/** A broker that its owner may mistreat. */
export interface Broker extends SharedBroker {
  /** Ends it and removes its data. */
  stop(): Promise<void>;
  /** As a power cut of its machine (SIGKILL); `restart` brings it back. */
  kill(): Promise<void>;
  /** The same ports and data; ends it gently before when it runs. */
  restart(): Promise<void>;
  /** Connections stay open and nothing answers (SIGSTOP). */
  pause(): Promise<void>;
  resume(): Promise<void>;
}

interface Kind {
  /** Where a URL, or the reason why there is none, stands in the environment. */
  readonly variable: string;
  readonly programs: readonly ProgramName[];
  /** Fetched from Maven Central when it is not there yet. */
  readonly fetched?: { readonly folder: string; fetch(): Promise<unknown> };
  recipe(folder: string): Promise<Recipe>;
}

/** A distribution of Maven Central. */
function fetchedOf(artifact: Artifact): NonNullable<Kind["fetched"]> {
  return {
    folder: cacheFolder(`${artifact.name}-${artifact.version}`),
    fetch: () => distribution(artifact),
  };
}

const kinds: Readonly<Record<BrokerKind, Kind>> = {
  kafka: {
    variable: "TEST_KAFKA_URL",
    programs: ["java"],
    fetched: { folder: kafkaJarsFolder(), fetch: kafkaJars },
    recipe: kafkaRecipe,
  },
  amqp1: {
    variable: "TEST_AMQP1_URL",
    programs: ["java"],
    fetched: fetchedOf(artemisArtifact),
    recipe: artemisRecipe,
  },
  activemq: {
    variable: "TEST_ACTIVEMQ_URL",
    programs: ["java"],
    fetched: fetchedOf(activemqArtifact),
    recipe: activemqRecipe,
  },
  amqp: {
    variable: "TEST_AMQP_URL",
    programs: ["rabbitmq-server", "epmd"],
    recipe: rabbitmqRecipe,
  },
  mqtt: { variable: "TEST_MQTT_URL", programs: ["mosquitto"], recipe: mosquittoRecipe },
  postgres: { variable: "TEST_POSTGRES_URL", programs: ["initdb"], recipe: postgresRecipe },
};

/** Two brokers of different processes may pick the same port; one more try finds another. */
const startTriesMax = 2;

/** The environment's variable with the URL of a shared broker. */
export function urlVariable(kind: BrokerKind): string {
  return kinds[kind].variable;
}

/** The environment's variable with the reason why `npm test` could not get such a broker. */
export function missingVariable(kind: BrokerKind): string {
  return kinds[kind].variable.replace("_URL", "_MISSING");
}

/** The URL that the environment gives. */
export function urlFromEnvironment(kind: BrokerKind): string | null {
  const url = process.env[kinds[kind].variable];
  if (url === undefined || url === "") return null;
  return kind === "kafka" ? url.replace(/^kafka:\/\//, "") : url;
}

/**
 * Why there is none of the kind to be had, else null: what `npm test` found out, or, for a test
 * file that runs alone, that nothing of it is on the machine. For `describe.skipIf`, with the
 * reason in the title.
 */
export function missingBroker(kind: BrokerKind): string | null {
  if (urlFromEnvironment(kind) !== null) return null;
  const told = process.env[missingVariable(kind)];
  if (told !== undefined && told !== "") return told;
  const missing = brokerPrograms(kind).filter((name) => locateProgram(name) === null);
  if (missing.length === 0 || mayInstall() || hasDocker()) return null;
  return `${missing.join(", ")} missing on this machine`;
}

/** The programs that one is run with. */
export function brokerPrograms(kind: BrokerKind): readonly ProgramName[] {
  const { programs, fetched } = kinds[kind];
  const isThere = fetched === undefined || existsSync(fetched.folder);
  return isThere ? programs : [...programs, "mvn"];
}

const started = new Map<BrokerKind, Promise<Broker>>();

/**
 * The broker that all tests share; the first call of a process that runs alone starts it.
 * @throws UnavailableError when none can be had.
 */
export async function broker(kind: BrokerKind): Promise<SharedBroker> {
  const url = urlFromEnvironment(kind);
  if (url !== null) return { kind, url };
  const own = started.get(kind) ?? privateBroker(kind);
  started.set(kind, own);
  return { kind, url: (await own).url };
}

/**
 * A broker for this test alone, to kill, pause and restart. Stop it at the end of the test.
 * @throws UnavailableError when none can be had. @throws Error when it does not come up.
 */
export async function privateBroker(kind: BrokerKind): Promise<Broker> {
  const missing = missingBroker(kind);
  if (missing !== null) throw new UnavailableError(missing);
  try {
    await ensurePrograms(brokerPrograms(kind));
    await fetchOnce(kind);
  } catch (error) {
    if (!(error instanceof UnavailableError) || !hasDocker()) throw error;
    return startInDocker(kind);
  }
  return startLocal(kind, startTriesMax);
}

async function fetchOnce(kind: BrokerKind): Promise<void> {
  try {
    await kinds[kind].fetched?.fetch();
  } catch (error) {
    throw new UnavailableError(`${kind} could not be fetched: ${String(error)}`);
  }
}

async function startLocal(kind: BrokerKind, tries: number): Promise<Broker> {
  const folder = await mkdtemp(join(tmpdir(), `isthmus-${kind}-`));
  const local = new LocalBroker(await recipeOrRemove(kind, folder));
  try {
    await local.start();
  } catch (error) {
    const isPortTaken = /address already in use|eaddrinuse/i.test(String(error));
    if (tries > 1 && isPortTaken) return startLocal(kind, tries - 1);
    throw error;
  }
  return {
    kind,
    url: local.url,
    stop: () => local.stop(),
    kill: () => local.kill(),
    restart: () => local.restart(),
    pause: () => local.pause(),
    resume: () => local.resume(),
  };
}

async function recipeOrRemove(kind: BrokerKind, folder: string): Promise<Recipe> {
  try {
    await chmod(folder, 0o711);
    return await kinds[kind].recipe(folder);
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}
