/**
 * One cluster's @platformatic/kafka clients: an admin for topics, positions and the pulse, and a
 * producer made when the first sink is opened. Also what both libraries are told alike: brokers,
 * TLS, credentials, times.
 */
import { Admin, ProduceAcks, Producer } from "@platformatic/kafka";
import { resolveAll } from "../document.ts";
import { type BrokerPlace, type KafkaConfig, type Login, parseBroker } from "./config.ts";

/** To connect to one broker. Milliseconds. */
export const CONNECT_MS_MAX = 5000;
/**
 * For one answer; a connection that is silent for longer is half open and dropped. Milliseconds.
 */
export const REQUEST_MS_MAX = 8000;
/** What the broker may take for a produce, below the bound of the whole request. Milliseconds. */
const PRODUCE_MS_MAX = 6000;
/** Retries of what asks and changes nothing: a coordinator takes a second to load. Count. */
const ADMIN_RETRIES = 8;
const ADMIN_RETRY_DELAY_MS = 250;

/** A producer that takes bytes as they are. */
export type BytesProducer = Producer<Buffer, Buffer, Buffer, Buffer>;
export type KafkaAdmin = Admin;

/** A token that runs out: asked for at each login, so that a file with a fresh one is read again. */
export interface Bearer {
  readonly mechanism: "oauthbearer";
  readonly token: () => Promise<string>;
}

/** A configuration with every reference resolved. */
export interface Cluster {
  readonly brokers: readonly BrokerPlace[];
  /** The brokers as text, for messages. */
  readonly place: string;
  readonly clientId: string;
  readonly sasl: Login | Bearer | null;
  readonly tls: KafkaConfig["tls"];
  readonly heartbeatMs: number;
}

/** Resolves the references of a configuration. @throws InvalidError */
export async function resolveCluster(
  config: KafkaConfig,
  context: { readonly name: string; readonly resolve: (text: string) => Promise<string> },
): Promise<Cluster> {
  const resolved = await resolveAll(config, context.resolve);
  const brokers = resolved.urls.map(parseBroker);
  return {
    brokers,
    place: brokers.map(({ host, port }) => `${host}:${port}`).join(", "),
    clientId: resolved.clientId ?? `isthmus-${context.name}`,
    sasl: credentialsOf(config, resolved, context.resolve),
    tls: resolved.tls,
    heartbeatMs: config.heartbeatMs,
  };
}

function credentialsOf(
  config: KafkaConfig,
  resolved: KafkaConfig,
  resolve: (text: string) => Promise<string>,
): Cluster["sasl"] {
  if (resolved.sasl?.mechanism !== "oauthbearer") return resolved.sasl;
  const reference = config.sasl?.mechanism === "oauthbearer" ? config.sasl.token : "";
  const token = async (): Promise<string> => (await resolve(reference)).trim();
  return { mechanism: "oauthbearer", token };
}

function baseOptions(cluster: Cluster) {
  const { sasl, tls } = cluster;
  return {
    clientId: cluster.clientId,
    bootstrapBrokers: cluster.brokers.map(({ host, port }) => ({ host, port })),
    connectTimeout: CONNECT_MS_MAX,
    requestTimeout: REQUEST_MS_MAX,
    timeout: PRODUCE_MS_MAX,
    autocreateTopics: false,
    ...(tls === null ? {} : { tls: tlsOptions(tls) }),
    ...(sasl === null ? {} : { sasl: saslOptions(sasl) }),
  };
}

/** Only the members that are there. */
export function tlsOptions(tls: NonNullable<Cluster["tls"]>): {
  ca?: string;
  cert?: string;
  key?: string;
} {
  return {
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
    ...(tls.cert === undefined ? {} : { cert: tls.cert }),
    ...(tls.key === undefined ? {} : { key: tls.key }),
  };
}

const saslNames = {
  plain: "PLAIN",
  "scram-sha-256": "SCRAM-SHA-256",
  "scram-sha-512": "SCRAM-SHA-512",
} as const;

function saslOptions(sasl: Login | Bearer) {
  if (sasl.mechanism === "oauthbearer") {
    return { mechanism: "OAUTHBEARER" as const, token: sasl.token };
  }
  const { mechanism, username, password } = sasl;
  return { mechanism: saslNames[mechanism], username, password };
}

/** A client for topics, positions and the pulse; close it. */
export function createAdmin(cluster: Cluster): KafkaAdmin {
  return new Admin({
    ...baseOptions(cluster),
    retries: ADMIN_RETRIES,
    retryDelay: ADMIN_RETRY_DELAY_MS,
  });
}

/**
 * A producer that confirms by all replicas and never sends anything twice by itself: what is sent
 * again, and in which order, is the sink's business.
 */
export function createProducer(cluster: Cluster): BytesProducer {
  return new Producer<Buffer, Buffer, Buffer, Buffer>({
    ...baseOptions(cluster),
    acks: ProduceAcks.ALL,
    idempotent: false,
    retries: 0,
    repeatOnStaleMetadata: false,
  });
}
