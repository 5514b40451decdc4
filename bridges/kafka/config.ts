/**
 * The Kafka bridge's documents: the bridge itself and the addresses under `from` and `to`.
 * Parsing connects nowhere. Texts of the configuration may hold references until `connect`; a
 * sink's topic and partition may be templates, rendered for each message.
 */
import { RE2JS, RE2JSSyntaxException } from "re2js";
import { z } from "zod";
import type { Address } from "../../src/bridge.ts";
import {
  connectionShape,
  durationMs,
  invalid,
  isTemplate,
  parseDocument,
  referenceText,
  type Tls,
  urlsOf,
} from "../document.ts";

/** The names that the contract gives the mechanisms. */
const SASL = ["plain", "scram-sha-256", "scram-sha-512", "oauthbearer"] as const;
const PORT_DEFAULT = 9092;
const HEARTBEAT_MS = 10_000;
const HEARTBEAT_MS_MIN = 1000;
const TOPIC_LENGTH_MAX = 249;

/** A parsed bridge document; texts may still hold references. */
export interface KafkaConfig {
  readonly urls: readonly string[];
  readonly sasl: Login | { readonly mechanism: "oauthbearer"; readonly token: string } | null;
  readonly tls: Exclude<Tls, boolean> | null;
  /** Null: made from the bridge's name. */
  readonly clientId: string | null;
  /** How often the cluster is asked for a sign of life; a silent one is lost within two of it. */
  readonly heartbeatMs: number;
}

/** A user's name and password. */
export interface Login {
  readonly mechanism: "plain" | "scram-sha-256" | "scram-sha-512";
  readonly username: string;
  readonly password: string;
}

/** What a batch is compressed with. */
export type Compression = "none" | "gzip" | "snappy" | "lz4" | "zstd";
const compression = z.enum(["none", "gzip", "snappy", "lz4", "zstd"]);

/** Where a source reads. */
export interface SourceFields {
  /** Empty when there is a pattern. */
  readonly topic: string;
  /** RE2, for the whole name of a topic; null: one topic. */
  readonly pattern: string | null;
  /** Where a new group begins: in every partition, or by partition; null: by `start`. */
  readonly offset: number | Readonly<Record<string, number>> | null;
  /** Null: made from the source's name. */
  readonly group: string | null;
  readonly create: Create | null;
}

/** Where a sink writes; `topic` and `partition` may be templates. */
export interface SinkFields {
  readonly topic: string;
  readonly partition: number | string | null;
  readonly compression: Compression;
  readonly create: Create | null;
}

/** How a missing topic is made; null: the broker's default. */
export interface Create {
  readonly partitions: number | null;
  readonly replication: number | null;
}

/** One broker to connect to first. */
export interface BrokerPlace {
  readonly host: string;
  readonly port: number;
}

const configSchema = z.strictObject({
  ...connectionShape,
  sasl: z.string().optional(),
  token: referenceText.optional(),
  clientId: referenceText.optional(),
  heartbeat: durationMs.refine((ms) => ms >= HEARTBEAT_MS_MIN, "expected at least 1s").optional(),
});

/** Checks a bare bridge document. @throws InvalidError */
export function parseKafkaConfig(input: unknown): KafkaConfig {
  const document = parseDocument(configSchema, input);
  const urls = urlsOf(document);
  for (const url of urls) if (!isTemplate(url)) parseBroker(url);
  return {
    urls,
    sasl: saslOf(document),
    tls: tlsOf(document.tls),
    clientId: document.clientId ?? null,
    heartbeatMs: document.heartbeat ?? HEARTBEAT_MS,
  };
}

function tlsOf(tls: Tls | undefined): KafkaConfig["tls"] {
  if (tls === undefined || tls === false) return null;
  return tls === true ? {} : tls;
}

function saslOf(document: z.output<typeof configSchema>): KafkaConfig["sasl"] {
  const { sasl, username, password, token } = document;
  if (sasl === undefined) {
    if (token !== undefined) {
      throw invalid([{ pointer: "/sasl", detail: "a token needs sasl: oauthbearer" }]);
    }
    if (username === undefined && password === undefined) return null;
    throw invalid([
      { pointer: "/sasl", detail: `username and password need sasl: ${SASL.join(", ")}` },
    ]);
  }
  const mechanism = SASL.find((name) => name === sasl.toLowerCase());
  if (mechanism === undefined) {
    const detail = `${JSON.stringify(sasl)} is not supported: use ${SASL.join(", ")}`;
    throw invalid([{ pointer: "/sasl", detail }]);
  }
  if (mechanism === "oauthbearer") {
    const detail = "oauthbearer needs it, such as ${file:/run/secrets/token}";
    if (token === undefined) throw invalid([{ pointer: "/token", detail }]);
    return { mechanism, token };
  }
  if (token !== undefined) {
    throw invalid([{ pointer: "/token", detail: "only sasl: oauthbearer has a token" }]);
  }
  if (username === undefined) throw invalid([{ pointer: "/username", detail: "sasl needs it" }]);
  if (password === undefined) throw invalid([{ pointer: "/password", detail: "sasl needs it" }]);
  return { mechanism, username, password };
}

