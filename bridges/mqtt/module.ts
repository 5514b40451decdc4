/**
 * The kind `mqtt`: MQTT 5 and 3.1.1, over TCP or WebSocket. Documents and capabilities only; the
 * client library is loaded when a bridge connects. The capabilities are those of MQTT 5: with
 * version 3.1.1 only topic and body travel, everything else of a message is lost.
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
import { mqttPlaces } from "../places.ts";
import { mapping } from "../mapping.ts";
import { losesBy } from "../mapping-carry.ts";
import { encodeMessage, type Version } from "./codec.ts";
import type { Will } from "./link.ts";
import { isSafeText, parseFilter, topicProblem } from "./topic.ts";

/** How often a quiet connection is pinged; a silent peer is gone after one and a half. Ms. */
const KEEPALIVE_MS = 30_000;
/** How long the broker keeps what a source misses. Milliseconds. */
const SESSION_EXPIRY_MS = 7 * 24 * 3_600_000;
/** Four bytes of seconds, the last value meaning for ever. Milliseconds. */
const SESSION_EXPIRY_MS_MAX = 4_294_967_294_000;
/** Two bytes of seconds. Milliseconds. */
const KEEPALIVE_MS_MAX = 65_535_000;

/** The configuration of a bridge; its texts may still hold references. */
export interface MqttConfig {
  readonly urls: readonly string[];
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly tls?: Tls | undefined;
  readonly version: Version;
  /** Null: made from the bridge's name. */
  readonly clientId: string | null;
  /** What the broker publishes when this bridge ends without a goodbye. */
  readonly will?: Will | undefined;
  readonly cleanStart: boolean;
  readonly sessionExpiryMs: number;
  readonly keepaliveMs: number;
}

const configSchema = z.strictObject({
  ...connectionShape,
  version: z.literal([5, "5", "5.0", "3.1.1", 4, "4"]).optional(),
  clientId: referenceText.optional(),
  will: z
    .strictObject({
      topic: z.string().refine((topic) => topicProblem(topic) === null, {
        error: ({ input }) => topicProblem(String(input)) ?? "expected a topic",
      }),
      body: referenceText.optional(),
      qos: z.literal([0, 1, 2]).optional(),
      retain: z.boolean().optional(),
    })
    .optional(),
  cleanStart: z.boolean().optional(),
  sessionExpiry: durationMs
    .refine((ms) => ms <= SESSION_EXPIRY_MS_MAX, "expected at most 136 years")
    .optional(),
  keepalive: durationMs
    .refine((ms) => ms >= 1000 && ms <= KEEPALIVE_MS_MAX, "expected 1s to 65535s")
    .optional(),
});

const qos = z.literal([0, 1, 2]);

const sourceSchema = z.strictObject({
  topic: z.string(),
  qos: qos.optional(),
  share: z.string().optional(),
});

const sinkSchema = z.strictObject({
  topic: z.string(),
  qos: qos.optional(),
  retain: z.boolean().optional(),
});

const lossesOf311 = losesBy(mapping["mqtt 3.1.1"], "MQTT 3.1.1");

/** The module of the kind `mqtt`. */
export const mqtt: BridgeModule<MqttConfig> = {
  kind: "mqtt",
  capabilities: {
    order: "address",
    replay: false,
    headers: "text",
    key: true,
    tombstones: true,
    // A broker gives a message again only on another connection.
    redeliverOnNack: false,
    // Members of a shared subscription need client ids of their own, which one source's name is
    // not.
    sharedGroups: false,
    failure: "independent",
    source: true,
    sink: true,
  },
  addressSpecials: { topic: "/+#" },
  places: mqttPlaces,
  events: { prefix: "" },
  translation: {
    rows: (config) => mapping[config?.version === 4 ? "mqtt 3.1.1" : "mqtt"],
    losses: (message, { version }) => (version === 4 ? lossesOf311(message) : noLosses),
    refusal(message, { version }, nowMs) {
      const encoded = encodeMessage(message, { version, nowMs });
      return "refused" in encoded ? encoded.refused : null;
    },
  },
  parseConfig,
  parseAddress: (input, end) => (end === "source" ? sourceAddress(input) : sinkAddress(input)),
  async connect(config: MqttConfig, context: ConnectContext) {
    const { MqttBridge } = await import("./bridge.ts");
    return await MqttBridge.open(config, context);
  },
};

function parseConfig(input: unknown): MqttConfig {
  const { url, urls, version, clientId, will, cleanStart, sessionExpiry, keepalive, ...rest } =
    parseDocument(configSchema, input);
  const all = urlsOf({ url, urls });
  all.forEach((text, index) => {
    if (isTemplate(text) || /^(?:mqtts?|wss?):\/\/./.test(text)) return;
    const pointer = url === undefined ? `/urls/${index}` : "/url";
    const detail = "expected a URL that begins with mqtt://, mqtts://, ws:// or wss://";
    throw invalid([{ pointer, detail }]);
  });
  return {
    ...rest,
    urls: all,
    version: version === undefined || String(version).startsWith("5") ? 5 : 4,
    clientId: clientId ?? null,
    ...(will === undefined ? {} : { will: willOf(will) }),
    cleanStart: cleanStart ?? false,
    sessionExpiryMs: sessionExpiry ?? SESSION_EXPIRY_MS,
    keepaliveMs: keepalive ?? KEEPALIVE_MS,
  };
}

function sourceAddress(input: Readonly<Record<string, unknown>>): Address {
  const fields = parseDocument(sourceSchema, input);
  if (isTemplate(fields.topic)) {
    throw invalid([{ pointer: "/topic", detail: "a source reads from one fixed topic filter" }]);
  }
  if (fields.topic.startsWith("$share/")) {
    const detail = "give the group as share, and the filter alone as topic";
    throw invalid([{ pointer: "/topic", detail }]);
  }
  const filter = parseFilter(fields.topic);
  if ("problem" in filter) throw invalid([{ pointer: "/topic", detail: filter.problem }]);
  const { share } = fields;
  if (share !== undefined && (share === "" || /[/+#]/.test(share) || !isSafeText(share))) {
    const detail = "expected a name without /, + and #";
    throw invalid([{ pointer: "/share", detail }]);
  }
  const group = share === undefined ? "" : ` shared as ${share}`;
  return { text: `topic ${fields.topic}${group}`, fields: { ...fields, qos: fields.qos ?? 1 } };
}

function sinkAddress(input: Readonly<Record<string, unknown>>): Address {
  const fields = parseDocument(sinkSchema, input);
  const problem = isTemplate(fields.topic) ? null : topicProblem(fields.topic);
  if (problem !== null) throw invalid([{ pointer: "/topic", detail: problem }]);
  const retain = fields.retain ?? false;
  return {
    text: `topic ${fields.topic}${retain ? " retained" : ""}`,
    fields: { ...fields, qos: fields.qos ?? 1, retain },
  };
}

type WillDocument = NonNullable<z.infer<typeof configSchema>["will"]>;

function willOf({ topic, body = "", qos: level = 0, retain = false }: WillDocument): Will {
  return { topic, body, qos: level, retain };
}
