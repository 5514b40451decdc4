/**
 * The kind `amqp1`: AMQP 1.0, as Artemis, ActiveMQ Classic, Qpid, Azure Service Bus and RabbitMQ
 * (by its plugin, and from 4.0 on) speak it. Documents and capabilities only; the client library is
 * loaded when a bridge connects.
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
import { mapping } from "../mapping.ts";
import { amqp1Places } from "../places.ts";
import { propertyProblem } from "./bounds.ts";

/** How often both sides show that they are there; a silent peer is gone after two of it. Ms. */
const HEARTBEAT_MS = 10_000;

const saslSchema = z.enum(["anonymous", "plain", "external"]);
/** How the bridge says who it is. */
export type Sasl = z.infer<typeof saslSchema>;

/** The configuration of a bridge; its texts may still hold references. */
export interface Amqp1Config {
  readonly urls: readonly string[];
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly sasl?: Sasl | undefined;
  readonly tls?: Tls | undefined;
  /** The container id of durable subscriptions, by which the broker finds them again. */
  readonly clientId?: string | undefined;
  readonly heartbeatMs: number;
}

const configSchema = z.strictObject({
  ...connectionShape,
  sasl: saslSchema.optional(),
  clientId: referenceText.optional(),
  heartbeat: durationMs.optional(),
});

const name = z.string().min(1, "expected a name");

const place = {
  queue: name.optional(),
  topic: name.optional(),
  address: name.optional(),
  create: z.boolean().optional(),
};

const sourceSchema = z.strictObject({
  ...place,
  durable: z.union([z.literal(false), name]).optional(),
  shared: z.boolean().optional(),
  selector: z.string().min(1, "expected a selector such as region = 'eu'").optional(),
});

const sinkSchema = z.strictObject(place);

/** What a value put into an address may not hold: separators and wildcards of the brokers. */
const ADDRESS_SPECIALS = ".*#>/:?";

/** The module of the kind `amqp1`. */
export const amqp1: BridgeModule<Amqp1Config> = {
  kind: "amqp1",
  aliases: ["artemis"],
  capabilities: {
    order: "address",
    replay: false,
    headers: "table",
    key: true,
    tombstones: true,
    redeliverOnNack: true,
    sharedGroups: true,
    failure: "independent",
    source: true,
    sink: true,
  },
  addressSpecials: {
    queue: ADDRESS_SPECIALS,
    topic: ADDRESS_SPECIALS,
    address: ADDRESS_SPECIALS,
  },
  places: amqp1Places,
  events: { prefix: "cloudEvents_", alsoRead: ["cloudEvents:"] },
  translation: {
    rows: () => mapping.amqp1,
    losses: () => noLosses,
    refusal: ({ properties }) => propertyProblem(properties),
  },
  parseConfig,
  parseAddress: (input, end) => (end === "source" ? sourceAddress(input) : sinkAddress(input)),
  async connect(config: Amqp1Config, context: ConnectContext) {
    const { Amqp1Bridge } = await import("./bridge.ts");
    return await Amqp1Bridge.open(config, context);
  },
};

function parseConfig(input: unknown): Amqp1Config {
  const { url, urls, heartbeat, ...rest } = parseDocument(configSchema, input);
  const all = urlsOf({ url, urls });
  all.forEach((text, index) => {
    if (isTemplate(text) || /^amqps?:\/\/./.test(text)) return;
    const pointer = url === undefined ? `/urls/${index}` : "/url";
    throw invalid([{ pointer, detail: "expected a URL that begins with amqp:// or amqps://" }]);
  });
  const hasCertificate = typeof rest.tls === "object" && rest.tls.cert !== undefined;
  if (rest.sasl === "external" && !hasCertificate) {
    throw invalid([{ pointer: "/sasl", detail: "external goes with tls: { cert, key }" }]);
  }
  return { ...rest, urls: all, heartbeatMs: heartbeat ?? HEARTBEAT_MS };
}

function sourceAddress(input: Readonly<Record<string, unknown>>): Address {
  const fields = parseDocument(sourceSchema, input);
  for (const member of ["queue", "topic", "address"] as const) {
    const text = fields[member];
    if (text === undefined || !isTemplate(text)) continue;
    throw invalid([{ pointer: `/${member}`, detail: "a source reads from one fixed place" }]);
  }
  const text = placeText(fields);
  for (const member of ["durable", "shared"] as const) {
    if (fields.topic !== undefined || fields[member] === undefined) continue;
    throw invalid([{ pointer: `/${member}`, detail: `${member} goes with a topic` }]);
  }
  const extras = [
    fields.durable === undefined ? "" : ` durable ${String(fields.durable)}`,
    fields.shared === true ? " shared" : "",
    fields.selector === undefined ? "" : ` where ${fields.selector}`,
  ];
  return { text: `${text}${extras.join("")}`, fields };
}

function sinkAddress(input: Readonly<Record<string, unknown>>): Address {
  const fields = parseDocument(sinkSchema, input);
  return { text: placeText(fields), fields };
}

function placeText(fields: Readonly<Record<string, unknown>>): string {
  const given = ["queue", "topic", "address"].filter((member) => fields[member] !== undefined);
  const [member] = given;
  if (given.length === 1 && member !== undefined) return `${member} ${String(fields[member])}`;
  const detail = given.length === 0 ? "expected queue, topic or address" : "give only one of them";
  throw invalid([{ pointer: "/queue", detail }]);
}