/** `host:port`, `kafka://host:port` or `host`; IPv6 in brackets. @throws InvalidError */
export function parseBroker(url: string): BrokerPlace {
  const match = /^(?:kafka:\/\/)?(?:\[([0-9a-fA-F:]+)\]|([^\s:/[\]@]+))(?::(\d{1,5}))?\/?$/.exec(
    url.trim(),
  );
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3] ?? PORT_DEFAULT);
  if (host !== undefined && port > 0 && port < 65_536) return { host, port };
  const detail = `expected host:port, such as 127.0.0.1:9092, and not ${JSON.stringify(url)}`;
  throw invalid([{ pointer: "/urls", detail }]);
}

/** Whether Kafka accepts a topic of this name. */
export function isTopicName(topic: string): boolean {
  if (topic === "." || topic === ".." || topic.length > TOPIC_LENGTH_MAX) return false;
  return /^[A-Za-z0-9._-]+$/.test(topic);
}

/** Why a name is not a topic's, as a sentence. */
export function topicNameRefusal(topic: string): string {
  return `${JSON.stringify(topic)} is not a topic name of Kafka: 1 to ${TOPIC_LENGTH_MAX} of A-Z a-z 0-9 . _ -`;
}

const createSchema = z.union([
  z.boolean(),
  z.strictObject({
    partitions: z.int().min(1).max(100_000).optional(),
    replication: z.int().min(1).max(1000).optional(),
  }),
]);

const literalTopic = z
  .string()
  .refine(isTopicName, { error: (issue) => topicNameRefusal(String(issue.input)) });

const OFFSET_MAX = Number.MAX_SAFE_INTEGER;
const offsetNumber = z.int().min(0).max(OFFSET_MAX);

const sourceSchema = z.strictObject({
  topic: literalTopic.optional(),
  pattern: z
    .string()
    .min(1)
    .max(1000)
    .refine(isPattern, "expected a regular expression (RE2)")
    .optional(),
  offset: z
    .union([
      offsetNumber,
      z.record(z.string().regex(/^\d{1,9}$/, "expected a partition"), offsetNumber),
    ])
    .optional(),
  group: z.string().min(1).max(255).optional(),
  create: createSchema.optional(),
});

const sinkSchema = z.strictObject({
  topic: z.string().refine((topic) => isTemplate(topic) || isTopicName(topic), {
    error: (issue) => topicNameRefusal(String(issue.input)),
  }),
  partition: z
    .union([
      z.int().min(0),
      z.string().refine(isTemplate, "expected a number or a template such as ${partition}"),
    ])
    .optional(),
  compression: compression.optional(),
  create: createSchema.optional(),
});

/**
 * Checks an address. How a place is made, where a new group begins in it and
 * how it is written to are not which one it is: not in its text.
 */
export function parseKafkaAddress(
  input: Readonly<Record<string, unknown>>,
  end: "source" | "sink",
): Address {
  return end === "source" ? sourceAddress(input) : sinkAddress(input);
}

function sourceAddress(input: Readonly<Record<string, unknown>>): Address {
  const { topic, pattern, group, create, offset } = parseDocument(sourceSchema, input);
  if ((topic === undefined) === (pattern === undefined)) {
    throw invalid([{ pointer: "/topic", detail: "give either topic or pattern" }]);
  }
  if (pattern !== undefined && (create !== undefined || offset !== undefined)) {
    const pointer = create === undefined ? "/offset" : "/create";
    throw invalid([{ pointer, detail: "goes with a topic, not with a pattern" }]);
  }
  const fields: SourceFields = {
    topic: topic ?? "",
    pattern: pattern ?? null,
    offset: offset ?? null,
    group: group ?? null,
    create: createOf(create),
  };
  const what = pattern === undefined ? `topic ${topic}` : `topics ${pattern}`;
  const text = group === undefined ? what : `${what} group ${group}`;
  return { text, fields: { ...fields } };
}

function sinkAddress(input: Readonly<Record<string, unknown>>): Address {
  const { topic, partition, create, compression: codec } = parseDocument(sinkSchema, input);
  const fields: SinkFields = {
    topic,
    partition: partition ?? null,
    compression: codec ?? "none",
    create: createOf(create),
  };
  const text = partition === undefined ? `topic ${topic}` : `topic ${topic} partition ${partition}`;
  return { text, fields: { ...fields } };
}

function isPattern(text: string): boolean {
  try {
    return RE2JS.compile(text).groupCount() >= 0;
  } catch (error) {
    if (error instanceof RE2JSSyntaxException) return false;
    throw error;
  }
}

function createOf(create: z.output<typeof createSchema> | undefined): Create | null {
  if (create === undefined || create === false) return null;
  if (create === true) return { partitions: null, replication: null };
  return { partitions: create.partitions ?? null, replication: create.replication ?? null };
}

/** The source fields of an address that `parseKafkaAddress` normalized. */
export function sourceFields(fields: Readonly<Record<string, unknown>>): SourceFields {
  return parseDocument(normalSource, fields);
}

/** The sink fields of a normalized address, rendered or not. */
export function sinkFields(fields: Readonly<Record<string, unknown>>): SinkFields {
  return parseDocument(normalSink, fields);
}

const normalCreate = z
  .object({ partitions: z.number().nullable(), replication: z.number().nullable() })
  .nullable();
const normalSource = z.object({
  topic: z.string(),
  pattern: z.string().nullable(),
  offset: z.union([z.number(), z.record(z.string(), z.number())]).nullable(),
  group: z.string().nullable(),
  create: normalCreate,
});
const normalSink = z.object({
  topic: z.string(),
  partition: z.union([z.number(), z.string()]).nullable(),
  compression,
  create: normalCreate,
});
