/**
 * The kind `amqp`: AMQP 0-9-1, as RabbitMQ speaks it. Documents and capabilities only; the client
 * library is loaded when a bridge connects. Publishing and consuming have a connection each, since
 * RabbitMQ stops reading a connection that publishes when it is short of memory, and acks on the
 * same one would be stuck behind it.
 */
import { z } from "zod";
import {
  type Address,
  type BridgeModule,
  type ConnectContext,
  noLosses,
} from "../../src/bridge.ts";
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
import { amqpPlaces } from "../places.ts";
import { mapping } from "../mapping.ts";
import { encodeMessage } from "./codec.ts";

/** What RabbitMQ agrees to unless it is told otherwise; the real one is known once connected. */
const FRAME_BYTES_MAX = 131_072;

/** How often both sides show that they are there; a silent peer is gone after two of it. Ms. */
const HEARTBEAT_MS = 10_000;

/** The configuration of a bridge; its texts may still hold references. */
export interface AmqpConfig {
  readonly urls: readonly string[];
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** `external`: the client certificate of `tls` is the login. */
  readonly sasl?: "plain" | "external" | undefined;
  readonly vhost?: string | undefined;
  readonly tls?: Tls | undefined;
  readonly heartbeatMs: number;
}

const saslSchema = z.enum(["plain", "external"]);

const configSchema = z.strictObject({
  ...connectionShape,
  sasl: saslSchema.optional(),
  vhost: referenceText.optional(),
  heartbeat: durationMs.optional(),
});

const queueCreation = z.union([
  z.boolean(),
  z.strictObject({
    type: z.enum(["classic", "quorum", "stream"]).optional(),
    durable: z.boolean().optional(),
  }),
]);

const exchangeCreation = z.union([
  z.boolean(),
  z.strictObject({ type: z.string().min(1).optional(), durable: z.boolean().optional() }),
]);

const name = z.string().min(1, "expected a name");

/** A binding key, or what a headers exchange compares. */
const binding = z.union([
  z.string(),
  z.strictObject({
    headers: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
    match: z.enum(["all", "any"]).optional(),
  }),
]);

const sourceSchema = z.strictObject({
  queue: name.optional(),
  exchange: name.optional(),
  bind: z.array(binding).min(1, "expected at least one binding key").optional(),
  create: queueCreation.optional(),
});

const sinkSchema = z.strictObject({
  queue: name.optional(),
  exchange: z.string().optional(),
  routingKey: z.string().optional(),
  mandatory: z.boolean().optional(),
  create: z.union([queueCreation, exchangeCreation]).optional(),
});

/** The module of the kind `amqp`. */
export const amqp: BridgeModule<AmqpConfig> = {
  kind: "amqp",
  aliases: ["rabbitmq"],
  capabilities: {
    order: "address",
    replay: false,
    headers: "table",
    key: true,
    tombstones: true,
    redeliverOnNack: true,
    sharedGroups: true,
    failure: "independent",
    lanes: true,
    source: true,
    sink: true,
  },
  addressSpecials: { routingKey: ".*#" },
  places: amqpPlaces,
  // The specification has no binding for 0-9-1; the names are those of AMQP 1.0.
  events: { prefix: "cloudEvents_", alsoRead: ["cloudEvents:"] },
  translation: {
    rows: () => mapping.amqp,
    losses: () => noLosses,
    refusal(message, _config, nowMs) {
      const encoded = encodeMessage(message, { nowMs, frameBytesMax: FRAME_BYTES_MAX });
      return "refused" in encoded ? encoded.refused : null;
    },
  },
  parseConfig,
  parseAddress: (input, end) => (end === "source" ? sourceAddress(input) : sinkAddress(input)),
  async connect(config: AmqpConfig, context: ConnectContext) {
    const { AmqpBridge } = await import("./bridge.ts");
    return await AmqpBridge.open(config, context);
  },
};

function parseConfig(input: unknown): AmqpConfig {
  const { url, urls, heartbeat, ...rest } = parseDocument(configSchema, input);
  const all = urlsOf({ url, urls });
  all.forEach((text, index) => {
    if (isTemplate(text) || /^amqps?:\/\/./.test(text)) return;
    const pointer = url === undefined ? `/urls/${index}` : "/url";
    throw invalid([{ pointer, detail: "expected a URL that begins with amqp:// or amqps://" }]);
  });
  if (rest.sasl === "external" && (typeof rest.tls !== "object" || rest.tls.cert === undefined)) {
    const detail = "external logs in by a certificate: give tls.cert and tls.key";
    throw invalid([{ pointer: "/sasl", detail }]);
  }
  return { ...rest, urls: all, heartbeatMs: heartbeat ?? HEARTBEAT_MS };
}

function sourceAddress(input: Readonly<Record<string, unknown>>): Address {
  const fields = parseDocument(sourceSchema, input);
  onlyOneOf(fields);
  for (const [member, text] of Object.entries(fields)) {
    if (typeof text !== "string" || !isTemplate(text)) continue;
    throw invalid([{ pointer: `/${member}`, detail: "a source reads from one fixed place" }]);
  }
  if (fields.queue !== undefined) {
    if (fields.bind !== undefined) throw misplaced("bind", "an exchange");
    return { text: `queue ${fields.queue}`, fields };
  }
  if (fields.create !== undefined) throw misplaced("create", "a queue");
  const bind = fields.bind ?? ["#"];
  const by = bind.map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join(", ");
  return { text: `exchange ${fields.exchange} by ${by}`, fields: { ...fields, bind } };
}

function sinkAddress(input: Readonly<Record<string, unknown>>): Address {
  const fields = parseDocument(sinkSchema, input);
  onlyOneOf(fields);
  if (fields.queue !== undefined) {
    if (fields.routingKey !== undefined) throw misplaced("routingKey", "an exchange");
    if (fields.mandatory !== undefined) throw misplaced("mandatory", "an exchange");
    return { text: `queue ${fields.queue}`, fields };
  }
  const routingKey = fields.routingKey ?? "";
  const mandatory = fields.mandatory ?? true;
  const place = fields.exchange === "" ? "default exchange" : `exchange ${fields.exchange}`;
  const key = routingKey === "" ? "" : ` key ${routingKey}`;
  return {
    text: `${place}${key}${mandatory ? "" : " (not mandatory)"}`,
    fields: { ...fields, routingKey, mandatory },
  };
}

function onlyOneOf(fields: { queue?: unknown; exchange?: unknown }): void {
  const count = [fields.queue, fields.exchange].filter((field) => field !== undefined).length;
  if (count === 1) return;
  const detail = count === 0 ? "expected queue or exchange" : "give either queue or exchange";
  throw invalid([{ pointer: "/queue", detail }]);
}

function misplaced(member: string, owner: string): Error {
  return invalid([{ pointer: `/${member}`, detail: `${member} goes with ${owner}` }]);
}
